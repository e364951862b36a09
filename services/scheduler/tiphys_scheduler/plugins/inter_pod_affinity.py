"""InterPodAffinity: pods that want to be near others, or far from them, and pods that others keep away.

A placed pod's required anti-affinity binds those who come after it; so do, by weight, its preferences and its required
affinity. Anti-affinity closes domains: the mask changes only when a domain gets its first pod or loses its last.
Source of the rules and of the arithmetic: kube-scheduler pkg/scheduler/framework/plugins/interpodaffinity.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from tiphys_scheduler.columns import ALL_ROWS, Columns, Mask, Rows
from tiphys_scheduler.domain_sums import DomainSums
from tiphys_scheduler.framework.interface import MAX_SCORE, Event, Normalize, Scores
from tiphys_scheduler.pod_groups import Column, Counts, Held
from tiphys_scheduler.pod_info import PodInfo
from tiphys_scheduler.pod_terms import AffinityTerm
from tiphys_scheduler.topology import NOWHERE, Topology

NOT_NEAR = "node(s) didn't match pod affinity rules"
NOT_FAR = "node(s) didn't match pod anti-affinity rules"
OTHERS_OBJECT = "node(s) didn't satisfy existing pods anti-affinity rules"
_NO_ROWS: NDArray[np.intp] = np.zeros(0, np.intp)


class InterPodAffinity:
    """Filter and score.

    hard_pod_affinity_weight is what the required affinity of a placed pod counts for one that it wants near.
    ignore_preferences_of_placed leaves all that placed pods prefer out, for pods that prefer nothing themselves.
    """

    name = "InterPodAffinity"
    events = frozenset(
        {Event.NODE_ADDED, Event.NODE_LABELS, Event.POD_ADDED, Event.POD_DELETED, Event.POD_CHANGED, Event.NAMESPACE}
    )
    # What counts is what `relate` returns.
    normalize = Normalize.NONE

    def __init__(self, hard_pod_affinity_weight: int = 1, *, ignore_preferences_of_placed: bool = False) -> None:
        self._hard_weight = hard_pod_affinity_weight
        self._ignores_placed = ignore_preferences_of_placed

    def related(self, pod: PodInfo, nodes: Columns) -> object:
        """The terms of placed pods that are about this one."""
        return nodes.groups.held(pod.needs.identity)

    def relate(self, pod: PodInfo, nodes: Columns) -> _Relation | None:
        """What is near and far, for pods that care and pods that others care about."""
        held = nodes.groups.held(pod.needs.identity)
        terms = pod.needs.terms
        if not held and not terms.has_affinity():
            return None
        closing = [*_own_closing(pod, nodes), *_held_closing(held)]
        return _Relation(_Near(pod, nodes) if terms.affinity else None, _Far(closing, nodes), self._liking(pod, nodes))

    def is_needed(self, pod: PodInfo, nodes: Columns) -> bool:
        """Only for pods with required terms, or that those of others are about."""
        terms = pod.needs.terms
        if terms.affinity or terms.anti_affinity:
            return True
        return any(term.kind == "anti-affinity" for term, _ in nodes.groups.held(pod.needs.identity))

    def filter(self, pod: PodInfo, nodes: Columns, rows: Rows) -> Mask:
        """Nodes near all that is required, and far from what must be."""
        relation = self.relate(pod, nodes)
        if relation is None or relation.mask is None:
            return np.ones(nodes.present[rows].shape, np.bool_)
        mask: Mask = relation.mask[rows]
        return mask

    def reasons(self, pod: PodInfo, nodes: Columns, row: int) -> tuple[str, ...]:
        """The first of the three rules that is broken."""
        if pod.needs.terms.affinity and not _Near(pod, nodes).mask()[row]:
            return (NOT_NEAR,)
        if not _Far(list(_own_closing(pod, nodes)), nodes).mask[row]:
            return (NOT_FAR,)
        return (OTHERS_OBJECT,)

    def reason_masks(self, pod: PodInfo, nodes: Columns) -> list[tuple[str, Mask]]:
        """By the first of the three rules that is broken."""
        every = np.ones(nodes.rows, np.bool_)
        near = _Near(pod, nodes).mask() if pod.needs.terms.affinity else every
        far = _Far(list(_own_closing(pod, nodes)), nodes).mask
        passed = self.filter(pod, nodes, ALL_ROWS)
        return [(NOT_NEAR, ~near), (NOT_FAR, near & ~far), (OTHERS_OBJECT, near & far & ~passed)]

    def score(self, pod: PodInfo, nodes: Columns, rows: Rows) -> Scores:
        """As if every node were feasible."""
        relation = self.relate(pod, nodes)
        found = relation.scores(nodes.present) if relation is not None else None
        if found is None:
            return np.zeros(nodes.present[rows].shape, np.int64)
        scores: Scores = found[rows]
        return scores

    def _liking(self, pod: PodInfo, nodes: Columns) -> _Liking | None:
        """Weights by topology; None where nobody prefers anything."""
        own = pod.needs.terms.preferred
        weighed: dict[str, list[tuple[Column, int]]] = {}
        for term in own:
            weighed.setdefault(term.topology_key, []).append((nodes.groups.count(term.selection), term.weight))
        if own or not self._ignores_placed:
            for held, column in nodes.groups.held(pod.needs.identity):
                weight = self._hard_weight if held.kind == "affinity" else held.term.weight
                if weight and held.kind != "anti-affinity":
                    weighed.setdefault(held.term.topology_key, []).append((column, weight))
        if not weighed:
            return None
        return _Liking([DomainSums(nodes.topology(key), columns) for key, columns in weighed.items()])


Closing = tuple[str, Column]


def _own_closing(pod: PodInfo, nodes: Columns) -> Iterable[Closing]:
    for term in pod.needs.terms.anti_affinity:
        yield term.topology_key, nodes.groups.count(term.selection)


def _held_closing(held: Held) -> Iterable[Closing]:
    for item, column in held:
        if item.kind == "anti-affinity":
            yield item.term.topology_key, column


class _Near:
    """Required affinity: each place must have a pod that all terms are about."""

    def __init__(self, pod: PodInfo, nodes: Columns) -> None:
        terms: Sequence[AffinityTerm] = pod.needs.terms.affinity
        column = nodes.groups.count(*(term.selection for term in terms))
        keys = dict.fromkeys(term.topology_key for term in terms)
        self._sums = [DomainSums(nodes.topology(key), [(column, 1)]) for key in keys]
        # The first of a group that wants to be together may start anywhere.
        self._may_start = nodes.groups.are_mine(pod.needs.identity, *(term.selection for term in terms))

    def update(self, rows: NDArray[np.intp]) -> bool:
        """Whether any place is another one now."""
        moved = [domain for sums in self._sums for domain in sums.update(rows)]
        return bool(moved)

    def mask(self) -> Mask:
        """Nodes with every label, near enough to what is required."""
        starts = self._may_start and not any(bool(sums.sums.any()) for sums in self._sums)
        found: Mask = np.ones(len(self._sums[0].domain), np.bool_)
        for sums in self._sums:
            near = np.ones(len(sums.sums), np.bool_) if starts else sums.sums > 0
            near[NOWHERE] = False
            found &= near[sums.domain]
        return found


class _Far:
    """Anti-affinity, the pod's own and that of placed pods: domains with such a pod are closed."""

    def __init__(self, closing: Sequence[Closing], nodes: Columns) -> None:
        by_key: dict[str, list[tuple[Column, int]]] = {}
        for key, column in closing:
            by_key.setdefault(key, []).append((column, 1))
        self._topologies: list[Topology] = [nodes.topology(key) for key in by_key]
        self._sums = [DomainSums(nodes.topology(key), columns) for key, columns in by_key.items()]
        self._closed = [sums.sums > 0 for sums in self._sums]
        self.mask: Mask = np.ones(nodes.rows, np.bool_)
        for closed, sums in zip(self._closed, self._sums, strict=True):
            self.mask &= ~closed[sums.domain]

    def update(self, rows: NDArray[np.intp]) -> list[NDArray[np.intp]]:
        """The rows whose domain was closed or opened."""
        moved: list[NDArray[np.intp]] = []
        for closed, sums, topology in zip(self._closed, self._sums, self._topologies, strict=True):
            domains = sums.update(rows)
            turned = [domain for domain in domains if bool(closed[domain]) != bool(sums.sums[domain] > 0)]
            if turned:
                closed[turned] = sums.sums[turned] > 0
                moved.append(topology.rows_of(turned, rows))
        for some in moved:
            open_rows = np.ones(len(some), np.bool_)
            for closed, sums in zip(self._closed, self._sums, strict=True):
                open_rows &= ~closed[sums.domain[some]]
            self.mask[some] = open_rows
        return moved


