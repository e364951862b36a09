"""SchedulingGates: a pod with gates is not tried until somebody has taken the last one away."""

from __future__ import annotations

from tiphys_scheduler.framework.interface import Event
from tiphys_scheduler.pod_info import PodInfo


class SchedulingGates:
    """PreEnqueue. The API server says so in the pod's condition, with the reason SchedulingGated."""

    name = "SchedulingGates"
    # A change of the pod itself is looked at anyway.
    events: frozenset[Event] = frozenset()

    def pre_enqueue(self, pod: PodInfo) -> str:
        """Names the gates, in Kubernetes' words."""
        return f"waiting for scheduling gates: [{' '.join(pod.gates)}]" if pod.gates else ""
