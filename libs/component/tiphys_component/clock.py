"""Time as an argument: the clock every part is handed, the real one and one that tests move by hand."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Protocol

# How often the loop turns between two timers of a FakeClock, so that a woken task and those it wakes come to rest.
_SETTLE_ROUNDS = 25


class Timer(Protocol):
    """A call that is still to come; cancel() may be called any number of times, also after it ran."""

    def cancel(self) -> None:
        """Drop the call if it has not been made."""


class Clock(Protocol):
    """What code may ask about time: monotonic for lengths, now for stamps.

    Timers with equal deadlines run in the order in which they were set.
    """

    def now(self) -> datetime:
        """The wall time as an aware datetime in UTC."""

    def monotonic(self) -> float:
        """Seconds since a fixed point; never goes back."""

    async def sleep(self, seconds: float) -> None:
        """Return after so many seconds; zero or less yields once to the loop."""

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> Timer:
        """Have the running loop call callback once, delay_s from now, without a task of its own."""


class SystemClock:
    """The machine's own clock."""

    __slots__ = ()

    def now(self) -> datetime:
        """The wall time as an aware datetime in UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Seconds since a fixed point; never goes back."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Return after so many seconds; zero or less yields once to the loop."""
        await asyncio.sleep(max(0.0, seconds))

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> Timer:
        """Have the running loop call callback once, delay_s from now."""
        return asyncio.get_running_loop().call_later(max(0.0, delay_s), callback)


class _FakeTimer:
    __slots__ = ("callback", "deadline")

    def __init__(self, deadline: float, callback: Callable[[], None]) -> None:
        self.deadline = deadline
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        self.callback = None


class FakeClock:
    """A clock that stands still until it is moved.

    advance() moves and wakes; run_for() also lets the woken tasks run, from timer to timer, which is what a test of a
    loop that sleeps again and again wants.
    """

    def __init__(self, start: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        if start.tzinfo is None:
            raise ValueError("FakeClock start must be an aware datetime")
        self._start = start
        self._elapsed = 0.0
        self._order = itertools.count()
        self._timers: list[tuple[float, int, _FakeTimer]] = []

    def now(self) -> datetime:
        """The wall time: the start plus all that was advanced."""
        return self._start + timedelta(seconds=self._elapsed)

    def monotonic(self) -> float:
        """Seconds advanced since the clock was made."""
        return self._elapsed

    async def sleep(self, seconds: float) -> None:
        """Return when the clock has been moved by so much; zero or less yields once to the loop."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        timer = self.call_later(seconds, lambda: None if woken.done() else woken.set_result(None))
        try:
            await woken
        finally:
            timer.cancel()

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> Timer:
        """Call callback when the clock is moved past delay_s from now."""
        timer = _FakeTimer(self._elapsed + max(0.0, delay_s), callback)
        heapq.heappush(self._timers, (timer.deadline, next(self._order), timer))
        return timer

    @property
    def pending(self) -> int:
        """How many timers and sleeps have not come due."""
        return sum(1 for _, _, timer in self._timers if timer.callback is not None)

    def next_deadline(self) -> float | None:
        """The monotonic time of the next timer, or None when nothing waits."""
        while self._timers and self._timers[0][2].callback is None:
            heapq.heappop(self._timers)
        return self._timers[0][0] if self._timers else None

    def advance(self, seconds: float) -> None:
        """Move the clock and fire what comes due, each timer seeing its own deadline as the time.

        Woken tasks run when the caller next yields. Raises ValueError if seconds is negative.
        """
        if seconds < 0:
            raise ValueError(f"a clock does not go back: {seconds}")
        self._advance_to(self._elapsed + seconds)

    def _advance_to(self, target: float) -> None:
        while (deadline := self.next_deadline()) is not None and deadline <= target:
            _, _, timer = heapq.heappop(self._timers)
            self._elapsed = max(self._elapsed, deadline)
            callback, timer.callback = timer.callback, None
            if callback is not None:
                callback()
        self._elapsed = target

    def set_wall(self, by_s: float) -> None:
        """Set the wall clock forward, or back below zero: monotonic time and the timers go on as they do."""
        self._start += timedelta(seconds=by_s)

    async def run_for(self, seconds: float) -> None:
        """Move the clock from timer to timer and let tasks come to rest after each, so that new sleeps count too."""
        target = self._elapsed + seconds
        await self.settle()
        while (deadline := self.next_deadline()) is not None and deadline <= target:
            self._advance_to(max(deadline, self._elapsed))
            await self.settle()
        self._advance_to(target)
        await self.settle()

    async def settle(self) -> None:
        """Let every ready task run until they wait, without moving the clock."""
        for _ in range(_SETTLE_ROUNDS):
            await asyncio.sleep(0)
