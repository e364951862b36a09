"""What a cluster's store says at one revision, built event by event, with nothing in between and nothing late."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from google.protobuf.message import Message

from tiphys.api.apps.v1 import apps_pb2
from tiphys.api.autoscaling.v2 import autoscaling_pb2
from tiphys.api.batch.v1 import batch_pb2
from tiphys.api.core.v1 import (
    node_pb2,
    persistent_volume_claim_pb2,
    persistent_volume_pb2,
    pod_pb2,
    resource_quota_pb2,
)
from tiphys.api.policy.v1 import policy_pb2
from tiphys.api.runtime import runtime_pb2
from tiphys_apimachinery.meta import get_controller_of, is_being_deleted, namespaced_name
from tiphys_apiserver.storage.interface import Event, EventType
from tiphys_apiserver.storage.memory.store import MemoryStore

_MAGIC: Final = b"k8s\0"
# The kinds that invariants speak of, by the folder of the store that they lie in.
_KINDS: Final[Mapping[str, type[Message]]] = {
    "pods": pod_pb2.Pod,
    "minions": node_pb2.Node,
    "replicasets": apps_pb2.ReplicaSet,
    "deployments": apps_pb2.Deployment,
    "statefulsets": apps_pb2.StatefulSet,
    "daemonsets": apps_pb2.DaemonSet,
    "jobs": batch_pb2.Job,
    "cronjobs": batch_pb2.CronJob,
    "horizontalpodautoscalers": autoscaling_pb2.HorizontalPodAutoscaler,
    "persistentvolumeclaims": persistent_volume_claim_pb2.PersistentVolumeClaim,
    "persistentvolumes": persistent_volume_pb2.PersistentVolume,
    "resourcequotas": resource_quota_pb2.ResourceQuota,
    "poddisruptionbudgets": policy_pb2.PodDisruptionBudget,
}


@dataclass(slots=True)
class World:
    """Objects by kind and by namespace/name. `digest` tells two histories apart, to the bit."""

    revision: int = 0
    events: int = 0
    objects: dict[type[Message], dict[str, Any]] = field(default_factory=dict)
    _hash: Any = field(default_factory=hashlib.sha256)

    def of(self, kind: type[Message]) -> dict[str, Any]:
        """All objects of a kind."""
        return self.objects.setdefault(kind, {})

    def owned(self, kind: type[Message], owner: Any) -> Iterator[Any]:
        """The objects of a kind that an object controls."""
        for obj in self.of(kind).values():
            reference = get_controller_of(obj)
            if reference is not None and reference.uid == owner.metadata.uid:
                yield obj

    @property
    def digest(self) -> str:
        """A hash over all events so far."""
        return str(self._hash.hexdigest())

    def apply(self, event: Event) -> tuple[Any, Any] | None:
        """Take one event in: the object before and after, None for kinds that are nobody's concern here."""
        self.revision = event.mod_revision
        self.events += 1
        self._hash.update(f"{event.type.name} {event.key} {event.mod_revision} ".encode() + event.value)
        kind = _KINDS.get(event.key.split("/")[2])
        if kind is None:
            return None
        obj: Any = kind.FromString(runtime_pb2.Unknown.FromString(event.value[len(_MAGIC) :]).raw)
        known = self.of(kind)
        key = namespaced_name(obj)
        before = known.get(key)
        if event.type is EventType.DELETE:
            known.pop(key, None)
            return before, None
        known[key] = obj
        return before, obj


def is_active(pod: pod_pb2.Pod) -> bool:
    """Whether a pod counts as one of its owner's: it has not ended, and was not told to go."""
    return pod.status.phase not in ("Succeeded", "Failed") and not is_being_deleted(pod)


def is_ready(pod: pod_pb2.Pod) -> bool:
    """Whether a pod takes traffic."""
    return is_active(pod) and any(one.type == "Ready" and one.status == "True" for one in pod.status.conditions)


async def follow(store: MemoryStore, world: World, look: Callable[[Any, Any], None]) -> None:
    """Bring the world from its revision on, and look at each change, until the store is closed."""
    async with store.watch("/registry/", after_revision=world.revision) as watch:
        async for batch in watch:
            for event in batch:
                changed = world.apply(event)
                if changed is not None:
                    look(*changed)
