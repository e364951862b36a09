"""The measures of a spec: what each is called, what it asks for, and how it is shown in the status. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from tiphys.api.autoscaling.v2 import autoscaling_pb2 as v2
from tiphys_apimachinery.quantity import Quantity
from tiphys_controller_manager.controllers.horizontal_pod_autoscaler.readings import MeasureError, Reading
from tiphys_controller_manager.controllers.horizontal_pod_autoscaler.replicas import (
    Proposal,
    Surroundings,
    by_average,
    by_utilization,
    by_value,
    by_value_per_pod,
)

# Member of the spec and reason of a failure, by type.
_MEMBERS: Final = {
    "Object": "object",
    "Pods": "pods",
    "Resource": "resource",
    "ContainerResource": "containerResource",
    "External": "external",
}
_UTILIZATION: Final = "Utilization"
_VALUE: Final = "Value"


@dataclass(frozen=True, slots=True)
class Judged:
    """One measure: how many replicas it asks for, by which name, and its status."""

    proposal: Proposal
    name: str
    status: v2.MetricStatus


def failure_reason(metric: Any) -> str:
    """The reason in conditions and events when the measure can't be had."""
    return f"FailedGet{metric.type}Metric" if metric.type in _MEMBERS else "InvalidMetricSourceType"


def judge(metric: Any, reading: Reading, around: Surroundings) -> Judged:
    """What a measure asks for. Raises MeasureError, in the words that users know."""
    if metric.type not in _MEMBERS:
        raise MeasureError(f"unknown metric source type {metric.type!r}")
    source = getattr(metric, _MEMBERS[metric.type])
    try:
        if isinstance(reading, MeasureError):
            raise reading
        proposal = _propose(metric.type, source, reading, around)
    except MeasureError as err:
        raise MeasureError(f"{_attempt(metric.type, source)}: {err}") from err
    return Judged(proposal, _name(metric.type, source), _status(metric.type, source, proposal))


def _propose(kind: str, source: Any, reading: Reading, around: Surroundings) -> Proposal:
    target = source.target
    if not isinstance(reading, int):
        assert not isinstance(reading, MeasureError)
        if kind == "Pods":
            return by_average(around, reading, _milli(target.averageValue))
        container = source.container if kind == "ContainerResource" else ""
        if target.HasField("averageValue"):
            return by_average(around, reading, _milli(target.averageValue), source.name)
        return by_utilization(around, reading, source.name, target.averageUtilization, container=container)
    if target.type == _VALUE or not target.HasField("averageValue"):
        return by_value(around, reading, _milli(target.value))
    return by_value_per_pod(around, reading, _milli(target.averageValue))


def _milli(amount: Any) -> int:
    """Thousandths, at least one: a target of nothing can't be met."""
    return max(1, Quantity.parse(amount.string or "0").milli_value())


def _attempt(kind: str, source: Any) -> str:
    match kind:
        case "Resource" | "ContainerResource":
            what = "utilization" if source.target.HasField("averageUtilization") else "usage"
            return f"failed to get {source.name} {what}"
        case "Pods":
            return "failed to get pods metric value"
        case "Object":
            return "failed to get object metric value"
    return f"failed to get {source.metric.name} external metric value"


def _name(kind: str, source: Any) -> str:
    match kind:
        case "Resource" | "ContainerResource":
            what = " utilization (percentage of request)" if source.target.HasField("averageUtilization") else ""
            where = f" container {source.container}" if kind == "ContainerResource" else ""
            return f"{source.name}{where} resource{what}"
        case "Pods":
            return f"pods metric {source.metric.name}"
        case "Object":
            return f"{source.describedObject.kind} metric {source.metric.name}"
    return f"external metric {source.metric.name}"


def _status(kind: str, source: Any, proposal: Proposal) -> v2.MetricStatus:
    made = v2.MetricStatus(type=kind)
    shown: Any = getattr(made, _MEMBERS[kind])
    shown.current.SetInParent()
    if proposal.utilization is not None:
        shown.current.averageUtilization = proposal.utilization
    if proposal.average is not None:
        shown.current.averageValue.string = str(Quantity.of_millis(proposal.average))
    if proposal.value is not None:
        shown.current.value.string = str(Quantity.of_millis(proposal.value))
    if kind in ("Resource", "ContainerResource"):
        shown.name = source.name
        if kind == "ContainerResource":
            shown.container = source.container
        return made
    shown.metric.CopyFrom(source.metric)
    if kind == "Object":
        shown.describedObject.CopyFrom(source.describedObject)
    return made
