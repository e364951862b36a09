"""The arithmetic of rolling updates: limits, proportions, and what no step may ever do."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tiphys.api.apps.v1 import apps_pb2
from tiphys.api.intstr import intstr_pb2
from tiphys_controller_manager.controllers.deployment.rolling import (
    Limits,
    SetSize,
    grow_new,
    is_saturated,
    limits_of,
    scale,
    scaled,
    shrink_old,
)


def number(value: int) -> intstr_pb2.IntOrString:
    return intstr_pb2.IntOrString(type=0, intVal=value)


def percent(text: str) -> intstr_pb2.IntOrString:
    return intstr_pb2.IntOrString(type=1, strVal=text)


@pytest.mark.parametrize(
    ("value", "total", "up", "down"),
    [
        pytest.param(number(3), 10, 3, 3, id="a number is itself"),
        pytest.param(percent("25%"), 10, 3, 2, id="a percentage is rounded"),
        pytest.param(percent("50%"), 10, 5, 5, id="an even percentage is exact"),
        pytest.param(percent("0%"), 10, 0, 0, id="nothing stays nothing"),
        pytest.param(percent("100%"), 7, 7, 7, id="all is all"),
        pytest.param(None, 4, 1, 1, id="unset means 25%"),
    ],
)
def test_numbers_and_percentages(value: intstr_pb2.IntOrString | None, total: int, up: int, down: int) -> None:
    assert (scaled(value, total, round_up=True), scaled(value, total, round_up=False)) == (up, down)


def test_text_that_is_no_percentage_is_refused() -> None:
    with pytest.raises(ValueError, match="neither a number nor a percentage"):
        scaled(percent("many"), 3, round_up=True)


def test_an_update_can_always_move() -> None:
    deployment = apps_pb2.Deployment()
    deployment.spec.replicas = 1
    deployment.spec.strategy.type = "RollingUpdate"
    deployment.spec.strategy.rollingUpdate.maxSurge.CopyFrom(percent("0%"))
    deployment.spec.strategy.rollingUpdate.maxUnavailable.CopyFrom(percent("25%"))
    assert limits_of(deployment) == Limits(1, surge=0, unavailable=1)


@pytest.mark.parametrize(
    ("limits", "new", "olds", "wanted"),
    [
        pytest.param(Limits(10, 2, 0), 0, [10], 2, id="only surge is free at the start"),
        pytest.param(Limits(10, 2, 0), 5, [5], 7, id="what old sets gave up is taken"),
        pytest.param(Limits(10, 2, 0), 5, [7], 5, id="no room, no growth"),
        pytest.param(Limits(10, 20, 0), 0, [10], 10, id="never more than are wanted"),
        pytest.param(Limits(3, 1, 0), 5, [0], 3, id="too large shrinks"),
        pytest.param(Limits(4, 0, 0, is_rolling=False), 0, [], 4, id="recreate takes all at once"),
    ],
)
def test_the_new_set_grows(limits: Limits, new: int, olds: list[int], wanted: int) -> None:
    sets = [SetSize(f"old{i}", float(i), size, size) for i, size in enumerate(olds)]
    assert grow_new(limits, SetSize("new", 9.0, new), sets) == wanted


@pytest.mark.parametrize(
    ("limits", "new", "olds", "sizes"),
    [
        pytest.param(Limits(10, 0, 2), (2, 0), [(8, 8)], {}, id="new pods that are not ready hold the old ones"),
        pytest.param(Limits(10, 2, 2), (0, 0), [(10, 10)], {"old0": 8}, id="as many go as may be missing"),
        pytest.param(Limits(10, 2, 0), (2, 2), [(10, 10)], {"old0": 8}, id="what is new replaces what is old"),
        pytest.param(Limits(10, 2, 2), (2, 0), [(10, 0)], {"old0": 8}, id="broken pods go first"),
        pytest.param(
            Limits(10, 2, 2), (5, 5), [(3, 1), (4, 4)], {"old0": 0, "old1": 3}, id="broken first, then the oldest"
        ),
        pytest.param(Limits(3, 1, 0), (3, 3), [(0, 0)], {}, id="nothing left"),
    ],
)
def test_old_sets_shrink(
    limits: Limits, new: tuple[int, int], olds: list[tuple[int, int]], sizes: dict[str, int]
) -> None:
    sets = [SetSize(f"old{i}", float(i), size, available) for i, (size, available) in enumerate(olds)]
    assert shrink_old(limits, SetSize("new", 9.0, *new), sets) == sizes


@pytest.mark.parametrize(
    ("limits", "new", "olds", "sizes"),
    [
        pytest.param(Limits(5, 1, 0), SetSize("new", 1, 3, 3), [], {"new": 5}, id="the only one takes it all"),
        pytest.param(Limits(5, 1, 0), None, [SetSize("old", 0, 3)], {"old": 5}, id="also when it is an old one"),
        pytest.param(
            Limits(20, 3, 2),
            SetSize("new", 1, 5, max_replicas=13),
            [SetSize("old", 0, 8, max_replicas=13)],
            {"old": 14, "new": 9},
            id="several share in proportion",
        ),
        pytest.param(
            Limits(5, 3, 2),
            SetSize("new", 1, 5, max_replicas=13),
            [SetSize("old", 0, 8, max_replicas=13)],
            {"old": 5, "new": 3},
            id="and shrink in proportion",
        ),
        pytest.param(
            Limits(0, 3, 2),
            SetSize("new", 1, 5, max_replicas=13),
            [SetSize("old", 0, 8, max_replicas=13)],
            {"old": 0, "new": 0},
            id="to nothing",
        ),
        pytest.param(
            Limits(5, 1, 0),
            SetSize("new", 1, 5, 5, desired=5),
            [SetSize("old", 0, 2, 2)],
            {"old": 0},
            id="a saturated new set ends the old ones",
        ),
    ],
)
def test_scaling_shares_out(limits: Limits, new: SetSize | None, olds: list[SetSize], sizes: dict[str, int]) -> None:
    assert scale(limits, new, olds, 0) == sizes


def test_a_new_set_is_saturated_only_with_all_pods_available() -> None:
    limits = Limits(3)
    assert is_saturated(limits, SetSize("new", 0, 3, 3, desired=3))
    assert not is_saturated(limits, SetSize("new", 0, 3, 2, desired=3))


limits_strategy = st.builds(
    lambda replicas, surge, unavailable: Limits(
        replicas, surge, min(unavailable if surge or unavailable else 1, replicas)
    ),
    st.integers(0, 20),
    st.integers(0, 10),
    st.integers(0, 10),
)


@settings(max_examples=80, deadline=None)
@given(
    limits_strategy,
    st.lists(st.integers(0, 8), max_size=3),
    st.data(),
)
def test_no_step_ever_leaves_the_limits_and_the_rollout_ends(
    limits: Limits, old_sizes: list[int], data: st.DataObject
) -> None:
    """Pods of each set as [wanted, running and available]; each turn the world does a little of what is asked."""
    wanted = {f"old{i}": size for i, size in enumerate(old_sizes)} | {"new": 0}
    available = dict(wanted)
    start_total = sum(wanted.values())
    floor = min(limits.min_available, sum(available.values()))
    for _turn in range(400):
        # The status may be older than the size beside it: never fresher than what is true.
        sets = {name: SetSize(name, float(i), wanted[name], available[name]) for i, name in enumerate(wanted)}
        olds = [item for name, item in sets.items() if name != "new"]
        size = grow_new(limits, sets["new"], olds)
        sizes = {"new": size} if size != wanted["new"] else shrink_old(limits, sets["new"], olds)
        assert all(0 <= after <= wanted[name] for name, after in sizes.items() if name != "new")
        wanted.update(sizes)
        assert sum(wanted.values()) <= max(limits.max_total, start_total)
        kept = sum(min(wanted[name], available[name]) for name in wanted)
        floor = max(floor, min(kept, limits.min_available))
        assert kept >= floor, "a step took away available pods that were needed"
        for name in wanted:
            # Unready pods are deleted first; new ones become ready sooner or later.
            available[name] = min(available[name], wanted[name])
            gain = data.draw(st.integers(0, 3)) if _turn < 20 else 3
            available[name] = min(wanted[name], available[name] + gain)
        if wanted["new"] == limits.replicas == available["new"] and not any(item.replicas for item in olds):
            break
    assert wanted["new"] == limits.replicas
    assert all(size == 0 for name, size in wanted.items() if name != "new")


@given(
    limits_strategy,
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 40)), min_size=2, max_size=4),
)
def test_scaling_in_proportion_adds_up(limits: Limits, sizes: list[tuple[int, int]]) -> None:
    sets = [
        SetSize(f"s{i}", float(i), size, max_replicas=max(size, allowed) or None)
        for i, (size, allowed) in enumerate(sizes)
    ]
    result = scale(limits, sets[-1], sets[:-1], 0)
    active = [item for item in sets if item.replicas]
    assert all(size >= 0 for size in result.values())
    if len(active) > 1 and len(result) == len(active):
        allowed = limits.max_total if limits.replicas else 0
        assert sum(result.values()) == allowed
