"""Runs the plugins for a pod and picks the node: the best of all nodes, not of a sample."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import numpy as np

from tiphys_scheduler.columns import ALL_ROWS, Columns
from tiphys_scheduler.framework.classes import PluginLists, PodClass, score_table
from tiphys_scheduler.framework.hints import may_help
from tiphys_scheduler.framework.interface import Change, PostFilterResult
from tiphys_scheduler.framework.profile import Profile
from tiphys_scheduler.framework.status import FitError, Refusal
from tiphys_scheduler.pod_info import Needs, PodInfo

_MOST_CLASSES = 256
_LONGEST_CHANGES = 1 << 16


@dataclass(frozen=True, slots=True)
class Placement:
    """The node chosen, and its score."""

    row: int
    node: str
    score: int


class Framework:
    """Places pods on the nodes of the columns."""

    def __init__(self, profile: Profile, nodes: Columns) -> None:
        self._profile = profile
        self._nodes = nodes
        self._plugins = PluginLists(profile)
        self._by_name = profile.plugins()
        self._classes: OrderedDict[Needs, PodClass] = OrderedDict()

    @property
    def profile(self) -> Profile:
        """Whose plugins these are."""
        return self._profile

    def admit(self, pod: PodInfo) -> tuple[str, str]:
        """The plugin that holds the pod outside the queue, with its reason; empty where none does."""
        for plugin in self._profile.pre_enqueues:
            why = plugin.pre_enqueue(pod)
            if why:
                return plugin.name, why
        return "", ""

    def may_help(self, pod: PodInfo, refused_by: frozenset[str], change: Change) -> bool:
        """Whether a change is worth another try of a pod that these plugins refused."""
        return may_help(self._by_name, pod, refused_by, change=change, nodes=self._nodes)

    def post_filter(self, pod: PodInfo, error: FitError) -> PostFilterResult:
        """Has room made for a pod that fits nowhere: by the first plugin that can."""
        messages = []
        for plugin in self._profile.post_filters:
            result = plugin.post_filter(pod, error)
            if result.node:
                return result
            if result.message:
                messages.append(result.message)
        return PostFilterResult(message=" ".join(messages))

    def place(self, pod: PodInfo) -> Placement | FitError:
        """The best node; of equally good ones the one with the lowest row."""
        if (rejected := self._reject(pod)) is not None:
            return rejected
        best = self._class_of(pod).best()
        if best is None:
            return self.explain(pod)
        row, score = best
        return Placement(row, self._nodes.names[row], score)

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
        feasible = self._class_of(pod).feasible
        table: dict[str, dict[str, int]] = {self._nodes.names[row]: {} for row in np.flatnonzero(feasible)}
        for name, scores in score_table(self._plugins, pod, self._nodes, feasible).items():
            for of_node, score in zip(table.values(), scores, strict=True):
                of_node[name] = int(score)
        return table

    def _reject(self, pod: PodInfo) -> FitError | None:
        for plugin in self._profile.pre_filters:
            why = plugin.pre_filter(pod)
            if why:
                return FitError(len(self._nodes), (), plugin.name, why)
        return None

    def _class_of(self, pod: PodInfo) -> PodClass:
        if pod.needs.claims:
            # Where its volumes are is no fact of the columns, so nothing that was worked out before may be used.
            return PodClass(self._plugins, pod, self._nodes)
        if len(self._nodes.changes) > _LONGEST_CHANGES:
            self._nodes.forget_changes()
        found = self._classes.get(pod.needs)
        if found is None:
            found = self._classes[pod.needs] = PodClass(self._plugins, pod, self._nodes)
            if len(self._classes) > _MOST_CLASSES:
                self._classes.popitem(last=False)
        else:
            self._classes.move_to_end(pod.needs)
            found.refresh()
        return found
