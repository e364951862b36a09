"""NodeName: a pod that names its node goes there or nowhere."""

from __future__ import annotations

import numpy as np

from tiphys_scheduler.columns import ALL_ROWS, Columns, Mask, Rows
from tiphys_scheduler.framework.interface import Event
from tiphys_scheduler.pod_info import PodInfo

_REFUSED = "node(s) didn't match the requested node name"


class NodeName:
    """Filter. A pod with a node is bound already, so this speaks only when somebody asks to explain one."""

    name = "NodeName"
    events = frozenset({Event.NODE_ADDED})
    looks_at_nodes_alone = True

    def is_needed(self, pod: PodInfo, nodes: Columns) -> bool:
        """Only for pods that name a node."""
        return bool(pod.node)

    def filter(self, pod: PodInfo, nodes: Columns, rows: Rows) -> Mask:
        """The node named."""
        mask = np.zeros(nodes.rows, np.bool_)
        row = nodes.row_of.get(pod.node)
        if row is not None:
            mask[row] = True
        found: Mask = mask[rows]
        return found

    def reasons(self, pod: PodInfo, nodes: Columns, row: int) -> tuple[str, ...]:
        """Always the same."""
        return (_REFUSED,)

    def reason_masks(self, pod: PodInfo, nodes: Columns) -> list[tuple[str, Mask]]:
        """The one reason, of all that do not pass."""
        return [(_REFUSED, ~self.filter(pod, nodes, ALL_ROWS))]
