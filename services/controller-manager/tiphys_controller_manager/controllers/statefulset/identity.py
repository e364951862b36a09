"""What makes a pod of a StatefulSet itself: its name, labels, volumes and claims; pure.

Source: kubernetes pkg/controller/statefulset/stateful_set_utils.go.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from tiphys.api.apps.v1 import apps_pb2
from tiphys.api.core.v1 import persistent_volume_claim_pb2, pod_pb2, volume_pb2
from tiphys.api.meta.v1 import meta_pb2
from tiphys_apimachinery.meta import new_controller_ref
from tiphys_controller_manager.controllers.statefulset.plan import REVISION_LABEL
from tiphys_controller_manager.revisions import API_VERSION, STATEFUL_SETS

POD_NAME_LABEL: Final = "statefulset.kubernetes.io/pod-name"
POD_INDEX_LABEL: Final = "apps.kubernetes.io/pod-index"

Claim = persistent_volume_claim_pb2.PersistentVolumeClaim


def pod_name(set_name: str, number: int) -> str:
    """The name of the pod of this number."""
    return f"{set_name}-{number}"


def claim_name(template: str, set_name: str, number: int) -> str:
    """The name of the claim that the pod of this number has of a template."""
    return f"{template}-{set_name}-{number}"


def make_pod(
    stateful_set: apps_pb2.StatefulSet, template: pod_pb2.PodTemplateSpec, number: int, revision: str
) -> pod_pb2.Pod:
    """The pod of this number, from the template of the named revision."""
    set_name = stateful_set.metadata.name
    pod = pod_pb2.Pod()
    pod.metadata.name = pod_name(set_name, number)
    pod.metadata.namespace = stateful_set.metadata.namespace
    pod.metadata.labels.update(template.metadata.labels)
    pod.metadata.labels.update(identity_labels(pod.metadata.name, number))
    pod.metadata.labels[REVISION_LABEL] = revision
    pod.metadata.annotations.update(template.metadata.annotations)
    pod.metadata.finalizers.extend(template.metadata.finalizers)
    pod.metadata.ownerReferences.append(new_controller_ref(stateful_set, API_VERSION, STATEFUL_SETS.kind))
    pod.spec.CopyFrom(template.spec)
    pod.spec.hostname = pod.metadata.name
    pod.spec.subdomain = stateful_set.spec.serviceName
    _mount_claims(stateful_set, pod, number)
    return pod


def identity_labels(name: str, number: int) -> dict[str, str]:
    """The labels by which a pod can be chosen alone."""
    return {POD_NAME_LABEL: name, POD_INDEX_LABEL: str(number)}


def make_claims(stateful_set: apps_pb2.StatefulSet, number: int) -> list[Claim]:
    """The claims of the pod of this number, as the templates say; without owners."""
    made = []
    for template in stateful_set.spec.volumeClaimTemplates:
        claim = Claim()
        claim.metadata.name = claim_name(template.metadata.name, stateful_set.metadata.name, number)
        claim.metadata.namespace = stateful_set.metadata.namespace
        claim.metadata.labels.update(template.metadata.labels)
        claim.metadata.labels.update(stateful_set.spec.selector.matchLabels)
        claim.metadata.annotations.update(template.metadata.annotations)
        claim.metadata.finalizers.extend(template.metadata.finalizers)
        claim.spec.CopyFrom(template.spec)
        made.append(claim)
    return made


def owners_of_claim(
    stateful_set: apps_pb2.StatefulSet, pod: meta_pb2.OwnerReference | None, *, is_condemned: bool
) -> list[meta_pb2.OwnerReference]:
    """Who a claim ends with, by persistentVolumeClaimRetentionPolicy; pod refers to its pod, if that is there."""
    policy = stateful_set.spec.persistentVolumeClaimRetentionPolicy
    if policy.whenScaled == "Delete" and is_condemned:
        return [pod] if pod is not None else []
    if policy.whenDeleted == "Delete":
        return [new_controller_ref(stateful_set, API_VERSION, STATEFUL_SETS.kind)]
    return []


def set_owners(claim: Claim, set_uid: str, wanted: Iterable[meta_pb2.OwnerReference], pods: str) -> bool:
    """Give a claim these owners in place of the set and any pod of the name pods; whether anything changed."""
    others = [
        owner
        for owner in claim.metadata.ownerReferences
        if owner.uid != set_uid and not (owner.kind == "Pod" and owner.name == pods)
    ]
    after = [*others, *wanted]
    if [owner.uid for owner in after] == [owner.uid for owner in claim.metadata.ownerReferences]:
        return False
    claim.metadata.ClearField("ownerReferences")
    claim.metadata.ownerReferences.extend(after)
    return True


def _mount_claims(stateful_set: apps_pb2.StatefulSet, pod: Any, number: int) -> None:
    """A claim's volume takes the place of a volume of its name in the template."""
    names = [template.metadata.name for template in stateful_set.spec.volumeClaimTemplates]
    kept = [volume for volume in pod.spec.volumes if volume.name not in names]
    volumes = []
    for name in names:
        volume = volume_pb2.Volume(name=name)
        source = volume.volumeSource.persistentVolumeClaim
        source.claimName = claim_name(name, stateful_set.metadata.name, number)
        volumes.append(volume)
    del pod.spec.volumes[:]
    pod.spec.volumes.extend([*volumes, *kept])
