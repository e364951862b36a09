"""NodeResourcesFit: what a pod requests must be left on the node; how full a node would be is its score."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from tiphys_scheduler.columns import Columns, Mask, Rows
from tiphys_scheduler.framework.interface import Event, Normalize, Scores
from tiphys_scheduler.plugins.allocation_scores import LeastAllocated, Share, Strategy
from tiphys_scheduler.pod_info import CPU, MEMORY, PODS, STORAGE, PodInfo

_SCORED = {CPU: 0, MEMORY: 1}
# Resources of Kubernetes itself, which are never ignored.
_NATIVE = (CPU, MEMORY, STORAGE, PODS)


class NodeResourcesFit:
    """Filter, and score by a strategy over the resources given, each with its weight.

    ignored are extended resources that others look after, ignored_groups what stands before the slash in theirs.
    """

    name = "NodeResourcesFit"
    events = frozenset({Event.NODE_ADDED, Event.NODE_CAPACITY, Event.POD_DELETED})
    normalize = Normalize.NONE

    def __init__(
        self,
        strategy: Strategy | None = None,
        resources: Sequence[tuple[str, int]] = ((CPU, 1), (MEMORY, 1)),
        *,
        ignored: Sequence[str] = (),
        ignored_groups: Sequence[str] = (),
    ) -> None:
        self._strategy: Strategy = strategy or LeastAllocated()
        self._resources = tuple(resources)
        self._ignored, self._ignored_groups = frozenset(ignored), frozenset(ignored_groups)

    def is_needed(self, pod: PodInfo, nodes: Columns) -> bool:
        """Every pod takes at least one of the pods of a node."""
        return True

    def filter(self, pod: PodInfo, nodes: Columns, rows: Rows) -> Mask:
        """Nodes that have all of it left."""
        found: Mask | None = None
        for index, value, _ in self._wanted(pod, nodes):
            has = nodes.capacity[index, rows] - nodes.requested[index, rows] >= value
            found = has if found is None else found & has
        return found if found is not None else np.ones(nodes.present[rows].shape, np.bool_)

    def passes(self, pod: PodInfo, nodes: Columns, row: int) -> bool:
        """The same of one node."""
        has, used = nodes.capacity.item, nodes.requested.item
        return all(has(index, row) - used(index, row) >= value for index, value, _ in self._wanted(pod, nodes))

    def reasons(self, pod: PodInfo, nodes: Columns, row: int) -> tuple[str, ...]:
        """One for each resource that is short."""
        return tuple(
            "Too many pods" if resource == PODS else f"Insufficient {resource}"
            for index, value, resource in self._wanted(pod, nodes)
            if nodes.capacity[index, row] - nodes.requested[index, row] < value
        )

    def reason_masks(self, pod: PodInfo, nodes: Columns) -> list[tuple[str, Mask]]:
        """One for each resource."""
        return [
            (
                "Too many pods" if resource == PODS else f"Insufficient {resource}",
                nodes.capacity[index] - nodes.requested[index] < value,
            )
            for index, value, resource in self._wanted(pod, nodes)
        ]

    def score(self, pod: PodInfo, nodes: Columns, rows: Rows) -> Scores:
        """As the strategy says; CPU and memory count a default for containers that request none."""
        requests = dict(pod.needs.requests)
        shares = []
        for resource, weight in self._resources:
            index = nodes.resource(resource)
            scored = _SCORED.get(resource)
            if scored is not None:
                wanted = nodes.scored[scored, rows] + pod.needs.scored[scored]
            elif resource == STORAGE or requests.get(resource):
                wanted = nodes.requested[index, rows] + requests.get(resource, 0)
            else:
                # An extended resource counts only for pods that want it.
                continue
            shares.append(Share(nodes.capacity[index, rows], wanted, weight))
        if not shares:
            return np.zeros(nodes.present[rows].shape, np.int64)
        return self._strategy.score(shares)

    def score_row(self, pod: PodInfo, nodes: Columns, row: int) -> int:
        """The same of one node."""
        requests: dict[str, int] | None = None
        shares = []
        for resource, weight in self._resources:
            index, scored = nodes.resource(resource), _SCORED.get(resource)
            if scored is not None:
                wanted = nodes.scored.item(scored, row) + pod.needs.scored[scored]
            else:
                requests = requests if requests is not None else dict(pod.needs.requests)
                if resource != STORAGE and not requests.get(resource):
                    continue
                wanted = nodes.requested.item(index, row) + requests.get(resource, 0)
            shares.append((nodes.capacity.item(index, row), wanted, weight))
        return self._strategy.score_one(shares)

    def _wanted(self, pod: PodInfo, nodes: Columns) -> Iterator[tuple[int, int, str]]:
        """Column, amount and name of each resource that must be left."""
        for resource, value in pod.needs.requests:
            if resource in _NATIVE or not self._is_ignored(resource):
                yield nodes.resource(resource), value, resource

    def _is_ignored(self, resource: str) -> bool:
        return resource in self._ignored or resource.partition("/")[0] in self._ignored_groups
