"""One time for all: who is late is ended, nobody else, and with one timer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from tiphys_component.deadlines import Deadlines


async def _wait_for_ever() -> None:
    await asyncio.get_running_loop().create_future()


async def test_what_takes_too_long_is_ended_and_its_task_goes_on() -> None:
    deadlines = Deadlines(0.01)
    limit = deadlines.begin()
    with pytest.raises(TimeoutError), limit:
        await _wait_for_ever()
    task = asyncio.current_task()
    assert limit.expired
    assert task is not None
    assert not task.cancelling()
    assert len(deadlines) == 0


async def test_what_ends_in_time_is_left_alone() -> None:
    deadlines = Deadlines(0.01)
    with deadlines.begin() as first:
        await asyncio.sleep(0)
    # Its end comes after the first one's would have.
    second = deadlines.begin()
    with pytest.raises(TimeoutError), second:
        await _wait_for_ever()
    assert (first.expired, second.expired) == (False, True)


async def test_cancellation_by_others_is_no_timeout() -> None:
    deadlines = Deadlines(60)
    begun = asyncio.Event()

    async def work() -> None:
        with deadlines.begin():
            begun.set()
            await _wait_for_ever()

    async with asyncio.TaskGroup() as group:
        task = group.create_task(work())
        await begun.wait()
        task.cancel()
    assert task.cancelled()
    assert len(deadlines) == 0


async def test_an_error_of_the_block_stays_what_it_is() -> None:
    with pytest.raises(ValueError, match="mine"), Deadlines(60).begin():
        raise ValueError("mine")


async def test_a_thousand_blocks_take_one_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    made: list[float] = []
    real = loop.call_at

    class Counting:
        """The loop of the deadlines' task, which counts its timers."""

        def call_at(self, when: float, callback: Callable[..., object], *rest: object) -> asyncio.TimerHandle:
            made.append(when)
            return real(when, callback, *rest)

        def time(self) -> float:
            return loop.time()

    class Task:
        def get_loop(self) -> Counting:
            return Counting()

        def cancelling(self) -> int:
            return 0

    monkeypatch.setattr("tiphys_component.deadlines.asyncio.current_task", lambda: Task())
    deadlines = Deadlines(60)
    for _ in range(1000):
        with deadlines.begin():
            pass
    assert len(made) == 1
    assert len(deadlines) == 0
