"""Affinity between pods by looking at every pair of pods."""

from __future__ import annotations

from tests.support.scheduler_reference.cluster import Cluster, matches_selector
from tiphys.api.core.v1.node_pb2 import Node
from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys.api.core.v1.scheduling_pb2 import PodAffinityTerm


def _is_meant(cluster: Cluster, owner: Pod, term: PodAffinityTerm, other: Pod) -> bool:
    """Whether a term of its owner is about another pod."""
    namespace = other.metadata.namespace
    if not term.namespaces and not term.HasField("namespaceSelector"):
        if namespace != owner.metadata.namespace:
            return False
    elif namespace not in term.namespaces and not (
        term.HasField("namespaceSelector")
        and matches_selector(term.namespaceSelector, cluster.namespaces.get(namespace, {}))
    ):
        return False
    if not term.HasField("labelSelector"):
        return False
    labels, own = dict(other.metadata.labels), owner.metadata.labels
    return (
        matches_selector(term.labelSelector, labels)
        and all(labels.get(k) == own[k] for k in term.matchLabelKeys if k in own)
        and not any(k in labels and labels[k] == own[k] for k in term.mismatchLabelKeys if k in own)
    )


def _same_place(cluster: Cluster, term: PodAffinityTerm, node: Node, other: Pod) -> bool:
    there = cluster.node(other.spec.nodeName).metadata.labels
    key = term.topologyKey
    return key in node.metadata.labels and key in there and node.metadata.labels[key] == there[key]


def _required(pod: Pod, side: str) -> list[PodAffinityTerm]:
    return list(getattr(pod.spec.affinity, side).requiredDuringSchedulingIgnoredDuringExecution)


def affinity_allows(cluster: Cluster, pod: Pod, node: Node) -> str:
    """Why a node is refused, empty where it is not."""
    near, far = _required(pod, "podAffinity"), _required(pod, "podAntiAffinity")
    if not _near_holds(cluster, pod, node, near):
        return "node(s) didn't match pod affinity rules"
    for term in far:
        if any(_is_meant(cluster, pod, term, o) and _same_place(cluster, term, node, o) for o in cluster.pods):
            return "node(s) didn't match pod anti-affinity rules"
    for other in cluster.pods:
        for term in _required(other, "podAntiAffinity"):
            if _is_meant(cluster, other, term, pod) and _same_place(cluster, term, node, other):
                return "node(s) didn't satisfy existing pods anti-affinity rules"
    return ""


def _near_holds(cluster: Cluster, pod: Pod, node: Node, terms: list[PodAffinityTerm]) -> bool:
    if any(term.topologyKey not in node.metadata.labels for term in terms):
        return False
    partners = [o for o in cluster.pods if all(_is_meant(cluster, pod, t, o) for t in terms)]
    if all(any(_same_place(cluster, t, node, o) for o in partners) for t in terms):
        return True
    # The first of a group that wants to be together may start anywhere.
    counted = [
        o for o in partners if any(t.topologyKey in cluster.node(o.spec.nodeName).metadata.labels for t in terms)
    ]
    return not counted and all(_is_meant(cluster, pod, t, pod) for t in terms)


def affinity_scores(cluster: Cluster, pod: Pod, feasible: list[Node], hard_weight: int = 1) -> dict[str, int]:
    """Preferences of the pod and of those that are there, 0 to 100."""
    raw = {n.metadata.name: _raw(cluster, pod, n, hard_weight) for n in feasible}
    lowest, highest = min(raw.values(), default=0), max(raw.values(), default=0)
    if lowest == highest:
        return dict.fromkeys(raw, 0)
    return {name: int(100.0 * ((value - lowest) / (highest - lowest))) for name, value in raw.items()}


def _raw(cluster: Cluster, pod: Pod, node: Node, hard_weight: int) -> int:
    total = 0
    for other in cluster.pods:
        for owner, about in ((pod, other), (other, pod)):
            for sign, side in ((1, "podAffinity"), (-1, "podAntiAffinity")):
                for item in getattr(owner.spec.affinity, side).preferredDuringSchedulingIgnoredDuringExecution:
                    term = item.podAffinityTerm
                    if _is_meant(cluster, owner, term, about) and _same_place(cluster, term, node, other):
                        total += sign * item.weight
        for term in _required(other, "podAffinity"):
            if _is_meant(cluster, other, term, pod) and _same_place(cluster, term, node, other):
                total += hard_weight
    return total
