"""What is never so, at no revision of no cluster, whatever fails: the list, and who watches over it.

Each looks at one change and names what it breaks. Bounds that a user may move count from the moment since when they
hold: a set that was told to shrink has its old size until it says that it has seen the new one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from tiphys.api.apps.v1 import apps_pb2
from tiphys.api.batch.v1 import batch_pb2
from tiphys.api.core.v1 import node_pb2, pod_pb2, resource_quota_pb2
from tiphys_apimachinery.meta import get_controller_of, namespaced_name
from tiphys_apimachinery.quantity import Quantity
from tiphys_cluster.testing.world import World, is_active
from tiphys_controller_manager.controllers.deployment.rolling import scaled


@dataclass(frozen=True, slots=True)
class Breach:
    """An invariant that did not hold."""

    name: str
    what: str
    revision: int


@dataclass(slots=True)
class Guard:
    """Looks at every change of a world. running are the pods that run on nodes, by namespace/name."""

    world: World
    running: Mapping[str, set[str]]
    breaches: list[Breach] = field(default_factory=list)
    # The most replicas that an object may still be acting upon, by its uid.
    ceilings: dict[str, int] = field(default_factory=dict)

    def look(self, before: Any, after: Any) -> None:
        """Check every invariant that the change may have broken."""
        self._note_ceiling(before, after)
        for name, check in INVARIANTS.items():
            for what in check(self, before, after):
                self.breaches.append(Breach(name, what, self.world.revision))

    def ceiling(self, owner: Any) -> int:
        """The most replicas of an owner that are in order now."""
        return self.ceilings.get(owner.metadata.uid, int(owner.spec.replicas))

    def _note_ceiling(self, before: Any, after: Any) -> None:
        if isinstance(after, apps_pb2.Deployment | apps_pb2.ReplicaSet | apps_pb2.StatefulSet):
            status, spec, uid = after.status, after.spec, after.metadata.uid
            has_seen = status.observedGeneration >= after.metadata.generation and status.replicas <= spec.replicas
            known = spec.replicas if has_seen else max(self.ceilings.get(uid, 0), spec.replicas)
            self.ceilings[uid] = known
        elif isinstance(before, apps_pb2.Deployment | apps_pb2.ReplicaSet | apps_pb2.StatefulSet):
            self.ceilings.pop(before.metadata.uid, None)


Check = Callable[[Guard, Any, Any], Iterator[str]]


def bound_once(guard: Guard, before: Any, after: Any) -> Iterator[str]:
    """A pod that has a node keeps it."""
    if not isinstance(before, pod_pb2.Pod) or after is None or before.metadata.uid != after.metadata.uid:
        return
    if before.spec.nodeName and before.spec.nodeName != after.spec.nodeName:
        yield f"{namespaced_name(after)} moved from {before.spec.nodeName} to {after.spec.nodeName!r}"


def one_of_a_name_runs(guard: Guard, before: Any, after: Any) -> Iterator[str]:
    """No two pods of one name run at one time, on whatever nodes."""
    if isinstance(after, pod_pb2.Pod):
        uids = guard.running.get(namespaced_name(after), ())
        if len(uids) > 1:
            yield f"{namespaced_name(after)} runs {len(uids)} times"


def node_holds(guard: Guard, before: Any, after: Any) -> Iterator[str]:
    """What pods of a node ask for is what it has, at most."""
    if not isinstance(after, pod_pb2.Pod) or not after.spec.nodeName or (before is not None and before.spec.nodeName):
        return
    node = guard.world.of(node_pb2.Node).get(after.spec.nodeName)
    if node is None:
        return
    there = [
        pod
        for pod in guard.world.of(pod_pb2.Pod).values()
        if pod.spec.nodeName == after.spec.nodeName and pod.status.phase not in ("Succeeded", "Failed")
    ]
    if len(there) > Quantity.parse(node.status.allocatable["pods"].string).value():
        yield f"{after.spec.nodeName} has {len(there)} pods"
    asked = sum(_cpu_millis(pod) for pod in there)
    if asked > Quantity.parse(node.status.allocatable["cpu"].string).milli_value():
        yield f"{after.spec.nodeName} has pods that ask for {asked}m of CPU"


def replica_set_has_no_more(guard: Guard, before: Any, after: Any) -> Iterator[str]:
    """A ReplicaSet never has more pods than it may."""
    owner = _new_pods_owner(guard, before, after, apps_pb2.ReplicaSet)
    if owner is not None:
        count = sum(map(is_active, guard.world.owned(pod_pb2.Pod, owner)))
        if count > guard.ceiling(owner):
            yield f"{namespaced_name(owner)} has {count} pods, wants {guard.ceiling(owner)}"


def deployment_keeps_its_surge(guard: Guard, before: Any, after: Any) -> Iterator[str]:
    """A Deployment's ReplicaSets never want more than its replicas and the surge together."""
    if not isinstance(after, apps_pb2.ReplicaSet):
        return
    deployment = _owner(guard, after, apps_pb2.Deployment)
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


