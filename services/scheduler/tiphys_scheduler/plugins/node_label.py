"""NodeLabel: nodes must have some labels, or must not, whatever their values. Of the oldest API; affinity does more."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tiphys_scheduler.columns import ALL_ROWS, Columns, Mask, Rows
from tiphys_scheduler.framework.interface import Event
from tiphys_scheduler.pod_info import PodInfo

_REFUSED = "node(s) didn't have the requested labels"


class NodeLabel:
    """Filter. rules are labels, with whether they must be there."""

    name = "NodeLabel"
    events = frozenset({Event.NODE_ADDED, Event.NODE_LABELS})
    looks_at_nodes_alone = True

    def __init__(self, rules: Sequence[tuple[Sequence[str], bool]]) -> None:
        self._rules = tuple(rules)

    def is_needed(self, pod: PodInfo, nodes: Columns) -> bool:
        """For every pod."""
        return bool(self._rules)

    def filter(self, pod: PodInfo, nodes: Columns, rows: Rows) -> Mask:
        """Nodes with, or without, each of the labels."""
        found = np.ones(nodes.rows, np.bool_)
        for labels, presence in self._rules:
            for label in labels:
                found &= nodes.has_key(label) if presence else ~nodes.has_key(label)
        mask: Mask = found[rows]
        return mask

    def reasons(self, pod: PodInfo, nodes: Columns, row: int) -> tuple[str, ...]:
        """Always the same."""
        return (_REFUSED,)

    def reason_masks(self, pod: PodInfo, nodes: Columns) -> list[tuple[str, Mask]]:
        """The one reason, of all that do not pass."""
        return [(_REFUSED, ~self.filter(pod, nodes, ALL_ROWS))]
