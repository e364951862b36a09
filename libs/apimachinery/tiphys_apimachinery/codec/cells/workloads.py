"""Cells of apps, batch, autoscaling and policy."""

from __future__ import annotations

import datetime
from typing import Any, Final

from tiphys_apimachinery.codec.cells.text import (
    NONE,
    UNKNOWN,
    UNSET,
    age,
    container_images,
    container_names,
    first_of,
    human_duration,
    int_or_string_text,
    labels_text,
    object_age,
    optional,
    selector_text,
)
from tiphys_apimachinery.codec.special import quantity_text
from tiphys_apimachinery.meta import get_controller_of, is_condition_true, to_datetime


def controller_revision_cells(obj: Any, now: datetime.datetime) -> list[Any]:
    """Name, controller, revision, age."""
    owner = get_controller_of(obj)
    controller = NONE
    if owner is not None:
        group = owner.apiVersion.rpartition("/")[0]
        kind = f"{owner.kind}.{group}" if group else owner.kind
        controller = f"{kind.lower()}/{owner.name}"
    return [obj.metadata.name, controller, str(obj.revision), object_age(obj, now)]


def daemon_set_cells(obj: Any, now: datetime.datetime) -> list[Any]:
    """Name, counts, node selector, age, containers, images, selector."""
    spec, status = obj.spec.template.spec, obj.status
    return [
        obj.metadata.name,
        status.desiredNumberScheduled,
        status.currentNumberScheduled,
        status.numberReady,
        status.updatedNumberScheduled,
        status.numberAvailable,
        labels_text(spec.nodeSelector),
        object_age(obj, now),
        container_names(spec),
        container_images(spec),
        selector_text(obj.spec),
    ]


def deployment_cells(obj: Any, now: datetime.datetime) -> list[Any]:
    """Name, ready, updated, available, age, containers, images, selector."""
    spec = obj.spec.template.spec
    return [
        obj.metadata.name,
        f"{obj.status.readyReplicas}/{obj.spec.replicas}",
        obj.status.updatedReplicas,
        obj.status.availableReplicas,
        object_age(obj, now),
        container_names(spec),
        container_images(spec),
        selector_text(obj.spec),
    ]


def replica_set_cells(obj: Any, now: datetime.datetime) -> list[Any]:
    """Name, counts, age, containers, images, selector."""
    spec = obj.spec.template.spec
    return [
        obj.metadata.name,
        obj.spec.replicas,
        obj.status.replicas,
        obj.status.readyReplicas,
        object_age(obj, now),
        container_names(spec),
        container_images(spec),
        selector_text(obj.spec),
    ]


def stateful_set_cells(obj: Any, now: datetime.datetime) -> list[Any]:
    """Name, ready, age, containers, images."""
    spec = obj.spec.template.spec
    ready = f"{obj.status.readyReplicas}/{obj.spec.replicas}"
    return [obj.metadata.name, ready, object_age(obj, now), container_names(spec), container_images(spec)]


def scale_cells(obj: Any, now: datetime.datetime) -> list[Any]:
    """Name, desired, available, age."""
    return [obj.metadata.name, obj.spec.replicas, obj.status.replicas, object_age(obj, now)]


def cron_job_cells(obj: Any, now: datetime.datetime) -> list[Any]:
    """Name, schedule, time zone, suspend, active, last schedule, age, containers, images, selector."""
    job = obj.spec.jobTemplate.spec
    suspend = str(obj.spec.suspend) if obj.spec.HasField("suspend") else UNSET
    last = age(obj.status.lastScheduleTime, now) if obj.status.HasField("lastScheduleTime") else NONE
    return [
        obj.metadata.name,
        obj.spec.schedule,
        optional(obj.spec, "timeZone"),
        suspend,
        len(obj.status.active),
        last,
        object_age(obj, now),
        container_names(job.template.spec),
        container_images(job.template.spec),
        selector_text(job),
    ]


def job_cells(obj: Any, now: datetime.datetime) -> list[Any]:
    """Name, status, completions, duration, age, containers, images, selector."""
    spec = obj.spec.template.spec
    return [
        obj.metadata.name,
        _job_status(obj),
        _completions(obj),
        _job_duration(obj, now),
        object_age(obj, now),
        container_names(spec),
        container_images(spec),
        selector_text(obj.spec),
    ]


