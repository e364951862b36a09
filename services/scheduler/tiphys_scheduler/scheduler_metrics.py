"""The scheduler's metrics, under kube-scheduler's names.

What happens to each pod costs an addition or two; everything else is worked out when somebody asks. Attempts of one
turn share its time: each counts as the mean. Plugins are timed by asking them once more, every ten seconds at most.
Source of names, labels and buckets: kube-scheduler pkg/scheduler/metrics. Goroutines have no like here.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

from tiphys_component.clock import Clock
from tiphys_scheduler.cache import Cache
from tiphys_scheduler.framework.runtime import Framework
from tiphys_scheduler.pod_info import PodInfo
from tiphys_scheduler.scheduling_queue import SchedulingQueue, Waiting

# Numbers by the values of the labels.
_Values = Mapping[Any, int]
_SAMPLE_S = 10.0
_MOST_ATTEMPTS = 15
_MANY = 4096
SCHEDULED, UNSCHEDULABLE, ERROR = "scheduled", "unschedulable", "error"


def _exponential(start: float, factor: float, count: int) -> tuple[float, ...]:
    return tuple(float(start * factor**i) for i in range(count))


class Spread:
    """How values spread over buckets; many equal ones are taken at once."""

    def __init__(self, buckets: tuple[float, ...]) -> None:
        self._buckets = buckets
        self._counts = [0] * (len(buckets) + 1)
        self._sum = 0.0

    def observe(self, value: float, times: int = 1) -> None:
        """Counts a value so many times."""
        self._counts[bisect_left(self._buckets, value)] += times
        self._sum += value * times

    def observe_all(self, values: Sequence[float]) -> None:
        """Counts many values."""
        found = np.bincount(np.searchsorted(self._buckets, values), minlength=len(self._counts))
        self._counts = [old + int(new) for old, new in zip(self._counts, found, strict=True)]
        self._sum += sum(values)

    def add_to(self, family: HistogramMetricFamily, labels: Iterable[str] = ()) -> None:
        """As Prometheus has it: each bucket counts those below it too."""
        total, found = 0, []
        for bucket, count in zip((*self._buckets, float("inf")), self._counts, strict=True):
            total += count
            found.append(("+Inf" if bucket == float("inf") else repr(bucket), total))
        family.add_metric(list(labels), found, self._sum)


class _Spreads:
    """One metric's spreads by labels."""

    def __init__(self, name: str, text: str, labels: tuple[str, ...], buckets: tuple[float, ...]) -> None:
        self._name, self._text, self._labels, self._buckets = name, text, labels, buckets
        self._found: dict[tuple[str, ...], Spread] = {}

    def of(self, *labels: str) -> Spread:
        """The spread of these values of the labels."""
        found = self._found.get(labels)
        if found is None:
            found = self._found[labels] = Spread(self._buckets)
        return found

    def family(self) -> HistogramMetricFamily:
        """All of them as one metric."""
        made = HistogramMetricFamily(self._name, self._text, labels=self._labels)
        for labels, spread in self._found.items():
            spread.add_to(made, labels)
        return made


class Observed(Protocol):
    """What is looked at when somebody asks."""

    queue: SchedulingQueue
    cache: Cache
    frameworks: dict[str, Framework]


