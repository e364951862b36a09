"""What pods of hollow nodes use: a load that is spread evenly over those that are ready, as a balancer would."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from random import Random
from typing import Any

from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys_apimachinery.errors import NotFound, ServiceUnavailable
from tiphys_apimachinery.labels import Selector
from tiphys_apimachinery.meta import format_time, is_condition_true
from tiphys_cluster.testing.faults import Faults
from tiphys_component.clock import Clock


class HollowMetrics:
    """metrics.k8s.io of a cluster without kubelets. loads are millis of CPU, by the label app."""

    def __init__(self, pods: Callable[[], Iterable[Pod]], clock: Clock) -> None:
        self.loads: dict[str, int] = {}
        self._pods = pods
        self._clock = clock

    async def get(self, path: str, query: Mapping[str, str] | None = None) -> Any:
        """The measures of a namespace's pods. Raises NotFound for any other path."""
        parts = path.split("/")
        if not path.startswith("/apis/metrics.k8s.io/v1beta1/namespaces/") or parts[-1] != "pods":
            raise NotFound(path)
        chosen = Selector.parse((query or {}).get("labelSelector", ""))
        ready = [
            pod
            for pod in self._pods()
            if pod.metadata.namespace == parts[-2]
            and is_condition_true(pod.status.conditions, "Ready")
            and chosen.matches(pod.metadata.labels)
        ]
        return {"items": [self._item(pod, ready) for pod in ready]}

    async def close(self) -> None:
        """Nothing is open."""

    def _item(self, pod: Pod, ready: list[Pod]) -> dict[str, Any]:
        app = pod.metadata.labels.get("app", "")
        bearers = sum(other.metadata.labels.get("app", "") == app for other in ready)
        used = {"cpu": f"{self.loads.get(app, 0) // bearers}m", "memory": "1Mi"}
        return {
            "metadata": {"name": pod.metadata.name, "namespace": pod.metadata.namespace},
            "timestamp": format_time(self._clock.now()),
            "window": "30s",
            "containers": [{"name": pod.spec.containers[0].name, "usage": used}],
        }


class FaultyReader:
    """The way to the measures as it fares."""

    def __init__(self, inner: HollowMetrics, faults: Callable[[], Faults], rng: Random) -> None:
        self._inner = inner
        self._faults = faults
        self._rng = rng

    async def get(self, path: str, query: Mapping[str, str] | None = None) -> Any:
        """A document, or ServiceUnavailable."""
        if self._rng.random() < self._faults().refused:
            raise ServiceUnavailable(f"{path}: connection refused")
        return await self._inner.get(path, query)

    async def close(self) -> None:
        """Nothing is open."""
