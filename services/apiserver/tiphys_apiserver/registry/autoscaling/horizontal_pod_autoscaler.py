"""Horizontal pod autoscalers, in the version they are stored in."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from google.protobuf.message import Message

from tiphys_apimachinery.errors import FieldError
from tiphys_apiserver.registry.strategy import Strategy, WriteContext

# What a scaler without metrics looks at. Source: pkg/apis/autoscaling, DefaultCPUUtilization.
_DEFAULT_CPU_PERCENT = 80
_SOURCES = {
    "Resource": "resource",
    "ContainerResource": "containerResource",
    "Pods": "pods",
    "Object": "object",
    "External": "external",
}


class HorizontalPodAutoscalerStrategy(Strategy):
    """The rules of autoscalers."""

    def apply_defaults(self, obj: Message) -> None:
        """Without metrics it looks at cpu."""
        super().apply_defaults(obj)
        scaler: Any = obj
        if not scaler.spec.metrics:
            metric = scaler.spec.metrics.add(type="Resource")
            metric.resource.name = "cpu"
            metric.resource.target.type = "Utilization"
            metric.resource.target.averageUtilization = _DEFAULT_CPU_PERCENT

    def validate(self, ctx: WriteContext, obj: Message) -> list[FieldError]:
        """Faults of bounds, target and metrics."""
        return super().validate(ctx, obj) + list(_faults(obj))

    def validate_update(self, ctx: WriteContext, new: Any, old: Any) -> list[FieldError]:
        """The same for a changed one."""
        return super().validate_update(ctx, new, old) + list(_faults(new))


def _faults(scaler: Any) -> Iterator[FieldError]:
    spec = scaler.spec
    if spec.maxReplicas >= 1 and spec.HasField("minReplicas") and spec.maxReplicas < spec.minReplicas:
        yield FieldError.invalid("spec.maxReplicas", spec.maxReplicas, "must be greater than or equal to `minReplicas`")
    for index, metric in enumerate(spec.metrics):
        path = f"spec.metrics[{index}]"
        wanted = _SOURCES.get(metric.type)
        if wanted is None:
            yield FieldError.not_supported(f"{path}.type", metric.type, sorted(_SOURCES))
            continue
        present = [name for name in _SOURCES.values() if metric.HasField(name)]
        if wanted not in present:
            yield FieldError.required(f"{path}.{wanted}", "must populate information for the given metric source")
        for extra in present:
            if extra != wanted:
                yield FieldError.forbidden(f"{path}.{extra}", "must populate the given metric source only")
