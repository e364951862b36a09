"""Which ReplicaSet stands for which template: hash, name, revision numbers and annotations.

Source: kubernetes pkg/controller/deployment/util/deployment_util.go.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any, Final

import orjson

from tiphys.api.apps.v1 import apps_pb2
from tiphys.api.core.v1 import pod_pb2
from tiphys_apimachinery.codec.json_codec import to_json
from tiphys_apimachinery.meta import new_controller_ref
from tiphys_apimachinery.names import safe_encode
from tiphys_controller_manager.controllers.deployment.rolling import Limits, SetSize
from tiphys_controller_manager.pods import seconds

HASH_LABEL: Final = "pod-template-hash"
REVISION: Final = "deployment.kubernetes.io/revision"
REVISION_HISTORY: Final = "deployment.kubernetes.io/revision-history"
DESIRED_REPLICAS: Final = "deployment.kubernetes.io/desired-replicas"
MAX_REPLICAS: Final = "deployment.kubernetes.io/max-replicas"
# Annotations that are a ReplicaSet's own, never copied from the Deployment.
_NOT_COPIED: Final = frozenset(
    [
        "kubectl.kubernetes.io/last-applied-configuration",
        "deprecated.deployment.rollback.to",
        REVISION,
        REVISION_HISTORY,
        DESIRED_REPLICAS,
        MAX_REPLICAS,
    ]
)
_HISTORY_LIMIT: Final = 2000
API_VERSION: Final = "apps/v1"
KIND: Final = "Deployment"


def fingerprint(template: pod_pb2.PodTemplateSpec) -> bytes:
    """What a template says, the same however it was written: without the hash label and without empty values."""
    return _fingerprint(template.SerializeToString(deterministic=True))


@functools.lru_cache(maxsize=1024)
def _fingerprint(raw: bytes) -> bytes:
    value = to_json(pod_pb2.PodTemplateSpec.FromString(raw), with_type_meta=False)
    labels = (value.get("metadata") or {}).get("labels")
    if labels is not None:
        labels.pop(HASH_LABEL, None)
    return orjson.dumps(_pruned(value), option=orjson.OPT_SORT_KEYS)


def template_hash(template: pod_pb2.PodTemplateSpec, collisions: int | None) -> str:
    """The value of pod-template-hash, up to ten characters; collisions gives another for the same template."""
    digest = hashlib.blake2b(fingerprint(template), digest_size=4)
    if collisions is not None:
        digest.update(str(collisions).encode())
    return safe_encode(str(int.from_bytes(digest.digest(), "big")))


def find_new(deployment: apps_pb2.Deployment, sets: Sequence[apps_pb2.ReplicaSet]) -> apps_pb2.ReplicaSet | None:
    """The ReplicaSet that has the Deployment's template, of several the oldest."""
    wanted = fingerprint(deployment.spec.template)
    for item in sorted(sets, key=age_order):
        if fingerprint(item.spec.template) == wanted:
            return item
    return None


def age_order(item: apps_pb2.ReplicaSet) -> tuple[float, str]:
    """Sorts by creation, then name."""
    return seconds(item.metadata.creationTimestamp), item.metadata.name


def revision_of(obj: Any) -> int:
    """The revision that an object's annotation names; 0 without one that can be read."""
    try:
        return int(obj.metadata.annotations.get(REVISION, "0"))
    except ValueError:
        return 0


def next_revision(olds: Sequence[apps_pb2.ReplicaSet]) -> int:
    """One more than the newest of the old ReplicaSets."""
    return max((revision_of(old) for old in olds), default=0) + 1


def make_new(deployment: apps_pb2.Deployment, *, revision: int, replicas: int, limits: Limits) -> apps_pb2.ReplicaSet:
    """A ReplicaSet for the Deployment's template."""
    collisions = deployment.status.collisionCount if deployment.status.HasField("collisionCount") else None
    code = template_hash(deployment.spec.template, collisions)
    made = apps_pb2.ReplicaSet()
    made.metadata.name = f"{deployment.metadata.name}-{code}"
    made.metadata.namespace = deployment.metadata.namespace
    made.metadata.ownerReferences.append(new_controller_ref(deployment, API_VERSION, KIND))
    made.spec.replicas = replicas
    made.spec.minReadySeconds = deployment.spec.minReadySeconds
    made.spec.selector.CopyFrom(deployment.spec.selector)
    made.spec.selector.matchLabels[HASH_LABEL] = code
    made.spec.template.CopyFrom(deployment.spec.template)
    made.spec.template.metadata.labels[HASH_LABEL] = code
    made.metadata.labels.update(made.spec.template.metadata.labels)
    annotate(made, deployment, revision)
    annotate_sizes(made.metadata.annotations, limits)
    return made


def annotate(target: apps_pb2.ReplicaSet, deployment: apps_pb2.Deployment, revision: int) -> bool:
    """Copy the Deployment's annotations and raise the revision; whether anything changed.

    A revision never goes down: the ReplicaSet of a rollback moves to the front, and remembers where it was.
    """
    annotations = target.metadata.annotations
    changed = False
    for key, value in deployment.metadata.annotations.items():
        if key not in _NOT_COPIED and annotations.get(key) != value:
            annotations[key] = value
            changed = True
    old = revision_of(target)
    if old < revision:
        if REVISION in annotations:
            annotations[REVISION_HISTORY] = _history(annotations.get(REVISION_HISTORY, ""), annotations[REVISION])
        annotations[REVISION] = str(revision)
        changed = True
    return changed


def annotate_sizes(annotations: MutableMapping[str, str], limits: Limits) -> bool:
    """Note for which Deployment a ReplicaSet was sized; whether anything changed."""
    wanted = {DESIRED_REPLICAS: str(limits.replicas), MAX_REPLICAS: str(limits.max_total)}
    changed = any(annotations.get(key) != value for key, value in wanted.items())
    if changed:
        for key, value in wanted.items():
            annotations[key] = value
    return changed


def size_of(item: apps_pb2.ReplicaSet) -> SetSize:
    """The ReplicaSet as the arithmetic sees it."""
    annotations = item.metadata.annotations
    return SetSize(
        name=item.metadata.name,
        created=seconds(item.metadata.creationTimestamp),
        replicas=item.spec.replicas,
        available=item.status.availableReplicas,
        actual=item.status.replicas,
        desired=_number(annotations, DESIRED_REPLICAS),
        max_replicas=_number(annotations, MAX_REPLICAS),
    )


def _number(annotations: Mapping[str, str], key: str) -> int | None:
    try:
        return int(annotations[key]) if key in annotations else None
    except ValueError:
        return None


def _history(known: str, last: str) -> str:
    past = [*filter(None, known.split(",")), last]
    while len(past) > 1 and len(",".join(past)) > _HISTORY_LIMIT:
        past.pop(0)
    return ",".join(past)


def _pruned(value: Any) -> Any:
    """Without null, empty lists and empty objects, which a round trip through an older client may add or lose."""
    if isinstance(value, dict):
        kept = {key: _pruned(item) for key, item in value.items()}
        return {key: item for key, item in kept.items() if item is not None and item != {} and item != []}
    if isinstance(value, list):
        return [_pruned(item) for item in value]
    return value
