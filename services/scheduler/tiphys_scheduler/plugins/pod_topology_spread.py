"""PodTopologySpread: pods that look alike are spread over zones, hosts or whatever label a constraint names.

Hard constraints filter: a place may have at most maxSkew more of the pods than the emptiest one. Soft ones score.
Source of the rules and of the arithmetic: kube-scheduler pkg/scheduler/framework/plugins/podtopologyspread.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tiphys_apimachinery.labels import Selector
from tiphys_scheduler.columns import ALL_ROWS, Columns, Mask, Rows
from tiphys_scheduler.domain_sums import DomainSums
from tiphys_scheduler.framework.interface import MAX_SCORE, Event, Normalize, Scores
from tiphys_scheduler.plugins.node_affinity import NodeAffinity
from tiphys_scheduler.plugins.taint_toleration import TaintToleration
from tiphys_scheduler.pod_info import PodInfo
from tiphys_scheduler.pod_terms import HOSTNAME, ZONE, Selection, SpreadConstraint
from tiphys_scheduler.topology import NOWHERE

REFUSED = "node(s) didn't match pod topology spread constraints"
NO_LABEL = f"{REFUSED} (missing required label)"
_NO_ROWS: NDArray[np.intp] = np.zeros(0, np.intp)


@dataclass(frozen=True, slots=True)
class DefaultConstraint:
    """A constraint of pods that have none of their own."""

    topology_key: str
    max_skew: int
    is_hard: bool = False


# Source: podtopologyspread/plugin.go, defaultingType System.
SYSTEM_DEFAULTS = (DefaultConstraint(HOSTNAME, 3), DefaultConstraint(ZONE, 5))


def no_selector(pod: PodInfo) -> Selector:
    """For clusters in which nothing is known of services and owners: pods without constraints stay without."""
    return Selector.everything()


class PodTopologySpread:
    """Filter and score.

    Pods without constraints get the defaults, over the pods that selector_of finds to be of their kind (those of their
    services and their owner); one that selects everything stands for none. system_defaults says that the defaults are
    Kubernetes' own: these count also on nodes that lack some of the labels.
    """

    name = "PodTopologySpread"
    events = frozenset(
        {
            Event.NODE_ADDED,
            Event.NODE_LABELS,
            Event.NODE_TAINTS,
            Event.POD_ADDED,
            Event.POD_DELETED,
            Event.POD_CHANGED,
        }
    )
    # What counts is what `relate` returns.
    normalize = Normalize.NONE

    def __init__(
        self,
        defaults: Sequence[DefaultConstraint] = SYSTEM_DEFAULTS,
        *,
        system_defaults: bool = True,
        selector_of: Callable[[PodInfo], Selector] = no_selector,
    ) -> None:
        self._defaults = tuple(defaults)
        self._system_defaults = system_defaults
        self._selector_of = selector_of
        self._affinity, self._taints = NodeAffinity(), TaintToleration()

    def constraints(self, pod: PodInfo) -> tuple[SpreadConstraint, ...]:
        """The pod's own, or the defaults."""
        own = pod.needs.terms.spread
        if own or not self._defaults:
            return own
        selector = self._selector_of(pod)
        if not selector:
            return ()
        who = pod.needs.identity
        selection = Selection(frozenset({who.namespace}), selector, live_only=True)
        self_match = selector.matches(who.label_map)
        return tuple(
            SpreadConstraint(d.topology_key, d.max_skew, d.is_hard, selection, counts_pods=True, self_match=self_match)
            for d in self._defaults
        )

    def related(self, pod: PodInfo, nodes: Columns) -> object:
        """The constraints: by default they depend on services and owners."""
        return pod.needs.terms.spread or (self._selector_of(pod) if self._defaults else None)

    def relate(self, pod: PodInfo, nodes: Columns) -> _Spread | None:
        """Counts by place, for pods with constraints."""
        constraints = self.constraints(pod)
        if not constraints:
            return None
        hard = [c for c in constraints if c.is_hard]
        soft = [c for c in constraints if not c.is_hard]
        is_system = self._system_defaults and not pod.needs.terms.spread
        scored = nodes.present if is_system else nodes.present & _has_all(soft, nodes)
        filtered = nodes.present & _has_all(hard, nodes)
        return _Spread(
            [_Counted(c, nodes, self._eligible(pod, nodes, c) & filtered) for c in hard],
            [_Counted(c, nodes, self._eligible(pod, nodes, c) & scored) for c in soft],
            scored,
        )

    def is_needed(self, pod: PodInfo, nodes: Columns) -> bool:
        """Only for pods with hard constraints."""
        return any(c.is_hard for c in self.constraints(pod))

    def filter(self, pod: PodInfo, nodes: Columns, rows: Rows) -> Mask:
        """Nodes whose places have few enough of the pods."""
        relation = self.relate(pod, nodes)
        if relation is None or relation.mask is None:
            return np.ones(nodes.present[rows].shape, np.bool_)
        mask: Mask = relation.mask[rows]
        return mask

    def reasons(self, pod: PodInfo, nodes: Columns, row: int) -> tuple[str, ...]:
        """Whether a label is missing, or a place has too many; the first constraint that is broken tells."""
        relation = self.relate(pod, nodes)
        return (REFUSED if relation is None else relation.reason(row),)

    def reason_masks(self, pod: PodInfo, nodes: Columns) -> list[tuple[str, Mask]]:
        """By the first constraint that is broken."""
        relation = self.relate(pod, nodes)
        if relation is None or relation.mask is None:
            return []
        found: dict[str, Mask] = {}
        for row in np.flatnonzero(~relation.mask & nodes.present).tolist():
            found.setdefault(relation.reason(row), np.zeros(nodes.rows, np.bool_))[row] = True
        return list(found.items())

    def score(self, pod: PodInfo, nodes: Columns, rows: Rows) -> Scores:
        """As if every node were feasible."""
        relation = self.relate(pod, nodes)
        found = relation.scores(nodes.present) if relation is not None else None
        if found is None:
            return np.zeros(nodes.present[rows].shape, np.int64)
        scores: Scores = found[rows]
        return scores

    def _eligible(self, pod: PodInfo, nodes: Columns, constraint: SpreadConstraint) -> Mask:
        """Nodes whose pods count: those that the pod may choose, and tolerates, where the constraint says so."""
        found = np.ones(nodes.rows, np.bool_)
        if constraint.honors_affinity and self._affinity.is_needed(pod, nodes):
            found &= self._affinity.filter(pod, nodes, ALL_ROWS)
        if constraint.honors_taints and self._taints.is_needed(pod, nodes):
            found &= self._taints.filter(pod, nodes, ALL_ROWS)
        return found


