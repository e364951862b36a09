"""What a configuration demands of nodes for every pod of a profile, beside the pod's own affinity."""

from __future__ import annotations

import numpy as np

from tiphys.api.core.v1.scheduling_pb2 import NodeSelector
from tiphys_scheduler.columns import ALL_ROWS, Columns, Mask, Rows
from tiphys_scheduler.framework.interface import Event
from tiphys_scheduler.plugins.node_affinity import match_term
from tiphys_scheduler.pod_info import PodInfo

_REFUSED = "node(s) didn't match scheduler-enforced node affinity"


class AddedAffinity:
    """Filter: the addedAffinity of NodeAffinityArgs."""

    name = "NodeAffinityAdded"
    events = frozenset({Event.NODE_ADDED, Event.NODE_LABELS})
    looks_at_nodes_alone = True

    def __init__(self, required: NodeSelector) -> None:
        self._required = required

    def is_needed(self, pod: PodInfo, nodes: Columns) -> bool:
        """For every pod."""
        return True

    def filter(self, pod: PodInfo, nodes: Columns, rows: Rows) -> Mask:
        """Nodes that meet at least one term."""
        found = np.zeros(nodes.rows, np.bool_)
        for term in self._required.nodeSelectorTerms:
            found |= match_term(term, nodes)
        mask: Mask = found[rows]
        return mask

    def reasons(self, pod: PodInfo, nodes: Columns, row: int) -> tuple[str, ...]:
        """Always the same."""
        return (_REFUSED,)

    def reason_masks(self, pod: PodInfo, nodes: Columns) -> list[tuple[str, Mask]]:
        """The one reason, of all that do not pass."""
        return [(_REFUSED, ~self.filter(pod, nodes, ALL_ROWS))]
