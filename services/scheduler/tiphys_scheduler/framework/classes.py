"""Pods with equal needs share a class, which keeps masks and scores from pod to pod.

After a placement only the touched node's entries are made anew, and what relations between pods change. The outcome is
exactly that of computing everything for each pod, which a slow reference proves in the tests.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tiphys_scheduler.columns import ALL_ROWS, Columns, Mask, Rows
from tiphys_scheduler.framework.interface import (
    MAX_SCORE,
    FilterPlugin,
    NodePlugin,
    Normalize,
    NormalizePlugin,
    Relation,
    RelationPlugin,
    RowFilterPlugin,
    RowScorePlugin,
    ScorePlugin,
    Scores,
)
from tiphys_scheduler.framework.profile import Profile
from tiphys_scheduler.pod_info import PodInfo

_NOT_FEASIBLE = -1
# Up to so many rows are quicker one by one than as arrays.
_FEW_ROWS = 6


class PluginLists:
    """The plugins of a profile, sorted by how often they must be asked."""

    def __init__(self, profile: Profile) -> None:
        filters = [p for p in profile.filters if not isinstance(p, RelationPlugin)]
        scores = [(p, w) for p, w in profile.scores if not isinstance(p, RelationPlugin)]
        self.node_filters = [p for p in filters if _is_static(p)]
        self.pod_filters = [p for p in filters if not _is_static(p)]
        self.plain_scores = [(p, w) for p, w in scores if not _needs_others(p)]
        self.normalized_scores = [_Normalized.of(p, w) for p, w in scores if _needs_others(p)]
        # Those that can also speak of one row, by identity: plugins from outside need not be hashable.
        self.row_filters: dict[int, RowFilterPlugin] = {id(p): p for p in filters if isinstance(p, RowFilterPlugin)}
        self.row_scores = [(p, w) for p, w in self.plain_scores if isinstance(p, RowScorePlugin)]
        self.scores_rows = len(self.row_scores) == len(self.plain_scores)
        weights = {p.name: w for p, w in profile.scores}
        related = {
            p.name: p for p in (*profile.filters, *(p for p, _ in profile.scores)) if isinstance(p, RelationPlugin)
        }
        self.pre_scores = profile.pre_scores
        filtering = {p.name for p in profile.filters}
        # A plugin that is listed only at one of its two points speaks only there.
        self.relations = [(p, weights.get(name, 0), name in filtering) for name, p in related.items()]


def _is_static(plugin: object) -> bool:
    return isinstance(plugin, NodePlugin) and plugin.looks_at_nodes_alone


def _needs_others(plugin: ScorePlugin) -> bool:
    return isinstance(plugin, NormalizePlugin) or plugin.normalize is not Normalize.NONE


@dataclass(frozen=True, slots=True)
class _Normalized:
    """A plugin whose raw scores become scores by looking at others; what kind it is, found out once."""

    plugin: ScorePlugin
    weight: int
    is_static: bool
    own: NormalizePlugin | None

    @classmethod
    def of(cls, plugin: ScorePlugin, weight: int) -> _Normalized:
        return cls(plugin, weight, _is_static(plugin), plugin if isinstance(plugin, NormalizePlugin) else None)


class _Raw:
    """Raw scores of one plugin, which become scores by looking at all feasible rows."""

    def __init__(self, kind: _Normalized, rows: int) -> None:
        self.plugin, self.weight, self.is_static, self._own = kind.plugin, kind.weight, kind.is_static, kind.own
        self.values: Scores = np.zeros(rows, np.int64)
        self._highest = 0
        self._is_flat = True

    def compute(self, pod: PodInfo, nodes: Columns, rows: Rows) -> None:
        """Asks the plugin."""
        found = self.plugin.score(pod, nodes, rows)
        self.values[rows] = found
        self._is_flat = not found.any() and (self._is_flat or not self.values.any())

    def look(self, feasible: Mask) -> bool:
        """Finds the highest raw score; False where it is another one than before."""
        old = self._highest
        self._highest = 0 if self._is_flat else int(np.where(feasible, self.values, 0).max())
        return old == self._highest and self._own is None

    def scores(self, pod: PodInfo, feasible: Mask, rows: Rows) -> Scores | int:
        """Final scores of the rows by weight; one number where it is everyone's."""
        if self._own is not None:
            final = np.zeros(len(self.values), np.int64)
            final[feasible] = self._own.normalize_scores(pod, self.values[feasible])
            part: Scores = final[rows] * self.weight
            return part
        is_reversed = self.plugin.normalize is Normalize.REVERSED
        if not self._highest:
            # A constant changes no choice, but it is part of the score.
            return MAX_SCORE * self.weight if is_reversed else 0
        scaled = self.values[rows] * MAX_SCORE // self._highest
        return self.weight * (MAX_SCORE - scaled if is_reversed else scaled)


