"""ServiceAffinity: the pods of a service go where given labels of nodes have one value. Of the oldest API.

The first of a service's pods chooses freely; the others follow it. podAffinity does more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tiphys_scheduler.cache import Cache
from tiphys_scheduler.columns import ALL_ROWS, Columns, Mask, Rows
from tiphys_scheduler.framework.interface import Event, Scores
from tiphys_scheduler.pod_info import PodInfo

_REFUSED = "node(s) didn't match service affinity"
_NO_ROWS: NDArray[np.intp] = np.zeros(0, np.intp)
Pairs = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class _Followed:
    """Stands until `related` says otherwise."""

    mask: Mask | None

    def update(self, rows: NDArray[np.intp]) -> NDArray[np.intp]:
        """Whom the pods follow is looked at by `related`."""
        return _NO_ROWS

    def scores(self, feasible: Mask) -> Scores | None:
        """None."""
        return None


class ServiceAffinity:
    """Filter. peers are the placed pods of the services of a pod, oldest first."""

    name = "ServiceAffinity"
    events = frozenset({Event.NODE_ADDED, Event.NODE_LABELS, Event.POD_ADDED, Event.POD_DELETED})

    def __init__(self, labels: Sequence[str], cache: Cache, peers: Callable[[PodInfo], Sequence[PodInfo]]) -> None:
        self._labels, self._cache, self._peers = tuple(labels), cache, peers

    def related(self, pod: PodInfo, nodes: Columns) -> Pairs:
        """The values that a node must have: what the pod asks for itself, else those of its service's first pod."""
        wanted = {key: value for key, value in pod.needs.node_selector if key in self._labels}
        if len(wanted) < len(self._labels):
            first = next(iter(self._peers(pod)), None)
            row = nodes.row_of.get(self._cache.node_of(first.key)) if first is not None else None
            for label in self._labels if row is not None else ():
                if row is not None and label in nodes.labels(row):
                    wanted.setdefault(label, nodes.labels(row)[label])
        return tuple(sorted(wanted.items()))

    def relate(self, pod: PodInfo, nodes: Columns) -> _Followed | None:
        """Nodes with these values; None where the pod is the first."""
        pairs = self.related(pod, nodes)
        if not pairs:
            return None
        mask = np.ones(nodes.rows, np.bool_)
        for key, value in pairs:
            mask &= nodes.has_pair(key, value)
        return _Followed(mask)

    def is_needed(self, pod: PodInfo, nodes: Columns) -> bool:
        """Where the pod follows another."""
        return bool(self.related(pod, nodes))

    def filter(self, pod: PodInfo, nodes: Columns, rows: Rows) -> Mask:
        """Nodes with the values."""
        relation = self.relate(pod, nodes)
        mask = np.ones(nodes.rows, np.bool_) if relation is None or relation.mask is None else relation.mask
        found: Mask = mask[rows]
        return found

    def reasons(self, pod: PodInfo, nodes: Columns, row: int) -> tuple[str, ...]:
        """Always the same."""
        return (_REFUSED,)

    def reason_masks(self, pod: PodInfo, nodes: Columns) -> list[tuple[str, Mask]]:
        """The one reason, of all that do not pass."""
        return [(_REFUSED, ~self.filter(pod, nodes, ALL_ROWS))]
