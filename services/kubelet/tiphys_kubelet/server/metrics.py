"""The kubelet's metrics, with Kubernetes' names."""

from __future__ import annotations

from collections.abc import Callable

from tiphys_component.metrics import Registry


class KubeletMetrics:
    """What operators count."""

    def __init__(self, *, pods: Callable[[], float], containers: Callable[[], float]) -> None:
        self.registry = Registry(process_metrics=True)
        self.registry.gauge_function("kubelet_running_pods", "Pods that have a running sandbox.", pods)
        self.registry.gauge_function("kubelet_running_containers", "Containers that run.", containers)
        self.http_requests = self.registry.counter(
            "kubelet_http_requests_total", "Requests to the HTTPS server.", ("method", "path", "code")
        )
