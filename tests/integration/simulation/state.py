"""What counts of a cluster in the end, and whether it has come to rest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from tests.integration.simulation.deeds import NAMESPACE, NODES
from tests.integration.simulation.shapes.bounded import SLOTS_OF_A_NODE, TIGHT
from tiphys.api.apps.v1.apps_pb2 import DaemonSet, Deployment, ReplicaSet, StatefulSet
from tiphys.api.batch.v1.batch_pb2 import CronJob, Job
from tiphys.api.core.v1.persistent_volume_claim_pb2 import PersistentVolumeClaim
from tiphys.api.core.v1.persistent_volume_pb2 import PersistentVolume
from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys.api.core.v1.resource_quota_pb2 import ResourceQuota
from tiphys.api.discovery.v1.discovery_pb2 import EndpointSlice
from tiphys_apimachinery.meta import find_condition, get_controller_of
from tiphys_cluster.testing.cluster import Cluster
from tiphys_cluster.testing.guard import is_over
from tiphys_cluster.testing.promises.pods import millis
from tiphys_cluster.testing.world import is_ready

State = dict[str, Any]
_SETS: Final = (Deployment, StatefulSet, DaemonSet, ReplicaSet)


async def end_state(cluster: Cluster) -> State:
    """What both runs of a seed must come to: names that were made up and moments are left out."""
    seen = await _look(cluster, (Pod, Job, CronJob, EndpointSlice, PersistentVolumeClaim, PersistentVolume, *_SETS))
    pods = seen[Pod]
    running = [pod for pod in pods if pod.status.phase not in ("Succeeded", "Failed")]
    owners = {one.metadata.uid for kind in (*_SETS, Job, CronJob) for one in seen[kind]}
    here = [pod for pod in running if pod.metadata.namespace == NAMESPACE and "part" in pod.metadata.labels]
    slices = [one for one in seen[EndpointSlice] if one.metadata.namespace == NAMESPACE]
    return {
        "ready": dict(sorted(Counter(_version(pod) for pod in running if is_ready(pod)).items())),
        "not ready": sorted(pod.metadata.name for pod in running if not is_ready(pod) and not _may_wait(pod)),
        "names": sorted(pod.metadata.name for pod in pods if _owner_kind(pod) == "StatefulSet"),
        "sets": sorted(
            f"{one.metadata.labels['app']} {one.spec.replicas}"
            for one in seen[ReplicaSet]
            if one.spec.replicas and _owner_kind(one)
        ),
        "jobs": sorted(_ending(job) for job in seen[Job] if _owner_kind(job) != "CronJob"),
        "cron jobs": sorted(
            f"{one.metadata.name} {one.spec.suspend} {len(one.status.active)}" for one in seen[CronJob]
        ),
        "orphans": sorted(
            one.metadata.name
            for one in (*pods, *seen[ReplicaSet], *seen[Job])
            if (owner := get_controller_of(one)) is not None and owner.uid not in owners
        ),
        "endpoints": sum(len(one.addresses) for part in slices for one in part.endpoints if one.conditions.ready),
        "ready in the service": sum(map(is_ready, here)),
        **_storage(seen),
    }


async def is_settled(cluster: Cluster) -> bool:
    """Whether all sets say that they are done, truly, and nothing is on its way."""
    if not await is_done(cluster) or not await _sets_tell_the_truth(cluster):
        return False
    state = await end_state(cluster)
    at_rest = state["endpoints"] == state["ready in the service"] and not state["unused volumes"]
    return at_rest and not (state["orphans"] or state["not ready"])


async def is_done(cluster: Cluster, without: str = "") -> bool:
    """Whether all sets and Jobs say that they are done, but for a kind of which nobody takes care.

    Without ReplicaSets no Deployment has pods.
    """
    for kind, is_one_done in _DONE.items():
        name = kind.DESCRIPTOR.name
        if name == without or (name, without) == ("Deployment", "ReplicaSet"):
            continue
        for one in (await cluster.client.list(kind)).items:
            if one.status.observedGeneration != one.metadata.generation or not is_one_done(one):
                return False
    seen = await _look(cluster, (Job, CronJob, ReplicaSet, Deployment))
    if not all(map(is_over, seen[Job])) or any(one.status.active for one in seen[CronJob]):
        return False
    return _follows_load(cluster, seen[Deployment]) and await _bounded_sets_are_done(cluster, seen[ReplicaSet])


async def _sets_tell_the_truth(cluster: Cluster) -> bool:
    """Whether the sets count the pods that there are.

    While no controller manager leads, as for the term of a lease after it was killed, nobody takes notice of a pod that
    is lost, and its set says for so long that it is done.
    """
    seen = await _look(cluster, (Pod, ReplicaSet, StatefulSet, DaemonSet))
    ready = Counter(owner.uid for pod in seen[Pod] if is_ready(pod) and (owner := get_controller_of(pod)))
    told = {one.metadata.uid: one.status.readyReplicas for kind in (ReplicaSet, StatefulSet) for one in seen[kind]}
    told |= {one.metadata.uid: one.status.numberReady for one in seen[DaemonSet]}
    return all(ready[uid] == number for uid, number in told.items())


async def _look(cluster: Cluster, kinds: Iterable[Any]) -> dict[Any, list[Any]]:
    return {kind: (await cluster.client.list(kind)).items for kind in kinds}


# -- each shape's own


def _follows_load(cluster: Cluster, deployments: Iterable[Any]) -> bool:
    """A pod of the autoscaled set is to bear 100m."""
    wanted = min(6, cluster.metrics.loads.get("elastic", 0) // 100)
    return all(one.spec.replicas == wanted for one in deployments if one.metadata.name == "elastic")


async def _bounded_sets_are_done(cluster: Cluster, sets: Iterable[Any]) -> bool:
    """Sets that are nobody's have what they want, as far as there is room for it."""
    free = {one.metadata.name: one for one in sets if get_controller_of(one) is None}
    room = {"greater": NODES * SLOTS_OF_A_NODE}
    if "greater" in free and "lesser" in free:
        room["lesser"] = room["greater"] - min(room["greater"], free["greater"].spec.replicas)
    for name, one in free.items():
        if name in ("left", "right"):
            continue
        if one.status.readyReplicas != min(one.spec.replicas, room.get(name, one.spec.replicas)):
            return False
    if "left" not in free or "right" not in free:
        return True
    wanted: int = free["left"].spec.replicas + free["right"].spec.replicas
    ready: int = free["left"].status.readyReplicas + free["right"].status.readyReplicas
    return ready == min(wanted, await _allowed(cluster))


