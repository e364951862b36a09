"""Daemon sets."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from google.protobuf.message import Message

from tiphys_apimachinery.errors import FieldError
from tiphys_apiserver.registry.apps.pod_owner import PodOwnerStrategy
from tiphys_apiserver.registry.int_or_percent import is_zero, set_number
from tiphys_apiserver.registry.strategy import WriteContext


class DaemonSetStrategy(PodOwnerStrategy):
    """The rules of daemon sets."""

    kind_in_words = "daemonset"

    def apply_defaults(self, obj: Message) -> None:
        """A rolling update replaces one pod at a time."""
        super().apply_defaults(obj)
        daemon_set: Any = obj
        strategy = daemon_set.spec.updateStrategy
        if not strategy.type:
            strategy.type = "RollingUpdate"
        if strategy.type != "RollingUpdate":
            return
        rolling = strategy.rollingUpdate
        rolling.SetInParent()
        for name, number in (("maxUnavailable", 1), ("maxSurge", 0)):
            if not rolling.HasField(name):
                set_number(getattr(rolling, name), number)

    def prepare_for_create(self, ctx: WriteContext, obj: Message) -> None:
        """The generation of templates counts from one."""
        super().prepare_for_create(ctx, obj)
        daemon_set: Any = obj
        daemon_set.metadata.annotations["deprecated.daemonset.template.generation"] = "1"

    def prepare_for_update(self, ctx: WriteContext, new: Any, old: Any) -> None:
        """One generation more where the template changed."""
        super().prepare_for_update(ctx, new, old)
        key = "deprecated.daemonset.template.generation"
        before = old.metadata.annotations.get(key, "1")
        number = int(before) if before.isdecimal() else 1
        changed = new.spec.template != old.spec.template
        new.metadata.annotations[key] = str(number + 1 if changed else number)

    def own_errors(self, obj: Any) -> Iterator[FieldError]:
        """Faults of the update strategy."""
        strategy = obj.spec.updateStrategy
        path = "spec.updateStrategy.rollingUpdate"
        if strategy.type == "OnDelete" or not strategy.HasField("rollingUpdate"):
            return
        surge, unavailable = strategy.rollingUpdate.maxSurge, strategy.rollingUpdate.maxUnavailable
        if is_zero(surge) and is_zero(unavailable):
            yield FieldError.required(f"{path}.maxUnavailable", "cannot be 0 when maxSurge is 0")
        elif not is_zero(surge) and not is_zero(unavailable):
            yield FieldError.forbidden(f"{path}.maxSurge", "may not be set when maxUnavailable is non-zero")
