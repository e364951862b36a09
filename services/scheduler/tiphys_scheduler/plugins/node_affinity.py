"""NodeAffinity: nodeSelector and node affinity, required and preferred."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tiphys.api.core.v1.scheduling_pb2 import (
    NodeSelectorRequirement,
    NodeSelectorTerm,
    PreferredSchedulingTerm,
)
from tiphys.api.meta.v1.meta_pb2 import LabelSelectorRequirement
from tiphys_scheduler.columns import ALL_ROWS, Columns, Mask, Rows
from tiphys_scheduler.framework.interface import Event, Normalize, Scores
from tiphys_scheduler.pod_info import PodInfo

Requirement = NodeSelectorRequirement | LabelSelectorRequirement


def match_term(term: NodeSelectorTerm, nodes: Columns) -> Mask:
    """Nodes that meet every requirement of a term; a term without any matches nothing."""
    if not term.matchExpressions and not term.matchFields:
        return np.zeros(nodes.rows, np.bool_)
    found = np.ones(nodes.rows, np.bool_)
    for requirement in term.matchExpressions:
        found &= match_label(requirement, nodes)
    for requirement in term.matchFields:
        found &= _match_field(requirement, nodes)
    return found


def _meets(term: NodeSelectorTerm, nodes: Columns, row: int) -> bool:
    """What match_term says of one node."""
    if not term.matchExpressions and not term.matchFields:
        return False
    name = nodes.names[row]
    for requirement in term.matchFields:
        if requirement.key != "metadata.name" or (name in requirement.values) == (requirement.operator == "NotIn"):
            return False
    return all(bool(match_label(requirement, nodes)[row]) for requirement in term.matchExpressions)


def _any_value(requirement: Requirement, nodes: Columns) -> Mask:
    found = np.zeros(nodes.rows, np.bool_)
    for value in requirement.values:
        found |= nodes.has_pair(requirement.key, value)
    return found


def match_label(requirement: Requirement, nodes: Columns) -> Mask:
    """Nodes whose labels meet one requirement, of a node selector or of a label selector."""
    key = requirement.key
    match requirement.operator:
        case "In":
            return _any_value(requirement, nodes)
        case "NotIn":
            return ~_any_value(requirement, nodes)
        case "Exists":
            return nodes.has_key(key)
        case "DoesNotExist":
            return ~nodes.has_key(key)
        case "Gt" | "Lt":
            return _compare(requirement, nodes)
    return np.zeros(nodes.rows, np.bool_)


def _compare(requirement: Requirement, nodes: Columns) -> Mask:
    found = np.zeros(nodes.rows, np.bool_)
    bound = _integer(requirement.values[0]) if len(requirement.values) == 1 else None
    if bound is None:
        return found
    topology = nodes.topology(requirement.key)
    for value in topology.values():
        number = _integer(value)
        if number is not None and (number > bound if requirement.operator == "Gt" else number < bound):
            found |= topology.rows_with(value)
    return found


def _integer(text: str) -> int | None:
    try:
        return int(text)
    except ValueError:
        return None


def _match_field(requirement: NodeSelectorRequirement, nodes: Columns) -> Mask:
    """metadata.name is the only field."""
    found = np.zeros(nodes.rows, np.bool_)
    if requirement.key != "metadata.name":
        return found
    for name in requirement.values:
        row = nodes.row_of.get(name)
        if row is not None:
            found[row] = True
    return ~found if requirement.operator == "NotIn" else found


class NodeAffinity:
    """Filter and score; added are preferences that a configuration adds to those of every pod."""

    name = "NodeAffinity"
    events = frozenset({Event.NODE_ADDED, Event.NODE_LABELS})
    looks_at_nodes_alone = True
    normalize = Normalize.HIGHEST

    def __init__(self, added: Sequence[PreferredSchedulingTerm] = ()) -> None:
        self._added = tuple(added)

    def is_needed(self, pod: PodInfo, nodes: Columns) -> bool:
        """Only for pods that choose."""
        return bool(pod.needs.node_selector or pod.needs.required_affinity)

    def filter(self, pod: PodInfo, nodes: Columns, rows: Rows) -> Mask:
        """Nodes with every label of nodeSelector that meet at least one term."""
        found = np.ones(nodes.rows, np.bool_)
        for key, value in pod.needs.node_selector:
            found &= nodes.has_pair(key, value)
        affinity = pod.affinity()
        if affinity is not None:
            found &= _any_term(affinity.nodeSelectorTerms, nodes)
        mask: Mask = found[rows]
        return mask

    def passes(self, pod: PodInfo, nodes: Columns, row: int) -> bool:
        """The same of one node."""
        if not all(nodes.has_pair(key, value)[row] for key, value in pod.needs.node_selector):
            return False
        affinity = pod.affinity()
        return affinity is None or any(_meets(term, nodes, row) for term in affinity.nodeSelectorTerms)

    def reasons(self, pod: PodInfo, nodes: Columns, row: int) -> tuple[str, ...]:
        """Always the same."""
        return ("node(s) didn't match Pod's node affinity/selector",)

    def reason_masks(self, pod: PodInfo, nodes: Columns) -> list[tuple[str, Mask]]:
        """The one reason, of all that do not pass."""
        return [("node(s) didn't match Pod's node affinity/selector", ~self.filter(pod, nodes, ALL_ROWS))]

    def score(self, pod: PodInfo, nodes: Columns, rows: Rows) -> Scores:
        """The sum of the weights of the preferences that a node meets."""
        found = np.zeros(nodes.rows, np.int64)
        for preference in (*self._added, *pod.preferences()):
            found += match_term(preference.preference, nodes).astype(np.int64) * preference.weight
        scores: Scores = found[rows]
        return scores


def _any_term(terms: Sequence[NodeSelectorTerm], nodes: Columns) -> Mask:
    found = np.zeros(nodes.rows, np.bool_)
    for term in terms:
        found |= match_term(term, nodes)
    return found