@dataclass(slots=True)
class _Kept:
    """The relation of one plugin to the pods of a class, and what it hangs on."""

    plugin: RelationPlugin
    weight: int
    filters: bool
    hangs_on: object
    relation: Relation | None
    # The scores that went into the sum.
    scores: Scores | None = None

    def look(self, feasible: Mask) -> bool:
        """Asks for the scores; False where they are others than before."""
        if not self.weight or self.relation is None:
            return True
        old, self.scores = self.scores, self.relation.scores(feasible)
        return self.scores is old


class PodClass:
    """Masks and scores of all pods with the same needs."""

    def __init__(self, plugins: PluginLists, pod: PodInfo, nodes: Columns) -> None:
        self._plugins, self._pod, self._nodes = plugins, pod, nodes
        self._seen = 0
        self._epoch = -1
        self._node_filters: list[FilterPlugin] = []
        self._pod_filters: list[FilterPlugin] = []
        self._static: Mask = np.zeros(0, np.bool_)
        self._local: Mask = self._static
        self.feasible: Mask = self._static
        # Sum by weight of the scores that need no look at other rows.
        self._base: Scores = np.zeros(0, np.int64)
        self._raws: list[_Raw] = []
        self._relations: list[_Kept] = []
        # Final scores, negative where not feasible.
        self._best: Scores = self._base
        self.refresh()

    def refresh(self) -> None:
        """Brings up to date what changed since the last time."""
        nodes = self._nodes
        if self._epoch != nodes.epoch:
            self._start_afresh()
        elif self._seen < len(nodes.changes) or not self._are_relations_true():
            self._follow(nodes.changes[self._seen :])
        self._epoch, self._seen = nodes.epoch, len(nodes.changes)

    def best(self) -> tuple[int, int] | None:
        """The row with the highest score and that score; of equal ones the first. None where no row is feasible."""
        row = int(self._best.argmax())
        score = int(self._best[row])
        return None if score < 0 else (row, score)

    def totals(self) -> Scores:
        """The score of each row, negative where it is not feasible."""
        return self._best

    def _start_afresh(self) -> None:
        nodes = self._nodes
        self._static = np.zeros(nodes.rows, np.bool_)
        self._local = np.zeros(nodes.rows, np.bool_)
        self._base = np.zeros(nodes.rows, np.int64)
        self._raws = [_Raw(kind, nodes.rows) for kind in self._plugins.normalized_scores]
        self._compute_static(ALL_ROWS)
        self._compute(ALL_ROWS)
        self._relate()
        self._compute_best()

    def _follow(self, changes: list[int]) -> None:
        rows = np.array(sorted({max(row, ~row) for row in changes}), np.intp)
        if any(row < 0 for row in changes):
            self._compute_static(rows)
            self._compute(rows)
            self._relate()
            self._compute_best()
            return
        if len(rows) > _FEW_ROWS or not all(self._compute_row(row) for row in rows.tolist()):
            self._compute(rows)
        touched = [rows]
        if not self._are_relations_true():
            self._relate()
            self._compute_best()
            return
        for kept in self._relations:
            if kept.relation is not None:
                moved = kept.relation.update(rows)
                if kept.filters and len(moved):
                    touched.append(moved)
        self._patch(np.concatenate(touched) if len(touched) > 1 else rows)

    def _are_relations_true(self) -> bool:
        return all(kept.plugin.related(self._pod, self._nodes) == kept.hangs_on for kept in self._relations)

    def _compute_static(self, rows: Rows) -> None:
        pod, nodes = self._pod, self._nodes
        self._node_filters = [p for p in self._plugins.node_filters if p.is_needed(pod, nodes)]
        passed = nodes.present[rows].copy()
        for plugin in self._node_filters:
            passed &= plugin.filter(pod, nodes, rows)
        self._static[rows] = passed
        for raw in self._raws:
            if raw.is_static:
                raw.compute(pod, nodes, rows)

    def _compute(self, rows: Rows) -> None:
        pod, nodes = self._pod, self._nodes
        passed = self._static[rows].copy()
        for plugin in self._plugins.pod_filters:
            if plugin.is_needed(pod, nodes):
                passed &= plugin.filter(pod, nodes, rows)
        self._local[rows] = passed
        if not passed.any():
            # A row that passes again has changed, and is scored then.
            return
        for pre_score in self._plugins.pre_scores:
            pre_score.pre_score(pod, nodes, rows)
        base = np.zeros(passed.shape, np.int64)
        for score, weight in self._plugins.plain_scores:
            base += score.score(pod, nodes, rows) * weight
        self._base[rows] = base
        for raw in self._raws:
            if not raw.is_static:
                raw.compute(pod, nodes, rows)

    def _compute_row(self, row: int) -> bool:
        """Does what _compute does for one row; False where some plugin must be given an array."""
        pod, nodes, plugins = self._pod, self._nodes, self._plugins
        if not plugins.scores_rows:
            return False
        passes = bool(self._static[row])
        for plugin in plugins.pod_filters:
            if plugin.is_needed(pod, nodes):
                one = plugins.row_filters.get(id(plugin))
                if one is None:
                    return False
                passes = passes and one.passes(pod, nodes, row)
        self._local[row] = passes
        self._base[row] = sum(p.score_row(pod, nodes, row) * weight for p, weight in plugins.row_scores)
        for raw in self._raws:
            if not raw.is_static:
                raw.compute(pod, nodes, np.array([row], np.intp))
        return True

    def _relate(self) -> None:
        pod, nodes = self._pod, self._nodes
        self._relations = [
            _Kept(plugin, weight, filters, plugin.related(pod, nodes), plugin.relate(pod, nodes))
            for plugin, weight, filters in self._plugins.relations
        ]

    def _passes(self, rows: Rows) -> Mask:
        passed = self._local[rows].copy()
        for kept in self._relations:
            if kept.filters and kept.relation is not None and kept.relation.mask is not None:
                passed &= kept.relation.mask[rows]
        return passed

    def _compute_best(self) -> None:
        self.feasible = self._passes(ALL_ROWS)
        if not self.feasible.any():
            self._best = np.full(len(self.feasible), _NOT_FEASIBLE, np.int64)
            return
        for raw in self._raws:
            raw.look(self.feasible)
        for kept in self._relations:
            kept.look(self.feasible)
        self._best = self._sum(ALL_ROWS)

    def _patch(self, rows: NDArray[np.intp]) -> None:
        """Brings the final scores up to date where only these rows changed by themselves."""
        self.feasible[rows] = self._passes(rows)
        same = True
        for raw in self._raws:
            same &= raw.look(self.feasible)
        for kept in self._relations:
            same &= kept.look(self.feasible)
        if same:
            self._best[rows] = self._sum(rows)
        else:
            self._best = self._sum(ALL_ROWS)

    def _sum(self, rows: Rows) -> Scores:
        total = self._base[rows]
        for raw in self._raws:
            total = total + raw.scores(self._pod, self.feasible, rows)
        for kept in self._relations:
            if kept.scores is not None:
                total = total + kept.weight * kept.scores[rows]
        best: Scores = np.where(self.feasible[rows], total, _NOT_FEASIBLE)
        return best


