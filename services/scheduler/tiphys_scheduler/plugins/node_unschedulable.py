"""NodeUnschedulable: cordoned nodes take no pods but those that tolerate it."""

from __future__ import annotations

from tiphys_scheduler.columns import ALL_ROWS, Columns, Mask, Rows
from tiphys_scheduler.framework.interface import Event
from tiphys_scheduler.plugins.taint_toleration import tolerates
from tiphys_scheduler.pod_info import PodInfo

_TAINT = ("node.kubernetes.io/unschedulable", "", "NoSchedule")

_REFUSED = "node(s) were unschedulable"


class NodeUnschedulable:
    """Filter."""

    name = "NodeUnschedulable"
    events = frozenset({Event.NODE_ADDED, Event.NODE_TAINTS})
    looks_at_nodes_alone = True

    def is_needed(self, pod: PodInfo, nodes: Columns) -> bool:
        """Only where some node is cordoned and the pod minds."""
        return bool(nodes.unschedulable.any()) and not any(tolerates(t, _TAINT) for t in pod.tolerations())

    def filter(self, pod: PodInfo, nodes: Columns, rows: Rows) -> Mask:
        """Nodes that are not cordoned."""
        mask: Mask = ~nodes.unschedulable[rows]
        return mask

    def reasons(self, pod: PodInfo, nodes: Columns, row: int) -> tuple[str, ...]:
        """Always the same."""
        return (_REFUSED,)

    def reason_masks(self, pod: PodInfo, nodes: Columns) -> list[tuple[str, Mask]]:
        """The one reason, of all that do not pass."""
        return [(_REFUSED, ~self.filter(pod, nodes, ALL_ROWS))]
