"""Evaluations that take long are broken off, and done in a thread while the loop goes on."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from tiphys_apimachinery.cel.program import PER_CALL_LIMIT, Activation, Budget, TakesLong, at_once
from tiphys_apimachinery.cel.steps import CostExceeded
from tiphys_apiserver.cel.aside import AT_ONCE, Aside
from tiphys_apiserver.cel.expressions import compile_expression

SQUARE = compile_expression("self.all(x, self.all(y, x + y >= 0))", frozenset({"self"}))


def evaluate(size: int, where: list[str] | None = None, budget: Budget | None = None) -> Any:
    if where is not None:
        where.append("loop" if threading.current_thread() is threading.main_thread() else "thread")
    return SQUARE.evaluate(Activation({"self": list(range(size))}, budget))


@pytest.mark.parametrize(
    ("size", "where"),
    [
        pytest.param(20, ["loop"], id="short"),
        pytest.param(120, ["loop", "thread"], id="long"),
    ],
)
async def test_A38_what_is_short_runs_at_once_and_what_is_long_in_a_thread(size: int, where: list[str]) -> None:
    seen: list[str] = []
    assert await Aside().run(lambda: evaluate(size, seen)) is True
    assert seen == where


async def test_A38_an_error_is_the_same_wherever_it_comes_from() -> None:
    with pytest.raises(CostExceeded):
        await Aside().run(lambda: evaluate(1000))


async def test_A38_the_loop_turns_while_a_rule_runs_that_takes_long() -> None:
    released = threading.Event()
    turns = 0

    def work() -> bool:
        if threading.current_thread() is threading.main_thread():
            raise TakesLong
        return released.wait(30)

    async def beat() -> None:
        nonlocal turns
        while turns < 100:
            await asyncio.sleep(0)
            turns += 1
        released.set()

    async with asyncio.TaskGroup() as group:
        group.create_task(beat())
        running = group.create_task(Aside().run(work))
    assert running.result() is True
    assert turns == 100


async def test_A38_of_many_that_take_long_one_runs_at_a_time() -> None:
    aside, running, most = Aside(), 0, 0

    def work() -> None:
        nonlocal running, most
        if threading.current_thread() is threading.main_thread():
            raise TakesLong
        running += 1
        most = max(most, running)
        evaluate(60)
        running -= 1

    async with asyncio.TaskGroup() as group:
        for _ in range(8):
            group.create_task(aside.run(work))
    assert most == 1


def test_A38_several_evaluations_share_what_may_be_spent_at_once() -> None:
    before = at_once.set(AT_ONCE)
    try:
        budget = Budget()
        with pytest.raises(TakesLong):
            all(evaluate(20, budget=budget) for _ in range(AT_ONCE))
    finally:
        at_once.reset(before)
    assert budget.left < Budget().left - AT_ONCE + 2000


def test_A38_errors_within_an_expression_do_not_hide_that_it_takes_long() -> None:
    expression = compile_expression("self.all(x, self.all(y, x + y >= 0)) || true", frozenset({"self"}))
    before = at_once.set(100)
    try:
        with pytest.raises(TakesLong):
            expression.evaluate(Activation({"self": list(range(50))}))
    finally:
        at_once.reset(before)


def test_A38_without_a_loop_to_spare_only_the_budget_counts() -> None:
    with pytest.raises(CostExceeded):
        evaluate(1000)
    assert PER_CALL_LIMIT > 10 * AT_ONCE
