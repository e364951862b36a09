"""DefaultPreemption: where a pod fits nowhere, pods of lower priority make room for it.

For each node the pods are found whose end is enough: all of lower priority are thought away, and as many as possible
put back, those first whose end would break a budget, then the more important. Of all nodes that one is taken where
fewest budgets break; then where the highest priority among the victims is lowest; then the sum of their priorities;
then their number; then where the most important of them has run shortest. kube-scheduler looks at a tenth of the
nodes; here what is known of each node is kept for a class of pods, and only rows that changed are thought through
again, so that all nodes count.
Source of the rules: kube-scheduler pkg/scheduler/framework/preemption and plugins/defaultpreemption.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tiphys_scheduler.budgets import Budgets
from tiphys_scheduler.cache import Cache
from tiphys_scheduler.columns import ALL_ROWS, Columns, Mask
from tiphys_scheduler.framework.interface import Event, FilterPlugin, PostFilterResult
from tiphys_scheduler.framework.status import FitError
from tiphys_scheduler.nominations import Nominations, clash
from tiphys_scheduler.pod_info import Needs, PodInfo

NOT_HELPFUL = "Preemption is not helpful for scheduling"
NO_VICTIMS = "No preemption victims found for incoming pod"
_MOST_CLASSES = 64
# So many rows are enough to choose from where every plugin must be asked, for pods with rules about other pods.
# Source: kube-scheduler DefaultPreemptionArgs minCandidateNodesAbsolute.
_MOST_SIMULATED = 100
_BY_AMOUNT = frozenset({"NodeResourcesFit", "NodePorts"})
_NEVER_STARTED = 1 << 62
# What upstream adds to a priority, so that more victims never sum up to less.
_SUM_OFFSET = 1 << 31


@dataclass(frozen=True, slots=True)
class Victims:
    """The pods that are to go from one node, most important first, and how many budgets' wish that is against."""

    pods: tuple[PodInfo, ...]
    violations: int


class Evictor(Protocol):
    """Ends victims. Never waits."""

    def preempt(self, pod: PodInfo, node: str, victims: Sequence[PodInfo]) -> None:
        """Notes that the victims must go from the node in favour of the pod."""
        ...


@dataclass(slots=True)
class _Costs:
    """What making room costs by row, for pods of one class and priority; violations -1 where it can't be made."""

    epoch: int
    seen: int
    budgets: int
    candidates: Mask
    violations: NDArray[np.int64]
    highest: NDArray[np.int64]
    total: NDArray[np.int64]
    count: NDArray[np.int64]
    started: NDArray[np.int64]
    victims: dict[int, Victims]


