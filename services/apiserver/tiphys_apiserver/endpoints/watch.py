"""watch: events pushed from the cache to a connection."""

from __future__ import annotations

from tiphys_apiserver.endpoints.list import selection_of
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


def converting(served: Served, maker: FrameMaker) -> FrameMaker:
    """A maker of frames that shows events in the served version; the maker itself where that is the stored one."""
    if served.converter is None:
        return maker

    def make(event: WatchEvent) -> bytes:
        return maker(WatchEvent(event.type, served.view(event.object), event.revision))

    return make
