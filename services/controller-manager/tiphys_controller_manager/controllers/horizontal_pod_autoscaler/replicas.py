"""How many pods a measure asks for. Pure.

Pods without figures and pods that are not ready yet must never make the answer wilder: going down they count as fully
busy, going up as idle; and where they turn the direction, nothing changes.
Source: kubernetes pkg/controller/podautoscaler/replica_calculator.go.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tiphys_controller_manager.controllers.horizontal_pod_autoscaler.readings import MeasureError, PodFacts, Samples

CPU = "cpu"
_MOST = 2**31 - 1
# From figures by pod to use over target.
_Ratio = Callable[[Mapping[str, int]], float]


@dataclass(frozen=True, slots=True)
class Tolerance:
    """By how much a ratio may lie below and above 1 before anything is done."""

    down: float = 0.1
    up: float = 0.1

    def covers(self, ratio: float) -> bool:
        """Whether the ratio is near enough to 1."""
        return 1.0 - self.down <= ratio <= 1.0 + self.up


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What every measure is seen against. current is how many replicas are wanted now, seen how many there are."""

    current: int
    seen: int
    pods: Sequence[PodFacts]
    tolerance: Tolerance
    # The wall clock, as the moments of pods are told by it.
    now_s: float
    # What was wished and done is dated by the clock that nobody sets: a calendar that jumps is no reason to wait.
    monotonic_s: float
    # How long after its start a pod's use of processors says nothing about its work.
    cpu_initialization_s: float = 300.0
    # How soon after its start the first change to ready must come to count as that.
    initial_readiness_s: float = 30.0


@dataclass(frozen=True, slots=True)
class Proposal:
    """How many replicas a measure asks for, and what it was: whole, averaged over pods, in percent of requests."""

    replicas: int
    value: int | None = None
    average: int | None = None
    utilization: int | None = None


@dataclass(frozen=True, slots=True)
class _Groups:
    """Pods by what their figures are worth; those that are ending are in none."""

    ready: int
    unready: frozenset[str]
    missing: frozenset[str]
    # The figures that count at first: those of ready pods.
    values: Mapping[str, int]