class DefaultPreemption:
    """PostFilter."""

    name = "DefaultPreemption"
    events: frozenset[Event] = frozenset()

    def __init__(
        self,
        cache: Cache,
        filters: Callable[[], Sequence[FilterPlugin]],
        nominations: Nominations,
        *,
        budgets: Budgets,
        evictor: Evictor,
    ) -> None:
        self._cache, self._nodes = cache, cache.columns
        self._filters = filters
        self._nominations = nominations
        self._budgets = budgets
        self._evictor = evictor
        self._kept: OrderedDict[tuple[Needs, int], _Costs] = OrderedDict()

    def post_filter(self, pod: PodInfo, error: FitError) -> PostFilterResult:
        """Picks the node and has its victims end; the message says why none was picked."""
        if error.rejected_by:
            count = error.node_count
            return _none(count, {NOT_HELPFUL: count} if count else {})
        reason = self._ineligible(pod)
        if reason:
            return PostFilterResult(message=f"preemption: {reason}")
        found = self.candidate(pod)
        if found is None:
            return self._nobody(pod, error)
        return self._settle(pod, *found)

    def settle(self, pod: PodInfo, error: FitError, among: Mapping[str, Victims]) -> PostFilterResult:
        """Like post_filter, where others have had a say in what is offered."""
        if not among:
            return self._nobody(pod, error)
        return self._settle(pod, *min(among.items(), key=lambda item: _cost(item[1])))

    def offers(self, pod: PodInfo) -> dict[str, Victims]:
        """Nodes on which room can be made, with who has to go, the cheapest first; none if the pod may not preempt."""
        if self._ineligible(pod):
            return {}
        costs = self._costs(pod)
        found = [(self._nodes.names[row], costs.victims[row]) for row in np.flatnonzero(costs.violations >= 0).tolist()]
        return dict(sorted(found, key=lambda item: _cost(item[1]))[:_MOST_SIMULATED])

    def _nobody(self, pod: PodInfo, error: FitError) -> PostFilterResult:
        # Room that was made for it before has gone to another, or with its node.
        self._nominations.remove(pod.key)
        helpful = int((self._helpful(pod) & self._nodes.present).sum())
        return _none(error.node_count, {NO_VICTIMS: helpful, NOT_HELPFUL: error.node_count - helpful})

    def _settle(self, pod: PodInfo, node: str, victims: Victims) -> PostFilterResult:
        for other in self._nominations.on(node):
            if other.priority < pod.priority:
                self._nominations.remove(other.key)
        self._nominations.add(pod, node)
        self._evictor.preempt(pod, node, victims.pods)
        return PostFilterResult(node=node)

    def candidate(self, pod: PodInfo) -> tuple[str, Victims] | None:
        """The node on which room costs least, and who has to go; nothing is done about it."""
        return self._cheapest(self._costs(pod))

    def _costs(self, pod: PodInfo) -> _Costs:
        others = [f for f in self._filters() if f.name not in _BY_AMOUNT and not _is_unhelped(f)]
        return self._simulate(pod) if any(f.is_needed(pod, self._nodes) for f in others) else self._follow(pod)

    def _ineligible(self, pod: PodInfo) -> str:
        if pod.preemption_policy == "Never":
            return "not eligible due to preemptionPolicy=Never."
        node = self._nominations.node_of(pod.key)
        row = self._nodes.row_of.get(node)
        if row is None or not self._helpful(pod)[row]:
            # What ends there makes no room for it any more.
            return ""
        for other in self._cache.pods_on(node):
            if other.priority < pod.priority and other.is_deleting and other.is_preempted:
                return "not eligible due to a terminating pod on the nominated node."
        return ""

    def _helpful(self, pod: PodInfo) -> Mask:
        """Rows that are refused for nothing that the end of pods could not change."""
        nodes = self._nodes
        found = nodes.present.copy()
        for plugin in self._filters():
            if _is_unhelped(plugin) and plugin.is_needed(pod, nodes):
                found &= plugin.filter(pod, nodes, ALL_ROWS)
        for resource, value in pod.needs.requests:
            index = nodes.resource(resource)
            found &= nodes.capacity[index] >= value
        return found

    def _follow(self, pod: PodInfo) -> _Costs:
        """The costs of the pod's class, with what changed since they were asked for last."""
        nodes, key = self._nodes, (pod.needs, pod.priority)
        costs = self._kept.get(key)
        if costs is None or costs.epoch != nodes.epoch or costs.budgets != self._budgets.version:
            costs = self._kept[key] = self._empty(pod)
            if len(self._kept) > _MOST_CLASSES:
                self._kept.popitem(last=False)
            rows: Iterable[int] = np.flatnonzero(costs.candidates).tolist()
        else:
            self._kept.move_to_end(key)
            changes = nodes.changes[costs.seen :]
            if any(row < 0 for row in changes):
                costs.candidates = self._helpful(pod)
            rows = {max(row, ~row) for row in changes}
        for row in rows:
            _put(costs, row, self._by_amount(pod, row) if costs.candidates[row] else None)
        costs.seen = len(nodes.changes)
        own = nodes.row_of.get(self._nominations.node_of(pod.key))
        if own is not None:
            # For the class it is taken by this pod itself.
            _put(costs, own, self._by_amount(pod, own) if costs.candidates[own] else None)
            nodes.changes.append(own)
        return costs

    def _empty(self, pod: PodInfo) -> _Costs:
        nodes = self._nodes
        highest, total, count, started = (np.zeros(nodes.rows, np.int64) for _ in range(4))
        return _Costs(
            nodes.epoch,
            len(nodes.changes),
            self._budgets.version,
            candidates=self._helpful(pod),
            violations=np.full(nodes.rows, -1, np.int64),
            highest=highest,
            total=total,
            count=count,
            started=started,
            victims={},
        )

    def _lower(self, pod: PodInfo, row: int) -> list[PodInfo]:
        """Pods of a node that may have to go, most important first."""
        found = [other for other in self._cache.pods_on(self._nodes.names[row]) if other.priority < pod.priority]
        found.sort(key=lambda other: (-other.priority, other.started_s or _NEVER_STARTED))
        return found

    def _by_amount(self, pod: PodInfo, row: int) -> Victims | None:
        """Who has to go where only resources and ports are at stake."""
        nodes, lower = self._nodes, self._lower(pod, row)
        if not lower:
            return None
        rivals = self._nominations.rivals(pod, nodes.names[row])
        spare: dict[str, int] = {}
        for resource, value in pod.needs.requests:
            index = nodes.resource(resource)
            spare[resource] = int(nodes.capacity[index, row]) - int(nodes.requested[index, row]) - value
        for needs, sign in (*((p.needs, 1) for p in lower), *((p.needs, -1) for p in rivals)):
            for resource, value in needs.requests:
                if resource in spare:
                    spare[resource] += sign * value
        if any(value < 0 for value in spare.values()) or not self._ports_free(pod, row, lower, rivals):
            return None

        def comes_back(other: PodInfo) -> bool:
            wanted = [(resource, value) for resource, value in other.needs.requests if resource in spare]
            if any(spare[resource] < value for resource, value in wanted) or _clashes(pod, other):
                return False
            for resource, value in wanted:
                spare[resource] -= value
            return True

        return self._reprieve(lower, comes_back)

    def _ports_free(self, pod: PodInfo, row: int, lower: Sequence[PodInfo], rivals: Sequence[PodInfo]) -> bool:
        if not pod.needs.ports:
            return True
        gone = {p.key for p in lower}
        left = [p for p in self._cache.pods_on(self._nodes.names[row]) if p.key not in gone]
        return not any(_clashes(pod, other) for other in (*left, *rivals))

    def _reprieve(self, lower: Sequence[PodInfo], comes_back: Callable[[PodInfo], bool]) -> Victims | None:
        breaking, others = self._budgets.split(lower)
        going = [p for p in breaking if not comes_back(p)]
        violations = len(going)
        going += [p for p in others if not comes_back(p)]
        if not going:
            return None
        going.sort(key=lambda other: (-other.priority, other.started_s or _NEVER_STARTED))
        return Victims(tuple(going), violations)

    def _simulate(self, pod: PodInfo) -> _Costs:
        """The costs with all plugins of the first rows that can be had, for pods with rules about other pods."""
        costs = self._empty(pod)
        left = _MOST_SIMULATED
        for row in np.flatnonzero(costs.candidates).tolist():
            found = self._by_trying(pod, row)
            _put(costs, row, found)
            left -= found is not None
            if not left:
                break
        return costs

    def _by_trying(self, pod: PodInfo, row: int) -> Victims | None:
        lower = self._lower(pod, row)
        if not lower:
            return None
        rivals = self._nominations.rivals(pod, self._nodes.names[row])
        with _as_it_was(self._nodes) as columns:
            moved: dict[str, tuple[Needs, int]] = {}
            for other, sign in (*((p, -1) for p in lower), *((p, 1) for p in rivals)):
                columns.add_pod(row, other.needs, sign=sign)
                moved[other.key] = (other.needs, -sign)
            try:
                if not self._passes(pod, row):
                    return None

                def comes_back(other: PodInfo) -> bool:
                    columns.add_pod(row, other.needs)
                    if self._passes(pod, row):
                        del moved[other.key]
                        return True
                    columns.add_pod(row, other.needs, sign=-1)
                    return False

                return self._reprieve(lower, comes_back)
            finally:
                for needs, sign in moved.values():
                    columns.add_pod(row, needs, sign=sign)

    def _passes(self, pod: PodInfo, row: int) -> bool:
        rows, nodes = np.array([row], np.intp), self._nodes
        return all(not f.is_needed(pod, nodes) or bool(f.filter(pod, nodes, rows)[0]) for f in self._filters())

    def _cheapest(self, costs: _Costs) -> tuple[str, Victims] | None:
        rows = np.flatnonzero(costs.violations >= 0)
        if not len(rows):
            return None
        for column, sign in (
            (costs.violations, 1),
            (costs.highest, 1),
            (costs.total, 1),
            (costs.count, 1),
            (costs.started, -1),
        ):
            values = sign * column[rows]
            rows = rows[values == values.min()]
            if len(rows) == 1:
                break
        row = int(rows[0])
        return self._nodes.names[row], costs.victims[row]