class SchedulerMetrics:
    """Owned by the scheduler's loop."""

    def __init__(self, clock: Clock, scheduler: Observed) -> None:
        self._clock, self._scheduler = clock, scheduler
        # By result and profile: all attempts, and those of this turn.
        self._attempts: Counter[tuple[str, ...]] = Counter()
        self._of_turn: Counter[tuple[str, ...]] = Counter()
        # How long pods waited that were bound at the first try and are not sorted into buckets yet.
        self._at_first: list[float] = []
        self._preemptions = 0
        self._next_sample_s = clock.monotonic() + _SAMPLE_S
        self._victims = _Spreads(
            "scheduler_preemption_victims", "Victims of one preemption.", (), _exponential(1, 2, 7)
        )
        self._durations = _Spreads(
            "scheduler_scheduling_attempt_duration_seconds",
            "Time of one try to place a pod, the mean of those of one turn.",
            ("result", "profile"),
            _exponential(0.001, 2, 15),
        )
        self._algorithm = _Spreads(
            "scheduler_scheduling_algorithm_duration_seconds",
            "Time to choose a node, without its binding; the mean of the tries of one turn.",
            (),
            _exponential(0.001, 2, 15),
        )
        self._waits = _Spreads(
            "scheduler_pod_scheduling_sli_duration_seconds",
            "From a pod's coming into the queue, without the time behind gates, to its binding.",
            ("attempts",),
            _exponential(0.01, 2, 20),
        )
        self._tries = _Spreads(
            "scheduler_pod_scheduling_attempts", "Tries until a pod was bound.", (), _exponential(1, 2, 5)
        )
        self._points = _Spreads(
            "scheduler_framework_extension_point_duration_seconds",
            "Time of all plugins of an extension point over all nodes, sampled.",
            ("extension_point", "status", "profile"),
            _exponential(0.0001, 2, 12),
        )
        self._plugins = _Spreads(
            "scheduler_plugin_execution_duration_seconds",
            "Time of one plugin at an extension point over all nodes, sampled.",
            ("plugin", "extension_point", "status"),
            _exponential(0.00001, 1.5, 20),
        )

    def attempt(self, result: str, profile: str) -> None:
        """One try of a pod has ended."""
        self._of_turn[result, profile] += 1

    def error(self, profile: str) -> None:
        """A try that ended after its turn: something outside failed."""
        self._attempts[ERROR, profile] += 1

    def turn_ended(self, began_s: float, last: PodInfo | None) -> None:
        """All tries since the last call took the time from began_s to now."""
        now = self._clock.monotonic()
        if self._of_turn:
            mean = (now - began_s) / self._of_turn.total()
            self._algorithm.of().observe(mean, self._of_turn.total())
            for key, count in self._of_turn.items():
                self._attempts[key] += count
                self._durations.of(*key).observe(mean, count)
            self._of_turn.clear()
        if last is not None and now >= self._next_sample_s:
            self._next_sample_s = now + _SAMPLE_S
            self._sample(last)

    def bound(self, waiting: Waiting) -> None:
        """A pod has its node."""
        waited_s, tries = self._clock.monotonic() - waiting.entered_s, waiting.attempts
        if tries == 1:
            # Nearly all of them: sorted into buckets many at once.
            self._at_first.append(waited_s)
            if len(self._at_first) >= _MANY:
                self._sort_first()
            return
        label = str(tries) if tries <= _MOST_ATTEMPTS else f"{_MOST_ATTEMPTS + 1}+"
        self._waits.of(label).observe(waited_s)
        self._tries.of().observe(tries)

    def _sort_first(self) -> None:
        if self._at_first:
            self._waits.of("1").observe_all(self._at_first)
            self._tries.of().observe(1, len(self._at_first))
            self._at_first.clear()

    def preempted(self, victims: int) -> None:
        """Room is made for a pod by the end of so many."""
        self._preemptions += 1
        self._victims.of().observe(victims)

    def post_filtered(self, began_s: float, success: bool, profile: str) -> None:
        """Making room was thought about."""
        status = "Success" if success else "Unschedulable"
        self._points.of("PostFilter", status, profile).observe(self._clock.monotonic() - began_s)

    def _sample(self, pod: PodInfo) -> None:
        framework = self._scheduler.frameworks.get(pod.scheduler_name)
        if framework is None:
            return
        totals: dict[str, float] = {}
        for plugin, point, took_s in framework.timed(pod, self._clock.monotonic):
            self._plugins.of(plugin, point, "Success").observe(took_s)
            totals[point] = totals.get(point, 0.0) + took_s
        for point, took_s in totals.items():
            self._points.of(point, "Success", framework.profile.name).observe(took_s)

    def collect(self) -> Iterator[Metric]:
        """Everything, as it is now."""
        self._sort_first()
        queue, cache = self._scheduler.queue, self._scheduler.cache
        yield _gauge("scheduler_pending_pods", "Pods that wait, by queue.", ("queue",), queue.pending())
        yield _gauge("scheduler_unschedulable_pods", "By who refused.", ("plugin", "profile"), queue.refused_by())
        sizes = {("nodes",): len(cache.columns), ("pods",): len(cache), ("assumed_pods",): cache.assumed()}
        yield _gauge("scheduler_cache_size", "Nodes and pods that are known.", ("type",), sizes)
        yield _counter(
            "scheduler_schedule_attempts",
            "Tries to place a pod.",
            ("result", "profile"),
            self._attempts + self._of_turn,
        )
        yield _counter(
            "scheduler_queue_incoming_pods", "Pods that came into a queue, and why.", ("queue", "event"), queue.incoming
        )
        yield _counter("scheduler_preemption_attempts", "Preemptions.", (), {(): self._preemptions})
        for spreads in (
            self._victims,
            self._durations,
            self._algorithm,
            self._waits,
            self._tries,
            self._points,
            self._plugins,
        ):
            yield spreads.family()


def _gauge(name: str, text: str, labels: tuple[str, ...], values: _Values) -> Metric:
    made = GaugeMetricFamily(name, text, labels=labels)
    for key, value in values.items():
        made.add_metric(key, value)
    return made


def _counter(name: str, text: str, labels: tuple[str, ...], values: _Values) -> Metric:
    made = CounterMetricFamily(name, text, labels=labels)
    for key, value in values.items():
        made.add_metric(key, value)
    return made
