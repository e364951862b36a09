"""autoscaling/v1 HorizontalPodAutoscaler as v2, which is stored.

Version 1 knows one metric, the use of CPU. Everything else that version 2 can say travels in one
annotation of the version 1 object, so that reading and writing by version 1 loses nothing. (Upstream
spreads it over four annotations in an older form of the metrics.)
"""

from __future__ import annotations

from typing import Any

import orjson

from tiphys.api.autoscaling.v1 import autoscaling_pb2 as v1
from tiphys.api.autoscaling.v2 import autoscaling_pb2 as v2
from tiphys_apimachinery.codec import json_codec
from tiphys_apimachinery.errors import BadRequest
from tiphys_apiserver.registry.conversion import Converter
from tiphys_apiserver.registry.strategy import copy_field

ANNOTATION = "autoscaling.tiphys.dev/v2"
_UTILIZATION = "Utilization"


def to_storage(scaler: Any) -> Any:
    """The version 2 form. Raises BadRequest when the annotation can't be read."""
    stored: Any = v2.HorizontalPodAutoscaler()
    kept = scaler.metadata.annotations.get(ANNOTATION)
    if kept:
        try:
            stored = json_codec.from_json(v2.HorizontalPodAutoscaler, orjson.loads(kept), None)
        except (orjson.JSONDecodeError, BadRequest) as err:
            raise BadRequest(f"annotation {ANNOTATION} can't be read: {err}") from err
    copy_field(stored, scaler, "metadata")
    stored.metadata.annotations.pop(ANNOTATION, None)
    stored.spec.SetInParent()
    stored.spec.scaleTargetRef.ParseFromString(scaler.spec.scaleTargetRef.SerializeToString())
    for name in ("minReplicas", "maxReplicas"):
        copy_field(stored.spec, scaler.spec, name)
    if scaler.spec.HasField("targetCPUUtilizationPercentage"):
        metric = stored.spec.metrics.add(type="Resource")
        metric.resource.name = "cpu"
        metric.resource.target.type = _UTILIZATION
        metric.resource.target.averageUtilization = scaler.spec.targetCPUUtilizationPercentage
    for name in ("observedGeneration", "lastScaleTime", "currentReplicas", "desiredReplicas"):
        copy_field(stored.status, scaler.status, name)
    if scaler.status.HasField("currentCPUUtilizationPercentage"):
        current = stored.status.currentMetrics.add(type="Resource")
        current.resource.name = "cpu"
        current.resource.current.averageUtilization = scaler.status.currentCPUUtilizationPercentage
    return stored


def from_storage(stored: Any) -> Any:
    """The version 1 form."""
    scaler: Any = v1.HorizontalPodAutoscaler()
    rest: Any = v2.HorizontalPodAutoscaler()
    copy_field(scaler, stored, "metadata")
    scaler.spec.scaleTargetRef.ParseFromString(stored.spec.scaleTargetRef.SerializeToString())
    for name in ("minReplicas", "maxReplicas"):
        copy_field(scaler.spec, stored.spec, name)
    for metric in stored.spec.metrics:
        if _is_cpu(metric) and not scaler.spec.HasField("targetCPUUtilizationPercentage"):
            scaler.spec.targetCPUUtilizationPercentage = metric.resource.target.averageUtilization
        else:
            rest.spec.metrics.add().CopyFrom(metric)
    copy_field(rest.spec, stored.spec, "behavior")
    scaler.status.SetInParent()
    for name in ("observedGeneration", "lastScaleTime", "currentReplicas", "desiredReplicas"):
        copy_field(scaler.status, stored.status, name)
    for metric in stored.status.currentMetrics:
        is_cpu = metric.type == "Resource" and metric.resource.name == "cpu"
        if is_cpu and metric.resource.current.HasField("averageUtilization"):
            scaler.status.currentCPUUtilizationPercentage = metric.resource.current.averageUtilization
        else:
            rest.status.currentMetrics.add().CopyFrom(metric)
    rest.status.conditions.MergeFrom(stored.status.conditions)
    if rest.ByteSize() and (rest.spec.ByteSize() or rest.status.ByteSize()):
        scaler.metadata.annotations[ANNOTATION] = json_codec.dumps(rest).decode()
    return scaler


def _is_cpu(metric: Any) -> bool:
    resource = metric.resource
    return bool(metric.type == "Resource" and resource.name == "cpu" and resource.target.type == _UTILIZATION)


CONVERTER = Converter(
    home=("autoscaling", "v2", "horizontalpodautoscalers"),
    to_storage=to_storage,
    from_storage=from_storage,
    field_names={},
)
