"""Horizontal pod autoscalers, in the version they are stored in.

Source: kubernetes pkg/apis/autoscaling, defaults of v2 and validation.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from google.protobuf.message import Message

from tiphys_apimachinery.errors import FieldError
from tiphys_apimachinery.quantity import Quantity, QuantityError
from tiphys_apiserver.registry.strategy import Strategy, WriteContext

# What a scaler without metrics looks at.
_DEFAULT_CPU_PERCENT = 80
_SOURCES = {
    "Resource": "resource",
    "ContainerResource": "containerResource",
    "Pods": "pods",
    "Object": "object",
    "External": "external",
}
# Policies of a direction that has none: type and value, each over 15 seconds.
_UP_POLICIES = (("Pods", 4), ("Percent", 100))
_DOWN_POLICIES = (("Percent", 100),)
_PERIOD_S = 15


class HorizontalPodAutoscalerStrategy(Strategy):
    """The rules of autoscalers."""

    def apply_defaults(self, obj: Message) -> None:
        """Without metrics it looks at cpu; a behavior is filled in both directions."""
        super().apply_defaults(obj)
        scaler: Any = obj
        if not scaler.spec.metrics:
            metric = scaler.spec.metrics.add(type="Resource")
            metric.resource.name = "cpu"
            metric.resource.target.type = "Utilization"
            metric.resource.target.averageUtilization = _DEFAULT_CPU_PERCENT
        if scaler.spec.HasField("behavior"):
            behavior = scaler.spec.behavior
            # How long a wish holds it up is the controller's to say where the object does not.
            _default_rules(behavior.scaleDown, _DOWN_POLICIES)
            _default_rules(behavior.scaleUp, _UP_POLICIES)
            if not behavior.scaleUp.HasField("stabilizationWindowSeconds"):
                behavior.scaleUp.stabilizationWindowSeconds = 0

    def validate(self, ctx: WriteContext, obj: Message) -> list[FieldError]:
        """Faults of bounds, target and metrics."""
        return super().validate(ctx, obj) + list(_faults(obj))

    def validate_update(self, ctx: WriteContext, new: Any, old: Any) -> list[FieldError]:
        """The same for a changed one."""
        return super().validate_update(ctx, new, old) + list(_faults(new))


def _default_rules(rules: Any, policies: tuple[tuple[str, int], ...]) -> None:
    if not rules.selectPolicy:
        rules.selectPolicy = "Max"
    if not rules.policies:
        for kind, value in policies:
            rules.policies.add(type=kind, value=value, periodSeconds=_PERIOD_S)


def _faults(scaler: Any) -> Iterator[FieldError]:
    spec = scaler.spec
    if spec.maxReplicas >= 1 and spec.HasField("minReplicas") and spec.maxReplicas < spec.minReplicas:
        yield FieldError.invalid("spec.maxReplicas", spec.maxReplicas, "must be greater than or equal to `minReplicas`")
    # At zero there are no pods that could be measured.
    outside = any(metric.type in ("Object", "External") for metric in spec.metrics)
    if spec.HasField("minReplicas") and spec.minReplicas == 0 and not outside:
        text = "must specify at least one Object or External metric to support scaling to zero replicas"
        yield FieldError.forbidden("spec.metrics", text)
    for index, metric in enumerate(spec.metrics):
        yield from _metric_faults(f"spec.metrics[{index}]", metric)
    for direction in ("scaleUp", "scaleDown"):
        tolerance = getattr(spec.behavior, direction).tolerance.string
        if tolerance and (_amount(tolerance) or 0) < 0:
            path = f"spec.behavior.{direction}.tolerance"
            yield FieldError.invalid(path, tolerance, "must be greater than or equal to 0")


def _metric_faults(path: str, metric: Any) -> Iterator[FieldError]:
    wanted = _SOURCES.get(metric.type)
    if wanted is None:
        yield FieldError.not_supported(f"{path}.type", metric.type, sorted(_SOURCES))
        return
    present = [name for name in _SOURCES.values() if metric.HasField(name)]
    for extra in present:
        if extra != wanted:
            yield FieldError.forbidden(f"{path}.{extra}", "must populate the given metric source only")
    if wanted not in present:
        yield FieldError.required(f"{path}.{wanted}", "must populate information for the given metric source")
        return
    source = getattr(metric, wanted)
    yield from _target_faults(f"{path}.{wanted}.target", source.target, wanted)


def _target_faults(path: str, target: Any, source: str) -> Iterator[FieldError]:
    for name in ("value", "averageValue"):
        if target.HasField(name):
            text = getattr(target, name).string
            amount = _amount(text)
            if amount is not None and amount <= 0:
                yield FieldError.invalid(f"{path}.{name}", text, "must be positive")
    has_value, has_mean = target.HasField("value"), target.HasField("averageValue")
    has_share = target.HasField("averageUtilization")
    match source:
        case "pods":
            if not has_mean:
                yield FieldError.required(f"{path}.averageValue", "must specify a positive target averageValue")
        case "object":
            if not has_value and not has_mean:
                yield FieldError.required(f"{path}.averageValue", "must set either a target value or averageValue")
        case "external":
            if not has_value and not has_mean:
                text = "must set either a target value for metric or a per-pod target"
                yield FieldError.required(f"{path}.averageValue", text)
            if has_value and has_mean:
                text = "may not set both a target value for metric and a per-pod target"
                yield FieldError.forbidden(f"{path}.value", text)
        case _:
            if not has_share and not has_mean:
                text = "must set either a target raw value or a target utilization"
                yield FieldError.required(f"{path}.averageUtilization", text)
            if has_share and has_mean:
                text = "may not set both a target raw value and a target utilization"
                yield FieldError.forbidden(f"{path}.averageValue", text)


def _amount(text: str) -> int | None:
    """Billionths; None for what the check of quantities has refused already."""
    try:
        return Quantity.parse(text).nanos
    except QuantityError:
        return None
