"""What users do to a cluster, drawn from a seed: the same deeds for the run without faults and for that with them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from random import Random
from typing import Any

from tiphys.api.apps.v1.apps_pb2 import Deployment, ReplicaSet, StatefulSet
from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys.api.core.v1.resource_quota_pb2 import ResourceQuota
from tiphys.api.core.v1.service_pb2 import Service
from tiphys.api.discovery.v1.discovery_pb2 import EndpointSlice
from tiphys_apimachinery.errors import NotFound
from tiphys_apimachinery.meta import get_controller_of
from tiphys_cluster.testing import Cluster
from tiphys_cluster.testing.world import is_active, is_ready

NAMESPACE = "default"
_NODES = 4
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
    made = [_make(rng, number) for number in range(4)]
    kinds: tuple[Callable[[Random], tuple[str, Deed]], ...] = (_scale, _roll, _scale_set, _lose_pod, _cut_node, _delete)
    weights = (4, 4, 3, 4, 1, 1)
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
    quota = ResourceQuota()
    quota.metadata.name, quota.metadata.namespace = "pods", NAMESPACE
    quota.spec.hard["pods"].string = "60"
    await cluster.client.create(quota)


async def end_state(cluster: Cluster) -> dict[str, Any]:
    """What counts of a cluster in the end: names that were made up and moments are left out."""
    client = cluster.client
    pods = (await client.list(Pod, NAMESPACE)).items
    sets = (await client.list(ReplicaSet, NAMESPACE)).items
    owners = {one.metadata.uid: one for one in sets}
    for kind in (Deployment, StatefulSet):
        owners.update({one.metadata.uid: one for one in (await client.list(kind, NAMESPACE)).items})
    slices = (await client.list(EndpointSlice, NAMESPACE)).items
    named = [pod.metadata.name for pod in pods if (owner := get_controller_of(pod)) and owner.kind == "StatefulSet"]
    return {
        "ready": dict(
            Counter(f"{pod.metadata.labels['app']} {pod.spec.containers[0].image}" for pod in pods if is_ready(pod))
        ),
        "not ready": sorted(pod.metadata.labels["app"] for pod in pods if not is_ready(pod)),
        "names": sorted(named),
        "sets": sorted(f"{one.metadata.labels['app']} {one.spec.replicas}" for one in sets if one.spec.replicas),
        "orphans": sorted(
            one.metadata.name
            for one in (*pods, *sets)
            if (owner := get_controller_of(one)) is None or owner.uid not in owners
        ),
        "endpoints": sum(len(one.addresses) for part in slices for one in part.endpoints if one.conditions.ready),
        "ready pods": sum(is_ready(pod) for pod in pods),
    }


def _version(pod: Pod) -> str:
    return f"{pod.metadata.labels['app']} {pod.spec.containers[0].image}"


async def is_settled(cluster: Cluster) -> bool:
    """Whether all sets say that they are done, and nothing is on its way."""
    client = cluster.client
    pods = (await client.list(Pod, NAMESPACE)).items
    if not all(is_active(pod) and is_ready(pod) for pod in pods):
        return False
    for one in (await client.list(Deployment, NAMESPACE)).items:
        status, wanted = one.status, one.spec.replicas
        seen = status.observedGeneration == one.metadata.generation
        if not seen or not wanted == status.replicas == status.updatedReplicas == status.availableReplicas:
            return False
    for one in (await client.list(StatefulSet, NAMESPACE)).items:
        status, wanted = one.status, one.spec.replicas
        seen = status.observedGeneration == one.metadata.generation
        if not seen or not wanted == status.replicas == status.updatedReplicas == status.readyReplicas:
            return False
    state = await end_state(cluster)
    return not state["orphans"] and state["endpoints"] == state["ready pods"]


# -- deeds


def _make(rng: Random, number: int) -> tuple[str, Deed]:
    name, replicas = f"app{number}", rng.randint(1, 8)
    kind = StatefulSet if number == 3 else Deployment
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
    number, image = rng.randrange(4), f"v{rng.randint(1, 4)}"
    spec = {"template": {"spec": {"containers": [{"name": "c", "image": image}]}}}
    kind = StatefulSet if number == 3 else Deployment
    return f"roll app{number} to {image}", _change(kind, f"app{number}", spec)


def _lose_pod(rng: Random) -> tuple[str, Deed]:
    app, at = f"app{rng.randrange(4)}", rng.randrange(8)

    async def lose(cluster: Cluster) -> None:
        pods = (await cluster.client.list(Pod, NAMESPACE, label_selector=f"app={app}")).items
        if pods:
            pod = pods[at % len(pods)]
            await cluster.client.delete(Pod, pod.metadata.name, NAMESPACE, absent_ok=True)

    return f"lose a pod of {app}", lose


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
