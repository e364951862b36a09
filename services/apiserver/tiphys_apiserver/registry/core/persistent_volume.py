"""Persistent volumes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from google.protobuf.message import Message

from tiphys_apimachinery.codec.json_codec import to_json
from tiphys_apimachinery.errors import FieldError
from tiphys_apimachinery.meta import to_time
from tiphys_apiserver.registry.core.resource_validation import parse
from tiphys_apiserver.registry.core.scheduling_validation import validate_node_selector
from tiphys_apiserver.registry.strategy import Strategy, WriteContext


class PersistentVolumeStrategy(Strategy):
    """The rules of persistent volumes."""

    def prepare_for_create(self, ctx: WriteContext, obj: Message) -> None:
        """A new volume waits for the binder."""
        super().prepare_for_create(ctx, obj)
        volume: Any = obj
        volume.status.phase = "Pending"
        volume.status.lastPhaseTransitionTime.CopyFrom(to_time(ctx.now))

    def prepare_for_status_update(self, ctx: WriteContext, new: Any, old: Any) -> None:
        """Stamp a change of the phase."""
        super().prepare_for_status_update(ctx, new, old)
        if new.status.phase != old.status.phase:
            new.status.lastPhaseTransitionTime.CopyFrom(to_time(ctx.now))

    def validate(self, ctx: WriteContext, obj: Message) -> list[FieldError]:
        """Faults of capacity, modes and source."""
        return super().validate(ctx, obj) + list(_faults(obj))

    def validate_update(self, ctx: WriteContext, new: Any, old: Any) -> list[FieldError]:
        """The same, and the source stays."""
        errors = super().validate_update(ctx, new, old) + list(_faults(new))
        # As they are read and written: a field that was set to its empty value is one that is not there.
        sources = [to_json(volume.spec.persistentVolumeSource) for volume in (new, old)]
        if sources[0] != sources[1]:
            errors.append(
                FieldError.forbidden(
                    "spec.persistentvolumesource", "spec.persistentvolumesource is immutable after creation"
                )
            )
        if old.spec.HasField("nodeAffinity") and new.spec.nodeAffinity != old.spec.nodeAffinity:
            errors.append(FieldError.invalid("spec.nodeAffinity", "", "field is immutable"))
        return errors


def _faults(volume: Any) -> Iterator[FieldError]:
    spec = volume.spec
    if not spec.accessModes:
        yield FieldError.required("spec.accessModes")
    if len(spec.accessModes) > 1 and "ReadWriteOncePod" in spec.accessModes:
        yield FieldError.forbidden("spec.accessModes", "may not use ReadWriteOncePod with other access modes")
    if not spec.capacity:
        yield FieldError.required("spec.capacity")
    elif "storage" not in spec.capacity or len(spec.capacity) > 1:
        yield FieldError.not_supported("spec.capacity", sorted(spec.capacity), ("storage",))
    for name, value in spec.capacity.items():
        amount = parse(value)
        if amount is not None and amount.nanos <= 0:
            yield FieldError.invalid(f"spec.capacity[{name}]", str(amount), "must be greater than zero")
    sources = [member.name for member, _ in spec.persistentVolumeSource.ListFields()]
    if not sources:
        yield FieldError.required("spec", "must specify a volume type")
    for extra in sources[1:]:
        yield FieldError.forbidden(f"spec.{extra}", "may not specify more than 1 volume type")
    source = spec.persistentVolumeSource
    if source.HasField("hostPath") and ".." in source.hostPath.path.split("/"):
        yield FieldError.invalid("spec.hostPath.path", source.hostPath.path, "must not contain '..'")
    whole_disk = source.HasField("hostPath") and source.hostPath.path == "/"
    if whole_disk and spec.persistentVolumeReclaimPolicy == "Recycle":
        why = "may not be 'recycle' for a hostPath mount of '/'"
        yield FieldError.forbidden("spec.persistentVolumeReclaimPolicy", why)
    if source.HasField("local") and not spec.HasField("nodeAffinity"):
        yield FieldError.required("spec.nodeAffinity", "Local volume requires node affinity")
    if spec.HasField("nodeAffinity"):
        if not spec.nodeAffinity.HasField("required"):
            yield FieldError.required("spec.nodeAffinity.required", "must specify required node constraints")
        else:
            yield from validate_node_selector(spec.nodeAffinity.required, "spec.nodeAffinity.required")
