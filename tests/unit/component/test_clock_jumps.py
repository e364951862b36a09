"""Who waits for the calendar hears when it is set."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta

import pytest

from tiphys_component.clock import FakeClock
from tiphys_component.clock_jumps import watch_clock_jumps


class SetClock(FakeClock):
    """A clock whose calendar may be set."""

    def __init__(self) -> None:
        super().__init__()
        self.wrong_s = 0.0

    def now(self) -> datetime:
        """The calendar."""
        return super().now() + timedelta(seconds=self.wrong_s)


@pytest.mark.parametrize(
    ("set_to_s", "told"),
    [
        pytest.param([3600.0], [3600.0], id="forwards"),
        pytest.param([-3600.0, 0.0], [-3600.0, 3600.0], id="back, and right again"),
        pytest.param([0.005, 0.01, 0.015], [], id="slewed"),
        pytest.param([0.0], [], id="left alone"),
    ],
)
async def test_each_jump_is_told_once(set_to_s: list[float], told: list[float]) -> None:
    clock, heard = SetClock(), list[float]()
    async with asyncio.TaskGroup() as group:
        watching = group.create_task(watch_clock_jumps(clock, heard.append))
        await clock.run_for(15)
        for wrong_s in set_to_s:
            clock.wrong_s = wrong_s
            await clock.run_for(30)
        watching.cancel()
    assert heard == pytest.approx(told)
