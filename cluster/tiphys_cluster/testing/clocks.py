"""Wall clocks that are set, each process's by itself: monotonic time goes on as it does."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

from tiphys_component.clock import Clock, Timer


class WallClock:
    """The clock of one process. Its calendar is wrong by `wrong_s`, which may be set at any time."""

    def __init__(self, inner: Clock) -> None:
        self._inner = inner
        self.wrong_s = 0.0

    def now(self) -> datetime:
        """The wall time that this process believes in."""
        return self._inner.now() + timedelta(seconds=self.wrong_s)

    def monotonic(self) -> float:
        """Seconds, which nobody sets."""
        return self._inner.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Return after so many seconds, however the calendar jumps meanwhile."""
        await self._inner.sleep(seconds)

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> Timer:
        """Have the running loop call callback once, delay_s from now."""
        return self._inner.call_later(delay_s, callback)
