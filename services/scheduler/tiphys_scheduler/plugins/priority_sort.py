"""PrioritySort: the pod of the highest priority first, then the one that has waited longest."""

from __future__ import annotations

from tiphys_scheduler.framework.interface import Event
from tiphys_scheduler.pod_info import PodInfo


class PrioritySort:
    """QueueSort."""

    name = "PrioritySort"
    events: frozenset[Event] = frozenset()

    def sort_key(self, pod: PodInfo, order: int) -> tuple[float, ...]:
        """Smallest first."""
        return (-pod.priority, order)
