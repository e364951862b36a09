"""What an autoscaler does and says, from measures to conditions."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.controller_manager.controllers.horizontal_pod_autoscaler.test_replicas import NOW, pod, used
from tiphys.api.autoscaling.v2 import autoscaling_pb2 as v2
from tiphys_apimachinery.codec import json_codec
from tiphys_controller_manager.controllers.horizontal_pod_autoscaler.behavior import (
    Defaults,
    History,
    Wish,
    behavior_of,
)
from tiphys_controller_manager.controllers.horizontal_pod_autoscaler.plan import (
    Outcome,
    looks_at_measures,
    not_rescaled,
    plan,
    rescaled,
)
from tiphys_controller_manager.controllers.horizontal_pod_autoscaler.readings import MeasureError, Reading
from tiphys_controller_manager.controllers.horizontal_pod_autoscaler.replicas import Surroundings

HALF = {"type": "Utilization", "averageUtilization": 50}
CPU = {"type": "Resource", "resource": {"name": "cpu", "target": HALF}}
QUEUE = {"type": "External", "external": {"metric": {"name": "queue"}, "target": {"type": "Value", "value": "10"}}}
BUSY = {"type": "Pods", "pods": {"metric": {"name": "busy"}, "target": {"type": "AverageValue", "averageValue": "2"}}}
HITS = {
    "type": "Object",
    "object": {
        "metric": {"name": "hits"},
        "describedObject": {"kind": "Ingress", "name": "main", "apiVersion": "networking.k8s.io/v1"},
        "target": {"type": "AverageValue", "averageValue": "100"},
    },
}
SIDE = {"type": "ContainerResource", "containerResource": {"name": "cpu", "container": "app", "target": HALF}}


def run(
    *metrics: dict[str, Any], readings: tuple[Reading, ...], current: int, history: History | None = None, **spec: Any
) -> Outcome:
    """The outcome for a workload whose pods are all ready."""
    document = {"minReplicas": 1, "maxReplicas": 10, "metrics": list(metrics), **spec}
    made: Any = json_codec.from_json(v2.HorizontalPodAutoscalerSpec, document, None)
    behavior = behavior_of(made, Defaults())
    pods = tuple(pod(name) for name in "abcdefghij"[:current])
    around = Surroundings(current, current, pods, behavior.tolerance, NOW, NOW)
    return plan(made, readings, around, behavior=behavior, history=history or History())


def said(outcome: Outcome) -> dict[str, tuple[bool, str]]:
    """The last note about each condition."""
    return {note.type: (note.holds, note.reason) for note in outcome.notes}


GONE = MeasureError("unable to get it")


@pytest.mark.parametrize(
    ("metric", "reading", "wanted", "name"),
    [
        (CPU, used(900, 900), 4, "cpu resource utilization (percentage of request)"),
        (SIDE, used(900, 900), 4, "cpu container app resource utilization (percentage of request)"),
        (BUSY, used(3000, 5000), 4, "pods metric busy"),
        (HITS, 350_000, 4, "Ingress metric hits"),
        (QUEUE, 20_000, 4, "external metric queue"),
    ],
    ids=["Resource", "ContainerResource", "Pods", "Object", "External"],
)
def test_B31_every_type_of_measure_decides(metric: dict[str, Any], reading: Reading, wanted: int, name: str) -> None:
    outcome = run(metric, readings=(reading,), current=2)
    assert outcome.replicas == wanted
    assert outcome.reason == f"{name} above target"
    assert said(outcome) == {
        "AbleToScale": (True, "ReadyForNewScale"),
        "ScalingActive": (True, "ValidMetricFound"),
        "ScalingLimited": (False, "DesiredWithinRange"),
    }
    (status,) = outcome.measures or ()
    assert status.type == metric["type"]


def test_the_measure_that_wants_most_counts() -> None:
    outcome = run(CPU, QUEUE, readings=(used(600, 600), 30_000), current=2)
    assert outcome.replicas == 6
    assert "queue" in outcome.reason


def test_with_some_unknown_it_grows_but_never_shrinks() -> None:
    up = run(CPU, QUEUE, readings=(GONE, 30_000), current=2)
    assert up.replicas == 6
    assert [event.reason for event in up.events] == ["FailedGetResourceMetric"]
    assert [one.type for one in up.measures or ()] == ["", "External"]
    down = run(CPU, QUEUE, readings=(GONE, 1_000), current=5)
    assert down.replicas is None
    assert said(down)["ScalingActive"] == (False, "FailedGetResourceMetric")
    assert [event.reason for event in down.events] == ["FailedGetResourceMetric", "FailedComputeMetricsReplicas"]
    assert (
        "invalid metrics (1 invalid out of 2), first error is: failed to get cpu utilization" in down.events[1].message
    )


def test_all_unknown_changes_nothing() -> None:
    outcome = run(BUSY, readings=(GONE,), current=3)
    assert outcome.replicas is None
    assert outcome.desired == 3
    note = next(note for note in outcome.notes if note.type == "ScalingActive")
    assert note.message == (
        "the HPA was unable to compute the replica count: failed to get pods metric value: unable to get it"
    )


@pytest.mark.parametrize(
    ("current", "spec", "wanted", "reason"),
    [
        (15, {}, 10, "Current number of replicas above Spec.MaxReplicas"),
        (1, {"minReplicas": 3}, 3, "Current number of replicas below Spec.MinReplicas"),
        (0, {}, None, ""),
    ],
    ids=["above-most", "below-least", "switched-off-at-zero"],
)
def test_B31_bounds_come_before_measures(current: int, spec: dict[str, Any], wanted: int | None, reason: str) -> None:
    outcome = run(CPU, readings=(GONE,), current=current, **spec)
    assert (outcome.replicas, outcome.reason) == (wanted, reason)
    assert outcome.events == ()
    if current == 0:
        assert said(outcome)["ScalingActive"] == (False, "ScalingDisabled")


def test_B31_at_zero_it_grows_by_an_external_measure_where_zero_is_allowed() -> None:
    assert run(QUEUE, readings=(30_000,), current=0, minReplicas=0).replicas == 3
    assert run(QUEUE, readings=(0,), current=0, minReplicas=0).replicas is None
    old = History((Wish(NOW - 400, 2), Wish(NOW - 200, 0)))
    down = run(QUEUE, readings=(0,), current=2, minReplicas=0, history=old)
    assert down.replicas == 0
    spec: Any = json_codec.from_json(v2.HorizontalPodAutoscalerSpec, {"minReplicas": 0, "maxReplicas": 5}, None)
    assert looks_at_measures(spec, 0)


def test_B31_what_was_wished_in_the_last_five_minutes_holds_it_up() -> None:
    history = History((Wish(NOW - 100, 4),))
    outcome = run(CPU, readings=(used(100, 100, 100, 100, 100),), current=5, history=history)
    assert outcome.replicas == 4
    assert said(outcome)["AbleToScale"] == (True, "ScaleDownStabilized")
    assert outcome.reason == "All metrics below target"
    # Right after a start what is there counts as wished.
    fresh = run(CPU, readings=(used(100, 100, 100, 100, 100),), current=5)
    assert fresh.replicas is None
    assert [wish.replicas for wish in fresh.history.wishes] == [5, 1]


def test_B31_limits_are_told() -> None:
    outcome = run(QUEUE, readings=(990_000,), current=2)
    assert outcome.replicas == 6
    assert said(outcome)["ScalingLimited"] == (True, "ScaleUpLimit")
    most = run(QUEUE, readings=(990_000,), current=8)
    assert most.replicas == 10
    assert said(most)["ScalingLimited"] == (True, "TooManyReplicas")


def test_what_became_of_it_is_told() -> None:
    outcome = run(QUEUE, readings=(30_000,), current=2)
    done = rescaled(outcome)
    assert said(done)["AbleToScale"] == (True, "SucceededRescale")
    assert done.events[-1].message == "New size: 6; reason: external metric queue above target"
    failed = not_rescaled(outcome, 2, "no", History())
    assert said(failed)["AbleToScale"] == (False, "FailedUpdateScale")
    assert (failed.replicas, failed.desired, failed.history) == (None, 2, History())
    assert failed.events[-1].reason == "FailedRescale"


def test_status_shows_what_was_measured() -> None:
    (cpu,) = run(CPU, readings=(used(900, 701),), current=2).measures or ()
    assert cpu.resource.current.averageUtilization == 80
    assert cpu.resource.current.averageValue.string == "800m"
    (hits,) = run(HITS, readings=(350_000,), current=2).measures or ()
    assert hits.object.describedObject.name == "main"
    assert hits.object.current.averageValue.string == "175"
    (queue,) = run(QUEUE, readings=(12_345,), current=2).measures or ()
    assert queue.external.current.value.string == "12345m"