def _has_all(constraints: Sequence[SpreadConstraint], nodes: Columns) -> Mask:
    found = np.ones(nodes.rows, np.bool_)
    for constraint in constraints:
        found &= nodes.topology(constraint.topology_key).domain != NOWHERE
    return found


class _Counted:
    """The pods that one constraint counts, by place."""

    def __init__(self, constraint: SpreadConstraint, nodes: Columns, eligible: Mask) -> None:
        self.constraint = constraint
        topology = nodes.topology(constraint.topology_key)
        self.domain = topology.domain
        self.has_label = topology.domain != NOWHERE
        column = nodes.groups.count(constraint.selection) if constraint.counts_pods else None
        columns = [] if column is None else [(column, 1)]
        self.counted = DomainSums(topology, columns, eligible)
        # On a host as the place, all pods of the node count for scores.
        self.by_host = column.counts if column is not None else np.zeros(nodes.rows, np.int64)
        exists = np.zeros(topology.width, np.bool_)
        exists[self.domain[eligible]] = True
        exists[NOWHERE] = False
        self._existing = np.flatnonzero(exists)

    @property
    def is_host(self) -> bool:
        """Whether each node is a place of its own."""
        return self.constraint.topology_key == HOSTNAME

    def allowed(self) -> Mask:
        """By domain, whether one more pod keeps the skew; False for rows without the label."""
        constraint = self.constraint
        least = 0
        if len(self._existing) >= max(constraint.min_domains, 1):
            least = int(self.counted.sums[self._existing].min())
        found: Mask = self.counted.sums <= constraint.max_skew + least - constraint.self_match
        found[NOWHERE] = False
        return found