def job_runs_no_more_than_it_may(guard: Guard, before: Any, after: Any) -> Iterator[str]:
    """A Job has no more pods at work than its parallelism, and no more successes than completions."""
    owner = _new_pods_owner(guard, before, after, batch_pb2.Job)
    if owner is not None:
        pods = list(guard.world.owned(pod_pb2.Pod, owner))
        active = sum(map(is_active, pods))
        if active > owner.spec.parallelism:
            yield f"{namespaced_name(owner)} has {active} pods at work, parallelism {owner.spec.parallelism}"
        done = sum(pod.status.phase == "Succeeded" for pod in pods)
        if owner.spec.HasField("completions") and active + done > owner.spec.completions:
            yield f"{namespaced_name(owner)} has {active} + {done} pods for {owner.spec.completions} completions"


def quota_holds(guard: Guard, before: Any, after: Any) -> Iterator[str]:
    """A namespace has no more pods than its quota says."""
    if not isinstance(after, pod_pb2.Pod) or before is not None:
        return
    for quota in guard.world.of(resource_quota_pb2.ResourceQuota).values():
        if quota.metadata.namespace != after.metadata.namespace or "pods" not in quota.spec.hard:
            continue
        most = Quantity.parse(quota.spec.hard["pods"].string).value()
        count = sum(
            pod.metadata.namespace == after.metadata.namespace and pod.status.phase not in ("Succeeded", "Failed")
            for pod in guard.world.of(pod_pb2.Pod).values()
        )
        if count > most:
            yield f"{namespaced_name(quota)}: {count} pods of {most}"


def one_daemon_a_node(guard: Guard, before: Any, after: Any) -> Iterator[str]:
    """A DaemonSet has one pod at work on a node, and one more only where it may surge."""
    owner = _new_pods_owner(guard, before, after, apps_pb2.DaemonSet)
    if owner is None or not after.spec.nodeName:
        return
    pods = [pod for pod in guard.world.owned(pod_pb2.Pod, owner) if pod.spec.nodeName == after.spec.nodeName]
    most = 1 + bool(owner.spec.updateStrategy.rollingUpdate.maxSurge.intVal)
    if sum(map(is_active, pods)) > most:
        yield f"{namespaced_name(owner)} has {len(pods)} pods on {after.spec.nodeName}"


INVARIANTS: Final[Mapping[str, Check]] = {
    check.__name__: check
    for check in (
        bound_once,
        one_of_a_name_runs,
        node_holds,
        replica_set_has_no_more,
        deployment_keeps_its_surge,
        job_runs_no_more_than_it_may,
        quota_holds,
        one_daemon_a_node,
    )
}


def _new_pods_owner(guard: Guard, before: Any, after: Any, kind: Any) -> Any:
    """The controller of a pod that has just come, or was just taken over; None for any other change."""
    if not isinstance(after, pod_pb2.Pod) or not is_active(after):
        return None
    if before is not None and get_controller_of(before) == get_controller_of(after):
        return None
    return _owner(guard, after, kind)


def _owner(guard: Guard, obj: Any, kind: Any) -> Any:
    reference = get_controller_of(obj)
    if reference is None or reference.kind != kind.DESCRIPTOR.name:
        return None
    found = guard.world.of(kind).get(f"{obj.metadata.namespace}/{reference.name}")
    return found if found is not None and found.metadata.uid == reference.uid else None


def _cpu_millis(pod: pod_pb2.Pod) -> int:
    return sum(
        Quantity.parse(container.resources.requests["cpu"].string).milli_value()
        for container in pod.spec.containers
        if "cpu" in container.resources.requests
    )
