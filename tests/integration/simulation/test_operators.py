"""Operators made with the SDK under the faults that the control plane bears: the end is that of the run without."""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import pytest

from examples.operators import site
from tests.integration.simulation import operators
from tests.integration.simulation.notes import notes
from tests.integration.simulation.operators import play, run
from tiphys_cluster.testing.faults import MANY, NONE
from tiphys_component import log

SEEDS = 10


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Lines of a fault by the hundred are nobody's."""
    log.configure("error")
    yield
    log.configure("debug")


@pytest.fixture(scope="module")
def pool() -> Iterator[ProcessPoolExecutor]:
    """Seeds are played on all cores."""
    with ProcessPoolExecutor(os.cpu_count(), get_context("spawn"), log.configure, ("error",)) as made:
        yield made


def test_B40_the_example_is_shorter_than_forty_lines() -> None:
    text = Path(inspect.getfile(site)).read_text()
    assert len(text.splitlines()) < 40
    assert max(map(len, text.splitlines())) <= 120


@pytest.mark.parametrize("first", range(0, SEEDS, 5))
def test_B40_operators_end_where_they_would_without_faults(first: int, pool: ProcessPoolExecutor) -> None:
    seeds = range(first, first + 5)
    failed = [
        f"seed {seed}: {'; '.join(found[:3])}"
        for seed, found in zip(seeds, pool.map(partial(play, faults=MANY), seeds), strict=True)
        if found
    ]
    assert not failed, "\n".join(failed)


def test_B40_the_faults_reach_the_operators_and_the_deeds_do_something() -> None:
    outcomes = [run(seed, MANY) for seed in range(3)]
    assert [outcome.failures for outcome in outcomes] == [[], [], []]
    assert sum(outcome.starts for outcome in outcomes) > 2 * len(outcomes), "some were killed and came back"
    assert all(outcome.state["sites"] for outcome in outcomes)
    assert all(outcome.state["texts"] for outcome in outcomes)


def test_B40_a_finalizer_that_does_nothing_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    """The suite can fail: what nobody strikes from the ledger stays there."""

    async def nothing(*_: object) -> None:
        return

    (duty,) = notes.duties
    monkeypatch.setattr(duty, "finalize", nothing)
    monkeypatch.setattr(operators, "_SETTLES_WITHIN_S", 200.0)
    assert any("NotReached" in failure for seed in range(6) for failure in run(seed, NONE).failures)