def by_utilization(
    around: Surroundings, samples: Samples, resource: str, target: int, *, container: str = ""
) -> Proposal:
    """For use in percent of what the pods ask for. Raises MeasureError."""
    groups = _groups(around, samples, resource)
    requests = _requests(around.pods, resource, container)

    def ratio(values: Mapping[str, int]) -> float:
        return _utilization(values, requests) / target

    busy = max(100, target)
    full = {name: requests.get(name, 0) * busy // 100 for name in groups.missing}
    asked = _ask(around, groups, ratio, full)
    counted = [name for name in groups.values if name in requests]
    average = sum(groups.values[name] for name in counted) // len(counted)
    return Proposal(asked, average=average, utilization=_utilization(groups.values, requests))


def by_average(around: Surroundings, samples: Samples, target: int, resource: str = "") -> Proposal:
    """For a mean over the pods. Raises MeasureError."""
    groups = _groups(around, samples, resource)

    def ratio(values: Mapping[str, int]) -> float:
        return (sum(values.values()) // len(values)) / target

    asked = _ask(around, groups, ratio, dict.fromkeys(groups.missing, target))
    return Proposal(asked, average=sum(groups.values.values()) // len(groups.values))


def by_value(around: Surroundings, value: int, target: int) -> Proposal:
    """For one number that pods bring down together, as that of an object. Raises MeasureError."""
    ratio = value / target
    if around.current == 0:
        return Proposal(_whole(ratio), value=value)
    if around.tolerance.covers(ratio):
        return Proposal(around.current, value=value)
    return Proposal(_whole(ratio * _ready_count(around.pods)), value=value)


def by_value_per_pod(around: Surroundings, value: int, target: int) -> Proposal:
    """For one number that is shared out among the pods."""
    seen = around.seen
    covered = seen > 0 and around.tolerance.covers(value / (target * seen))
    replicas = seen if covered else _whole(value / target)
    return Proposal(replicas, average=math.ceil(value / seen) if seen else 0)


def _ask(around: Surroundings, groups: _Groups, ratio_of: _Ratio, full: Mapping[str, int]) -> int:
    """The answer from ready pods, then once more with the others as far as they damp it."""
    ratio = ratio_of(groups.values)
    counts_unready = bool(groups.unready) and ratio > 1.0
    if not counts_unready and not groups.missing:
        return around.current if around.tolerance.covers(ratio) else _whole(ratio * groups.ready)
    values = dict(groups.values)
    if ratio < 1.0:
        values |= full
    elif ratio > 1.0:
        values |= dict.fromkeys(groups.missing, 0)
    if counts_unready:
        values |= dict.fromkeys(groups.unready, 0)
    damped = ratio_of(values)
    if around.tolerance.covers(damped) or (ratio < 1.0 < damped) or (damped < 1.0 < ratio):
        return around.current
    asked = _whole(damped * len(values))
    turned = asked > around.current if damped < 1.0 else asked < around.current
    return around.current if turned else asked


def _groups(around: Surroundings, samples: Samples, resource: str) -> _Groups:
    if not around.pods:
        raise MeasureError("no pods returned by selector while calculating replica count")
    ready, unready, missing, values = 0, set[str](), set[str](), dict[str, int]()
    for pod in around.pods:
        if pod.is_deleting or pod.phase in ("Failed", "Succeeded"):
            continue
        sample = samples.get(pod.name)
        if pod.phase == "Pending":
            unready.add(pod.name)
        elif sample is None:
            missing.add(pod.name)
        elif resource == CPU and _is_settling(around, pod, sample.at_s, sample.window_s):
            unready.add(pod.name)
        else:
            ready += 1
            values[pod.name] = sample.value
    if not values:
        raise MeasureError("did not receive metrics for targeted pods (pods might be unready)")
    return _Groups(ready, frozenset(unready), frozenset(missing), values)


def _is_settling(around: Surroundings, pod: PodFacts, at_s: float, window_s: float) -> bool:
    """Whether a pod's use of processors is still that of its start."""
    if pod.ready is None or pod.started_s is None:
        return True
    if pod.started_s + around.cpu_initialization_s > around.now_s:
        # Its figures must be of a time in which it was ready all along.
        return not pod.ready or at_s < pod.ready_changed_s + window_s
    # It has never been ready.
    return not pod.ready and pod.started_s + around.initial_readiness_s > pod.ready_changed_s


def _requests(pods: Sequence[PodFacts], resource: str, container: str) -> dict[str, int]:
    """What each pod, or its container, asks for. Raises MeasureError where one does not say."""
    found: dict[str, int] = {}
    for pod in pods:
        if container:
            amount, lacking = pod.container_requests.get(container, {}).get(resource), container
        else:
            amount = None if resource in pod.missing else pod.requests.get(resource)
            lacking = pod.missing.get(resource) or next(iter(pod.container_requests), "")
        if amount is None:
            raise MeasureError(f"missing request for {resource} in container {lacking} of Pod {pod.name}")
        found[pod.name] = amount
    return found


def _utilization(values: Mapping[str, int], requests: Mapping[str, int]) -> int:
    """Percent, rounded down. Raises MeasureError."""
    asked = sum(requests[name] for name in values if name in requests)
    if asked == 0:
        raise MeasureError("no metrics returned matched known pods")
    return sum(values[name] for name in values if name in requests) * 100 // asked


def _ready_count(pods: Sequence[PodFacts]) -> int:
    if not pods:
        raise MeasureError(
            "unable to calculate ready pods: no pods returned by selector while calculating replica count"
        )
    return sum(pod.phase == "Running" and pod.ready is True for pod in pods)


def _whole(count: float) -> int:
    return min(math.ceil(count), _MOST) if count < _MOST else _MOST
