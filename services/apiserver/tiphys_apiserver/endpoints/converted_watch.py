"""A watch whose events somebody else converts: batches wait for the answer, in order, a few of them at most."""

from __future__ import annotations

import asyncio

from tiphys_apimachinery.errors import APIError
from tiphys_apiserver.registry.table import Served
from tiphys_apiserver.storage.subscription import Sink
from tiphys_apiserver.storage.watch_event import EventBatch, WatchEvent
from tiphys_apiserver.storage.watch_stream import WatchStream


async def converted_batch(served: Served, batch: EventBatch) -> EventBatch:
    """The events in the served version. Raises InternalError where the conversion fails."""
    shown = await served.viewed([event.object for event in batch.events])
    return EventBatch(
        [
            event if event.object is cached else WatchEvent(event.type, cached, event.revision)
            for event, cached in zip(batch.events, shown, strict=True)
        ]
    )


class ConvertedWatch:
    """Stands between a stream of the cache and a sink, to which it looks like a Subscription. `run` must run."""

    def __init__(self, served: Served, stream: WatchStream, sink: Sink) -> None:
        self._served = served
        self._stream = stream
        self._sink = sink
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
                converted = await converted_batch(self._served, batch)
                await self._flows.wait()
                if self._closed:
                    return
                self._sink.deliver(converted)
        except APIError as err:
            error = err
        self._finish(error)