def takes(plugins: PluginLists, pod: PodInfo, nodes: Columns, row: int) -> bool:
    """Whether one row takes the pod, found out without a look at the others."""
    if not nodes.present.item(row):
        return False
    rows = np.array([row], np.intp)
    for plugin in (*plugins.node_filters, *plugins.pod_filters):
        if plugin.is_needed(pod, nodes):
            one = plugins.row_filters.get(id(plugin))
            if not (one.passes(pod, nodes, row) if one is not None else plugin.filter(pod, nodes, rows)[0]):
                return False
    for related, _, is_filter in plugins.relations:
        if is_filter:
            relation = related.relate(pod, nodes)
            if relation is not None and relation.mask is not None and not relation.mask[row]:
                return False
    return True


def best_among(plugins: PluginLists, pod: PodInfo, nodes: Columns, rows: NDArray[np.intp]) -> tuple[int, int] | None:
    """The best of a few rows and its score, with nothing kept: for pods that may go nowhere else."""
    passed = nodes.present[rows]
    for plugin in (*plugins.node_filters, *plugins.pod_filters):
        if plugin.is_needed(pod, nodes):
            passed = passed & plugin.filter(pod, nodes, rows)
    relations = [(w, is_filter, p.relate(pod, nodes)) for p, w, is_filter in plugins.relations]
    for _, is_filter, relation in relations:
        if is_filter and relation is not None and relation.mask is not None:
            passed = passed & relation.mask[rows]
    rows = rows[passed]
    if not len(rows):
        return None
    feasible = np.zeros(nodes.rows, np.bool_)
    feasible[rows] = True
    total = np.zeros(len(rows), np.int64)
    for score, weight in plugins.plain_scores:
        total += score.score(pod, nodes, rows) * weight
    for kind in plugins.normalized_scores:
        raw = _Raw(kind, nodes.rows)
        raw.compute(pod, nodes, rows)
        raw.look(feasible)
        total += raw.scores(pod, feasible, rows)
    for weight, _, relation in relations:
        found = relation.scores(feasible) if relation is not None and weight else None
        if found is not None:
            total += weight * found[rows]
    best = int(total.argmax())
    return int(rows[best]), int(total[best])


def score_table(plugins: PluginLists, pod: PodInfo, nodes: Columns, feasible: Mask) -> dict[str, Scores]:
    """Weighted scores of the feasible rows by plugin, computed without anything kept."""
    rows = np.flatnonzero(feasible)
    table: dict[str, Scores] = {}
    for plugin, weight in plugins.plain_scores:
        table[plugin.name] = plugin.score(pod, nodes, rows) * weight
    for kind in plugins.normalized_scores:
        raw = _Raw(kind, nodes.rows)
        raw.compute(pod, nodes, ALL_ROWS)
        raw.look(feasible)
        table[kind.plugin.name] = np.zeros(len(rows), np.int64) + raw.scores(pod, feasible, rows)
    for related, weight, _ in plugins.relations:
        if weight:
            relation = related.relate(pod, nodes)
            found = relation.scores(feasible) if relation is not None else None
            table[related.name] = np.zeros(len(rows), np.int64) if found is None else found[rows] * weight
    return table