def _is_unhelped(plugin: FilterPlugin) -> bool:
    """Whether the end of pods can't change what the plugin says of a node."""
    # Not by isinstance: the check of a protocol costs more than the search for victims on a node.
    return plugin.name == "VolumeBinding" or bool(getattr(plugin, "looks_at_nodes_alone", False))


def _clashes(pod: PodInfo, other: PodInfo) -> bool:
    return any(clash(mine, theirs) for mine in pod.needs.ports for theirs in other.needs.ports)


def _put(costs: _Costs, row: int, victims: Victims | None) -> None:
    if victims is None:
        costs.violations[row] = -1
        costs.victims.pop(row, None)
        return
    first = victims.pods[0].priority
    costs.violations[row] = victims.violations
    costs.highest[row] = first
    costs.total[row] = sum(p.priority + _SUM_OFFSET for p in victims.pods)
    costs.count[row] = len(victims.pods)
    costs.started[row] = min(p.started_s or _NEVER_STARTED for p in victims.pods if p.priority == first)
    costs.victims[row] = victims


def _cost(victims: Victims) -> tuple[int, ...]:
    """What `_put` notes, to compare a few."""
    first = victims.pods[0].priority
    started = min(p.started_s or _NEVER_STARTED for p in victims.pods if p.priority == first)
    total = sum(p.priority + _SUM_OFFSET for p in victims.pods)
    return victims.violations, first, total, len(victims.pods), -started


@contextmanager
def _as_it_was(nodes: Columns) -> Iterator[Columns]:
    """For trying things out: whoever follows the columns need not look again at rows that are as they were."""
    seen, epoch = len(nodes.changes), nodes.epoch
    try:
        yield nodes
    finally:
        if nodes.epoch == epoch:
            del nodes.changes[seen:]


def _none(nodes: int, counts: dict[str, int]) -> PostFilterResult:
    parts = sorted(f"{count} {reason}" for reason, count in counts.items() if count)
    return PostFilterResult(message=f"preemption: 0/{nodes} nodes are available: {', '.join(parts)}.")
