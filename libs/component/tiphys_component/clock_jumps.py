"""Hears of it when somebody sets the wall clock, or the machine was asleep.

Who waits for a moment of the calendar waits for seconds, as timers run on the monotonic clock: counted from a calendar
that was wrong, they are wrong for as long as it was.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from tiphys_component.clock import Clock

_LOOK_EVERY_S: Final = 10.0
# Far above what a time daemon slews in that time, which is 5 ms.
_LEAST_S: Final = 1.0


async def watch_clock_jumps(clock: Clock, told: Callable[[float], None]) -> None:
    """Call told, some seconds after each jump, with how far the wall clock went; forwards is more. Until cancelled."""
    was = _ahead(clock)
    while True:
        await clock.sleep(_LOOK_EVERY_S)
        is_now = _ahead(clock)
        by_s, was = is_now - was, is_now
        if abs(by_s) >= _LEAST_S:
            told(by_s)


def _ahead(clock: Clock) -> float:
    """How far the wall clock is ahead of the one that nobody sets."""
    return clock.now().timestamp() - clock.monotonic()
