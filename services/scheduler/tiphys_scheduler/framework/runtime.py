"""Runs the plugins for a pod and picks the node: the best of all nodes, not of a sample.

Pods with equal needs share a class, which keeps masks and scores between pods; after a placement
only the touched node's entries are made anew. The outcome is exactly that of computing everything
for each pod, which a slow reference proves in the tests.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tiphys_scheduler.columns import ALL_ROWS, Columns, Mask, Rows
from tiphys_scheduler.framework.interface import (
    MAX_SCORE,
    FilterPlugin,
    Normalize,
    PreFilterPlugin,
    ScorePlugin,
    Scores,
)
from tiphys_scheduler.framework.status import FitError, Refusal
from tiphys_scheduler.pod_info import Needs, PodInfo

_MOST_CLASSES = 256
_LONGEST_CHANGES = 1 << 16


@dataclass(frozen=True, slots=True)
class Profile:
    """The plugins in order; filters refuse in this order, scores count by weight."""

    filters: Sequence[FilterPlugin]
    scores: Sequence[tuple[ScorePlugin, int]]
    pre_filters: Sequence[PreFilterPlugin] = ()


@dataclass(frozen=True, slots=True)
class Placement:
    """The node chosen, and its score."""

    row: int
    node: str
    score: int


class _Class:
    """Masks and scores of all pods with the same needs."""

    def __init__(self, profile: Profile, pod: PodInfo, nodes: Columns) -> None:
        self._profile = profile
        self._pod = pod
        self._seen = 0
        self._epoch = -1
        self.feasible: Mask = np.zeros(0, np.bool_)
        # Sum of the scores that need no normalizing, by weight.
        self._base: Scores = np.zeros(0, np.int64)
        self._raw: list[tuple[Normalize, int, Scores]] = []
        self.refresh(nodes)

    def refresh(self, nodes: Columns) -> None:
        """Brings up to date what changed since the last time."""
        if self._epoch != nodes.epoch:
            self._compute_all(nodes)
        elif self._seen < len(nodes.changes):
            rows = np.unique(np.array(nodes.changes[self._seen :], np.intp))
            self._compute(nodes, rows)
        self._epoch, self._seen = nodes.epoch, len(nodes.changes)

    def _compute_all(self, nodes: Columns) -> None:
        self.feasible = np.zeros(nodes.rows, np.bool_)
        self._base = np.zeros(nodes.rows, np.int64)
        self._raw = [
            (plugin.normalize, weight, np.zeros(nodes.rows, np.int64))
            for plugin, weight in self._profile.scores
            if plugin.normalize is not Normalize.NONE
        ]
        self._compute(nodes, ALL_ROWS)

    def _compute(self, nodes: Columns, rows: Rows) -> None:
        feasible = nodes.present[rows].copy()
        for plugin in self._profile.filters:
            if plugin.is_needed(self._pod, nodes):
                feasible &= plugin.filter(self._pod, nodes, rows)
        self.feasible[rows] = feasible
        base = np.zeros(feasible.shape, np.int64)
        normalized = iter(self._raw)
        for score, weight in self._profile.scores:
            found = score.score(self._pod, nodes, rows)
            if score.normalize is Normalize.NONE:
                base += found * weight
            else:
                next(normalized)[2][rows] = found
        self._base[rows] = base

    def totals(self) -> Scores:
        """The score of each row; only those of feasible rows mean anything."""
        total = self._base
        for how, weight, raw in self._raw:
            highest = int(raw[self.feasible].max(initial=0))
            if not highest:
                # Equal for all: a constant changes no choice, but it is part of the score.
                total = total + (MAX_SCORE * weight if how is Normalize.REVERSED else 0)
                continue
            scaled = raw * MAX_SCORE // highest
            total = total + weight * (MAX_SCORE - scaled if how is Normalize.REVERSED else scaled)
        return total


class Framework:
    """Places pods on the nodes of the columns."""

    def __init__(self, profile: Profile, nodes: Columns) -> None:
        self._profile = profile
        self._nodes = nodes
        self._classes: OrderedDict[Needs, _Class] = OrderedDict()

    def place(self, pod: PodInfo) -> Placement | FitError:
        """The best node; of equally good ones the one with the lowest row."""
        if (rejected := self._reject(pod)) is not None:
            return rejected
        found = self._class_of(pod)
        if not found.feasible.any():
            return self.explain(pod)
        totals = np.where(found.feasible, found.totals(), -1)
        row = int(totals.argmax())
        return Placement(row, self._nodes.names[row], int(totals[row]))

    def explain(self, pod: PodInfo) -> FitError:
        """Which plugin refused each node first, and why; nodes that fit are not in it."""
        nodes = self._nodes
        if (rejected := self._reject(pod)) is not None:
            return rejected
        left = nodes.present.copy()
        refusals: list[Refusal] = []
        for plugin in self._profile.filters:
            if not plugin.is_needed(pod, nodes):
                continue
            passed = plugin.filter(pod, nodes, ALL_ROWS)
            for row in np.flatnonzero(left & ~passed):
                refusals.append(Refusal(nodes.names[row], plugin.name, plugin.reasons(pod, nodes, int(row))))
            left &= passed
        return FitError(len(nodes), tuple(refusals))

    def scores(self, pod: PodInfo) -> dict[str, dict[str, int]]:
        """Weighted score by node and plugin, for those who ask why."""
        found = self._class_of(pod)
        rows = np.flatnonzero(found.feasible)
        table: dict[str, dict[str, int]] = {self._nodes.names[row]: {} for row in rows}
        for plugin, weight in self._profile.scores:
            raw = plugin.score(pod, self._nodes, rows)
            highest = int(raw.max(initial=0))
            if plugin.normalize is not Normalize.NONE and highest:
                raw = raw * MAX_SCORE // highest
            if plugin.normalize is Normalize.REVERSED:
                raw = MAX_SCORE - raw
            for row, value in zip(rows, raw, strict=True):
                table[self._nodes.names[row]][plugin.name] = int(value) * weight
        return table

    def _reject(self, pod: PodInfo) -> FitError | None:
        for plugin in self._profile.pre_filters:
            why = plugin.pre_filter(pod)
            if why:
                return FitError(len(self._nodes), (), plugin.name, why)
        return None

    def _class_of(self, pod: PodInfo) -> _Class:
        if pod.needs.claims:
            # Where its volumes are is no fact of the columns, so nothing that was worked out before may be used.
            return _Class(self._profile, pod, self._nodes)
        if len(self._nodes.changes) > _LONGEST_CHANGES:
            self._nodes.forget_changes()
        found = self._classes.get(pod.needs)
        if found is None:
            found = self._classes[pod.needs] = _Class(self._profile, pod, self._nodes)
            if len(self._classes) > _MOST_CLASSES:
                self._classes.popitem(last=False)
        else:
            self._classes.move_to_end(pod.needs)
            found.refresh(self._nodes)
        return found
