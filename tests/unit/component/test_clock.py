"""The clock that tests move."""

import asyncio

import pytest

from tiphys_component.clock import FakeClock, SystemClock


async def test_sleep_returns_when_the_clock_is_moved_past_it() -> None:
    clock = FakeClock()
    sleeper = asyncio.ensure_future(clock.sleep(5))
    await clock.run_for(4.9)
    assert not sleeper.done()
    await clock.run_for(0.1)
    assert sleeper.done()


async def test_run_for_lets_a_loop_sleep_again_and_again() -> None:
    clock = FakeClock()
    ticks: list[float] = []

    async def loop() -> None:
        while True:
            await clock.sleep(1)
            ticks.append(clock.monotonic())

    task = asyncio.ensure_future(loop())
    await clock.run_for(3.5)
    task.cancel()
    assert ticks == [1, 2, 3]
    assert clock.monotonic() == 3.5


async def test_timers_run_in_order_and_see_their_own_deadline() -> None:
    clock = FakeClock()
    seen: list[tuple[str, float]] = []
    clock.call_later(2, lambda: seen.append(("late", clock.monotonic())))
    clock.call_later(1, lambda: seen.append(("first", clock.monotonic())))
    clock.call_later(1, lambda: seen.append(("second", clock.monotonic())))
    dropped = clock.call_later(1, lambda: seen.append(("dropped", 0)))
    dropped.cancel()
    clock.advance(3)
    assert seen == [("first", 1), ("second", 1), ("late", 2)]
    assert clock.pending == 0


async def test_cancelled_sleep_leaves_no_timer() -> None:
    clock = FakeClock()
    sleeper = asyncio.ensure_future(clock.sleep(5))
    await asyncio.sleep(0)
    sleeper.cancel()
    await clock.settle()
    assert clock.pending == 0


def test_now_moves_with_the_clock_and_is_aware() -> None:
    clock = FakeClock()
    before = clock.now()
    clock.advance(90)
    assert (clock.now() - before).total_seconds() == 90
    assert clock.now().tzinfo is not None


def test_a_clock_does_not_go_back() -> None:
    with pytest.raises(ValueError, match="does not go back"):
        FakeClock().advance(-1)


async def test_system_clock_keeps_the_contract() -> None:
    clock = SystemClock()
    fired = asyncio.Event()
    clock.call_later(0, fired.set)
    await clock.sleep(0)
    await asyncio.wait_for(fired.wait(), 1)
    assert clock.now().tzinfo is not None
    assert clock.monotonic() <= clock.monotonic()


async def test_wall_clock_that_is_set_moves_no_timer() -> None:
    clock = FakeClock()
    woken: list[float] = []
    clock.call_later(10, lambda: woken.append(clock.monotonic()))
    before = clock.now()
    clock.set_wall(3600)
    assert (clock.now() - before).total_seconds() == 3600
    assert (clock.monotonic(), woken) == (0, [])
    clock.set_wall(-7200)
    clock.advance(10)
    assert (clock.now() - before).total_seconds() == -3590
    assert woken == [10]
