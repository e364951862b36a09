"""Pod disruption budgets."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from google.protobuf.message import Message

from tiphys_apimachinery.errors import FieldError
from tiphys_apiserver.registry.core.scheduling_validation import validate_label_selector
from tiphys_apiserver.registry.int_or_percent import percent_of, shown
from tiphys_apiserver.registry.strategy import Strategy, WriteContext


class PodDisruptionBudgetStrategy(Strategy):
    """The rules of disruption budgets."""

    allow_unconditional_update = False

    def validate(self, ctx: WriteContext, obj: Message) -> list[FieldError]:
        """Faults of amounts and selector."""
        return super().validate(ctx, obj) + list(_faults(obj))

    def validate_update(self, ctx: WriteContext, new: Any, old: Any) -> list[FieldError]:
        """The same for a changed budget."""
        return super().validate_update(ctx, new, old) + list(_faults(new))


def _faults(budget: Any) -> Iterator[FieldError]:
    spec = budget.spec
    if spec.HasField("minAvailable") and spec.HasField("maxUnavailable"):
        yield FieldError.invalid("spec", "", "minAvailable and maxUnavailable cannot be both set")
    for name in ("minAvailable", "maxUnavailable"):
        if not spec.HasField(name):
            continue
        value = getattr(spec, name)
        if value.type == 0 and value.intVal < 0:
            yield FieldError.invalid(f"spec.{name}", value.intVal, "must be greater than or equal to 0")
        percent = percent_of(value)
        if percent is not None and percent > 100:
            yield FieldError.invalid(f"spec.{name}", shown(value), "must not be greater than 100%")
    if spec.HasField("selector"):
        yield from validate_label_selector(spec.selector, "spec.selector")
