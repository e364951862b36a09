"""What an autoscaler does, from what it is told and what was measured. Pure.

Source: kubernetes pkg/controller/podautoscaler/horizontal.go, reconcileAutoscaler; reasons and messages are its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

from tiphys.api.autoscaling.v2 import autoscaling_pb2 as v2
from tiphys_controller_manager.controllers.horizontal_pod_autoscaler.behavior import (
    Behavior,
    Bounds,
    Change,
    History,
    Wish,
    limited,
    stabilized,
)
from tiphys_controller_manager.controllers.horizontal_pod_autoscaler.measures import Judged, failure_reason, judge
from tiphys_controller_manager.controllers.horizontal_pod_autoscaler.readings import MeasureError, Reading
from tiphys_controller_manager.controllers.horizontal_pod_autoscaler.replicas import Surroundings

ABLE: Final = "AbleToScale"
ACTIVE: Final = "ScalingActive"
LIMITED: Final = "ScalingLimited"


@dataclass(frozen=True, slots=True)
class Note:
    """A condition as it should be."""

    type: str
    holds: bool
    reason: str
    message: str


SCALE_READ: Final = Note(
    ABLE, True, "SucceededGetScale", "the HPA controller was able to get the target's current scale"
)


@dataclass(frozen=True, slots=True)
class Told:
    """An event."""

    type: Literal["Normal", "Warning"]
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What is to be done and told. replicas is None where the number stays; the history is that after it is changed."""

    desired: int
    replicas: int | None = None
    reason: str = ""
    notes: tuple[Note, ...] = ()
    events: tuple[Told, ...] = ()
    # By the measures of the spec, an empty one for each that failed; None leaves those of before.
    measures: tuple[v2.MetricStatus, ...] | None = None
    history: History = field(default_factory=History)


def bounds_of(spec: Any) -> Bounds:
    """Fewest and most replicas."""
    return Bounds(spec.minReplicas if spec.HasField("minReplicas") else 1, spec.maxReplicas)


def looks_at_measures(spec: Any, current: int) -> bool:
    """Whether the measures decide; else the bounds do, or it is switched off at zero."""
    bounds = bounds_of(spec)
    return bounds.least <= current <= bounds.most


def plan(
    spec: Any, readings: Sequence[Reading], around: Surroundings, *, behavior: Behavior, history: History
) -> Outcome:
    """What to do. readings are those of spec.metrics, in order; nobody looks at them where measures do not decide."""
    current, bounds = around.current, bounds_of(spec)
    if not history.wishes:
        history = history.wished(Wish(around.monotonic_s, current), behavior.memory_s)
    start = Outcome(current, notes=(SCALE_READ,), measures=(), history=history)
    if current == 0 and bounds.least != 0:
        text = "scaling is disabled since the replica count of the target is zero"
        return replace(start, notes=(*start.notes, Note(ACTIVE, False, "ScalingDisabled", text)))
    if current > bounds.most:
        return _rescale(
            start, bounds.most, "Current number of replicas above Spec.MaxReplicas", around, behavior=behavior
        )
    if current < bounds.least:
        return _rescale(
            start, bounds.least, "Current number of replicas below Spec.MinReplicas", around, behavior=behavior
        )
    return _by_measures(spec, readings, start, around, behavior=behavior)


def _by_measures(
    spec: Any, readings: Sequence[Reading], start: Outcome, around: Surroundings, *, behavior: Behavior
) -> Outcome:
    judged, failures = _judge_all(spec, readings, around)
    events = tuple(Told("Warning", failure_reason(metric), str(err)) for metric, err in failures)
    measures = tuple(one.status if one is not None else v2.MetricStatus() for one in judged)
    start = replace(start, events=events, measures=measures)
    best = max((one for one in judged if one is not None), key=lambda one: one.proposal.replicas, default=None)
    # With some unknown, what is known may be reason to grow, but never to shrink.
    if best is None or (failures and best.proposal.replicas < around.current):
        return _without_answer(start, len(spec.metrics), failures)
    text = f"the HPA was able to successfully calculate a replica count from {best.name}"
    notes = (*start.notes, Note(ACTIVE, True, "ValidMetricFound", text))
    return _towards(best, replace(start, notes=notes), bounds_of(spec), around, behavior=behavior)


