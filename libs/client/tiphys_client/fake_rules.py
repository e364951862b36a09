"""How the API server changes an object on its way in, as far as controllers can tell: the rules of the fake."""

from __future__ import annotations

import random
import uuid
from typing import Any

from tiphys.api.meta.v1 import meta_pb2
from tiphys_apimachinery.errors import APIError, BadRequest, Conflict
from tiphys_apimachinery.meta import time_now, to_time
from tiphys_apimachinery.names import generate_name
from tiphys_client.resource_facts import ResourceFacts, facts_of
from tiphys_component.clock import Clock

FOREGROUND_FINALIZER = "foregroundDeletion"
ORPHAN_FINALIZER = "orphan"
# What an update can't change, whatever it says.
_SYSTEM_FIELDS = (
    "namespace",
    "name",
    "generateName",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
)


def prepare_create(obj: Any, namespace: str, clock: Clock, rng: random.Random) -> None:
    """Fill in what the server decides: name, uid, time, generation; a status that is another's is cleared.

    Raises BadRequest for an object that has no name, a resource version, or another namespace than the request.
    """
    facts = facts_of(type(obj))
    metadata = obj.metadata
    if metadata.resourceVersion:
        raise BadRequest("resourceVersion should not be set on objects to be created")
    _check_namespace(metadata, namespace, facts)
    if not metadata.name:
        if not metadata.generateName:
            raise BadRequest("name or generateName is required")
        metadata.name = generate_name(metadata.generateName, rng)
    metadata.uid = str(uuid.UUID(int=rng.getrandbits(128), version=4))
    metadata.creationTimestamp.CopyFrom(time_now(clock))
    metadata.ClearField("deletionTimestamp")
    metadata.ClearField("deletionGracePeriodSeconds")
    if "spec" in obj.DESCRIPTOR.fields_by_name:
        metadata.generation = 1
    if "status" in facts.subresources:
        obj.ClearField("status")
    if facts.kind == "Pod":
        obj.status.phase = "Pending"
    elif facts.kind == "Namespace":
        obj.status.phase = "Active"


def merge_update(new: Any, old: Any) -> Any:
    """The object to store for an update of old to new; old itself where nothing changes.

    Raises Conflict when new is of another version or another object.
    """
    facts = facts_of(type(old))
    _check_same(new, old, facts)
    stored = type(old)()
    stored.CopyFrom(new)
    if "status" in facts.subresources:
        stored.ClearField("status")
        if old.HasField("status"):
            stored.status.CopyFrom(old.status)
    _keep_system_fields(stored.metadata, old.metadata)
    if _changed(stored, old, ("metadata", "status")):
        stored.metadata.generation = old.metadata.generation + 1
    return old if _equal(stored, old) else stored


def merge_status(new: Any, old: Any) -> Any:
    """The object to store for an update of old's status to new's; raises as merge_update does."""
    _check_same(new, old, facts_of(type(old)))
    stored = type(old)()
    stored.CopyFrom(old)
    stored.ClearField("status")
    if new.HasField("status"):
        stored.status.CopyFrom(new.status)
    return old if _equal(stored, old) else stored


def mark_deleted(obj: Any, options: meta_pb2.DeleteOptions, clock: Clock) -> bool:
    """Prepare the deletion of an object; whether it can go at once. If not, it waits for finalizers or a grace period.

    Raises Conflict when the preconditions do not hold.
    """
    facts = facts_of(type(obj))
    _check_preconditions(obj, options, facts)
    metadata = obj.metadata
    policy = options.propagationPolicy
    finalizer = {"Foreground": FOREGROUND_FINALIZER, "Orphan": ORPHAN_FINALIZER}.get(policy)
    if finalizer is not None and finalizer not in metadata.finalizers:
        metadata.finalizers.append(finalizer)
    grace = _grace_period(obj, options, facts)
    if metadata.HasField("deletionTimestamp"):
        grace = min(grace, metadata.deletionGracePeriodSeconds)
    if grace == 0 and not metadata.finalizers:
        return True
    if not metadata.HasField("deletionTimestamp") or grace < metadata.deletionGracePeriodSeconds:
        end = time_now(clock)
        end.seconds += grace
        metadata.deletionTimestamp.CopyFrom(end)
        metadata.deletionGracePeriodSeconds = grace
        if metadata.generation:
            metadata.generation += 1
    return False


