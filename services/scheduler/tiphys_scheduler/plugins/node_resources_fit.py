"""NodeResourcesFit: what a pod requests must be left on the node; the emptier node is the better one."""

from __future__ import annotations

import numpy as np

from tiphys_scheduler.columns import Columns, Mask, Rows
from tiphys_scheduler.framework.interface import MAX_SCORE, Event, Normalize, Scores
from tiphys_scheduler.pod_info import CPU, MEMORY, PODS, PodInfo


class NodeResourcesFit:
    """Filter, and score by LeastAllocated over CPU and memory."""

    name = "NodeResourcesFit"
    events = frozenset({Event.NODE_ADDED, Event.NODE_CAPACITY, Event.POD_DELETED})
    normalize = Normalize.NONE

    def is_needed(self, pod: PodInfo, nodes: Columns) -> bool:
        """Every pod takes at least one of the pods of a node."""
        return True

    def filter(self, pod: PodInfo, nodes: Columns, rows: Rows) -> Mask:
        """Nodes that have all of it left."""
        found = np.ones(nodes.present[rows].shape, np.bool_)
        for resource, value in pod.needs.requests:
            index = nodes.resource(resource)
            found &= nodes.capacity[index][rows] - nodes.requested[index][rows] >= value
        return found

    def reasons(self, pod: PodInfo, nodes: Columns, row: int) -> tuple[str, ...]:
        """One for each resource that is short."""
        found = []
        for resource, value in pod.needs.requests:
            index = nodes.resource(resource)
            if nodes.capacity[index, row] - nodes.requested[index, row] < value:
                found.append("Too many pods" if resource == PODS else f"Insufficient {resource}")
        return tuple(found)

    def score(self, pod: PodInfo, nodes: Columns, rows: Rows) -> Scores:
        """Mean over CPU and memory of the part that stays free, 0 to 100, in whole numbers as Kubernetes counts."""
        total = np.zeros(nodes.present[rows].shape, np.int64)
        weights = np.zeros(total.shape, np.int64)
        for i, resource in enumerate((CPU, MEMORY)):
            capacity = nodes.capacity[nodes.resources[resource]][rows]
            wanted = nodes.scored[i][rows] + pod.needs.scored[i]
            has_some = capacity > 0
            free = np.where(wanted > capacity, 0, capacity - wanted)
            total += np.where(has_some, free * MAX_SCORE // np.maximum(capacity, 1), 0)
            weights += has_some
        return total // np.maximum(weights, 1)
