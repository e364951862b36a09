"""The control plane under faults, by seed: no invariant is ever broken, and the end is that of the run without faults.

A seed that fails is played again, alike to the bit, by `python -m tests.integration.simulation SEED`; the same
plays thousands, on all cores, in `make test-long`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest

from tests.integration.simulation.play import Outcome, play, run
from tiphys_cluster.testing.faults import MANY, Faults
from tiphys_component import log
from tiphys_controller_manager.expectations import Expectations

SEEDS = 100
SEEDS_OF_ONE_TEST = 10
# Nothing but kills, and these at one call in twelve: some twenty-five a run.
KILLS = Faults(killed=0.08)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Thousands of lines for each seed are nobody's; the seed that failed is played again by hand."""
    log.configure("error")
    yield
    log.configure("debug")


@pytest.fixture(scope="module")
def pool() -> Iterator[ProcessPoolExecutor]:
    """Seeds are played on all cores."""
    with ProcessPoolExecutor(os.cpu_count(), get_context("spawn"), log.configure, ("error",)) as made:
        yield made


@pytest.mark.parametrize("first", range(0, SEEDS, SEEDS_OF_ONE_TEST))
def test_B1_M15_control_plane_keeps_its_promises_whatever_fails(first: int, pool: ProcessPoolExecutor) -> None:
    seeds = range(first, first + SEEDS_OF_ONE_TEST)
    failed = [
        f"seed {seed}: {'; '.join(outcome.faults[:3])}"
        for seed, outcome in zip(seeds, pool.map(play, seeds), strict=True)
        if outcome.faults
    ]
    assert not failed, "\n".join(failed)


@pytest.mark.parametrize(
    ("seeds", "least"),
    [
        pytest.param(range(1000, 1006), 60, id="sixty times"),
        pytest.param(range(1000, 1060), 1000, id="a thousand times", marks=pytest.mark.slow),
    ],
)
def test_B1_a_manager_killed_over_and_over_ends_where_one_that_lived_does(
    seeds: range, least: int, pool: ProcessPoolExecutor
) -> None:
    outcomes = list(pool.map(_killed, seeds))
    assert not [outcome.faults[:3] for outcome in outcomes if outcome.faults]
    assert sum(outcome.kills for outcome in outcomes) >= least


def _killed(seed: int) -> Outcome:
    return play(seed, KILLS)


def test_seed_is_played_again_alike_to_the_bit() -> None:
    one, other = play(7), play(7)
    assert one.digest == other.digest
    assert one.events == other.events > 100


def test_seeds_differ() -> None:
    assert play(7).digest != play(8).digest


def test_B37_without_expectations_the_guard_tells_of_pods_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """The simulation can fail: a controller that acts on what it has not seen yet makes what it has made already."""
    monkeypatch.setattr(Expectations, "are_met", lambda _self, _key: True)
    assert any("replica_set_has_no_more" in fault for fault in run(0, MANY, ("deployments",)).faults)
