"""NodeResourcesBalancedAllocation: a node whose resources are used evenly is the better one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tiphys_scheduler.columns import Columns, Rows
from tiphys_scheduler.framework.interface import MAX_SCORE, Event, Normalize, Scores
from tiphys_scheduler.pod_info import CPU, MEMORY, STORAGE, PodInfo


class BalancedAllocation:
    """Score: 100 less the standard deviation of the used parts, in percent. Resources that a node lacks are left out.

    Source of the arithmetic: kube-scheduler pkg/scheduler/framework/plugins/noderesources/balanced_allocation.go.
    """

    name = "NodeResourcesBalancedAllocation"
    events: frozenset[Event] = frozenset()
    normalize = Normalize.NONE

    def __init__(self, resources: Sequence[str] = (CPU, MEMORY)) -> None:
        self._resources = tuple(resources)

    def score(self, pod: PodInfo, nodes: Columns, rows: Rows) -> Scores:
        """Of pods that request none of the resources Kubernetes says nothing here; then every node is equal."""
        requests = dict(pod.needs.requests)
        if not any(requests.get(resource) for resource in self._resources):
            return np.zeros(nodes.present[rows].shape, np.int64)
        parts: list[NDArray[np.float64]] = []
        has: list[NDArray[np.bool_]] = []
        for resource in self._resources:
            if resource not in (CPU, MEMORY, STORAGE) and not requests.get(resource):
                # An extended resource counts only for pods that want it.
                continue
            index = nodes.resource(resource)
            capacity = nodes.capacity[index, rows]
            used = nodes.requested[index, rows] + requests.get(resource, 0)
            parts.append(np.minimum(used / np.maximum(capacity, 1), 1.0))
            has.append(capacity > 0)
        found: Scores = ((1 - _deviation(parts, has)) * MAX_SCORE).astype(np.int64)
        return found

    def score_row(self, pod: PodInfo, nodes: Columns, row: int) -> int:
        """The same of one node."""
        requests = dict(pod.needs.requests)
        if self._resources != (CPU, MEMORY):
            return int(self.score(pod, nodes, slice(row, row + 1))[0])
        if not (requests.get(CPU) or requests.get(MEMORY)):
            return 0
        parts = []
        for resource in self._resources:
            index = nodes.resources[resource]
            capacity = nodes.capacity.item(index, row)
            if not capacity:
                return MAX_SCORE
            used = nodes.requested.item(index, row) + requests.get(resource, 0)
            parts.append(min(used / capacity, 1.0))
        return int((1 - abs((parts[0] - parts[1]) / 2)) * MAX_SCORE)


def _deviation(parts: list[NDArray[np.float64]], has: list[NDArray[np.bool_]]) -> NDArray[np.float64]:
    """Standard deviation over the resources that are there; 0 of a single one."""
    if len(parts) == 2:
        return np.abs((parts[0] - parts[1]) / 2) * (has[0] & has[1])
    count = np.zeros(parts[0].shape, np.int64)
    total, squares = np.zeros(parts[0].shape), np.zeros(parts[0].shape)
    for part, there in zip(parts, has, strict=True):
        count += there
        total += np.where(there, part, 0.0)
    mean = total / np.maximum(count, 1)
    for part, there in zip(parts, has, strict=True):
        squares += np.where(there, (part - mean) * (part - mean), 0.0)
    pair = np.sqrt(squares / np.maximum(count, 1))
    return np.where(count >= 2, pair, 0.0)
