"""The queue between informers and workers: an item waits in it once, and is worked on by one worker at a time.

What a caller may rely on:
- An item added while it waits is worked on once.
- An item added while it is worked on is worked on again afterwards, never beside itself.
- An item added is never lost, unless the queue was shut down before.
- Items come out in the order in which they became ready.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

from tiphys_client.rate_limiter import RateLimiter, default_rate_limiter
from tiphys_client.workqueue_metrics import NoQueueMetrics, QueueMetrics
from tiphys_component.clock import Clock, Timer

ItemT = TypeVar("ItemT", bound=Hashable)


class QueueShutDown(Exception):
    """The queue takes and gives no more items."""


@dataclass(frozen=True, slots=True)
class QueueState(Generic[ItemT]):
    """What a queue holds at one moment: waiting in their order, working, those of these that come again, and delayed.

    delayed has for each item the seconds until its time, and how often it failed.
    """

    waiting: tuple[ItemT, ...]
    working: tuple[ItemT, ...]
    again: tuple[ItemT, ...]
    delayed: dict[ItemT, tuple[float, int]]


class RateLimitingQueue(Generic[ItemT]):
    """A queue with delays and retries, for one event loop. Every method but get() and drain() returns at once."""

    def __init__(
        self, clock: Clock, *, limiter: RateLimiter | None = None, metrics: QueueMetrics | None = None
    ) -> None:
        self._clock = clock
        self._limiter = limiter or default_rate_limiter(clock)
        self._metrics: QueueMetrics = metrics or NoQueueMetrics()
        # Every item of _ready is in _dirty and not in _processing.
        self._ready: deque[ItemT] = deque()
        # Items that need work: those of _ready, and those of _processing that were added again.
        self._dirty: set[ItemT] = set()
        # Items given to a worker that has not said done().
        self._processing: set[ItemT] = set()
        # Items that wait for their time, each with one timer, for the earliest time asked.
        self._delayed: dict[ItemT, tuple[float, Timer]] = {}
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._drained: asyncio.Future[None] | None = None
        self._shut_down = False

    def __len__(self) -> int:
        """How many items wait for a worker now."""
        return len(self._ready)

    @property
    def delayed(self) -> int:
        """How many items wait for their time."""
        return len(self._delayed)

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits for a worker and no worker is busy."""
        return not self._dirty and not self._processing

    def state(self) -> QueueState[ItemT]:
        """All that is queued, for those who look on."""
        now = self._clock.monotonic()
        delayed = {item: (due - now, self.failures(item)) for item, (due, _) in self._delayed.items()}
        working = tuple(self._processing)
        return QueueState(tuple(self._ready), working, tuple(item for item in working if item in self._dirty), delayed)

    def add(self, item: ItemT) -> None:
        """Have the item worked on, now or after its current round."""
        if self._shut_down or item in self._dirty:
            return
        self._metrics.added(item, self._clock.monotonic())
        self._dirty.add(item)
        if item not in self._processing:
            self._push(item)

    def add_after(self, item: ItemT, delay_s: float) -> None:
        """Have the item worked on when delay_s have passed; of several times the earliest counts."""
        if self._shut_down:
            return
        if delay_s <= 0:
            self.add(item)
            return
        deadline = self._clock.monotonic() + delay_s
        waiting = self._delayed.get(item)
        if waiting is not None:
            if waiting[0] <= deadline:
                return
            waiting[1].cancel()
        self._delayed[item] = (deadline, self._clock.call_later(delay_s, lambda: self._on_time(item)))

    def hurry(self) -> None:
        """Have every delayed item worked on now: what their delays were counted from no longer holds."""
        delayed, self._delayed = self._delayed, {}
        for item, (_, timer) in delayed.items():
            timer.cancel()
            self.add(item)

    def add_rate_limited(self, item: ItemT) -> None:
        """Have the item worked on again after the delay that its failures ask for."""
        self._metrics.retried()
        self.add_after(item, self._limiter.when(item))

    def forget(self, item: ItemT) -> None:
        """The item succeeded or is given up: its failures no longer count. It stays queued if it is."""
        self._limiter.forget(item)

    def failures(self, item: ItemT) -> int:
        """How often the item was added rate limited since it was forgotten."""
        return self._limiter.failures(item)

    async def get(self) -> ItemT:
        """The next item; done() must be called for it. Raises QueueShutDown when none will come."""
        while not self._ready:
            if self._shut_down:
                raise QueueShutDown
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            try:
                await waiter
            except asyncio.CancelledError:
                if waiter in self._waiters:
                    self._waiters.remove(waiter)
                elif self._ready:
                    # This one had been woken for an item that it will not take.
                    self._wake_one()
                raise
        item = self._ready.popleft()
        self._dirty.discard(item)
        self._processing.add(item)
        self._metrics.got(item, self._clock.monotonic(), len(self._ready))
        return item

    def done(self, item: ItemT) -> None:
        """The worker has finished its round; the item comes again if it was added meanwhile.

        Raises ValueError if no worker has the item.
        """
        if item not in self._processing:
            raise ValueError(f"done() for an item that is not worked on: {item!r}")
        self._processing.discard(item)
        self._metrics.finished(item, self._clock.monotonic())
        if item in self._dirty:
            self._push(item)
        elif self._drained is not None and self.is_idle and not self._drained.done():
            self._drained.set_result(None)

    def shut_down(self) -> None:
        """Take no more items and drop delayed ones; workers get what is queued, then QueueShutDown. May be repeated."""
        self._shut_down = True
        for _, timer in self._delayed.values():
            timer.cancel()
        self._delayed.clear()
        while self._waiters:
            self._wake_one()

    async def drain(self) -> None:
        """Shut down and return when every item that was queued or worked on is done."""
        self.shut_down()
        if not self.is_idle:
            if self._drained is None:
                self._drained = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._drained)

    def _on_time(self, item: ItemT) -> None:
        self._delayed.pop(item, None)
        self.add(item)

    def _push(self, item: ItemT) -> None:
        self._ready.append(item)
        self._metrics.depth(len(self._ready))
        self._wake_one()

    def _wake_one(self) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return
