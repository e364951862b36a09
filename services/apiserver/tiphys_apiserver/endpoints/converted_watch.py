"""A watch whose events somebody else converts: batches wait for the answer, in order, a few of them at most."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from tiphys_apimachinery.errors import APIError
from tiphys_apiserver.registry.table import Served
from tiphys_apiserver.storage.objects import CachedObject
from tiphys_apiserver.storage.selection import Matcher
from tiphys_apiserver.storage.subscription import Sink
from tiphys_apiserver.storage.watch_event import BOOKMARK, Change, EventBatch, WatchEvent
from tiphys_apiserver.storage.watch_stream import WatchStream


async def converted_batch(served: Served, batch: EventBatch, rest: Matcher | None = None) -> EventBatch | None:
    """The events in the served version; None if nothing is left of them. Raises InternalError where that fails.

    rest is what they must pass in that version: an object enters and leaves it as it would a selection of the cache's.
    """
    events = batch.events
    shown = await served.viewed([event.object for event in events])
    if rest is None or rest.matches is None:
        return EventBatch(
            [
                event if event.object is cached else WatchEvent(event.type, cached, event.revision)
                for event, cached in zip(events, shown, strict=True)
            ]
        )
    before = iter(await served.viewed([event.previous for event in events if event.previous is not None]))
    told = [
        made
        for event, cached in zip(events, shown, strict=True)
        if (made := _told(event, cached, next(before) if event.previous is not None else None, rest.matches))
    ]
    return EventBatch(told) if told else None


def _told(
    event: WatchEvent, cached: CachedObject, previous: CachedObject | None, matches: Callable[[CachedObject], bool]
) -> WatchEvent | None:
    if event.type == BOOKMARK:
        return WatchEvent(BOOKMARK, cached, event.revision)
    if previous is not None:
        return Change(event.revision, previous, cached).seen(matches(previous), matches(cached))
    return WatchEvent(event.type, cached, event.revision) if matches(cached) else None


class ConvertedWatch:
    """Stands between a stream of the cache and a sink, to which it looks like a Subscription. `run` must run."""

    def __init__(self, served: Served, stream: WatchStream, sink: Sink, rest: Matcher | None = None) -> None:
        self._served = served
        self._stream = stream
        self._sink = sink
        self._rest = rest
        self._closed = False
        self._flows = asyncio.Event()
        self._flows.set()

    @property
    def paused(self) -> bool:
        """Whether the sink takes nothing just now."""
        return not self._flows.is_set()

    def pause(self) -> None:
        """Deliver nothing more until resume()."""
        self._flows.clear()

    def resume(self) -> None:
        """Deliver what was missed, then go on."""
        self._flows.set()

    def close(self) -> None:
        """End the watch from the reader's side; closing twice is fine."""
        self._finish(None)

    def _finish(self, error: APIError | None) -> None:
        if not self._closed:
            self._closed = True
            self._stream.close()
            self._sink.ended(error)

    async def run(self) -> None:
        """Deliver until either side ends the watch. A conversion that fails ends it with its error."""
        error = None
        try:
            async for batch in self._stream:
                converted = await converted_batch(self._served, batch, self._rest)
                if converted is None:
                    continue
                await self._flows.wait()
                if self._closed:
                    return
                self._sink.deliver(converted)
        except APIError as err:
            error = err
        self._finish(error)
