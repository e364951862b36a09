"""What a delete does to an object: pure decisions, which registry/store.py carries out."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from tiphys.api.meta.v1 import meta_pb2
from tiphys_apimachinery.errors import BadRequest, Conflict, FieldError, Invalid
from tiphys_apimachinery.meta import to_datetime, to_time
from tiphys_apiserver.registry.metadata import FINALIZER_FOREGROUND, FINALIZER_ORPHAN
from tiphys_apiserver.registry.strategy import BACKGROUND, FOREGROUND, ORPHAN


@dataclass(frozen=True, slots=True)
class DeleteRequest:
    """DeleteOptions read and checked. grace_period_s and propagation are None where nothing was said."""

    grace_period_s: int | None = None
    propagation: str | None = None
    uid: str | None = None
    resource_version: str | None = None
    dry_run: bool = False


def read_options(options: meta_pb2.DeleteOptions) -> DeleteRequest:
    """Check DeleteOptions. Raises Invalid or BadRequest when they contradict themselves."""
    errors: list[FieldError] = []
    propagation: str | None = options.propagationPolicy if options.HasField("propagationPolicy") else None
    if options.HasField("orphanDependents"):
        if propagation is not None:
            errors.append(
                FieldError.invalid(
                    "propagationPolicy", propagation, "orphanDependents and deletionPropagation cannot be both set"
                )
            )
        propagation = ORPHAN if options.orphanDependents else BACKGROUND
    if propagation is not None and propagation not in (FOREGROUND, BACKGROUND, ORPHAN):
        errors.append(FieldError.not_supported("propagationPolicy", propagation, (FOREGROUND, BACKGROUND, ORPHAN)))
    if any(value != "All" for value in options.dryRun):
        errors.append(FieldError.not_supported("dryRun", list(options.dryRun), ("All",)))
    if errors:
        raise Invalid.of("DeleteOptions", "", errors, group="meta.k8s.io")
    grace = options.gracePeriodSeconds if options.HasField("gracePeriodSeconds") else None
    if grace is not None and grace < 0:
        # Upstream takes a negative period for the shortest that still is graceful.
        grace = 1
    before = options.preconditions
    return DeleteRequest(
        grace,
        propagation,
        before.uid if before.HasField("uid") else None,
        before.resourceVersion if before.HasField("resourceVersion") else None,
        bool(options.dryRun),
    )


def check_preconditions(request: DeleteRequest, obj: Any, plural: str, group: str) -> None:
    """Raise Conflict unless the object is the one that the request means."""
    metadata = obj.metadata
    if request.uid is not None and request.uid != metadata.uid:
        why = f"Precondition failed: UID in precondition: {request.uid}, UID in object meta: {metadata.uid}"
    elif request.resource_version is not None and request.resource_version != metadata.resourceVersion:
        why = (
            f"Precondition failed: ResourceVersion in precondition: {request.resource_version},"
            f" ResourceVersion in object meta: {metadata.resourceVersion}"
        )
    else:
        return
    raise Conflict.of(plural, metadata.name, group=group, why=why)


def apply_propagation(metadata: meta_pb2.ObjectMeta, propagation: str | None) -> None:
    """Set or drop the two finalizers by which the garbage collector is told what to do.

    None keeps what is on the object.
    """
    if propagation is None:
        return
    kept = [name for name in metadata.finalizers if name not in (FINALIZER_ORPHAN, FINALIZER_FOREGROUND)]
    if propagation == ORPHAN:
        kept.append(FINALIZER_ORPHAN)
    elif propagation == FOREGROUND:
        kept.append(FINALIZER_FOREGROUND)
    del metadata.finalizers[:]
    metadata.finalizers.extend(kept)


def mark_deleted(metadata: meta_pb2.ObjectMeta, grace_period_s: int, now: datetime) -> None:
    """Stamp the object with the time at which it should be gone.

    A second delete can only bring that time nearer, never move it away.
    """
    if metadata.HasField("deletionTimestamp"):
        if grace_period_s >= metadata.deletionGracePeriodSeconds:
            return
        stamped = to_datetime(metadata.deletionTimestamp)
        if stamped is None:
            raise BadRequest(f"metadata.deletionTimestamp of {metadata.name} is no time")
        begun = stamped - timedelta(seconds=metadata.deletionGracePeriodSeconds)
        metadata.deletionTimestamp.CopyFrom(to_time(begun + timedelta(seconds=grace_period_s)))
        metadata.deletionGracePeriodSeconds = grace_period_s
        return
    metadata.deletionTimestamp.CopyFrom(to_time(now + timedelta(seconds=grace_period_s)))
    metadata.deletionGracePeriodSeconds = grace_period_s
    if metadata.HasField("generation"):
        metadata.generation += 1


def is_finished(metadata: meta_pb2.ObjectMeta, held: bool) -> bool:
    """Whether nothing keeps a deleted object any more: no finalizer, no grace, no reason of its kind."""
    if not metadata.HasField("deletionTimestamp") or metadata.finalizers or held:
        return False
    return metadata.deletionGracePeriodSeconds == 0
