"""Persistent volume claims."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from google.protobuf.message import Message

from tiphys_apimachinery.errors import FieldError
from tiphys_apiserver.registry.core.resource_validation import parse
from tiphys_apiserver.registry.core.scheduling_validation import validate_label_selector
from tiphys_apiserver.registry.strategy import Strategy, WriteContext

_FIXED = "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims"


class PersistentVolumeClaimStrategy(Strategy):
    """The rules of claims."""

    def prepare_for_create(self, ctx: WriteContext, obj: Message) -> None:
        """A new claim is pending; both names of its data source say the same."""
        super().prepare_for_create(ctx, obj)
        claim: Any = obj
        claim.status.phase = "Pending"
        spec = claim.spec
        if spec.HasField("dataSource") and not spec.HasField("dataSourceRef"):
            for name in ("apiGroup", "kind", "name"):
                if spec.dataSource.HasField(name):
                    setattr(spec.dataSourceRef, name, getattr(spec.dataSource, name))
        elif spec.HasField("dataSourceRef") and not spec.HasField("dataSource") and not spec.dataSourceRef.namespace:
            for name in ("apiGroup", "kind", "name"):
                if spec.dataSourceRef.HasField(name):
                    setattr(spec.dataSource, name, getattr(spec.dataSourceRef, name))

    def validate(self, ctx: WriteContext, obj: Message) -> list[FieldError]:
        """Faults of modes and the size asked for."""
        claim: Any = obj
        return super().validate(ctx, obj) + list(claim_errors(claim.spec, "spec"))

    def validate_update(self, ctx: WriteContext, new: Any, old: Any) -> list[FieldError]:
        """The same; little may change, and a claim never shrinks."""
        errors = super().validate_update(ctx, new, old) + list(claim_errors(new.spec, "spec"))
        return errors + list(_change_errors(new, old))


def claim_errors(spec: Any, path: str) -> Iterator[FieldError]:
    """Faults of a claim's spec, also within templates."""
    if not spec.accessModes:
        yield FieldError.required(f"{path}.accessModes", "at least 1 access mode is required")
    if len(spec.accessModes) > 1 and "ReadWriteOncePod" in spec.accessModes:
        yield FieldError.forbidden(f"{path}.accessModes", "may not use ReadWriteOncePod with other access modes")
    if "storage" not in spec.resources.requests:
        yield FieldError.required(f"{path}.resources[storage]")
    else:
        amount = parse(spec.resources.requests["storage"])
        if amount is not None and amount.nanos <= 0:
            yield FieldError.invalid(f"{path}.resources[storage]", str(amount), "must be greater than zero")
    if spec.HasField("selector"):
        yield from validate_label_selector(spec.selector, f"{path}.selector")


def _change_errors(new: Any, old: Any) -> Iterator[FieldError]:
    rest = type(new.spec)()
    rest.CopyFrom(new.spec)
    bound = old.status.phase == "Bound"
    if not old.spec.volumeName:
        rest.ClearField("volumeName")
        if old.spec.HasField("volumeName"):
            rest.volumeName = old.spec.volumeName
    if not old.spec.HasField("storageClassName"):
        # A default class that came later may be given to an old claim.
        rest.ClearField("storageClassName")
    if bound:
        rest.ClearField("volumeAttributesClassName")
        if old.spec.HasField("volumeAttributesClassName"):
            rest.volumeAttributesClassName = old.spec.volumeAttributesClassName
        rest.resources.CopyFrom(old.spec.resources)
    if rest != old.spec:
        yield FieldError.forbidden("spec", _FIXED)
    if bound and "storage" in new.spec.resources.requests and "storage" in old.status.capacity:
        wanted = parse(new.spec.resources.requests["storage"])
        before = parse(old.spec.resources.requests["storage"])
        held = parse(old.status.capacity["storage"])
        # A volume may be larger than its claim asked for: only a claim that shrinks is judged.
        shrinks = wanted is not None and before is not None and wanted < before
        if shrinks and held is not None and wanted is not None and wanted < held:
            yield FieldError.forbidden("spec.resources.requests.storage", "field can not be less than status.capacity")
