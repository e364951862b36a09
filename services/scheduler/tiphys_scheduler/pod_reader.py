"""Reads pods of a cluster as they come and change: thousands of equal ones, and each again when it is bound."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from tiphys.api.core.v1.pod_pb2 import Pod, PodSpec
from tiphys.api.meta.v1.meta_pb2 import ObjectMeta
from tiphys_scheduler.pod_info import Needs, PodInfo, conditions_of, info_of, needs_of, owner_of, resized_of
from tiphys_scheduler.pod_terms import identity

# Different specs whose needs are kept.
_MOST_KNOWN = 4096


class PodReader:
    """Reads pods; what those of equal specs need is worked out once and shared by them.

    So any but the first pod of a ReplicaSet costs little, and one that comes back bound next to nothing: a spec that
    is of the same generation is not read again.
    """

    def __init__(self) -> None:
        # By all that needs are made of, the oldest first.
        self._known: dict[tuple[object, ...], Needs] = {}

    def __len__(self) -> int:
        return len(self._known)

    def read(self, pod: Pod) -> PodInfo:
        """As pod_info."""
        resized = resized_of(pod)
        has_ephemeral = any(volume.volumeSource.HasField("ephemeral") for volume in pod.spec.volumes)
        if resized is not None or has_ephemeral or pod.spec.resourceClaims:
            # Made of more than the spec: of the status, or of the pod's name.
            return info_of(pod, needs_of(pod, resized))
        key = (_without_node(pod.spec), identity(pod), owner_of(pod))
        needs = self._known.get(key)
        if needs is None:
            needs = self._known[key] = needs_of(pod, None)
            if len(self._known) > _MOST_KNOWN:
                del self._known[next(iter(self._known))]
        return info_of(pod, needs, pod.metadata.generation)

    def renew(self, pod: Pod, known: PodInfo) -> PodInfo:
        """As read, of a pod of which an older version is known.

        A binding leaves the generation as it is, and any other change of the spec raises it. Labels and owners may
        change without.
        """
        metadata = pod.metadata
        is_same = (
            known.generation != 0
            and metadata.generation == known.generation
            and metadata.HasField("deletionTimestamp") == known.is_deleting
            and _has_labels(metadata, known.labels)
            and owner_of(pod) == known.needs.owner
            and resized_of(pod) is None
        )
        return _renewed(pod, known) if is_same else self.read(pod)


def _has_labels(metadata: ObjectMeta, labels: Mapping[str, str]) -> bool:
    found = metadata.labels
    return len(found) == len(labels) and all(found.get(key) == value for key, value in labels.items())


def _without_node(spec: PodSpec) -> bytes:
    if spec.nodeName:
        bare = PodSpec()
        bare.CopyFrom(spec)
        bare.ClearField("nodeName")
        spec = bare
    return spec.SerializeToString(deterministic=True)


def _renewed(pod: Pod, known: PodInfo) -> PodInfo:
    """A newer version whose spec, labels and owner are those of the known one; the node may be new."""
    status = pod.status
    refusal, is_preempted = conditions_of(pod)
    return replace(
        known,
        node=pod.spec.nodeName,
        is_finished=status.phase in ("Succeeded", "Failed"),
        refusal=refusal,
        nominated_node=status.nominatedNodeName,
        started_s=status.startTime.seconds,
        is_preempted=is_preempted,
    )
