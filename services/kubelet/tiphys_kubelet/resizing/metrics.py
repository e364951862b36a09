"""What operators count of resizes, with Kubernetes' names."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tiphys.api.core.v1.container_pb2 import ResourceRequirements
from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys_component.metrics import Registry
from tiphys_kubelet.resizing.allocation import changes, resizable


class ResizeMetrics:
    """The counters of one kubelet."""

    def __init__(self, registry: Registry) -> None:
        self._requested = registry.counter(
            "kubelet_container_requested_resizes_total",
            "Resizes asked for, counted by container and resource.",
            ("resource", "requirement", "operation"),
        )
        self.infeasible = registry.counter(
            "kubelet_pod_infeasible_resizes_total", "Resizes that this node can never give.", ("reason_detail",)
        )
        self.deferred_accepted = registry.counter(
            "kubelet_pod_deferred_accepted_resizes_total",
            "Resizes that had to wait and were granted.",
            ("retry_trigger",),
        )
        self.duration = registry.histogram(
            "kubelet_pod_resize_duration_milliseconds",
            "Time that telling the kernel of a resize took.",
            ("success",),
            buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000),
        )
        self.pending = registry.gauge("kubelet_pod_pending_resizes", "Resizes that wait.", ("reason",))
        self.in_progress = registry.gauge("kubelet_pod_in_progress_resizes", "Resizes that are being done.")

    def requested(self, pod: Pod, allocated: Mapping[str, ResourceRequirements]) -> None:
        """Counts what a new spec asks for."""
        for container in resizable(pod):
            if container.name in allocated:
                for resource, requirement, operation in changes(container, allocated[container.name]):
                    self._requested.labels(resource, requirement, operation).inc()

    def follow(self, counts: Callable[[], Mapping[str, int]]) -> None:
        """Has counts tell how many wait and are being done now, when somebody asks."""
        self.pending.labels("deferred").set_function(lambda: counts()["deferred"])
        self.pending.labels("infeasible").set_function(lambda: counts()["infeasible"])
        self.in_progress.set_function(lambda: counts()["in_progress"])
