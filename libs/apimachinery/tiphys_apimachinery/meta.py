"""What all objects have in common: metadata, owners, conditions, times.

Functions take any API message with a `metadata` field; nothing here changes an object unless its
name says so.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, MutableSequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from google.protobuf.message import Message

from tiphys.api.meta.v1 import meta_pb2

if TYPE_CHECKING:
    from tiphys_component.clock import Clock

_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)


@runtime_checkable
class Object(Protocol):
    """Any API message with metadata."""

    @property
    def metadata(self) -> meta_pb2.ObjectMeta:
        """Name, labels and the other standard facts."""


def join_key(namespace: str, name: str) -> str:
    """The key of an object in caches and queues: namespace/name, or the bare name without namespace."""
    return f"{namespace}/{name}" if namespace else name


def split_key(key: str) -> tuple[str, str]:
    """Namespace and name of a key; the namespace is empty for objects of the cluster."""
    namespace, _, name = key.rpartition("/")
    return namespace, name


def namespaced_name(obj: Object) -> str:
    """The object's key, as join_key makes it."""
    return join_key(obj.metadata.namespace, obj.metadata.name)


def is_being_deleted(obj: Object) -> bool:
    """Whether deletion has been asked for, be it that finalizers or a grace period still hold it."""
    return obj.metadata.HasField("deletionTimestamp")


def get_controller_of(obj: Object) -> meta_pb2.OwnerReference | None:
    """The owner that manages the object, if there is one."""
    for owner in obj.metadata.ownerReferences:
        if owner.controller:
            return owner
    return None


def is_controlled_by(obj: Object, owner: Object) -> bool:
    """Whether owner is the one that manages obj; compared by uid."""
    reference = get_controller_of(obj)
    return reference is not None and reference.uid == owner.metadata.uid


def new_controller_ref(owner: Object, api_version: str, kind: str) -> meta_pb2.OwnerReference:
    """A reference that makes owner the manager, and keeps it until its dependents are gone."""
    return meta_pb2.OwnerReference(
        apiVersion=api_version,
        kind=kind,
        name=owner.metadata.name,
        uid=owner.metadata.uid,
        controller=True,
        blockOwnerDeletion=True,
    )


def has_finalizer(obj: Object, name: str) -> bool:
    """Whether the finalizer holds the object."""
    return name in obj.metadata.finalizers


def resource_version(obj: Object) -> int:
    """The version of the object as a number; 0 where it has none. Raises ValueError for other text."""
    text = obj.metadata.resourceVersion
    return int(text) if text else 0


def find_condition(conditions: Iterable[Any], kind: str) -> Any | None:
    """The condition of this type, or None."""
    return next((condition for condition in conditions if condition.type == kind), None)


def is_condition_true(conditions: Iterable[Any], kind: str) -> bool:
    """Whether there is a condition of this type with status True."""
    condition = find_condition(conditions, kind)
    return condition is not None and condition.status == "True"


def set_condition(conditions: MutableSequence[Any], wanted: Message) -> bool:
    """Puts a condition into a repeated field, in place of the one of its type; tells whether it changed.

    Where the status stays, lastTransitionTime stays too, and times alone make no change. Works for
    every condition message that has type and status.
    """
    new: Any = wanted
    current = find_condition(conditions, new.type)
    if current is None:
        conditions.append(new)
        return True
    has_transition = "lastTransitionTime" in wanted.DESCRIPTOR.fields_by_name
    changed = False
    for field in wanted.DESCRIPTOR.fields:
        name = field.name
        if name in ("lastTransitionTime", "lastUpdateTime", "lastHeartbeatTime", "lastProbeTime"):
            continue
        if getattr(current, name) != getattr(new, name):
            changed = True
    transition = current.status != new.status
    if not changed:
        return False
    kept = type(current)()
    kept.CopyFrom(current)
    current.CopyFrom(new)
    if has_transition and not transition and kept.HasField("lastTransitionTime"):
        current.lastTransitionTime.CopyFrom(kept.lastTransitionTime)
    return True


def to_time(moment: datetime.datetime) -> meta_pb2.Time:
    """The moment as a Time message, in whole seconds."""
    return meta_pb2.Time(seconds=_nanos_since_epoch(moment)[0], nanos=0)


def to_micro_time(moment: datetime.datetime) -> meta_pb2.MicroTime:
    """The moment as a MicroTime message, in whole microseconds."""
    seconds, nanos = _nanos_since_epoch(moment)
    return meta_pb2.MicroTime(seconds=seconds, nanos=nanos)


def time_now(clock: Clock) -> meta_pb2.Time:
    """The clock's moment as a Time message."""
    return to_time(clock.now())


def micro_time_now(clock: Clock) -> meta_pb2.MicroTime:
    """The clock's moment as a MicroTime message."""
    return to_micro_time(clock.now())


def is_zero_time(time: meta_pb2.Time | meta_pb2.MicroTime) -> bool:
    """Whether a time says nothing; the epoch is a time like any other and has its seconds set."""
    return not time.HasField("seconds") and not time.HasField("nanos")


def to_datetime(time: meta_pb2.Time | meta_pb2.MicroTime) -> datetime.datetime | None:
    """The moment in UTC, to the microsecond; None for the zero time."""
    if is_zero_time(time):
        return None
    return _EPOCH + datetime.timedelta(seconds=time.seconds, microseconds=time.nanos // 1000)


def format_time(moment: datetime.datetime) -> str:
    """The moment as Time is written in JSON: RFC 3339 in UTC with whole seconds."""
    return moment.astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _nanos_since_epoch(moment: datetime.datetime) -> tuple[int, int]:
    delta = moment - _EPOCH
    return delta.days * 86400 + delta.seconds, delta.microseconds * 1000
