"""MeasuredUse: pods of chosen priority classes live on room that others have requested and do not use.

Such a pod requests spare.tiphys.io/cpu-millis and spare.tiphys.io/memory, and no cpu or memory of its own: it is
BestEffort, so that the kernel gives it what is left and takes it back at once, and nobody else is throttled or evicted
for it. What is left of a node is its allocatable amount less a margin, less what its other pods were measured to use,
less what others requested that came since, less what its pods on spare room requested. See docs/adr/0012.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tiphys_scheduler.columns import ALL_ROWS, Amounts, Columns, Mask, Rows
from tiphys_scheduler.framework.interface import MAX_SCORE, Event, Normalize, Scores
from tiphys_scheduler.pod_info import CPU, MEMORY, PodInfo

GROUP = "spare.tiphys.io"
# What a pod asks for, what of a node it comes from, and how its want is told.
_KINDS = (
    (f"{GROUP}/cpu-millis", CPU, "Insufficient spare cpu"),
    (f"{GROUP}/memory", MEMORY, "Insufficient spare memory"),
)
_SPARE = frozenset(spare for spare, _, _ in _KINDS)
NOT_MEASURED = "node(s) have no recent measure of their use"


@dataclass(frozen=True, slots=True)
class MeasuredUseArgs:
    """Arguments of the plugin, which is there only where they are given.

    Only pods of these priority classes may live on spare room. margin_percent of each node is never given away; a
    measure that is older than oldest_s says nothing.
    """

    priority_classes: tuple[str, ...] = ()
    margin_percent: int = 10
    period_s: float = 15.0
    oldest_s: float = 90.0


@dataclass(frozen=True, slots=True)
class Measure:
    """CPU millis and memory bytes that the pods of a node use which do not live on spare room.

    requested is what those requested whose use is in it: what more is requested is of pods that came since.
    """

    used: tuple[int, int]
    requested: tuple[int, int]


def is_on_spare_room(pod: PodInfo) -> bool:
    """Whether a pod asks for spare room."""
    return any(resource in _SPARE for resource, _ in pod.needs.requests)


class MeasuredUse:
    """Filter and score, for pods that ask for spare room; of all others it says nothing."""

    name = "MeasuredUse"
    events = frozenset({Event.NODE_ADDED, Event.NODE_CAPACITY, Event.POD_DELETED, Event.USE})
    normalize = Normalize.NONE

    def __init__(self, args: MeasuredUseArgs) -> None:
        self._classes = frozenset(args.priority_classes)
        self._given_percent = 100 - args.margin_percent
        self._measures: Mapping[str, Measure] = {}

    def note(self, measures: Mapping[str, Measure], nodes: Columns) -> None:
        """What nodes were measured to use now; a node that is not in it has no recent measure."""
        old, self._measures = self._measures, measures
        for name in {*old, *measures}:
            row = nodes.row_of.get(name)
            if row is not None and old.get(name) != measures.get(name):
                # Classes of pods look at the row again.
                nodes.changes.append(row)

    def pre_filter(self, pod: PodInfo) -> str:
        """Refuses those who may not, and those whom the kernel would hold to be something else."""
        if not is_on_spare_room(pod):
            return ""
        if pod.priority_class not in self._classes:
            return f'pods of priority class "{pod.priority_class}" may not use spare room'
        if any(resource in (CPU, MEMORY) for resource, _ in pod.needs.requests):
            return "a pod that uses spare room may request no cpu or memory beside it"
        return ""

    def is_needed(self, pod: PodInfo, nodes: Columns) -> bool:
        """Only for pods that ask for spare room."""
        return is_on_spare_room(pod)

    def filter(self, pod: PodInfo, nodes: Columns, rows: Rows) -> Mask:
        """Nodes that were measured and have it left."""
        room, is_known = self._room(nodes, rows)
        found = is_known
        for kind, wanted in self._wanted(pod):
            found = found & (room[kind] >= wanted)
        return found

    def reasons(self, pod: PodInfo, nodes: Columns, row: int) -> tuple[str, ...]:
        """All that apply."""
        return tuple(reason for reason, mask in self.reason_masks(pod, nodes) if mask[row])

    def reason_masks(self, pod: PodInfo, nodes: Columns) -> list[tuple[str, Mask]]:
        """One for each amount that is short, and one for nodes of which nothing is known."""
        room, is_known = self._room(nodes, ALL_ROWS)
        short = [(_KINDS[kind][2], is_known & (room[kind] < wanted)) for kind, wanted in self._wanted(pod)]
        return [*short, (NOT_MEASURED, ~is_known)]

    def score(self, pod: PodInfo, nodes: Columns, rows: Rows) -> Scores:
        """The mean of what stays free of the amounts asked for, in percent of the node's own."""
        wanted = self._wanted(pod)
        total = np.zeros(nodes.present[rows].shape, np.int64)
        if not wanted:
            return total
        room, _ = self._room(nodes, rows)
        for kind, value in wanted:
            capacity = np.maximum(nodes.capacity[nodes.resource(_KINDS[kind][1]), rows], 1)
            total += np.clip(room[kind] - value, 0, capacity) * MAX_SCORE // capacity
        found: Scores = total // len(wanted)
        return found

    def score_row(self, pod: PodInfo, nodes: Columns, row: int) -> int:
        """The same of one node."""
        return int(self.score(pod, nodes, slice(row, row + 1))[0]) if self._wanted(pod) else 0

    def _wanted(self, pod: PodInfo) -> list[tuple[int, int]]:
        requests = dict(pod.needs.requests)
        return [(kind, requests[spare]) for kind, (spare, _, _) in enumerate(_KINDS) if requests.get(spare)]

    def _room(self, nodes: Columns, rows: Rows) -> tuple[Amounts, NDArray[np.bool_]]:
        """What is left by kind and row, and which rows anything is known of."""
        index = np.arange(nodes.rows)[rows]
        told = [self._measures.get(nodes.names[row]) for row in index.tolist()]
        known = np.array([measure is not None for measure in told], np.bool_)
        none = Measure((0, 0), (0, 0))
        figures = np.array([(*(m or none).used, *(m or none).requested) for m in told], np.int64).reshape(len(told), 4)
        left = []
        for kind, (spare, resource, _) in enumerate(_KINDS):
            column, spare_column = nodes.resource(resource), nodes.resource(spare)
            given = nodes.capacity[column, index] * self._given_percent // 100
            since = np.maximum(nodes.requested[column, index] - figures[:, kind + 2], 0)
            left.append(given - figures[:, kind] - since - nodes.requested[spare_column, index])
        return np.stack(left), known
