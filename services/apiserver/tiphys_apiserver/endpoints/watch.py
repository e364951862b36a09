"""watch: events pushed from the cache to a connection."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from tiphys_apiserver.endpoints.converted_watch import ConvertedWatch
from tiphys_apiserver.endpoints.list import divided, selection_of
from tiphys_apiserver.registry.table import Served
from tiphys_apiserver.server.call import Call
from tiphys_apiserver.storage.list_query import WatchQuery
from tiphys_apiserver.storage.subscription import Sink, Subscription
from tiphys_apiserver.storage.watch_event import FrameMaker, WatchEvent


async def watch(served: Served, call: Call, query: WatchQuery, sink: Sink) -> Subscription:
    """Begin to push events to the sink. Raises Expired, BadRequest, Invalid, Timeout."""
    subscription = await served.store.cacher.watch(selection_of(served, call), sink, query)
    # From here on it costs what it tells, however long it lasts.
    call.free_seat()
    return subscription


async def watch_converted(
    served: Served, call: Call, query: WatchQuery, sink: Sink, *, serve: Callable[[ConvertedWatch], Awaitable[None]]
) -> None:
    """The same where somebody else converts: serve is given the watch and ends with it."""
    cached, rest = divided(served, selection_of(served, call))
    stream = await served.store.cacher.stream(cached, query)
    call.free_seat()
    running = ConvertedWatch(served, stream, sink, rest)
    async with asyncio.TaskGroup() as group:
        pump = group.create_task(running.run(), name=f"conversion of {served.info.plural}")
        try:
            await serve(running)
        finally:
            running.close()
            pump.cancel()


def converting(served: Served, maker: FrameMaker) -> FrameMaker:
    """A maker of frames that shows events in the served version; the maker itself where that is the stored one."""
    if served.converter is None:
        return maker

    def make(event: WatchEvent) -> bytes:
        return maker(WatchEvent(event.type, served.view(event.object), event.revision))

    return make
