"""A cluster as lists of API objects, and the selectors that look at it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from tiphys.api.core.v1.node_pb2 import Node
from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys.api.core.v1.scheduling_pb2 import NodeSelectorTerm, Taint
from tiphys.api.meta.v1.meta_pb2 import LabelSelector


@dataclass
class Cluster:
    """Nodes, the pods that are on them, and the labels of namespaces."""

    nodes: list[Node] = field(default_factory=list)
    pods: list[Pod] = field(default_factory=list)
    namespaces: dict[str, dict[str, str]] = field(default_factory=dict)

    def on(self, node: Node) -> list[Pod]:
        """The pods of a node."""
        return [pod for pod in self.pods if pod.spec.nodeName == node.metadata.name]

    def node(self, name: str) -> Node:
        """A node by name."""
        return next(node for node in self.nodes if node.metadata.name == name)


def matches_expression(labels: Mapping[str, str], key: str, operator: str, values: Iterable[str]) -> bool:
    """One requirement of a selector."""
    wanted, has = list(values), key in labels
    if operator == "In":
        return has and labels[key] in wanted
    if operator == "NotIn":
        return not has or labels[key] not in wanted
    if operator == "Exists":
        return has
    if operator == "DoesNotExist":
        return not has
    try:
        number, bound = int(labels[key]), int(wanted[0])
    except (KeyError, ValueError):
        return False
    return number > bound if operator == "Gt" else number < bound


def matches_selector(selector: LabelSelector, labels: Mapping[str, str]) -> bool:
    """Whether all of a label selector is met."""
    return all(labels.get(k) == v for k, v in selector.matchLabels.items()) and all(
        matches_expression(labels, e.key, e.operator, e.values) for e in selector.matchExpressions
    )


def is_empty(selector: LabelSelector) -> bool:
    """Whether a label selector selects everything."""
    return not selector.matchLabels and not selector.matchExpressions


def matches_node_term(term: NodeSelectorTerm, node: Node) -> bool:
    """Whether a node meets a term; a term without requirements is met by none."""
    if not term.matchExpressions and not term.matchFields:
        return False
    labels = dict(node.metadata.labels)
    fields = {"metadata.name": node.metadata.name}
    return all(matches_expression(labels, e.key, e.operator, e.values) for e in term.matchExpressions) and all(
        matches_expression(fields, e.key, e.operator, e.values) for e in term.matchFields
    )


def chooses(pod: Pod, node: Node) -> bool:
    """Whether a node meets nodeSelector and required node affinity."""
    labels = dict(node.metadata.labels)
    if any(labels.get(k) != v for k, v in pod.spec.nodeSelector.items()):
        return False
    affinity = pod.spec.affinity.nodeAffinity
    if not affinity.HasField("requiredDuringSchedulingIgnoredDuringExecution"):
        return True
    terms = affinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms
    return any(matches_node_term(term, node) for term in terms)


def untolerated(pod: Pod, node: Node, effects: Iterable[str]) -> int:
    """How many taints of these effects the pod does not tolerate."""
    wanted = set(effects)
    return sum(taint.effect in wanted and not _is_tolerated(pod, taint) for taint in node.spec.taints)


def _is_tolerated(pod: Pod, taint: Taint) -> bool:
    key, value, effect = taint.key, taint.value, taint.effect
    return any(
        (not t.effect or t.effect == effect)
        and (not t.key or t.key == key)
        and (t.operator == "Exists" or (t.key and t.value == value))
        for t in pod.spec.tolerations
    )
