"""NodeResourcesBalancedAllocation: a node whose CPU and memory are used evenly is the better one."""

from __future__ import annotations

import numpy as np

from tiphys_scheduler.columns import Columns, Rows
from tiphys_scheduler.framework.interface import MAX_SCORE, Event, Normalize, Scores
from tiphys_scheduler.pod_info import CPU, MEMORY, PodInfo


class BalancedAllocation:
    """Score: 100 less the standard deviation of the used parts, in percent."""

    name = "NodeResourcesBalancedAllocation"
    events: frozenset[Event] = frozenset()
    normalize = Normalize.NONE

    def score(self, pod: PodInfo, nodes: Columns, rows: Rows) -> Scores:
        """Of pods without requests Kubernetes says nothing here; then every node is equal."""
        requests = dict(pod.needs.requests)
        shape = nodes.present[rows].shape
        if not (requests.get(CPU) or requests.get(MEMORY)):
            return np.zeros(shape, np.int64)
        parts = []
        for resource in (CPU, MEMORY):
            index = nodes.resources[resource]
            capacity = nodes.capacity[index][rows]
            used = nodes.requested[index][rows] + requests.get(resource, 0)
            parts.append(np.minimum(np.where(capacity > 0, used / np.maximum(capacity, 1), 1.0), 1.0))
        deviation = np.abs(parts[0] - parts[1]) / 2
        scores: Scores = ((1 - deviation) * MAX_SCORE).astype(np.int64)
        return scores
