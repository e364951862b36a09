"""Runs the plugins for a pod and picks the node: the best of all nodes, not of a sample."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tiphys_scheduler.columns import ALL_ROWS, Columns, Mask
from tiphys_scheduler.framework.classes import PluginLists, PodClass, best_among, score_table, takes
from tiphys_scheduler.framework.hints import NODE_LOCAL, may_help
from tiphys_scheduler.framework.interface import Change, CountingPlugin, FilterPlugin, PostFilterResult, Scores
from tiphys_scheduler.framework.profile import Profile
from tiphys_scheduler.framework.status import FitError, Refusal
from tiphys_scheduler.nominations import Nominations, short_of
from tiphys_scheduler.pod_info import Needs, PodInfo

_MOST_CLASSES = 256
_LONGEST_CHANGES = 1 << 16
# Pods that name at most so many nodes are tried on these alone.
_FEW_NODES = 8
_FIT = "NodeResourcesFit"


@dataclass(frozen=True, slots=True)
class Placement:
    """The node chosen, and its score; 0 where there was no choice and nobody asked for it."""

    row: int
    node: str
    score: int


class Framework:
    """Places pods on the nodes of the columns."""

    def __init__(self, profile: Profile, nodes: Columns, nominations: Nominations | None = None) -> None:
        self.nominations = Nominations(nodes) if nominations is None else nominations
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
        if not may_help(self._by_name, pod, refused_by, change=change, nodes=self._nodes):
            return False
        row = self._nodes.row_of.get(change.node)
        if row is None or not refused_by <= NODE_LOCAL:
            return True
        # What became free may be kept for another.
        blocked = self._blocked(pod)
        return blocked is None or not bool(blocked[row])

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

    def place(self, pod: PodInfo, *, is_scored: bool = True) -> Placement | FitError:
        """The best node; of equally good ones the one with the lowest row. Where room was made for the pod, it goes.

        Whoever does not ask for the score saves it for pods that name one node, as those of DaemonSets do.
        """
        if (rejected := self._reject(pod)) is not None:
            return rejected
        blocked = self._blocked(pod)
        if blocked is not None:
            return self._place_beside(pod, self._class_of(pod).totals(), blocked)
        pinned = pod.needs.pinned_to
        if pinned is not None and len(pinned) <= _FEW_NODES:
            # Each pod of a DaemonSet names its node: a class of all nodes for each would be far more work.
            rows = sorted(self._nodes.row_of[name] for name in pinned if name in self._nodes.row_of)
            if len(rows) == 1 and not is_scored:
                return self._place_on(pod, rows[0])
            best = best_among(self._plugins, pod, self._nodes, np.array(rows, np.intp))
        else:
            best = self._class_of(pod).best()
        if best is None:
            return self.refusal(pod)
        row, score = best
        return Placement(row, self._nodes.names[row], score)

    def _place_on(self, pod: PodInfo, row: int) -> Placement | FitError:
        """On the only node that the pod may go to."""
        if takes(self._plugins, pod, self._nodes, row):
            return Placement(row, self._nodes.names[row], 0)
        return self.refusal(pod)

    def _place_beside(self, pod: PodInfo, totals: Scores, blocked: Mask) -> Placement | FitError:
        """While room is kept for others on some nodes."""
        left = np.where(blocked, -1, totals)
        own = self._nodes.row_of.get(self.nominations.node_of(pod.key))
        row = own if own is not None and left[own] >= 0 else int(left.argmax())
        if left[row] < 0:
            return self.refusal(pod)
        return Placement(row, self._nodes.names[row], int(left[row]))

    def candidates(self, pod: PodInfo) -> FitError | tuple[NDArray[np.intp], Scores]:
        """The rows that would take the pod, with the score of each, for those who have a further say."""
        if (rejected := self._reject(pod)) is not None:
            return rejected
        totals = self._class_of(pod).totals()
        blocked = self._blocked(pod)
        left = totals if blocked is None else np.where(blocked, -1, totals)
        rows = np.flatnonzero(left >= 0)
        return (rows, left[rows]) if len(rows) else self.refusal(pod)

    def fits(self, pod: PodInfo, node: str) -> bool:
        """Whether a node would take the pod now."""
        row = self._nodes.row_of.get(node)
        if row is None or self._reject(pod) is not None or not self._class_of(pod).feasible[row]:
            return False
        blocked = self._blocked(pod)
        return blocked is None or not bool(blocked[row])

    def refusal(self, pod: PodInfo) -> FitError:
        """What is said of a pod that fits nowhere: like explain, with counts instead of nodes, and quick."""
        if (rejected := self._reject(pod)) is not None:
            return rejected
        nodes, counts = self._nodes, Counter[str]()
        plugins: set[str] = set()
        for plugin, refused in self._refused(pod):
            plugins.add(plugin.name)
            if isinstance(plugin, CountingPlugin):
                for reason, mask in plugin.reason_masks(pod, nodes):
                    counts[reason] += int((mask & refused).sum())
            else:
                for index in np.flatnonzero(refused).tolist():
                    counts.update(plugin.reasons(pod, nodes, index))
        for row in self._kept_from(pod):
            plugins.add(_FIT)
            counts.update(self._reasons_beside(pod, row))
        found = {reason: count for reason, count in counts.items() if count}
        return FitError(len(nodes), (), counts=found, refused_by=frozenset(plugins))

    def explain(self, pod: PodInfo) -> FitError:
        """Which plugin refused each node first, and why; nodes that fit are not in it."""
        nodes = self._nodes
        if (rejected := self._reject(pod)) is not None:
            return rejected
        refusals: list[Refusal] = []
        for plugin, refused in self._refused(pod):
            masks = plugin.reason_masks(pod, nodes) if isinstance(plugin, CountingPlugin) else None
            for index in np.flatnonzero(refused).tolist():
                if masks is not None:
                    reasons = tuple(reason for reason, mask in masks if mask[index])
                else:
                    reasons = plugin.reasons(pod, nodes, index)
                refusals.append(Refusal(nodes.names[index], plugin.name, reasons))
        for row in self._kept_from(pod):
            refusals.append(Refusal(nodes.names[row], _FIT, self._reasons_beside(pod, row)))
        return FitError(len(nodes), tuple(refusals))

    def _refused(self, pod: PodInfo) -> Iterator[tuple[FilterPlugin, Mask]]:
        """Each plugin that is the first to refuse some rows, with these."""
        left = self._nodes.present.copy()
        for plugin in self._profile.filters:
            if not plugin.is_needed(pod, self._nodes):
                continue
            passed = plugin.filter(pod, self._nodes, ALL_ROWS)
            refused = left & ~passed
            if refused.any():
                yield plugin, refused
            left &= passed

    def _blocked(self, pod: PodInfo) -> Mask | None:
        return self.nominations.blocked(pod, self._profile.filters) if len(self.nominations) else None

    def _kept_from(self, pod: PodInfo) -> list[int]:
        """Rows that would fit, were there no room kept on them for others."""
        blocked = self._blocked(pod)
        return [] if blocked is None else np.flatnonzero(self._class_of(pod).feasible & blocked).tolist()

    def _reasons_beside(self, pod: PodInfo, row: int) -> tuple[str, ...]:
        rivals = [other.needs for other in self.nominations.rivals(pod, self._nodes.names[row])]
        return tuple(short_of(pod.needs, rivals, self._nodes, row)) or ("node(s) keep room for a nominated pod",)

    def scores(self, pod: PodInfo) -> dict[str, dict[str, int]]:
        """Weighted score by node and plugin, for those who ask why."""
        feasible = self._class_of(pod).feasible
        table: dict[str, dict[str, int]] = {self._nodes.names[row]: {} for row in np.flatnonzero(feasible)}
        for name, scores in score_table(self._plugins, pod, self._nodes, feasible).items():
            for of_node, score in zip(table.values(), scores, strict=True):
                of_node[name] = int(score)
        return table

    def scores_of(self, pod: PodInfo, row: int) -> dict[str, int]:
        """Weighted score by plugin of one row that is feasible."""
        feasible = self._class_of(pod).feasible
        place = int(feasible[:row].sum())
        table = score_table(self._plugins, pod, self._nodes, feasible)
        return {name: int(scores[place]) for name, scores in table.items()}

    def timed(self, pod: PodInfo, read: Callable[[], float]) -> Iterator[tuple[str, str, float]]:
        """Asks each plugin that looks at nodes once more, for all of them: its name, the point and how long it took."""
        filters = [p for p in self._profile.filters if p.is_needed(pod, self._nodes)]
        for plugin in filters:
            began = read()
            plugin.filter(pod, self._nodes, ALL_ROWS)
            yield plugin.name, "Filter", read() - began
        for score, _ in self._profile.scores:
            began = read()
            score.score(pod, self._nodes, ALL_ROWS)
            yield score.name, "Score", read() - began

    def _reject(self, pod: PodInfo) -> FitError | None:
        for plugin in self._profile.pre_filters:
            why = plugin.pre_filter(pod)
            if why:
                return FitError(len(self._nodes), (), plugin.name, why)
        return None

    def _class_of(self, pod: PodInfo) -> PodClass:
        if pod.needs.claims or pod.needs.resource_claims:
            # Where its volumes and devices are is no fact of the columns: nothing worked out before may be used.
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
