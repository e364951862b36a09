"""What every kind's metadata goes through on a write; no I/O, no clock: the stamp is given."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from google.protobuf.message import Message

from tiphys.api.meta.v1 import meta_pb2
from tiphys_apimachinery import validation
from tiphys_apimachinery.errors import BadRequest, FieldError
from tiphys_apimachinery.meta import to_time

FINALIZER_ORPHAN = "orphan"
FINALIZER_FOREGROUND = "foregroundDeletion"
# Owners that may not own: upstream bans events, whose store is not watched by the collector.
_BANNED_OWNERS = frozenset({("v1", "Event")})


def match_namespace(metadata: meta_pb2.ObjectMeta, namespace: str) -> None:
    """Give the object the namespace of its request. Raises BadRequest when it names another."""
    if metadata.namespace == namespace:
        return
    if not metadata.namespace:
        metadata.namespace = namespace
    elif not namespace:
        metadata.ClearField("namespace")
    else:
        raise BadRequest("the namespace of the provided object does not match the namespace sent on the request")


def match_name(metadata: meta_pb2.ObjectMeta, name: str, namespace: str) -> None:
    """Hold an object against the name in its request's path. Raises BadRequest when they differ."""
    if not metadata.name:
        raise BadRequest(f"the name of the object ({name} based on URL) was undeterminable: name must be provided")
    if metadata.name != name:
        raise BadRequest(f"the name of the object ({metadata.name}) does not match the name on the URL ({name})")
    if namespace and metadata.namespace and metadata.namespace != namespace:
        raise BadRequest(
            f"the namespace of the object ({metadata.namespace}) does not match"
            f" the namespace on the request ({namespace})"
        )


def prepare_create(obj: Any, *, uid: str, now: datetime) -> None:
    """Give a new object what only the server decides, and drop what a caller may not bring."""
    metadata = obj.metadata
    for name in ("selfLink", "deletionTimestamp", "deletionGracePeriodSeconds", "resourceVersion", "generation"):
        metadata.ClearField(name)
    metadata.uid = uid
    metadata.creationTimestamp.CopyFrom(to_time(now))
    if has_generation(obj):
        metadata.generation = 1


def prepare_update(new: Any, old: Any) -> None:
    """Put back what no update may change; generation rises in raise_generation."""
    metadata, before = new.metadata, old.metadata
    metadata.ClearField("selfLink")
    metadata.uid = before.uid
    metadata.creationTimestamp.CopyFrom(before.creationTimestamp)
    for name in ("deletionTimestamp", "deletionGracePeriodSeconds", "generation"):
        metadata.ClearField(name)
    if before.HasField("deletionTimestamp"):
        metadata.deletionTimestamp.CopyFrom(before.deletionTimestamp)
    if before.HasField("deletionGracePeriodSeconds"):
        metadata.deletionGracePeriodSeconds = before.deletionGracePeriodSeconds
    if before.HasField("generation"):
        metadata.generation = before.generation


def has_generation(obj: Message) -> bool:
    """Whether the kind counts changes of what is wanted: those with a spec do."""
    return "spec" in obj.DESCRIPTOR.fields_by_name


def raise_generation(new: Any, old: Any, changed: Iterable[str]) -> None:
    """Count one more generation if anything but metadata and status changed."""
    if has_generation(new) and any(name not in ("metadata", "status") for name in changed):
        new.metadata.generation = old.metadata.generation + 1


def validate_metadata(metadata: meta_pb2.ObjectMeta) -> list[FieldError]:
    """Faults of metadata that hold for every kind; the name's own rules are the strategy's.

    Source: apimachinery pkg/api/validation/objectmeta.go.
    """
    errors: list[FieldError] = []
    for key, value in metadata.labels.items():
        errors += [FieldError.invalid("metadata.labels", key, why) for why in validation.is_qualified_name(key)]
        errors += [FieldError.invalid("metadata.labels", value, why) for why in validation.is_label_value(value)]
    errors += _annotation_errors(metadata)
    if metadata.generation < 0:
        errors.append(
            FieldError.invalid("metadata.generation", metadata.generation, "must be greater than or equal to 0")
        )
    errors += _owner_errors(metadata)
    for finalizer in metadata.finalizers:
        errors += [
            FieldError.invalid("metadata.finalizers", finalizer, why) for why in validation.is_qualified_name(finalizer)
        ]
    if {FINALIZER_ORPHAN, FINALIZER_FOREGROUND} <= set(metadata.finalizers):
        errors.append(
            FieldError.invalid(
                "metadata.finalizers",
                list(metadata.finalizers),
                f"finalizer {FINALIZER_ORPHAN} and {FINALIZER_FOREGROUND} cannot be both set",
            )
        )
    return errors


def validate_metadata_update(new: meta_pb2.ObjectMeta, old: meta_pb2.ObjectMeta) -> list[FieldError]:
    """Faults of a change of metadata; none where nothing of it changes, as in most writes of a status."""
    if new == old:
        return []
    errors = validate_metadata(new)
    if new.namespace != old.namespace:
        errors.append(FieldError.invalid("metadata.namespace", new.namespace, "field is immutable"))
    if old.HasField("deletionTimestamp"):
        added = [name for name in new.finalizers if name not in old.finalizers]
        if added:
            listed = ", ".join(f'"{name}"' for name in added)
            errors.append(
                FieldError.forbidden(
                    "metadata.finalizers",
                    "no new finalizers can be added if the object is being deleted,"
                    f" found new finalizers []string{{{listed}}}",
                )
            )
    return errors


def _annotation_errors(metadata: meta_pb2.ObjectMeta) -> list[FieldError]:
    errors: list[FieldError] = []
    total = 0
    for key, value in metadata.annotations.items():
        # Annotation keys may have capitals, unlike everything else that is a qualified name.
        errors += [
            FieldError.invalid("metadata.annotations", key, why) for why in validation.is_qualified_name(key.lower())
        ]
        total += len(key.encode()) + len(value.encode())
    if total > validation.ANNOTATIONS_MAX_BYTES:
        errors.append(FieldError.too_long("metadata.annotations", validation.ANNOTATIONS_MAX_BYTES))
    return errors


def _owner_errors(metadata: meta_pb2.ObjectMeta) -> list[FieldError]:
    errors: list[FieldError] = []
    controller = ""
    for index, owner in enumerate(metadata.ownerReferences):
        # Upstream names the path without index for these.
        path = "metadata.ownerReferences"
        for name in ("kind", "name", "uid", "apiVersion"):
            if not getattr(owner, name):
                value = getattr(owner, name)
                problem = "version must not be empty" if name == "apiVersion" else f"{name} must not be empty"
                errors.append(FieldError.invalid(f"{path}.{name}", value, problem))
        if (owner.apiVersion, owner.kind) in _BANNED_OWNERS:
            errors.append(FieldError.invalid(f"{path}[{index}]", owner.kind, "is disallowed from being an owner"))
        if owner.controller:
            if controller:
                errors.append(
                    FieldError.invalid(
                        path,
                        "true",
                        'Only one reference can have Controller set to true. Found "true" in references'
                        f" for {controller} and {owner.kind}/{owner.name}",
                    )
                )
            controller = f"{owner.kind}/{owner.name}"
    return errors
