"""The plugins that look at one node at a time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fractions import Fraction

from tests.support.scheduler_reference.cluster import (
    Cluster,
    chooses,
    matches_node_term,
    untolerated,
)
from tiphys.api.core.v1.container_pb2 import Container
from tiphys.api.core.v1.node_pb2 import Node
from tiphys.api.core.v1.pod_pb2 import Pod

_UNITS: Mapping[str, int | Fraction] = {
    "Ki": 2**10,
    "Mi": 2**20,
    "Gi": 2**30,
    "m": Fraction(1, 1000),
    "k": 1000,
    "M": 10**6,
    "G": 10**9,
}
_MB = 1024 * 1024


def quantity(text: str) -> Fraction:
    """The amount that a quantity says."""
    for suffix, factor in _UNITS.items():
        if text.endswith(suffix):
            return Fraction(text.removesuffix(suffix)) * factor
    return Fraction(text)


def _whole(resource: str, text: str) -> int:
    value = quantity(text) * (1000 if resource == "cpu" else 1)
    return -(-value.numerator // value.denominator)


def requested(pod: Pod, resource: str, default: int = 0) -> int:
    """What the containers of a pod request of a resource; the samples have no init containers."""
    return sum(_of_container(container, resource, default) for container in pod.spec.containers)


def _of_container(container: Container, resource: str, default: int) -> int:
    if resource not in container.resources.requests:
        return default
    return _whole(resource, container.resources.requests[resource].string)


def allocatable(node: Node, resource: str) -> int:
    """What a node has of a resource."""
    return _whole(resource, node.status.allocatable[resource].string) if resource in node.status.allocatable else 0


def _ports(pods: Iterable[Pod]) -> list[tuple[str, str, int]]:
    return [
        (port.protocol or "TCP", port.hostIP or "0.0.0.0", port.hostPort)
        for pod in pods
        for container in pod.spec.containers
        for port in container.ports
        if port.hostPort
    ]


def ports_allow(cluster: Cluster, pod: Pod, node: Node) -> bool:
    """No host port twice on an address."""
    taken = _ports(cluster.on(node))
    return not any(
        (protocol, number) == (p, n) and (address == a or "0.0.0.0" in (address, a))
        for protocol, address, number in _ports([pod])
        for p, a, n in taken
    )


def fits(cluster: Cluster, pod: Pod, node: Node, ignored: Iterable[str] = ()) -> bool:
    """Room for the pod and all that it requests."""
    there = cluster.on(node)
    if len(there) + 1 > allocatable(node, "pods"):
        return False
    names = {name for container in pod.spec.containers for name in container.resources.requests}
    return all(
        requested(pod, name) + sum(requested(other, name) for other in there) <= allocatable(node, name)
        for name in names - set(ignored)
        if requested(pod, name)
    )


def disks_allow(cluster: Cluster, pod: Pod, node: Node) -> bool:
    """No disk of a cloud twice, but for readers; the samples have no other kinds."""
    for other in cluster.on(node):
        for mine in pod.spec.volumes:
            for theirs in other.spec.volumes:
                a, b = mine.volumeSource, theirs.volumeSource
                if a.HasField("awsElasticBlockStore") and b.HasField("awsElasticBlockStore"):
                    if a.awsElasticBlockStore.volumeID == b.awsElasticBlockStore.volumeID:
                        return False
                elif a.HasField("gcePersistentDisk") and b.HasField("gcePersistentDisk"):
                    one, two = a.gcePersistentDisk, b.gcePersistentDisk
                    if one.pdName == two.pdName and not (one.readOnly and two.readOnly):
                        return False
    return True


def plain_refusals(cluster: Cluster, pod: Pod, node: Node) -> str:
    """The first of the plain plugins that refuses a node; empty for none."""
    cordoned = Pod()
    cordoned.CopyFrom(pod)
    taint = Node()
    taint.spec.taints.add(key="node.kubernetes.io/unschedulable", effect="NoSchedule")
    if node.spec.unschedulable and untolerated(cordoned, taint, ("NoSchedule",)):
        return "NodeUnschedulable"
    if untolerated(pod, node, ("NoSchedule", "NoExecute")):
        return "TaintToleration"
    if not chooses(pod, node):
        return "NodeAffinity"
    if not ports_allow(cluster, pod, node):
        return "NodePorts"
    if not fits(cluster, pod, node):
        return "NodeResourcesFit"
    if not disks_allow(cluster, pod, node):
        return "VolumeRestrictions"
    return ""


def taint_scores(pod: Pod, feasible: list[Node]) -> dict[str, int]:
    """Fewer soft taints are better."""
    raw = {node.metadata.name: untolerated(pod, node, ("PreferNoSchedule",)) for node in feasible}
    highest = max(raw.values(), default=0)
    return {name: 100 - 100 * value // highest if highest else 100 for name, value in raw.items()}


def affinity_scores_of_nodes(pod: Pod, feasible: list[Node]) -> dict[str, int]:
    """More weight of preferences met is better."""
    preferred = pod.spec.affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution
    raw = {
        node.metadata.name: sum(p.weight for p in preferred if matches_node_term(p.preference, node))
        for node in feasible
    }
    highest = max(raw.values(), default=0)
    return {name: 100 * value // highest if highest else 0 for name, value in raw.items()}


def used(cluster: Cluster, pod: Pod, node: Node, resource: str, default: int) -> int:
    """What is requested of a resource once the pod is on the node, with a default for containers that say nothing."""
    return sum(requested(other, resource, default) for other in (*cluster.on(node), pod))


_SCORED = (("cpu", 100), ("memory", 200 * _MB))


def least_allocated(cluster: Cluster, pod: Pod, node: Node) -> int:
    """The mean of what stays free, in percent."""
    parts = []
    for resource, default in _SCORED:
        capacity = allocatable(node, resource)
        if capacity:
            taken = used(cluster, pod, node, resource, default)
            parts.append((capacity - taken) * 100 // capacity if taken <= capacity else 0)
    return sum(parts) // len(parts) if parts else 0


def balanced(cluster: Cluster, pod: Pod, node: Node) -> int:
    """How even the used parts of CPU and memory are."""
    if not any(requested(pod, resource) for resource, _ in _SCORED):
        return 0
    parts = []
    for resource, _ in _SCORED:
        capacity = allocatable(node, resource)
        if capacity:
            parts.append(min(used(cluster, pod, node, resource, 0) / capacity, 1.0))
    deviation = abs((parts[0] - parts[1]) / 2) if len(parts) == 2 else 0.0
    return int((1 - deviation) * 100)


def _image_name(name: str) -> str:
    return name if ":" in name.rsplit("/", 1)[-1] else f"{name}:latest"


def image_locality(cluster: Cluster, pod: Pod, node: Node) -> int:
    """How much of the pod's images the node has, images that are rare counting for less."""
    containers = [*pod.spec.initContainers, *pod.spec.containers]
    total = 0
    for container in containers:
        name = _image_name(container.image)
        having = [n for n in cluster.nodes if any(name in image.names for image in n.status.images)]
        if node in having:
            size = next(i.sizeBytes for n in having for i in n.status.images if name in i.names)
            total += int(float(size) * (float(len(having)) / float(len(cluster.nodes))))
    highest = 1000 * _MB * len(containers)
    total = min(max(total, 23 * _MB), highest)
    return 100 * (total - 23 * _MB) // (highest - 23 * _MB)