async def _allowed(cluster: Cluster) -> int:
    """How many pods of 200m and 100Mi the quota has room for."""
    quota = await cluster.client.get(ResourceQuota, TIGHT, TIGHT)
    pod = {"requests.cpu": 200, "requests.memory": (100 << 20) * 1000, "pods": 1000}
    return min(millis(most) // pod[name] for name, most in quota.spec.hard.items())


def _storage(seen: Mapping[Any, list[Any]]) -> State:
    """Claims that count: those of ordinals that are wanted, and those that were to go with their pods.

    A claim goes with its pod where the set takes that pod away. One whose pod was lost before the set shrank stays, as
    in Kubernetes, and which came first is chance.
    """
    kept = {one.metadata.name: one for one in seen[StatefulSet]}.get("keeper")
    claims = seen[PersistentVolumeClaim]
    if kept is None:
        counted = []
    else:
        counted = [
            one
            for one in claims
            if int(one.metadata.name.rpartition("-")[2]) < kept.spec.replicas
            or any(owner.kind == "Pod" for owner in one.metadata.ownerReferences)
        ]
    bound = {one.spec.volumeName for one in claims}
    return {
        "claims": sorted(f"{one.metadata.name} {one.status.phase}" for one in counted),
        "unused volumes": sum(one.metadata.name not in bound for one in seen[PersistentVolume]),
    }


def _may_wait(pod: Pod) -> bool:
    """Whether there may be no room for the pod."""
    return pod.metadata.labels.get("app") in ("lesser", "greater")


def _version(pod: Pod) -> str:
    app, namespace = pod.metadata.labels.get("app", ""), pod.metadata.namespace
    # Which of both sets got the room that the quota leaves is chance.
    return TIGHT if namespace == TIGHT else f"{app} {pod.spec.containers[0].image}"


def _owner_kind(obj: Any) -> str:
    owner = get_controller_of(obj)
    return owner.kind if owner is not None else ""


def _ending(job: Job) -> str:
    """How a Job ended, and with what, where that is not chance."""
    ended = next((one for kind in ("Complete", "Failed") if (one := find_condition(job.status.conditions, kind))), None)
    if ended is None:
        return f"{job.metadata.name} goes on"
    how = f"{job.metadata.name} {ended.type} {ended.reason}"
    if job.metadata.name.startswith("job"):
        return f"{how} {job.status.succeeded}"
    return (
        f"{how} {job.status.completedIndexes} {job.status.failedIndexes}"
        if job.metadata.name.startswith("some")
        else how
    )


# -- what sets say of themselves


def _deployment_done(one: Deployment) -> bool:
    status = one.status
    return one.spec.replicas == status.replicas == status.updatedReplicas == status.availableReplicas


def _stateful_set_done(one: StatefulSet) -> bool:
    status = one.status
    return one.spec.replicas == status.replicas == status.updatedReplicas == status.readyReplicas


def _daemon_set_done(one: DaemonSet) -> bool:
    status = one.status
    wanted = status.desiredNumberScheduled
    return NODES == wanted == status.updatedNumberScheduled == status.numberAvailable and not status.numberMisscheduled


_DONE: Mapping[Any, Callable[[Any], bool]] = {
    Deployment: _deployment_done,
    StatefulSet: _stateful_set_done,
    DaemonSet: _daemon_set_done,
}