def _job_status(job: Any) -> str:
    for kind in ("Complete", "Failed"):
        if is_condition_true(job.status.conditions, kind):
            return kind
    if job.metadata.HasField("deletionTimestamp"):
        return "Terminating"
    for kind in ("Suspended", "FailureTarget", "SuccessCriteriaMet"):
        if is_condition_true(job.status.conditions, kind):
            return kind
    return "Running"


def _completions(job: Any) -> str:
    if job.spec.HasField("completions"):
        return f"{job.status.succeeded}/{job.spec.completions}"
    if job.spec.parallelism > 1:
        return f"{job.status.succeeded}/1 of {job.spec.parallelism}"
    return f"{job.status.succeeded}/1"


def _job_duration(job: Any, now: datetime.datetime) -> str:
    start = to_datetime(job.status.startTime)
    if start is None:
        return ""
    end = to_datetime(job.status.completionTime) or now
    return human_duration((end - start).total_seconds())


def pod_disruption_budget_cells(obj: Any, now: datetime.datetime) -> list[Any]:
    """Name, bounds, allowed disruptions, age."""
    return [
        obj.metadata.name,
        int_or_string_text(obj.spec, "minAvailable", "N/A"),
        int_or_string_text(obj.spec, "maxUnavailable", "N/A"),
        obj.status.disruptionsAllowed,
        object_age(obj, now),
    ]


def autoscaler_v1_cells(obj: Any, now: datetime.datetime) -> list[Any]:
    """Name, reference, target CPU, bounds, replicas, age."""
    targets = NONE
    if obj.spec.HasField("targetCPUUtilizationPercentage"):
        current = optional(obj.status, "currentCPUUtilizationPercentage", None)
        shown = UNKNOWN if current is None else f"{current}%"
        targets = f"cpu: {shown}/{obj.spec.targetCPUUtilizationPercentage}%"
    return _autoscaler(obj, targets, now)


def autoscaler_cells(obj: Any, now: datetime.datetime) -> list[Any]:
    """Name, reference, targets, bounds, replicas, age."""
    statuses = list(obj.status.currentMetrics)
    metrics = [
        _metric_text(spec, statuses[index] if index < len(statuses) else None)
        for index, spec in enumerate(obj.spec.metrics)
    ]
    return _autoscaler(obj, first_of(metrics, 2, empty=NONE, separator=", "), now)


def _autoscaler(obj: Any, targets: str, now: datetime.datetime) -> list[Any]:
    reference = obj.spec.scaleTargetRef
    return [
        obj.metadata.name,
        f"{reference.kind}/{reference.name}",
        targets,
        str(optional(obj.spec, "minReplicas", UNSET)),
        obj.spec.maxReplicas,
        obj.status.currentReplicas,
        object_age(obj, now),
    ]


# Type of a metric -> its member in spec and status.
_METRICS: Final = {
    "External": "external",
    "Pods": "pods",
    "Object": "object",
    "Resource": "resource",
    "ContainerResource": "containerResource",
}


def _metric_text(spec: Any, status: Any | None) -> str:
    member = _METRICS.get(spec.type)
    if member is None:
        return "<unknown type>"
    source = getattr(spec, member)
    current = getattr(status, member).current if status is not None and status.HasField(member) else None
    target = source.target
    name = f"{source.name}: " if member in ("resource", "containerResource") else ""
    if target.HasField("averageValue"):
        suffix = " (avg)" if member in ("external", "object") else ""
        shown = _amount(current, "averageValue")
        return f"{name}{shown}/{quantity_text(target.averageValue.string)}{suffix}"
    if name:
        wanted = f"{target.averageUtilization}%" if target.HasField("averageUtilization") else "<auto>"
        has = current is not None and current.HasField("averageUtilization")
        return f"{name}{current.averageUtilization}%/{wanted}" if has and current else f"{name}{UNKNOWN}/{wanted}"
    return f"{_amount(current, 'value')}/{quantity_text(target.value.string)}"


def _amount(current: Any | None, field: str) -> str:
    if current is None or not current.HasField(field):
        return UNKNOWN
    return quantity_text(getattr(current, field).string)
