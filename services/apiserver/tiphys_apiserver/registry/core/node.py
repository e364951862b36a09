"""Nodes."""

from __future__ import annotations

from typing import Any

from google.protobuf.message import Message

from tiphys_apimachinery.errors import FieldError
from tiphys_apiserver.registry.core.scheduling_validation import validate_taints
from tiphys_apiserver.registry.strategy import Strategy, WriteContext


class NodeStrategy(Strategy):
    """The rules of nodes."""

    def apply_defaults(self, obj: Message) -> None:
        """podCIDR is the first of podCIDRs; what is not said to be reserved can be allocated."""
        super().apply_defaults(obj)
        node: Any = obj
        spec, status = node.spec, node.status
        if spec.podCIDR and not spec.podCIDRs:
            spec.podCIDRs.append(spec.podCIDR)
        elif spec.podCIDRs and not spec.podCIDR:
            spec.podCIDR = spec.podCIDRs[0]
        if not status.allocatable:
            for name, amount in status.capacity.items():
                status.allocatable[name].CopyFrom(amount)

    def prepare_for_create(self, ctx: WriteContext, obj: Message) -> None:
        """A kubelet registers with its status: it is kept, unlike that of other kinds."""

    def validate(self, ctx: WriteContext, obj: Message) -> list[FieldError]:
        """Faults of taints and addresses."""
        return super().validate(ctx, obj) + _faults(obj)

    def validate_update(self, ctx: WriteContext, new: Any, old: Any) -> list[FieldError]:
        """The same, and pod ranges and provider id never change once they are set."""
        errors = super().validate_update(ctx, new, old) + _faults(new)
        before, after = list(old.spec.podCIDRs), list(new.spec.podCIDRs)
        if before and before != after:
            errors.append(
                FieldError.forbidden("spec.podCIDRs", 'node updates may not change podCIDR except from "" to valid')
            )
        if old.spec.providerID and new.spec.providerID != old.spec.providerID:
            errors.append(
                FieldError.forbidden(
                    "spec.providerID", 'node updates may not change providerID except from "" to valid'
                )
            )
        return errors


def _faults(node: Any) -> list[FieldError]:
    errors = list(validate_taints(node.spec.taints, "spec.taints"))
    if node.spec.podCIDRs and node.spec.podCIDRs[0] != node.spec.podCIDR:
        errors.append(FieldError.invalid("spec.podCIDRs[0]", node.spec.podCIDRs[0], "must match `podCIDR`"))
    seen: set[tuple[str, str]] = set()
    for index, address in enumerate(node.status.addresses):
        key = (address.type, address.address)
        if key in seen:
            errors.append(FieldError.duplicate(f"status.addresses[{index}]", address.address))
        seen.add(key)
    return errors
