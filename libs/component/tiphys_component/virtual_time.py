"""Time that passes only when nothing else is left to do: hours of a cluster in seconds, and the same each time.

    with virtual_time() as (runner, clock):
        runner.run(main(clock))

The loop's own time is the virtual one, so asyncio's sleeps and timeouts follow it as well as what is handed the clock.
Work for threads is done on the spot: what runs in a thread ends when it pleases, and no two runs would be alike.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from tiphys_component.clock import SystemClock

T = TypeVar("T")

# The first moment of the calendar of a virtual clock.
START = datetime(2026, 1, 1, tzinfo=UTC)
# A loop that turns so often at one moment will never let time pass.
_MOST_TURNS = 1_000_000
# What a turn of the loop takes. Of a clock that stands still, waits too short to move it would never be over.
_TURN_S = 1e-7


class StandStill(Exception):
    """Nothing is left that could happen, or things happen for ever without time passing."""


class _LeapingSelector(selectors.SelectSelector):
    """Looks whether anything is ready; where nothing is, moves time to the next timer instead of waiting for it."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self._turns = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        self.now += _TURN_S
        if not ready and timeout is None:
            raise StandStill(f"nothing is left to wait for at {self.now:.3f} s")
        if not ready and timeout:
            self.now += timeout
            self._turns = 0
        self._turns += 1
        if self._turns > _MOST_TURNS:
            raise StandStill(f"no time passes any more at {self.now:.3f} s")
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose time leaps from timer to timer."""

    def __init__(self) -> None:
        self._leaping = _LeapingSelector()
        super().__init__(self._leaping)
        # What can still be added to decades: a timer due by less would never be.
        self._clock_resolution = 1e-6

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self._leaping.now

    def run_in_executor(  # type: ignore[override]  # one type for all arguments
        self, executor: Executor | None, func: Callable[..., T], *args: Any
    ) -> asyncio.Future[T]:
        """Do the work now, in this thread."""
        done: asyncio.Future[T] = self.create_future()
        try:
            done.set_result(func(*args))
        except Exception as err:
            done.set_exception(err)
        return done


class VirtualClock(SystemClock):
    """The clock of the running virtual loop; its calendar begins at START."""

    __slots__ = ("_loop",)

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop

    def now(self) -> datetime:
        """The virtual wall time."""
        return START + timedelta(seconds=self._loop.time())

    def monotonic(self) -> float:
        """Virtual seconds."""
        return self._loop.time()


@contextmanager
def virtual_time() -> Iterator[tuple[asyncio.Runner, VirtualClock]]:
    """A runner on a loop of its own, and its clock."""
    loop = VirtualLoop()
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        yield runner, VirtualClock(loop)