class _Liking:
    """Preferences: by place, the weights of all the pods there."""

    def __init__(self, sums: Sequence[DomainSums]) -> None:
        self._sums = sums
        self._raw: Counts | None = None
        # Between which raw scores of feasible nodes the final ones lie, and these.
        self._between = (0, 0)
        self._scores: Scores | None = None

    def update(self, rows: NDArray[np.intp]) -> None:
        """Counts pods that came and went."""
        for sums in self._sums:
            if sums.update(rows):
                self._raw = self._scores = None

    def scores(self, feasible: Mask) -> Scores | None:
        """From the worst feasible node, 0, to the best, 100."""
        if self._raw is None:
            self._raw = self._sums[0].by_row()
            for sums in self._sums[1:]:
                self._raw = self._raw + sums.by_row()
        raw = self._raw
        of_feasible = raw[feasible]
        if not len(of_feasible):
            return None
        lowest, highest = int(of_feasible.min()), int(of_feasible.max())
        if lowest == highest:
            return None
        if self._scores is None or self._between != (lowest, highest):
            self._between = lowest, highest
            self._scores = (MAX_SCORE * ((raw - lowest) / (highest - lowest))).astype(np.int64)
        return self._scores


class _Relation:
    """The three together."""

    def __init__(self, near: _Near | None, far: _Far, liking: _Liking | None) -> None:
        self._near, self._far, self._liking = near, far, liking
        self._near_mask = near.mask() if near is not None else None
        self.mask: Mask | None = far.mask
        self._join()

    def update(self, rows: NDArray[np.intp]) -> NDArray[np.intp]:
        """Takes in what changed; returns where the mask did."""
        if self._liking is not None:
            self._liking.update(rows)
        moved = self._far.update(rows)
        if self._near is not None and self._near_mask is not None and self._near.update(rows):
            old, self._near_mask = self._near_mask, self._near.mask()
            moved.append(np.flatnonzero(old != self._near_mask))
        if not moved:
            return _NO_ROWS
        self._join()
        return moved[0] if len(moved) == 1 else np.unique(np.concatenate(moved))

    def scores(self, feasible: Mask) -> Scores | None:
        """Final scores."""
        return self._liking.scores(feasible) if self._liking is not None else None

    def _join(self) -> None:
        self.mask = self._far.mask if self._near_mask is None else self._far.mask & self._near_mask
