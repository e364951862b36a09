"""Deployments."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from google.protobuf.message import Message

from tiphys_apimachinery.errors import FieldError
from tiphys_apiserver.registry.apps.pod_owner import PodOwnerStrategy
from tiphys_apiserver.registry.int_or_percent import is_zero, percent_of, set_percent, shown

# Deployments without an end of their own: Go's largest int32 turns the deadline off.
_NO_DEADLINE_S = 2**31 - 1
_DEFAULT_PERCENT = 25


class DeploymentStrategy(PodOwnerStrategy):
    """The rules of deployments."""

    kind_in_words = "deployment"

    def apply_defaults(self, obj: Message) -> None:
        """A rolling update takes a quarter at a time."""
        super().apply_defaults(obj)
        deployment: Any = obj
        strategy = deployment.spec.strategy
        if not strategy.type:
            strategy.type = "RollingUpdate"
        if strategy.type != "RollingUpdate":
            return
        rolling = strategy.rollingUpdate
        rolling.SetInParent()
        for name in ("maxUnavailable", "maxSurge"):
            if not rolling.HasField(name):
                set_percent(getattr(rolling, name), _DEFAULT_PERCENT)

    def own_errors(self, obj: Any) -> Iterator[FieldError]:
        """Faults of the update strategy and the deadline."""
        spec = obj.spec
        path = "spec.strategy.rollingUpdate"
        if spec.strategy.type == "Recreate":
            if spec.strategy.HasField("rollingUpdate"):
                yield FieldError.forbidden(path, "may not be specified when strategy `type` is 'Recreate'")
        elif spec.strategy.HasField("rollingUpdate"):
            rolling = spec.strategy.rollingUpdate
            if is_zero(rolling.maxUnavailable) and is_zero(rolling.maxSurge):
                yield FieldError.invalid(
                    f"{path}.maxUnavailable", shown(rolling.maxUnavailable), "may not be 0 when `maxSurge` is 0"
                )
            percent = percent_of(rolling.maxUnavailable)
            if percent is not None and percent > 100:
                yield FieldError.invalid(
                    f"{path}.maxUnavailable", shown(rolling.maxUnavailable), "must not be greater than 100%"
                )
        deadline_s = spec.progressDeadlineSeconds
        limited = spec.HasField("progressDeadlineSeconds") and deadline_s != _NO_DEADLINE_S
        if limited and deadline_s <= spec.minReadySeconds:
            yield FieldError.invalid("spec.progressDeadlineSeconds", deadline_s, "must be greater than minReadySeconds")