def _judge_all(
    spec: Any, readings: Sequence[Reading], around: Surroundings
) -> tuple[list[Judged | None], list[tuple[Any, MeasureError]]]:
    judged: list[Judged | None] = []
    failures: list[tuple[Any, MeasureError]] = []
    for metric, reading in zip(spec.metrics, readings, strict=True):
        try:
            judged.append(judge(metric, reading, around))
        except MeasureError as err:
            judged.append(None)
            failures.append((metric, err))
    return judged, failures


def _without_answer(start: Outcome, count: int, failures: Sequence[tuple[Any, MeasureError]]) -> Outcome:
    if not failures:
        raise ValueError("an autoscaler without measures")
    metric, first = failures[0]
    text = f"the HPA was unable to compute the replica count: {first}"
    summary = f"invalid metrics ({len(failures)} invalid out of {count}), first error is: {first}"
    return replace(
        start,
        notes=(*start.notes, Note(ACTIVE, False, failure_reason(metric), text)),
        events=(*start.events, Told("Warning", "FailedComputeMetricsReplicas", summary)),
    )


def _towards(best: Judged, start: Outcome, bounds: Bounds, around: Surroundings, *, behavior: Behavior) -> Outcome:
    current, now_s, wanted = around.current, around.monotonic_s, best.proposal.replicas
    steady = stabilized(start.history, behavior, current=current, wanted=wanted, now_s=now_s)
    history = start.history.wished(Wish(now_s, wanted), behavior.memory_s)
    found = limited(history, behavior, bounds, current=current, wanted=steady, now_s=now_s)
    limits = Note(LIMITED, found.replicas != steady, found.reason, found.message)
    outcome = replace(start, history=history, notes=(*start.notes, _readiness(wanted, steady, current), limits))
    if found.replicas == current:
        return outcome
    reason = f"{best.name} above target" if wanted > current else "All metrics below target"
    return _rescale(outcome, found.replicas, reason, around, behavior=behavior)


def _readiness(wanted: int, steady: int, current: int) -> Note:
    if steady == wanted:
        return Note(ABLE, True, "ReadyForNewScale", "recommended size matches current size")
    if wanted >= current:
        text = "recent recommendations were lower than current one, applying the lowest recent recommendation"
        return Note(ABLE, True, "ScaleUpStabilized", text)
    text = "recent recommendations were higher than current one, applying the highest recent recommendation"
    return Note(ABLE, True, "ScaleDownStabilized", text)


def _rescale(start: Outcome, replicas: int, reason: str, around: Surroundings, *, behavior: Behavior) -> Outcome:
    change = Change(around.monotonic_s, replicas - around.current)
    return replace(
        start,
        desired=replicas,
        replicas=replicas,
        reason=reason,
        history=start.history.changed(change, behavior.longest_period_s),
    )


def without_scale(current: int, error: str, history: History) -> Outcome:
    """Where the target, or its scale, can't be had."""
    text = f"the HPA controller was unable to get the target's current scale: {error}"
    notes = (Note(ABLE, False, "FailedGetScale", text),)
    return Outcome(current, notes=notes, events=(Told("Warning", "FailedGetScale", error),), history=history)


def without_selector(current: int, reason: str, text: str, history: History) -> Outcome:
    """Where it can't be told which pods are the target's, or others scale them too."""
    note = Note(ACTIVE, False, reason, text)
    if reason == "SelectorRequired":
        note = Note(ACTIVE, False, "InvalidSelector", "the HPA target's scale is missing a selector")
    notes = (SCALE_READ, note)
    events = (Told("Warning", reason, text), Told("Warning", "FailedComputeMetricsReplicas", text))
    return Outcome(current, notes=notes, events=events, measures=(), history=history)


def rescaled(outcome: Outcome) -> Outcome:
    """After the number was changed."""
    text = f"the HPA controller was able to update the target scale to {outcome.desired}"
    return replace(
        outcome,
        notes=(*outcome.notes, Note(ABLE, True, "SucceededRescale", text)),
        events=(
            *outcome.events,
            Told("Normal", "SuccessfulRescale", f"New size: {outcome.desired}; reason: {outcome.reason}"),
        ),
    )


def not_rescaled(outcome: Outcome, current: int, error: str, history: History) -> Outcome:
    """Where it could not be changed; the history is the one to keep."""
    text = f"the HPA controller was unable to update the target scale: {error}"
    told = f"New size: {outcome.desired}; reason: {outcome.reason}; error: {error}"
    return replace(
        outcome,
        desired=current,
        replicas=None,
        notes=(*outcome.notes, Note(ABLE, False, "FailedUpdateScale", text)),
        events=(*outcome.events, Told("Warning", "FailedRescale", told)),
        history=history,
    )
