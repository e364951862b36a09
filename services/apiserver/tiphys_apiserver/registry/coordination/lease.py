"""Leases."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from google.protobuf.message import Message

from tiphys_apimachinery.errors import FieldError
from tiphys_apiserver.registry.strategy import Strategy, WriteContext


class LeaseStrategy(Strategy):
    """The rules of leases."""

    # Two holders must not overwrite each other unseen.
    allow_unconditional_update = False
    allow_create_on_update = True

    def validate(self, ctx: WriteContext, obj: Message) -> list[FieldError]:
        """Faults of holder and durations."""
        return super().validate(ctx, obj) + list(_faults(obj))

    def validate_update(self, ctx: WriteContext, new: Any, old: Any) -> list[FieldError]:
        """The same for a changed lease."""
        return super().validate_update(ctx, new, old) + list(_faults(new))


def _faults(lease: Any) -> Iterator[FieldError]:
    spec = lease.spec
    if spec.HasField("leaseDurationSeconds") and spec.leaseDurationSeconds <= 0:
        yield FieldError.invalid("spec.leaseDurationSeconds", spec.leaseDurationSeconds, "must be greater than 0")
    if spec.HasField("leaseTransitions") and spec.leaseTransitions < 0:
        yield FieldError.invalid("spec.leaseTransitions", spec.leaseTransitions, "must be greater than or equal to 0")