def is_finished(obj: Any) -> bool:
    """Whether an object whose deletion was asked for has nothing left to wait for."""
    metadata = obj.metadata
    waits = metadata.finalizers or metadata.deletionGracePeriodSeconds > 0
    return metadata.HasField("deletionTimestamp") and not waits


def bind_pod(pod: Any, binding: Any, clock: Clock) -> None:
    """Put a pod on a node; raises Conflict when it is on one, is being deleted, or is not the one meant."""
    name = pod.metadata.name
    if binding.metadata.uid and binding.metadata.uid != pod.metadata.uid:
        raise Conflict.of("pods", name, why=f"uid {binding.metadata.uid} is not {pod.metadata.uid}")
    if pod.spec.nodeName:
        raise Conflict.of("pods/binding", name, why=f"pod {name} is already assigned to node {pod.spec.nodeName!r}")
    if pod.metadata.HasField("deletionTimestamp"):
        raise Conflict.of("pods/binding", name, why=f"pod {name} is being deleted, cannot be assigned to a host")
    pod.spec.nodeName = binding.target.name
    for key, value in binding.metadata.annotations.items():
        pod.metadata.annotations[key] = value
    kept = [condition for condition in pod.status.conditions if condition.type != "PodScheduled"]
    pod.status.ClearField("conditions")
    pod.status.conditions.extend(kept)
    scheduled = pod.status.conditions.add(type="PodScheduled", status="True")
    scheduled.lastTransitionTime.CopyFrom(to_time(clock.now()))


def conflict(facts: ResourceFacts, name: str, why: str = Conflict.MODIFIED) -> APIError:
    """The Conflict of one object."""
    return Conflict.of(facts.plural, name, group=facts.group, why=why)


def _check_namespace(metadata: Any, namespace: str, facts: ResourceFacts) -> None:
    if not facts.namespaced:
        return
    if metadata.namespace and namespace and metadata.namespace != namespace:
        raise BadRequest("the namespace of the provided object does not match the namespace sent on the request")
    metadata.namespace = metadata.namespace or namespace
    if not metadata.namespace:
        raise BadRequest("an empty namespace may not be set during creation")


def _check_same(new: Any, old: Any, facts: ResourceFacts) -> None:
    version, uid = new.metadata.resourceVersion, new.metadata.uid
    if version and version != old.metadata.resourceVersion:
        raise conflict(facts, old.metadata.name)
    if uid and uid != old.metadata.uid:
        why = f"Precondition failed: UID in precondition: {uid}, UID in object meta: {old.metadata.uid}"
        raise conflict(facts, old.metadata.name, why)


def _check_preconditions(obj: Any, options: meta_pb2.DeleteOptions, facts: ResourceFacts) -> None:
    wanted = options.preconditions
    for label, asked, has in (
        ("UID", wanted.uid, obj.metadata.uid),
        ("ResourceVersion", wanted.resourceVersion, obj.metadata.resourceVersion),
    ):
        if asked and asked != has:
            why = f"Precondition failed: {label} in precondition: {asked}, {label} in object meta: {has}"
            raise conflict(facts, obj.metadata.name, why)


def _grace_period(obj: Any, options: meta_pb2.DeleteOptions, facts: ResourceFacts) -> int:
    if facts.kind != "Pod" or not obj.spec.nodeName or obj.status.phase in ("Succeeded", "Failed"):
        return 0
    if options.HasField("gracePeriodSeconds"):
        return max(0, options.gracePeriodSeconds)
    return int(obj.spec.terminationGracePeriodSeconds) if obj.spec.HasField("terminationGracePeriodSeconds") else 30


def _keep_system_fields(new: Any, old: Any) -> None:
    for name in _SYSTEM_FIELDS:
        new.ClearField(name)
    kept: Any = meta_pb2.ObjectMeta()
    kept.CopyFrom(old)
    for field in kept.DESCRIPTOR.fields:
        if field.name not in _SYSTEM_FIELDS:
            kept.ClearField(field.name)
    new.MergeFrom(kept)


def _changed(new: Any, old: Any, without: tuple[str, ...]) -> bool:
    for field in old.DESCRIPTOR.fields:
        if field.name not in without and getattr(new, field.name) != getattr(old, field.name):
            return True
    return False


def _equal(one: Any, other: Any) -> bool:
    return bool(one.SerializeToString(deterministic=True) == other.SerializeToString(deterministic=True))
