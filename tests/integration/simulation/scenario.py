"""What users do to a cluster, drawn from a seed: the same deeds for the run without faults and for that with them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from random import Random
from typing import Any

from tiphys.api.apps.v1.apps_pb2 import DaemonSet, Deployment, ReplicaSet, StatefulSet
from tiphys.api.batch.v1.batch_pb2 import Job
from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys.api.core.v1.resource_quota_pb2 import ResourceQuota
from tiphys.api.core.v1.service_pb2 import Service
from tiphys.api.discovery.v1.discovery_pb2 import EndpointSlice
from tiphys.api.policy.v1.policy_pb2 import Eviction, PodDisruptionBudget
from tiphys_apimachinery.errors import NotFound, TooManyRequests
from tiphys_apimachinery.meta import get_controller_of, is_condition_true
from tiphys_cluster.testing.cluster import Cluster
from tiphys_cluster.testing.hollow_nodes import RUNS_FOR_S
from tiphys_cluster.testing.world import is_ready

NAMESPACE = "default"
_NODES = 4
# Of app0 to app4.
_KINDS: tuple[Any, ...] = (Deployment, Deployment, Deployment, StatefulSet, DaemonSet)
Deed = Callable[[Cluster], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Step:
    """A deed, and how long after the one before."""

    after_s: float
    name: str
    deed: Deed


def draw(seed: int, steps: int = 14) -> list[Step]:
    """A scenario. Sets are made first, then changed, broken and deleted in any order."""
    rng = Random(f"scenario {seed}")
    made = [_make(rng, number) for number in range(4)] + [_make_daemons()]
    kinds: tuple[Callable[[Random], tuple[str, Deed]], ...] = (
        _scale,
        _roll,
        _scale_set,
        _lose_pod,
        _evict,
        _make_job,
        _cut_node,
        _delete,
    )
    weights = (4, 4, 3, 3, 3, 2, 1, 1)
    changed = [rng.choices(kinds, weights)[0](rng) for _ in range(steps)]
    return [Step(rng.choice((0.0, 0.5, 5.0, 40.0)), name, deed) for name, deed in (*made, *changed)]


async def begin(cluster: Cluster) -> None:
    """Nodes, a service over all pods, and a quota that leaves some of what is asked for undone."""
    for number in range(_NODES):
        await cluster.nodes.add(f"n{number}")
    service = Service()
    service.metadata.name, service.metadata.namespace = "all", NAMESPACE
    service.spec.selector["part"] = "all"
    service.spec.ports.add(port=80)
    await cluster.client.create(service)
    budget = PodDisruptionBudget()
    budget.metadata.name, budget.metadata.namespace = "app1", NAMESPACE
    budget.spec.selector.matchLabels["app"] = "app1"
    budget.spec.maxUnavailable.intVal = 1
    await cluster.client.create(budget)
    quota = ResourceQuota()
    quota.metadata.name, quota.metadata.namespace = "pods", NAMESPACE
    quota.spec.hard["pods"].string = "60"
    await cluster.client.create(quota)


async def end_state(cluster: Cluster) -> dict[str, Any]:
    """What counts of a cluster in the end: names that were made up and moments are left out."""
    client = cluster.client
    pods = (await client.list(Pod, NAMESPACE)).items
    sets = (await client.list(ReplicaSet, NAMESPACE)).items
    jobs = (await client.list(Job, NAMESPACE)).items
    owners = {one.metadata.uid for one in (*sets, *jobs)}
    for kind in (Deployment, StatefulSet, DaemonSet):
        owners.update(one.metadata.uid for one in (await client.list(kind, NAMESPACE)).items)
    slices = (await client.list(EndpointSlice, NAMESPACE)).items
    running = [pod for pod in pods if pod.status.phase not in ("Succeeded", "Failed")]
    named = [pod.metadata.name for pod in pods if (owner := get_controller_of(pod)) and owner.kind == "StatefulSet"]
    return {
        "ready": dict(sorted(Counter(_version(pod) for pod in running if is_ready(pod)).items())),
        "not ready": sorted(pod.metadata.name for pod in running if not is_ready(pod)),
        "names": sorted(named),
        "sets": sorted(f"{one.metadata.labels['app']} {one.spec.replicas}" for one in sets if one.spec.replicas),
        "jobs": sorted(f"{one.metadata.name} {one.status.succeeded} {_is_complete(one)}" for one in jobs),
        "orphans": sorted(
            one.metadata.name
            for one in (*pods, *sets)
            if (owner := get_controller_of(one)) is None or owner.uid not in owners
        ),
        "endpoints": sum(len(one.addresses) for part in slices for one in part.endpoints if one.conditions.ready),
        "ready in the service": sum(is_ready(pod) for pod in running if "part" in pod.metadata.labels),
    }


def _version(pod: Pod) -> str:
    return f"{pod.metadata.labels['app']} {pod.spec.containers[0].image}"


def _is_complete(job: Job) -> bool:
    return is_condition_true(job.status.conditions, "Complete")


async def is_settled(cluster: Cluster) -> bool:
    """Whether all sets say that they are done, and nothing is on its way."""
    if not await is_done(cluster):
        return False
    state = await end_state(cluster)
    return not (state["orphans"] or state["not ready"]) and state["endpoints"] == state["ready in the service"]


async def is_done(cluster: Cluster, without: str = "") -> bool:
    """Whether all sets and Jobs say that they are done, but for a kind of which nobody takes care.

    Without ReplicaSets no Deployment has pods.
    """
    client = cluster.client
    for kind, is_done in _DONE.items():
        name = kind.DESCRIPTOR.name
        if name == without or (name, without) == ("Deployment", "ReplicaSet"):
            continue
        for one in (await client.list(kind, NAMESPACE)).items:
            if one.status.observedGeneration != one.metadata.generation or not is_done(one):
                return False
    return all(map(_is_complete, (await client.list(Job, NAMESPACE)).items))


def _deployment_done(one: Deployment) -> bool:
    status = one.status
    return one.spec.replicas == status.replicas == status.updatedReplicas == status.availableReplicas


def _stateful_set_done(one: StatefulSet) -> bool:
    status = one.status
    return one.spec.replicas == status.replicas == status.updatedReplicas == status.readyReplicas


def _daemon_set_done(one: DaemonSet) -> bool:
    status = one.status
    wanted = status.desiredNumberScheduled
    return _NODES == wanted == status.updatedNumberScheduled == status.numberAvailable and not status.numberMisscheduled


_DONE: Mapping[Any, Callable[[Any], bool]] = {
    Deployment: _deployment_done,
    StatefulSet: _stateful_set_done,
    DaemonSet: _daemon_set_done,
}


# -- deeds


def _make(rng: Random, number: int) -> tuple[str, Deed]:
    name, replicas = f"app{number}", rng.randint(1, 8)
    kind = _KINDS[number]
    made = kind()
    made.metadata.name, made.metadata.namespace = name, NAMESPACE
    made.spec.replicas = replicas
    made.spec.selector.matchLabels["app"] = name
    template = made.spec.template
    template.metadata.labels.update({"app": name, "part": "all"})
    container = template.spec.containers.add(name="c", image="v1")
    container.resources.requests["cpu"].string = "200m"
    if kind is StatefulSet:
        made.spec.serviceName = "all"
        made.spec.podManagementPolicy = rng.choice(("OrderedReady", "Parallel"))
    elif rng.random() < 0.3:
        made.spec.strategy.type = "Recreate"

    async def make(cluster: Cluster) -> None:
        await cluster.client.create(made)

    return f"make {name} with {replicas}", make


def _make_daemons() -> tuple[str, Deed]:
    made = DaemonSet()
    made.metadata.name, made.metadata.namespace = "app4", NAMESPACE
    made.spec.selector.matchLabels["app"] = "app4"
    made.spec.template.metadata.labels.update({"app": "app4", "part": "all"})
    made.spec.template.spec.containers.add(name="c", image="v1")

    async def make(cluster: Cluster) -> None:
        await cluster.client.create(made)

    return "make app4 on every node", make


def _make_job(rng: Random) -> tuple[str, Deed]:
    name, indexed = f"job{rng.randrange(1 << 16)}", rng.random() < 0.5
    made = Job()
    made.metadata.name, made.metadata.namespace = name, NAMESPACE
    made.spec.completions, made.spec.parallelism = rng.randint(1, 6), rng.randint(1, 3)
    made.spec.completionMode = "Indexed" if indexed else "NonIndexed"
    template = made.spec.template
    template.metadata.annotations[RUNS_FOR_S] = str(rng.choice((1, 10, 60)))
    template.spec.restartPolicy = "Never"
    template.spec.containers.add(name="c", image="v1")

    async def make(cluster: Cluster) -> None:
        await cluster.client.create(made)

    return f"make {name}, {made.spec.completions} times, {made.spec.parallelism} at once", make


def _change(kind: Any, name: str, spec: dict[str, Any]) -> Deed:
    async def change(cluster: Cluster) -> None:
        try:
            await cluster.client.patch(kind, name, NAMESPACE, {"spec": spec}, type="strategic")
        except NotFound:
            # Deleted by an earlier deed.
            return

    return change


def _deployment(rng: Random) -> str:
    return f"app{rng.randrange(3)}"


def _scale(rng: Random) -> tuple[str, Deed]:
    name, replicas = _deployment(rng), rng.randint(0, 12)
    return f"scale {name} to {replicas}", _change(Deployment, name, {"replicas": replicas})


def _scale_set(rng: Random) -> tuple[str, Deed]:
    replicas = rng.randint(0, 5)
    return f"scale app3 to {replicas}", _change(StatefulSet, "app3", {"replicas": replicas})


def _roll(rng: Random) -> tuple[str, Deed]:
    number, image = rng.randrange(5), f"v{rng.randint(1, 4)}"
    spec = {"template": {"spec": {"containers": [{"name": "c", "image": image}]}}}
    kind = _KINDS[number]
    return f"roll app{number} to {image}", _change(kind, f"app{number}", spec)


def _lose_pod(rng: Random) -> tuple[str, Deed]:
    app, at = f"app{rng.randrange(4)}", rng.randrange(8)

    async def lose(cluster: Cluster) -> None:
        pods = (await cluster.client.list(Pod, NAMESPACE, label_selector=f"app={app}")).items
        if pods:
            pod = pods[at % len(pods)]
            await cluster.client.delete(Pod, pod.metadata.name, NAMESPACE, absent_ok=True)

    return f"lose a pod of {app}", lose


def _evict(rng: Random) -> tuple[str, Deed]:
    app, at = f"app{rng.randrange(3)}", rng.randrange(8)

    async def evict(cluster: Cluster) -> None:
        pods = (await cluster.client.list(Pod, NAMESPACE, label_selector=f"app={app}")).items
        if not pods:
            return
        name = pods[at % len(pods)].metadata.name
        with suppress(NotFound, TooManyRequests):
            body = Eviction()
            body.metadata.name, body.metadata.namespace = name, NAMESPACE
            await cluster.client.post(Pod, "Evict", name, NAMESPACE, body=body)

    return f"evict a pod of {app}", evict


def _cut_node(rng: Random) -> tuple[str, Deed]:
    name, length_s = f"n{rng.randrange(_NODES)}", rng.choice((5.0, 90.0, 500.0))

    async def cut(cluster: Cluster) -> None:
        cluster.nodes.pause(name)
        cluster.clock.call_later(length_s, lambda: cluster.nodes.resume(name))

    return f"cut {name} off for {length_s:g} s", cut


def _delete(rng: Random) -> tuple[str, Deed]:
    name, propagation = _deployment(rng), rng.choice(("Background", "Foreground"))

    async def delete(cluster: Cluster) -> None:
        await cluster.client.delete(Deployment, name, NAMESPACE, propagation=propagation, absent_ok=True)

    return f"delete {name}, {propagation}", delete