class _Spread:
    """The relation of a class of pods to those it spreads from."""

    def __init__(self, hard: list[_Counted], soft: list[_Counted], candidates: Mask) -> None:
        self._hard, self._soft = hard, soft
        # Nodes with all the labels that scoring needs; others score 0.
        self._candidates = candidates
        self._allowed = [counted.allowed() for counted in hard]
        self.mask: Mask | None = self._compute_mask() if hard else None
        self._feasible: Mask | None = None
        self._scored: Mask = candidates
        self._scored_rows = _NO_ROWS
        self._all_labelled = False
        self._weights: list[float] = []

    def update(self, rows: NDArray[np.intp]) -> NDArray[np.intp]:
        """Counts pods that came and went."""
        for counted in self._soft:
            counted.counted.update(rows)
        changed = False
        for index, counted in enumerate(self._hard):
            if not counted.counted.update(rows):
                continue
            allowed = counted.allowed()
            changed |= not np.array_equal(allowed, self._allowed[index])
            self._allowed[index] = allowed
        if not changed or self.mask is None:
            return _NO_ROWS
        old, self.mask = self.mask, self._compute_mask()
        return np.flatnonzero(old != self.mask)

    def reason(self, row: int) -> str:
        """Why a row is refused."""
        for counted, allowed in zip(self._hard, self._allowed, strict=True):
            if not counted.has_label[row]:
                return NO_LABEL
            if not allowed[counted.domain[row]]:
                return REFUSED
        return REFUSED

    def scores(self, feasible: Mask) -> Scores | None:
        """The emptier the places of a node are, the better."""
        if not self._soft:
            return None
        self._look(feasible)
        raw = np.zeros(len(feasible), np.float64)
        for counted, weight in zip(self._soft, self._weights, strict=True):
            count = counted.by_host if counted.is_host else counted.counted.by_row()
            part = count * weight + (counted.constraint.max_skew - 1)
            raw += part if self._all_labelled else np.where(counted.has_label, part, 0.0)
        rounded = _round(raw)
        of_scored = rounded[self._scored_rows]
        if not len(of_scored):
            return np.zeros(len(feasible), np.int64)
        highest, lowest = int(of_scored.max()), int(of_scored.min())
        if not highest:
            return np.where(self._scored, MAX_SCORE, 0)
        found: Scores = np.where(self._scored, MAX_SCORE * (highest + lowest - rounded) // highest, 0)
        return found

    def _look(self, feasible: Mask) -> None:
        """Which nodes are scored, and how much each constraint weighs: the more places, the more."""
        if self._feasible is not None and np.array_equal(feasible, self._feasible):
            return
        self._feasible = feasible.copy()
        self._scored = feasible & self._candidates
        self._scored_rows = np.flatnonzero(self._scored)
        self._all_labelled = all(bool(c.has_label[self._scored_rows].all()) for c in self._soft)
        self._weights = [math.log(self._places(counted) + 2) for counted in self._soft]

    def _places(self, counted: _Counted) -> int:
        if counted.is_host:
            return len(self._scored_rows)
        # Nodes without the label, which only Kubernetes' own defaults let in, are one more place.
        return len(np.unique(counted.domain[self._scored_rows]))

    def _compute_mask(self) -> Mask:
        found: Mask = self._allowed[0][self._hard[0].domain]
        for counted, allowed in zip(self._hard[1:], self._allowed[1:], strict=True):
            found = found & allowed[counted.domain]
        return found


def _round(values: NDArray[np.float64]) -> Scores:
    """To the nearest whole number, halves up; the values are not negative."""
    floor = np.floor(values)
    found: Scores = (floor + (values - floor >= 0.5)).astype(np.int64)
    return found
