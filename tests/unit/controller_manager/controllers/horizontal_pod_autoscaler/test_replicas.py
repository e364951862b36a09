"""How many pods a measure asks for; the cases are those that Kubernetes documents."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiphys_controller_manager.controllers.horizontal_pod_autoscaler.readings import MeasureError, PodFacts, PodSample
from tiphys_controller_manager.controllers.horizontal_pod_autoscaler.replicas import (
    Surroundings,
    Tolerance,
    by_average,
    by_utilization,
    by_value,
    by_value_per_pod,
)

NOW = 10_000.0


def pod(name: str, **facts: Any) -> PodFacts:
    """A ready pod that asks for a core."""
    usual = PodFacts(name, requests={"cpu": 1000}, container_requests={"app": {"cpu": 1000}}, started_s=NOW - 1000)
    return replace(usual, **facts)


def around(*pods: PodFacts, current: int | None = None, seen: int | None = None) -> Surroundings:
    """Pods, all of them wanted and seen where nothing else is said."""
    count = len(pods)
    wanted, there = count if current is None else current, count if seen is None else seen
    return Surroundings(wanted, there, pods, Tolerance(), NOW, NOW)


def used(*values: int, at_s: float = NOW) -> dict[str, PodSample]:
    """Samples of pods a, b, c…"""
    return {name: PodSample(value, at_s, 30.0) for name, value in zip("abcdefghij", values, strict=False)}


def ready(count: int) -> tuple[PodFacts, ...]:
    """Pods a, b, c…"""
    return tuple(pod(name) for name in "abcdefghij"[:count])


@pytest.mark.parametrize(
    ("values", "target", "wanted"),
    [
        ((300, 500, 700), 30, 5),
        ((100, 100, 100), 50, 1),
        ((500, 500, 500), 50, 3),
        ((540, 540, 540), 50, 3),
        ((560, 560, 560), 50, 4),
        ((455, 455, 455), 50, 3),
        ((440, 440, 440), 50, 3),
        ((1010, 1030, 1020), 100, 3),
        ((0, 0, 0), 50, 0),
        ((2000, 2000, 2000), 1, 600),
    ],
    ids=[
        "up", "down", "exact", "up-within-tolerance", "up-beyond-tolerance", "down-within-tolerance", "down-rounded-up",
        "just-over", "idle", "far-over",
    ],
)  # fmt: skip
def test_B31_replicas_are_current_times_ratio_rounded_up(values: tuple[int, ...], target: int, wanted: int) -> None:
    proposal = by_utilization(around(*ready(3)), used(*values), "cpu", target)
    assert proposal.replicas == wanted
    assert proposal.utilization == sum(values) * 100 // 3000
    assert proposal.average == sum(values) // 3


UNREADY = {"ready": False, "started_s": NOW - 60, "ready_changed_s": NOW - 60}


@pytest.mark.parametrize(
    ("pods", "values", "target", "wanted"),
    [
        # 2 ready at 65 % of 30: by themselves 5; one unready counts as idle, which damps it.
        ([pod("a"), pod("b"), pod("c", **UNREADY)], (600, 700, 100), 30, 5),
        ([pod("a", **UNREADY), pod("b"), pod("c")], (0, 500, 700), 30, 4),
        ([pod("a", **UNREADY), pod("b"), pod("c", **UNREADY)], (400, 500, 700), 30, 3),
        ([pod("a", phase="Pending"), pod("b"), pod("c")], (0, 500, 700), 30, 4),
        ([pod("a"), pod("b"), pod("c", is_deleting=True)], (600, 600, 9000), 60, 3),
        ([pod("a"), pod("b"), pod("c", phase="Failed")], (600, 600, 9000), 60, 3),
        # Going down the missing one counts as fully busy, going up as idle.
        ([pod("a"), pod("b"), pod("c"), pod("d")], (100, 100, 100), 50, 3),
        ([pod("a"), pod("b"), pod("c"), pod("d")], (900, 900, 900), 50, 6),
        # What is missing may not turn the direction.
        ([pod("a"), pod("b")], (400,), 50, 2),
        ([pod("a"), pod("b")], (600,), 50, 2),
    ],
    ids=[
        "unready-damps", "unready-ignored-figures", "unready-cancels", "pending-is-unready", "ending-does-not-count",
        "failed-does-not-count", "missing-when-down", "missing-when-up", "missing-would-turn-down",
        "missing-would-turn-up",
    ],
)  # fmt: skip
def test_B31_pods_that_are_not_ready_or_have_no_figures_damp_the_answer(
    pods: list[PodFacts], values: tuple[int, ...], target: int, wanted: int
) -> None:
    assert by_utilization(around(*pods), used(*values), "cpu", target).replicas == wanted


@pytest.mark.parametrize(
    ("facts", "counts"),
    [
        ({"started_s": NOW - 100, "ready_changed_s": NOW - 90}, True),
        ({"started_s": NOW - 100, "ready_changed_s": NOW - 10}, False),
        ({"started_s": NOW - 100, "ready": False, "ready_changed_s": NOW - 90}, False),
        ({"started_s": NOW - 400, "ready": False, "ready_changed_s": NOW - 390}, False),
        ({"started_s": NOW - 400, "ready": False, "ready_changed_s": NOW - 10}, True),
        ({"started_s": None}, False),
        ({"ready": None}, False),
    ],
    ids=[
        "young-and-ready-for-a-window", "young-and-just-ready", "young-and-unready", "old-and-never-ready",
        "old-and-unready-again", "no-start", "no-condition",
    ],
)  # fmt: skip
def test_B31_use_of_processors_counts_once_a_pod_has_begun_its_work(facts: dict[str, object], counts: bool) -> None:
    where = around(pod("a"), pod("b", **facts))
    proposal = by_utilization(where, used(800, 800), "cpu", 40)
    # With b's figures 800 of 400 a pod: 4. Without, a alone asks for 2 and b, idle, leaves it at 2.
    assert proposal.replicas == (4 if counts else 2)
    # Memory has no such start.
    memory = around(*(replace(one, requests={"memory": 1000}) for one in where.pods))
    assert by_utilization(memory, used(800, 800), "memory", 40).replicas == 4


def test_container_of_its_own_counts_alone() -> None:
    pods = [pod(name, container_requests={"app": {"cpu": 500}, "side": {}}) for name in "ab"]
    proposal = by_utilization(around(*pods), used(500, 500), "cpu", 50, container="app")
    assert (proposal.replicas, proposal.utilization) == (4, 100)


@pytest.mark.parametrize(
    ("pods", "values", "words"),
    [
        ([], (), "no pods returned by selector"),
        ([pod("a")], (), "did not receive metrics for targeted pods"),
        ([pod("a", phase="Pending")], (5,), "pods might be unready"),
        ([pod("a", requests={})], (5,), "missing request for cpu in container app of Pod a"),
        ([pod("a", missing={"cpu": "side"})], (5,), "missing request for cpu in container side of Pod a"),
        ([pod("a", requests={"cpu": 0})], (5,), "no metrics returned matched known pods"),
    ],
    ids=["no-pods", "no-figures", "none-ready", "no-request", "one-without-request", "nothing-asked"],
)
def test_measure_that_can_not_be_used_says_why(pods: list[PodFacts], values: tuple[int, ...], words: str) -> None:
    with pytest.raises(MeasureError, match=words):
        by_utilization(around(*pods), used(*values), "cpu", 50)


@pytest.mark.parametrize(
    ("values", "target", "wanted"),
    [((20_000, 10_000, 30_000), 15_000, 4), ((20_000, 20_000), 20_000, 2), ((1_000, 1_000), 20_000, 1)],
    ids=["up", "exact", "down"],
)
def test_B31_mean_over_pods(values: tuple[int, ...], target: int, wanted: int) -> None:
    proposal = by_average(around(*ready(len(values))), used(*values), target)
    assert (proposal.replicas, proposal.average) == (wanted, sum(values) // len(values))


@pytest.mark.parametrize(
    ("current", "value", "target", "wanted"),
    [(3, 20_000, 15_000, 4), (3, 15_500, 15_000, 3), (3, 1_000, 15_000, 1), (0, 40_000, 15_000, 3), (0, 0, 15_000, 0)],
    ids=["up", "within-tolerance", "down", "from-zero", "stays-at-zero"],
)
def test_B31_number_of_an_object(current: int, value: int, target: int, wanted: int) -> None:
    assert by_value(around(*ready(current)), value, target).replicas == wanted


def test_number_of_an_object_counts_ready_pods_only() -> None:
    where = around(pod("a"), pod("b", ready=False), pod("c", phase="Pending"), current=3)
    assert by_value(where, 30_000, 10_000).replicas == 3
    with pytest.raises(MeasureError, match="no pods returned by selector"):
        by_value(around(current=3), 30_000, 10_000)


@pytest.mark.parametrize(
    ("seen", "value", "target", "wanted"),
    [(4, 8_600, 2_000, 4), (4, 9_600, 2_000, 5), (4, 2_000, 2_000, 1), (0, 9_600, 2_000, 5), (4, 0, 2_000, 0)],
    ids=["within-tolerance", "up", "down", "from-zero", "to-zero"],
)
def test_B31_number_shared_out_among_pods(seen: int, value: int, target: int, wanted: int) -> None:
    proposal = by_value_per_pod(around(current=seen, seen=seen), value, target)
    assert proposal.replicas == wanted
    assert proposal.average == (math.ceil(value / seen) if seen else 0)


COUNTS = st.integers(1, 10)
VALUES = st.lists(st.one_of(st.none(), st.integers(0, 5000)), min_size=1, max_size=10)
STATES = st.lists(st.sampled_from(["ready", "unready", "pending", "deleting"]), min_size=10, max_size=10)


@given(values=VALUES, states=STATES, target=st.integers(1, 300))
def test_B31_unknown_pods_never_make_the_answer_wilder(
    values: list[int | None], states: list[str], target: int
) -> None:
    kinds: dict[str, dict[str, Any]] = {
        "ready": {},
        "unready": UNREADY,
        "pending": {"phase": "Pending"},
        "deleting": {"is_deleting": True},
    }
    pods = [pod(name, **kinds[state]) for name, state, _ in zip("abcdefghij", states, values, strict=False)]
    samples = {
        one.name: PodSample(value, NOW, 30.0) for one, value in zip(pods, values, strict=True) if value is not None
    }
    where = around(*pods)
    certain = [one for one in pods if one.phase == "Running" and one.ready and not one.is_deleting]
    known = [samples[one.name].value for one in certain if one.name in samples]
    try:
        asked = by_utilization(where, samples, "cpu", target).replicas
    except MeasureError:
        assert not known
        return
    ratio = (sum(known) * 100 // (1000 * len(known))) / target
    counted = [one for one in pods if not one.is_deleting]
    missing = [one for one in counted if one.phase == "Running" and one.name not in samples]
    waiting = [one for one in counted if one not in missing and one not in certain]
    alone = where.current if 0.9 <= ratio <= 1.1 else math.ceil(ratio * len(known))
    if ratio > 1 and (missing or waiting):
        # Those that are not known may keep it from growing, and never make it shrink.
        assert where.current <= asked <= max(where.current, math.ceil(ratio * len(counted)))
    elif ratio < 1 and missing:
        # Nor may they make it shrink further than those that are known would.
        assert min(alone, where.current) <= asked <= where.current
    elif not missing:
        assert asked == alone


@given(value=st.integers(0, 10**9), target=st.integers(1, 10**6), count=COUNTS)
def test_B31_answer_grows_with_the_measure(value: int, target: int, count: int) -> None:
    where = around(*ready(count))
    less, more = by_value(where, value, target).replicas, by_value(where, value * 2, target).replicas
    assert less <= more
    shared = by_value_per_pod(where, value, target).replicas
    # Enough pods that each has at most its target, but for the tolerance.
    assert shared * target * 1.1 >= value - 1
