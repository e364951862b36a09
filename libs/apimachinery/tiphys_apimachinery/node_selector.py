"""Which nodes a pod may run on by its own word: nodeSelector and required node affinity.

Source: kubernetes component-helpers scheduling/corev1/nodeaffinity.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from tiphys.api.core.v1 import pod_pb2, scheduling_pb2
from tiphys_apimachinery.labels import EXPRESSION_OPERATORS, Requirement, SelectorError

# The one field of a node that may be asked for.
NAME_FIELD: Final = "metadata.name"


@dataclass(frozen=True, slots=True)
class NodeTerm:
    """All of these must hold: of labels, and that the name is, or is not, among some."""

    labels: tuple[Requirement, ...]
    names: tuple[tuple[bool, frozenset[str]], ...] = ()

    def matches(self, name: str, labels: Mapping[str, str]) -> bool:
        """Whether a node of this name with these labels meets the term."""
        return all((name in names) is wanted for wanted, names in self.names) and all(
            requirement.matches(labels) for requirement in self.labels
        )


@dataclass(frozen=True, slots=True)
class NodeSelection:
    """Labels that a node must have, and terms of which it must meet one; None where no term is asked for."""

    labels: tuple[tuple[str, str], ...] = ()
    terms: tuple[NodeTerm, ...] | None = None

    def matches(self, name: str, labels: Mapping[str, str]) -> bool:
        """Whether a node of this name with these labels is chosen."""
        if any(labels.get(key) != value for key, value in self.labels):
            return False
        return self.terms is None or any(term.matches(name, labels) for term in self.terms)


def node_selection(spec: pod_pb2.PodSpec) -> NodeSelection:
    """What a pod asks of its node; a term that says nothing, or what can't be meant, matches no node."""
    labels = tuple(spec.nodeSelector.items())
    affinity = spec.affinity.nodeAffinity
    if not affinity.HasField("requiredDuringSchedulingIgnoredDuringExecution"):
        return NodeSelection(labels)
    required = affinity.requiredDuringSchedulingIgnoredDuringExecution
    return NodeSelection(labels, tuple(_terms(required.nodeSelectorTerms)))


def _terms(terms: Iterable[scheduling_pb2.NodeSelectorTerm]) -> Iterable[NodeTerm]:
    for term in terms:
        if not term.matchExpressions and not term.matchFields:
            continue
        try:
            yield NodeTerm(
                tuple(_requirement(item) for item in term.matchExpressions),
                tuple((_is_wanted(item), frozenset(item.values)) for item in term.matchFields),
            )
        except SelectorError:
            continue


def _requirement(item: scheduling_pb2.NodeSelectorRequirement) -> Requirement:
    operator = EXPRESSION_OPERATORS.get(item.operator)
    if operator is None:
        raise SelectorError(f"{item.operator} is not a valid node selector operator")
    return Requirement.checked(item.key, operator, item.values)


def _is_wanted(item: scheduling_pb2.NodeSelectorRequirement) -> bool:
    if item.key != NAME_FIELD or item.operator not in ("In", "NotIn"):
        raise SelectorError(f"{item.key} {item.operator} is not a valid node field selector")
    return item.operator == "In"
