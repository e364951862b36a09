"""How fast the number of pods may change."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiphys.api.autoscaling.v2 import autoscaling_pb2 as v2
from tiphys_apimachinery.codec import json_codec
from tiphys_controller_manager.controllers.horizontal_pod_autoscaler.behavior import (
    Behavior,
    Bounds,
    Change,
    Defaults,
    History,
    Limited,
    Policy,
    Rules,
    Wish,
    behavior_of,
    limited,
    stabilized,
)

NOW = 1000.0
BOUNDS = Bounds(1, 100)


def behavior(document: dict[str, Any] | None = None) -> Behavior:
    """What a spec with such a behavior asks for."""
    spec: Any = json_codec.from_json(v2.HorizontalPodAutoscalerSpec, {"behavior": document} if document else {}, None)
    return behavior_of(spec, Defaults())


def rules(select: str = "Max", *policies: tuple[str, int, int], window: int = 0) -> dict[str, Any]:
    """One direction."""
    found = [{"type": kind, "value": value, "periodSeconds": period} for kind, value, period in policies]
    return {"selectPolicy": select, "policies": found, "stabilizationWindowSeconds": window}


def test_defaults_are_those_of_kubernetes() -> None:
    usual = behavior()
    assert usual.up == Rules(0, (Policy(4, 15), Policy(100, 15, is_percent=True)))
    assert usual.down == Rules(300, (Policy(100, 15, is_percent=True),))
    assert (usual.tolerance.up, usual.tolerance.down) == (0.1, 0.1)
    own = behavior({"scaleUp": {"tolerance": "0"}, "scaleDown": {"tolerance": "250m", "stabilizationWindowSeconds": 0}})
    assert (own.tolerance.up, own.tolerance.down, own.down.window_s) == (0.0, 0.25, 0)


@pytest.mark.parametrize(
    ("wishes", "current", "wanted", "answer"),
    [
        ((), 5, 3, 3),
        (((NOW - 100, 5),), 5, 3, 5),
        (((NOW - 100, 4),), 5, 3, 4),
        (((NOW - 301, 5),), 5, 3, 3),
        (((NOW - 300, 5),), 5, 3, 3),
        (((NOW - 10, 2),), 5, 8, 8),
        (((NOW - 200, 9), (NOW - 10, 2)), 5, 3, 5),
    ],
    ids=["nothing-before", "held", "held-lower", "forgotten", "on-the-edge", "up-at-once", "never-up-by-an-old-wish"],
)
def test_B31_down_only_as_far_as_was_wished_for_five_minutes(
    wishes: tuple[tuple[float, int], ...], current: int, wanted: int, answer: int
) -> None:
    history = History(tuple(Wish(*wish) for wish in wishes))
    assert stabilized(history, behavior(), current=current, wanted=wanted, now_s=NOW) == answer


def test_window_upwards_takes_the_least_wish() -> None:
    slow = behavior({"scaleUp": rules("Max", ("Pods", 100, 15), window=60)})
    history = History((Wish(NOW - 30, 6), Wish(NOW - 90, 2)))
    assert stabilized(history, slow, current=5, wanted=9, now_s=NOW) == 6


@pytest.mark.parametrize(
    ("up", "changes", "current", "wanted", "answer"),
    [
        (None, (), 3, 50, Limited(7, "ScaleUpLimit")),
        (None, (), 10, 50, Limited(20, "ScaleUpLimit")),
        (None, (), 60, 500, Limited(100, "TooManyReplicas")),
        (None, (), 3, 5, Limited(5)),
        (None, ((NOW - 5, 4),), 7, 50, Limited(7, "ScaleUpLimit")),
        (None, ((NOW - 16, 4),), 7, 50, Limited(14, "ScaleUpLimit")),
        (rules("Min", ("Pods", 4, 15), ("Percent", 100, 15)), (), 10, 50, Limited(14, "ScaleUpLimit")),
        (rules("Disabled"), (), 10, 50, Limited(10, "ScaleUpLimit")),
        (rules("Max", ("Percent", 10, 60)), (), 1, 50, Limited(2, "ScaleUpLimit")),
        (rules("Max", ("Percent", 10, 60)), (), 10, 50, Limited(11, "ScaleUpLimit")),
        (rules("Max", ("Pods", 5, 60)), ((NOW - 30, -3),), 7, 50, Limited(15, "ScaleUpLimit")),
        (rules("Max", ("Pods", 2, 60)), ((NOW - 30, 9),), 12, 50, Limited(12, "ScaleUpLimit")),
    ],
    ids=[
        "few-by-pods", "many-by-percent", "most", "within", "period-used-up", "period-over", "least-change", "disabled",
        "percent-rounded-up", "percent-exact", "what-went-down-may-come-back", "never-below-current",
    ],
)  # fmt: skip
def test_B31_up_no_faster_than_the_policies(
    up: dict[str, Any] | None, changes: tuple[tuple[float, int], ...], current: int, wanted: int, answer: Limited
) -> None:
    history = History(changes=tuple(Change(*change) for change in changes))
    found = limited(
        history, behavior({"scaleUp": up} if up else None), BOUNDS, current=current, wanted=wanted, now_s=NOW
    )
    assert (found.replicas, found.reason) == (answer.replicas, answer.reason)


@pytest.mark.parametrize(
    ("down", "changes", "current", "wanted", "answer"),
    [
        (None, (), 50, 1, Limited(1)),
        (None, (), 50, 0, Limited(1, "TooFewReplicas")),
        (rules("Max", ("Pods", 5, 60), ("Percent", 50, 60)), (), 50, 1, Limited(25, "ScaleDownLimit")),
        (rules("Min", ("Pods", 5, 60), ("Percent", 50, 60)), (), 50, 1, Limited(45, "ScaleDownLimit")),
        (rules("Max", ("Pods", 5, 60)), ((NOW - 30, -3),), 47, 1, Limited(45, "ScaleDownLimit")),
        (rules("Max", ("Pods", 5, 60)), ((NOW - 30, -5),), 45, 1, Limited(45, "ScaleDownLimit")),
        (rules("Disabled"), (), 50, 1, Limited(50, "ScaleDownLimit")),
    ],
    ids=["as-far-as-wished", "least", "most-change", "least-change", "period-half-used", "period-used-up", "disabled"],
)
def test_B31_down_no_faster_than_the_policies(
    down: dict[str, Any] | None, changes: tuple[tuple[float, int], ...], current: int, wanted: int, answer: Limited
) -> None:
    history = History(changes=tuple(Change(*change) for change in changes))
    asked = behavior({"scaleDown": down} if down else None)
    found = limited(history, asked, BOUNDS, current=current, wanted=wanted, now_s=NOW)
    assert (found.replicas, found.reason) == (answer.replicas, answer.reason)


POLICIES = st.lists(st.builds(Policy, st.integers(1, 200), st.integers(1, 120), st.booleans()), min_size=1, max_size=3)
RULES = st.builds(Rules, st.integers(0, 300), POLICIES.map(tuple), st.sampled_from(["Max", "Min", "Disabled"]))
HISTORIES = st.builds(
    History,
    st.lists(st.builds(Wish, st.floats(NOW - 400, NOW), st.integers(0, 50)), max_size=5).map(tuple),
    st.lists(st.builds(Change, st.floats(NOW - 200, NOW), st.integers(-20, 20)), max_size=5).map(tuple),
)


@given(up=RULES, down=RULES, history=HISTORIES, current=st.integers(1, 100), wanted=st.integers(0, 200))
def test_B31_never_beyond_the_bounds_nor_away_from_the_wish(
    up: Rules, down: Rules, history: History, current: int, wanted: int
) -> None:
    asked = Behavior(up, down)
    steady = stabilized(history, asked, current=current, wanted=wanted, now_s=NOW)
    assert min(current, wanted) <= steady <= max(current, wanted)
    found = limited(history, asked, BOUNDS, current=current, wanted=steady, now_s=NOW).replicas
    assert BOUNDS.least <= found <= BOUNDS.most
    assert min(current, steady, BOUNDS.most) <= found <= max(current, steady, BOUNDS.least)
    if up.select == "Disabled":
        assert found <= current
    if down.select == "Disabled":
        assert found >= current


@given(history=HISTORIES, memory=st.integers(0, 400))
def test_history_forgets_what_is_too_old(history: History, memory: int) -> None:
    later = history.wished(Wish(NOW, 5), memory).changed(Change(NOW, 1), memory)
    moments = [*(one.at_s for one in later.wishes), *(one.at_s for one in later.changes)]
    assert all(at_s > NOW - memory or at_s == NOW for at_s in moments)
    assert later.wishes[-1].replicas == 5
