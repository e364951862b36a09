"""What users and machines do to a cluster: each deed is a word for the log, and a call."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random
from typing import Any

from tiphys.api.core.v1.node_pb2 import Node
from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys.api.policy.v1.policy_pb2 import Eviction
from tiphys_apimachinery.errors import Conflict, NotFound, TooManyRequests
from tiphys_client.client import Propagation
from tiphys_cluster.testing.cluster import Cluster

NAMESPACE = "default"
NODES = 4
Deed = Callable[[Cluster], Awaitable[None]]
Named = tuple[str, Deed]


@dataclass(frozen=True, slots=True)
class Step:
    """A deed, and how long after the one before."""

    after_s: float
    name: str
    deed: Deed


@dataclass(frozen=True, slots=True)
class Drawn:
    """A shape as it was drawn: what makes it, what may be done to it, and what ends what would go on for ever."""

    first: list[Named]
    later: list[Callable[[Random], Named]] = field(default_factory=list)
    last: list[Named] = field(default_factory=list)


def named(kind: Any, name: str, namespace: str = NAMESPACE) -> Any:
    """A new object."""
    made = kind()
    made.metadata.name, made.metadata.namespace = name, namespace
    return made


def workload(kind: Any, name: str, app: str = "", *, namespace: str = NAMESPACE, **requests: str) -> Any:
    """A set of pods of one container; all but those of other namespaces are behind the one service."""
    made = named(kind, name, namespace)
    app = app or name
    made.spec.selector.matchLabels["app"] = app
    template = made.spec.template
    template.metadata.labels.update({"app": app, "part": "all"})
    container = template.spec.containers.add(name="c", image="v1")
    for resource, amount in requests.items():
        container.resources.requests[resource].string = amount
    return made


def make(*objects: Any, note: str = "") -> Named:
    """Create objects, in order."""

    async def create(cluster: Cluster) -> None:
        for one in objects:
            await cluster.client.create(one)

    return f"make {objects[-1].metadata.name} {note}".rstrip(), create


def change(kind: Any, name: str, spec: Mapping[str, Any], *, namespace: str = NAMESPACE, note: str) -> Named:
    """Patch a spec, where there is one."""

    async def patch(cluster: Cluster) -> None:
        # It may have been deleted by an earlier deed.
        with suppress(NotFound):
            await cluster.client.patch(kind, name, namespace, {"spec": spec}, type="strategic")

    return f"{note} {name}", patch


def scale(kind: Any, name: str, most: int, *, namespace: str = NAMESPACE) -> Callable[[Random], Named]:
    """Give a set another number of replicas."""

    def draw(rng: Random) -> Named:
        replicas = rng.randint(0, most)
        return change(kind, name, {"replicas": replicas}, namespace=namespace, note=f"scale to {replicas}:")

    return draw


def roll(kind: Any, name: str) -> Callable[[Random], Named]:
    """Give a set another image."""

    def draw(rng: Random) -> Named:
        image = f"v{rng.randint(1, 4)}"
        spec = {"template": {"spec": {"containers": [{"name": "c", "image": image}]}}}
        return change(kind, name, spec, note=f"roll to {image}:")

    return draw


def lose_pod(selector: str, *, namespace: str = NAMESPACE) -> Callable[[Random], Named]:
    """Delete a pod by hand."""

    def draw(rng: Random) -> Named:
        at = rng.randrange(8)

        async def lose(cluster: Cluster) -> None:
            pods = (await cluster.client.list(Pod, namespace, label_selector=selector)).items
            if pods:
                pod = pods[at % len(pods)]
                await cluster.client.delete(Pod, pod.metadata.name, namespace, absent_ok=True)

        return f"lose a pod of {selector}", lose

    return draw


def evict(app: str, *, at_once: int = 1) -> Callable[[Random], Named]:
    """Ask for the eviction of pods; a refusal is an answer."""

    def draw(rng: Random) -> Named:
        at = rng.randrange(8)

        async def go(cluster: Cluster) -> None:
            pods = (await cluster.client.list(Pod, NAMESPACE, label_selector=f"app={app}")).items
            for number in range(min(at_once, len(pods))):
                await evict_pod(cluster, pods[(at + number) % len(pods)])

        return f"evict {at_once} of {app}", go

    return draw


async def evict_pod(cluster: Cluster, pod: Pod) -> None:
    """One eviction; a refusal is an answer."""
    body = named(Eviction, pod.metadata.name, pod.metadata.namespace)
    with suppress(NotFound, TooManyRequests, Conflict):
        await cluster.client.post(Pod, "Evict", pod.metadata.name, pod.metadata.namespace, body=body)


def delete(kind: Any, name: str) -> Callable[[Random], Named]:
    """Delete a set with what it owns."""

    def draw(rng: Random) -> Named:
        propagation: Propagation = rng.choice(("Background", "Foreground"))

        async def remove(cluster: Cluster) -> None:
            await cluster.client.delete(kind, name, NAMESPACE, propagation=propagation, absent_ok=True)

        return f"delete {name}, {propagation}", remove

    return draw


# -- machines


def cut_node(rng: Random) -> Named:
    """A node is not heard of for a while; its pods run on."""
    name, length_s = _node(rng), rng.choice((5.0, 90.0, 500.0))

    async def cut(cluster: Cluster) -> None:
        cluster.nodes.pause(name)
        cluster.clock.call_later(length_s, lambda: cluster.nodes.resume(name))

    return f"cut {name} off for {length_s:g} s", cut


def lose_node(rng: Random) -> Named:
    """A node vanishes, and comes back empty."""
    name = _node(rng)

    async def lose(cluster: Cluster) -> None:
        await cluster.lose_node(name)

    return f"{name} vanishes", lose


def drain_node(rng: Random) -> Named:
    """A node is closed, its pods are evicted as far as budgets let them go, and it is opened again."""
    name, length_s = _node(rng), rng.choice((10.0, 60.0))

    async def drain(cluster: Cluster) -> None:
        await _set_node(cluster, name, {"unschedulable": True})
        for pod in (await cluster.client.list(Pod, NAMESPACE, field_selector=f"spec.nodeName={name}")).items:
            await evict_pod(cluster, pod)
        await cluster.clock.sleep(length_s)
        await _set_node(cluster, name, {"unschedulable": None})

    return f"drain {name} for {length_s:g} s", drain


def taint_node(rng: Random) -> Named:
    """A node drives its pods away for a while."""
    name, length_s = _node(rng), rng.choice((5.0, 60.0))

    async def taint(cluster: Cluster) -> None:
        await _set_node(cluster, name, {"taints": [{"key": "simulation", "effect": "NoExecute"}]})
        await cluster.clock.sleep(length_s)
        await _set_node(cluster, name, {"taints": [{"key": "simulation", "$patch": "delete", "effect": "NoExecute"}]})

    return f"taint {name} for {length_s:g} s", taint


MACHINES: tuple[Callable[[Random], Named], ...] = (cut_node, lose_node, drain_node, taint_node)


async def _set_node(cluster: Cluster, name: str, spec: Mapping[str, Any]) -> None:
    with suppress(NotFound):
        await cluster.client.patch(Node, name, "", {"spec": spec}, type="strategic")


def _node(rng: Random) -> str:
    return f"n{rng.randrange(NODES)}"
