"""A watch to be read with `async for`, for those who hold a task anyway: gRPC streams and callers in process."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from types import TracebackType

from tiphys_apimachinery.errors import APIError
from tiphys_apiserver.storage.subscription import Subscription
from tiphys_apiserver.storage.watch_event import EventBatch

# Batches held for a reader that is busy; beyond it the watch pauses and reads on from the ring later.
_HELD_BATCHES = 16


class WatchStream:
    """A sink with a small queue. Iterate over it for batches; the error of an ended watch is raised at its end.

    Use it as a context manager, so that the watch ends with its reader.
    """

    __slots__ = ("_batches", "_done", "_error", "_subscription", "_wakeup")

    def __init__(self) -> None:
        self._batches: deque[EventBatch] = deque()
        self._subscription: Subscription | None = None
        self._done = False
        self._error: APIError | None = None
        self._wakeup: asyncio.Future[None] | None = None

    def attach(self, subscription: Subscription) -> None:
        """Tell the stream its subscription, once."""
        self._subscription = subscription

    def deliver(self, batch: EventBatch) -> None:
        """Keep a batch for the reader."""
        self._batches.append(batch)
        if len(self._batches) >= _HELD_BATCHES and self._subscription is not None:
            self._subscription.pause()
        self._wake()

    def ended(self, error: APIError | None) -> None:
        """No more batches will come."""
        self._done = True
        self._error = error
        self._wake()

    def _wake(self) -> None:
        if self._wakeup is not None and not self._wakeup.done():
            self._wakeup.set_result(None)

    def __aiter__(self) -> AsyncIterator[EventBatch]:
        return self

    async def __anext__(self) -> EventBatch:
        while not self._batches:
            if self._done:
                if self._error is not None:
                    raise self._error
                raise StopAsyncIteration
            self._wakeup = asyncio.get_running_loop().create_future()
            try:
                await self._wakeup
            finally:
                self._wakeup = None
        batch = self._batches.popleft()
        if not self._batches and self._subscription is not None:
            self._subscription.resume()
        return batch

    def close(self) -> None:
        """End the watch."""
        if self._subscription is not None:
            self._subscription.close()

    def __enter__(self) -> WatchStream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
