"""Metrics of work queues and controllers, under the names that Kubernetes' dashboards ask for."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import Protocol

from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.metrics_core import GaugeMetricFamily, Metric

from tiphys_component.clock import Clock, SystemClock
from tiphys_component.metrics import Registry

# Source: client-go util/workqueue/metrics, exponential buckets from 10 ns, factor 10, cut to those that occur here.
_BUCKETS_S = (1e-05, 1e-04, 0.001, 0.01, 0.1, 1.0, 10.0, 100.0, 1000.0)


class QueueMetrics(Protocol):
    """What a queue reports; times are the clock's monotonic seconds."""

    def added(self, item: Hashable, now: float) -> None:
        """An item was added."""
        ...

    def depth(self, ready: int) -> None:
        """So many items wait now."""
        ...

    def got(self, item: Hashable, now: float, ready: int) -> None:
        """A worker took the item, and so many wait."""
        ...

    def finished(self, item: Hashable, now: float) -> None:
        """The worker is done with the item."""
        ...

    def retried(self) -> None:
        """An item was added rate limited."""
        ...


class NoQueueMetrics:
    """Counts nothing."""

    def added(self, item: Hashable, now: float) -> None:
        """Nothing is kept."""

    def depth(self, ready: int) -> None:
        """Nothing is kept."""

    def got(self, item: Hashable, now: float, ready: int) -> None:
        """Nothing is kept."""

    def finished(self, item: Hashable, now: float) -> None:
        """Nothing is kept."""

    def retried(self) -> None:
        """Nothing is kept."""


class WorkMetrics:
    """The metric families, made once a registry; for_queue and reconciles hand out what one controller uses."""

    def __init__(self, registry: Registry, clock: Clock | None = None) -> None:
        labels = ("name",)
        self._clock = clock or SystemClock()
        self._queues: dict[str, _BoundQueueMetrics] = {}
        registry.collector(self._collect)
        self.depth = registry.gauge("workqueue_depth", "Items that wait for a worker", labels)
        self.adds = registry.counter("workqueue_adds_total", "Items added", labels)
        self.retries = registry.counter("workqueue_retries_total", "Items added again after a failure", labels)
        self.queue_duration = registry.histogram(
            "workqueue_queue_duration_seconds", "How long an item waits for a worker", labels, _BUCKETS_S
        )
        self.work_duration = registry.histogram(
            "workqueue_work_duration_seconds", "How long a worker takes for an item", labels, _BUCKETS_S
        )
        self.reconcile_total = registry.counter(
            "controller_runtime_reconcile_total", "Reconciliations by how they ended", ("controller", "result")
        )

    def for_queue(self, name: str) -> QueueMetrics:
        """The metrics of one queue."""
        found = self._queues[name] = _BoundQueueMetrics(self, name)
        return found

    def _collect(self) -> Iterator[Metric]:
        labels = ("name",)
        unfinished = GaugeMetricFamily(
            "workqueue_unfinished_work_seconds", "Seconds that items now worked on have taken, in all.", labels=labels
        )
        longest = GaugeMetricFamily(
            "workqueue_longest_running_processor_seconds", "Seconds of the item worked on longest.", labels=labels
        )
        now = self._clock.monotonic()
        for name, queue in self._queues.items():
            ages = [now - began for began in queue.started()]
            unfinished.add_metric((name,), sum(ages))
            longest.add_metric((name,), max(ages, default=0.0))
        yield from (unfinished, longest)

    def reconciles(self, controller: str, result: str) -> Counter:
        """The counter for one way in which a reconciliation ends: success, requeue, requeue_after, error, terminal."""
        return self.reconcile_total.labels(controller, result)


class _BoundQueueMetrics:
    def __init__(self, families: WorkMetrics, name: str) -> None:
        self._depth: Gauge = families.depth.labels(name)
        self._adds: Counter = families.adds.labels(name)
        self._retries: Counter = families.retries.labels(name)
        self._queue_duration: Histogram = families.queue_duration.labels(name)
        self._work_duration: Histogram = families.work_duration.labels(name)
        self._added_at: dict[Hashable, float] = {}
        self._started_at: dict[Hashable, float] = {}

    def started(self) -> list[float]:
        """When work on each item at hand began."""
        return list(self._started_at.values())

    def added(self, item: Hashable, now: float) -> None:
        self._adds.inc()
        self._added_at.setdefault(item, now)

    def depth(self, ready: int) -> None:
        self._depth.set(ready)

    def got(self, item: Hashable, now: float, ready: int) -> None:
        self._depth.set(ready)
        self._started_at[item] = now
        self._queue_duration.observe(now - self._added_at.pop(item, now))

    def finished(self, item: Hashable, now: float) -> None:
        self._work_duration.observe(now - self._started_at.pop(item, now))

    def retried(self) -> None:
        self._retries.inc()
