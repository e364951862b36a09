"""Topology spread by counting pods one by one."""

from __future__ import annotations

import math
from decimal import ROUND_HALF_UP, Decimal

from tests.support.scheduler_reference.cluster import (
    Cluster,
    chooses,
    is_empty,
    matches_selector,
    untolerated,
)
from tiphys.api.core.v1.node_pb2 import Node
from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys.api.core.v1.scheduling_pb2 import TopologySpreadConstraint

_HOST = "kubernetes.io/hostname"


def _constraints(pod: Pod, how: str) -> list[TopologySpreadConstraint]:
    return [c for c in pod.spec.topologySpreadConstraints if c.whenUnsatisfiable == how]


def _is_counted(constraint: TopologySpreadConstraint, pod: Pod, other: Pod) -> bool:
    """Whether another pod counts, but for where it is."""
    same = {k: pod.metadata.labels[k] for k in constraint.matchLabelKeys if k in pod.metadata.labels}
    if other.metadata.namespace != pod.metadata.namespace or other.metadata.HasField("deletionTimestamp"):
        return False
    if not constraint.HasField("labelSelector") and not same:
        return False
    if is_empty(constraint.labelSelector) and not same:
        return False
    return _selects(constraint, pod, dict(other.metadata.labels))


def _selects(constraint: TopologySpreadConstraint, pod: Pod, labels: dict[str, str]) -> bool:
    same = {k: pod.metadata.labels[k] for k in constraint.matchLabelKeys if k in pod.metadata.labels}
    if not constraint.HasField("labelSelector") and not same:
        return False
    return matches_selector(constraint.labelSelector, labels) and all(labels.get(k) == v for k, v in same.items())


def _count(cluster: Cluster, constraint: TopologySpreadConstraint, pod: Pod, node: Node) -> int:
    return sum(_is_counted(constraint, pod, other) for other in cluster.on(node))


def _is_eligible(constraint: TopologySpreadConstraint, pod: Pod, node: Node) -> bool:
    if constraint.nodeAffinityPolicy != "Ignore" and not chooses(pod, node):
        return False
    return constraint.nodeTaintsPolicy != "Honor" or not untolerated(pod, node, ("NoSchedule", "NoExecute"))


def _places(cluster: Cluster, constraints: list[TopologySpreadConstraint], index: int, pod: Pod) -> dict[str, int]:
    """Pods by place, over the nodes that count."""
    constraint = constraints[index]
    found: dict[str, int] = {}
    for node in cluster.nodes:
        if any(c.topologyKey not in node.metadata.labels for c in constraints):
            continue
        if _is_eligible(constraint, pod, node):
            place = node.metadata.labels[constraint.topologyKey]
            found[place] = found.get(place, 0) + _count(cluster, constraint, pod, node)
    return found


def spread_allows(cluster: Cluster, pod: Pod, node: Node) -> bool:
    """The hard constraints."""
    constraints = _constraints(pod, "DoNotSchedule")
    for index, constraint in enumerate(constraints):
        if constraint.topologyKey not in node.metadata.labels:
            return False
        places = _places(cluster, constraints, index, pod)
        wanted = constraint.minDomains if constraint.HasField("minDomains") else 1
        least = min(places.values()) if len(places) >= wanted and places else 0
        here = places.get(node.metadata.labels[constraint.topologyKey], 0)
        own = _selects(constraint, pod, dict(pod.metadata.labels))
        if here + own - least > constraint.maxSkew:
            return False
    return True


def spread_scores(cluster: Cluster, pod: Pod, feasible: list[Node]) -> dict[str, int] | None:
    """The soft constraints, 0 to 100; None where the pod has none."""
    constraints = _constraints(pod, "ScheduleAnyway")
    if not constraints:
        return None
    scored = [n for n in feasible if all(c.topologyKey in n.metadata.labels for c in constraints)]
    raw: dict[str, int] = {}
    tables = [_places(cluster, constraints, index, pod) for index in range(len(constraints))]
    for node in scored:
        total = 0.0
        for constraint, places in zip(constraints, tables, strict=True):
            place = node.metadata.labels[constraint.topologyKey]
            if constraint.topologyKey == _HOST:
                size, count = len(scored), _count(cluster, constraint, pod, node)
            else:
                size = len({n.metadata.labels[constraint.topologyKey] for n in scored})
                count = places.get(place, 0)
            total += count * math.log(size + 2) + (constraint.maxSkew - 1)
        raw[node.metadata.name] = int(Decimal(total).to_integral_value(ROUND_HALF_UP))
    found = {node.metadata.name: 0 for node in feasible}
    for name, value in raw.items():
        highest, lowest = max(raw.values()), min(raw.values())
        found[name] = 100 * (highest + lowest - value) // highest if highest else 100
    return found
