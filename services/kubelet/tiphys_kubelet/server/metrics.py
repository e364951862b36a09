"""The kubelet's metrics, with Kubernetes' names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from tiphys.api.core.v1.pod_pb2 import Pod, PodStatus
from tiphys_component.metrics import Registry

# Source: kubernetes pkg/kubelet/metrics/metrics.go.
_START_S: Final = (0.5, 1, 2, 3, 4, 5, 6, 8, 10, 20, 30, 45, 60, 120, 180, 240, 300, 360, 480, 600, 900, 1200, 1800, 2700, 3600)  # fmt: skip  # noqa: E501
_RELIST_S: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class KubeletMetrics:
    """What operators count."""

    def __init__(self, node: str, *, pods: Callable[[], float], containers: Callable[[], float]) -> None:
        self.registry = Registry(process_metrics=True)
        self.registry.gauge("kubelet_node_name", "The node's name; always 1.", ("node",)).labels(node).set(1)
        relists = self.registry.quick_histogram(
            "kubelet_pleg_relist_duration_seconds", "Seconds to compare all pods with the runtime.", (), _RELIST_S
        )
        self.relisted: Callable[[float], None] = relists.labels().observe
        starts = self.registry.quick_histogram(
            "kubelet_pod_start_sli_duration_seconds",
            "Seconds from a pod's creation until its containers run, without those of its init containers.",
            (),
            _START_S,
        )
        self._started = starts.labels()
        self._work = self.registry.quick_histogram(
            "kubelet_pod_worker_duration_seconds",
            "Seconds of one step of a pod's worker, by why it was taken: create, update, sync or kill.",
            ("operation_type",),
            _RELIST_S,
        )
        self.registry.gauge_function("kubelet_running_pods", "Pods that have a running sandbox.", pods)
        self.registry.gauge_function("kubelet_running_containers", "Containers that run.", containers)
        self.http_requests = self.registry.counter(
            "kubelet_http_requests_total", "Requests to the HTTPS server.", ("method", "path", "code")
        )

    def worked(self, operation: str, took_s: float) -> None:
        """A pod's worker has looked at its pod and done what was to be done."""
        self._work.labels(operation).observe(took_s)

    def status_written(self, pod: Pod, before: PodStatus) -> None:
        """The API server has a pod's status, and had this one before."""
        took_s = start_duration_s(pod, before)
        if took_s is not None:
            self._started.observe(took_s)


def start_duration_s(pod: Pod, before: PodStatus) -> float | None:
    """How long a pod took to start, where its status tells that it has just started. Pure."""
    status = pod.status
    if before.phase not in ("", "Pending") or status.phase != "Running":
        return None
    running = [one.state.running.startedAt.seconds for one in status.containerStatuses if one.state.HasField("running")]
    if not running or len(running) != len(pod.spec.containers):
        return None
    ends = (one.state.terminated for one in status.initContainerStatuses if one.state.HasField("terminated"))
    init_s = sum(end.finishedAt.seconds - end.startedAt.seconds for end in ends)
    return max(0.0, float(max(running) - pod.metadata.creationTimestamp.seconds - init_s))
