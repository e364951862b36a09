"""Of claims and volumes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tiphys.api.apps.v1 import apps_pb2
from tiphys.api.core.v1 import persistent_volume_claim_pb2, pod_pb2
from tiphys_apimachinery.meta import is_being_deleted, namespaced_name
from tiphys_cluster.testing.guard import Guard

_Claim = persistent_volume_claim_pb2.PersistentVolumeClaim


def claim_keeps_its_volume(guard: Guard, before: Any, after: Any) -> Iterator[str]:
    """A claim that has a volume keeps it, and no other claim has that one."""
    if after is None or not after.spec.volumeName:
        return
    is_same = before is not None and before.metadata.uid == after.metadata.uid
    if is_same and before.spec.volumeName not in ("", after.spec.volumeName):
        yield f"{namespaced_name(after)} had {before.spec.volumeName}, and has {after.spec.volumeName}"
    for other in guard.world.of(_Claim).values():
        if other.spec.volumeName == after.spec.volumeName and other.metadata.uid != after.metadata.uid:
            yield f"{namespaced_name(after)} and {namespaced_name(other)} have {after.spec.volumeName}"


def volume_keeps_its_claim(guard: Guard, before: Any, after: Any) -> Iterator[str]:
    """A volume that was bound to a claim is never another one's."""
    if before is None or after is None or before.metadata.uid != after.metadata.uid:
        return
    was, now = before.spec.claimRef.uid, after.spec.claimRef.uid
    if was and now != was:
        yield f"{after.metadata.name} was {before.spec.claimRef.name}'s, and is {after.spec.claimRef.name!r}'s"


def claim_outlives_its_pod(guard: Guard, before: Any, after: Any) -> Iterator[str]:
    """No claim goes while a pod runs that uses it."""
    if after is not None:
        return
    for pod in guard.world.of(pod_pb2.Pod).values():
        uses = any(one.volumeSource.persistentVolumeClaim.claimName == before.metadata.name for one in pod.spec.volumes)
        runs = pod.metadata.uid in guard.running.get(namespaced_name(pod), ())
        if uses and runs and pod.metadata.namespace == before.metadata.namespace:
            yield f"{namespaced_name(before)} goes while {pod.metadata.name} runs"


def claim_is_retained(guard: Guard, before: Any, after: Any) -> Iterator[str]:
    """A claim of a StatefulSet goes only where the set, or its end, is told to take it along."""
    is_going = after is None or (is_being_deleted(after) and (before is None or not is_being_deleted(before)))
    if not is_going:
        return
    claim = before if before is not None else after
    name = claim.metadata.name
    for owner in guard.world.of(apps_pb2.StatefulSet).values():
        for template in owner.spec.volumeClaimTemplates:
            ordinal = name.removeprefix(f"{template.metadata.name}-{owner.metadata.name}-")
            if ordinal == name or not ordinal.isdecimal() or is_being_deleted(owner):
                continue
            may_go = owner.spec.persistentVolumeClaimRetentionPolicy.whenScaled == "Delete"
            # One that is to go with its pod has that for its owner.
            if not (may_go and claim.metadata.ownerReferences):
                yield f"{name} goes, which {namespaced_name(owner)} was to retain"
