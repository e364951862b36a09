"""All plugins together: what kube-scheduler would say of a pod if it looked at every node."""

from __future__ import annotations

from dataclasses import dataclass

from tests.support.scheduler_reference.cluster import Cluster
from tests.support.scheduler_reference.inter_pod import affinity_allows, affinity_scores
from tests.support.scheduler_reference.plain import (
    affinity_scores_of_nodes,
    balanced,
    image_locality,
    least_allocated,
    plain_refusals,
    taint_scores,
)
from tests.support.scheduler_reference.spread import spread_allows, spread_scores
from tiphys.api.core.v1.node_pb2 import Node
from tiphys.api.core.v1.pod_pb2 import Pod

# Kubernetes' default weights.
WEIGHTS = {
    "TaintToleration": 3,
    "NodeAffinity": 2,
    "PodTopologySpread": 2,
    "InterPodAffinity": 2,
    "NodeResourcesFit": 1,
    "NodeResourcesBalancedAllocation": 1,
    "ImageLocality": 1,
}


@dataclass(frozen=True)
class Verdict:
    """By node: the plugin that refuses it, or its weighted scores by plugin."""

    refused: dict[str, str]
    scores: dict[str, dict[str, int]]

    def totals(self) -> dict[str, int]:
        """The score of each feasible node."""
        return {name: sum(by_plugin.values()) for name, by_plugin in self.scores.items()}


def refusal(cluster: Cluster, pod: Pod, node: Node) -> str:
    """The first plugin that refuses a node; empty for none."""
    found = plain_refusals(cluster, pod, node)
    if found:
        return found
    if not spread_allows(cluster, pod, node):
        return "PodTopologySpread"
    return "InterPodAffinity" if affinity_allows(cluster, pod, node) else ""


def judge(cluster: Cluster, pod: Pod) -> Verdict:
    """What becomes of each node."""
    refused: dict[str, str] = {}
    feasible: list[Node] = []
    for node in cluster.nodes:
        by = refusal(cluster, pod, node)
        if by:
            refused[node.metadata.name] = by
        else:
            feasible.append(node)
    raw = {
        "TaintToleration": taint_scores(pod, feasible),
        "NodeAffinity": affinity_scores_of_nodes(pod, feasible),
        "PodTopologySpread": spread_scores(cluster, pod, feasible) or {},
        "InterPodAffinity": affinity_scores(cluster, pod, feasible),
        "NodeResourcesFit": {n.metadata.name: least_allocated(cluster, pod, n) for n in feasible},
        "NodeResourcesBalancedAllocation": {n.metadata.name: balanced(cluster, pod, n) for n in feasible},
        "ImageLocality": {n.metadata.name: image_locality(cluster, pod, n) for n in feasible},
    }
    scores = {
        node.metadata.name: {
            plugin: WEIGHTS[plugin] * found.get(node.metadata.name, 0) for plugin, found in raw.items()
        }
        for node in feasible
    }
    return Verdict(refused, scores)
