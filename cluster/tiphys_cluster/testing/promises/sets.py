"""Of sets of pods that run until they are told to end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from tiphys.api.apps.v1 import apps_pb2
from tiphys.api.core.v1 import pod_pb2
from tiphys_apimachinery.meta import namespaced_name
from tiphys_cluster.testing.guard import Guard
from tiphys_cluster.testing.world import is_active
from tiphys_controller_manager.controllers.deployment.rolling import scaled


def replica_set_has_no_more(guard: Guard, before: Any, after: Any) -> Iterator[str]:
    """A ReplicaSet never has more pods than it may, but for orphans that it takes over, of which it rids itself."""
    if before is not None:
        return
    owner = guard.new_pods_owner(before, after, apps_pb2.ReplicaSet)
    if owner is not None:
        count = sum(map(is_active, guard.world.owned(pod_pb2.Pod, owner)))
        if count > guard.ceiling(owner):
            yield f"{namespaced_name(owner)} has {count} pods, wants {guard.ceiling(owner)}"


def deployment_keeps_its_surge(guard: Guard, before: Any, after: Any) -> Iterator[str]:
    """A Deployment's ReplicaSets never want more than its replicas and the surge together."""
    if after is None:
        return
    deployment = guard.owner_of(after, apps_pb2.Deployment)
    if deployment is None or (before is not None and after.spec.replicas <= before.spec.replicas):
        return
    most = guard.ceiling(deployment)
    rolling = deployment.spec.strategy.rollingUpdate
    surge = 0
    if deployment.spec.strategy.type == "RollingUpdate":
        surge = scaled(rolling.maxSurge if rolling.HasField("maxSurge") else None, most, round_up=True)
    wanted = sum(one.spec.replicas for one in guard.world.owned(apps_pb2.ReplicaSet, deployment))
    if wanted > most + surge:
        yield f"{namespaced_name(deployment)}: replica sets want {wanted}, allowed are {most} + {surge}"


def stateful_set_has_its_ordinals(guard: Guard, before: Any, after: Any) -> Iterator[str]:
    """A StatefulSet makes pods of its names alone, and in their order where it is told to."""
    owner = guard.new_pods_owner(before, after, apps_pb2.StatefulSet) if before is None else None
    if owner is None:
        return
    ordinal = int(after.metadata.name.rpartition("-")[2])
    if ordinal >= guard.ceiling(owner):
        yield f"{namespaced_name(after)} is made, wanted are {guard.ceiling(owner)}"
    if owner.spec.podManagementPolicy == "Parallel":
        return
    # One that there was may be gone again by now.
    missing = [n for n in range(ordinal) if f"{owner.metadata.uid}/{owner.metadata.name}-{n}" not in guard.seen]
    if missing:
        yield f"{namespaced_name(after)} is made before {missing}"


def one_daemon_a_node(guard: Guard, before: Any, after: Any) -> Iterator[str]:
    """A DaemonSet has one pod at work on a node, and one more only where it may surge."""
    if after is None or not after.spec.nodeName:
        return
    owner = guard.new_pods_owner(before, after, apps_pb2.DaemonSet)
    if owner is None:
        return
    surge, nodes = owner.spec.updateStrategy.rollingUpdate.maxSurge, _nodes_of(guard, owner)
    if nodes[_target(after)] > 1 + bool(surge.intVal or surge.strVal):
        yield f"{namespaced_name(owner)} has {nodes[_target(after)]} pods on {_target(after)}"


def _nodes_of(guard: Guard, owner: Any) -> Counter[str]:
    """Pods at work by their nodes."""
    return Counter(_target(pod) for pod in guard.world.owned(pod_pb2.Pod, owner) if is_active(pod))


def _target(pod: pod_pb2.Pod) -> str:
    """The node that a daemon is on, or made for."""
    if pod.spec.nodeName:
        return pod.spec.nodeName
    terms = pod.spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms
    return next((field.values[0] for term in terms for field in term.matchFields), "")
