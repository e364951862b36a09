"""NodePorts: a host port is given once on a node."""

from __future__ import annotations

import numpy as np

from tiphys_scheduler.columns import ALL_ROWS, Columns, Mask, Rows
from tiphys_scheduler.framework.interface import Event
from tiphys_scheduler.pod_info import PodInfo

_EVERY_ADDRESS = "0.0.0.0"

_REFUSED = "node(s) didn't have free ports for the requested pod ports"


class NodePorts:
    """Filter."""

    name = "NodePorts"
    events = frozenset({Event.NODE_ADDED, Event.POD_DELETED})

    def is_needed(self, pod: PodInfo, nodes: Columns) -> bool:
        """Only for pods with host ports."""
        return bool(pod.needs.ports)

    def filter(self, pod: PodInfo, nodes: Columns, rows: Rows) -> Mask:
        """Nodes where none of the ports is taken; every address clashes with each single one."""
        found = np.ones(nodes.present[rows].shape, np.bool_)
        for protocol, address, number in pod.needs.ports:
            for (other_protocol, other_address, other_number), counts in nodes.ports.items():
                if (protocol, number) != (other_protocol, other_number):
                    continue
                if address == other_address or _EVERY_ADDRESS in (address, other_address):
                    found &= counts[rows] == 0
        return found

    def reasons(self, pod: PodInfo, nodes: Columns, row: int) -> tuple[str, ...]:
        """Always the same."""
        return (_REFUSED,)

    def reason_masks(self, pod: PodInfo, nodes: Columns) -> list[tuple[str, Mask]]:
        """The one reason, of all that do not pass."""
        return [(_REFUSED, ~self.filter(pod, nodes, ALL_ROWS))]
