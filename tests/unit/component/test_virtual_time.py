"""Time on a virtual loop: it leaps, it is the same for everybody, and it never stands still for long."""

from __future__ import annotations

import asyncio
import time

import pytest

from tiphys_component.virtual_time import START, StandStill, virtual_time


def test_a_year_of_sleep_takes_no_time() -> None:
    began = time.monotonic()
    with virtual_time() as (runner, clock):

        async def main() -> float:
            await clock.sleep(365 * 86400)
            return (clock.now() - START).total_seconds()

        assert runner.run(main()) == pytest.approx(365 * 86400)
    assert time.monotonic() - began < 60


def test_timeouts_and_timers_of_asyncio_follow_it() -> None:
    with virtual_time() as (runner, clock):

        async def main() -> list[str]:
            told: list[str] = []
            clock.call_later(5, lambda: told.append("timer"))
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(3):
                    await asyncio.Event().wait()
            told.append(f"timeout at {clock.monotonic():.0f}")
            await asyncio.sleep(3)
            return told

        assert runner.run(main()) == ["timeout at 3", "timer"]


def test_work_for_threads_is_done_on_the_spot_and_its_errors_come_back() -> None:
    with virtual_time() as (runner, _):

        async def main() -> int:
            with pytest.raises(ZeroDivisionError):
                await asyncio.to_thread(lambda: 1 // 0)
            return await asyncio.to_thread(lambda: 7)

        assert runner.run(main()) == 7


def test_waiting_for_what_nobody_will_do_is_told() -> None:
    with virtual_time() as (runner, _), pytest.raises(StandStill, match="nothing is left"):
        runner.run(asyncio.Event().wait())


def test_delays_too_short_to_move_a_clock_pass_all_the_same() -> None:
    with virtual_time() as (runner, clock):

        async def main() -> None:
            await clock.sleep(1e6)
            end = clock.monotonic() + 1e-9
            while clock.monotonic() < end:
                await clock.sleep(1e-18)

        runner.run(main())
