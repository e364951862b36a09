"""Metrics of flow control, with Kubernetes' names. What each request counts is a plain number, read when asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric

from tiphys_apiserver.server.flow_control.schemas import Flow
from tiphys_apiserver.server.flow_control.seats import Level
from tiphys_component.metrics import Registry

_PREFIX = "apiserver_flowcontrol"


class Source(Protocol):
    """What is in use."""

    @property
    def flows(self) -> Sequence[Flow]:
        """The schemas."""
        ...

    @property
    def levels(self) -> Mapping[str, Level]:
        """The levels by name."""
        ...


class FlowMetrics:
    """The metrics of one server's flow control."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._rejected = registry.counter(
            f"{_PREFIX}_rejected_requests_total",
            "Requests sent away by flow control.",
            ("priority_level", "flow_schema", "reason"),
        )
        self._waited = registry.histogram(
            f"{_PREFIX}_request_wait_duration_seconds",
            "Seconds in a queue, of the requests that had to wait.",
            ("priority_level", "flow_schema", "execute"),
        )
        self._source: Source | None = None

    def read_from(self, source: Source) -> None:
        """Tell it what to show, once."""
        self._source = source
        self._registry.collector(self._collect)

    def rejected(self, flow: Flow, reason: str) -> None:
        """Count a request that was sent away."""
        self._rejected.labels(flow.level.settings.name, flow.name, reason).inc()

    def waited(self, flow: Flow, seconds: float, *, executed: bool) -> None:
        """Count a request that was in a queue."""
        self._waited.labels(flow.level.settings.name, flow.name, "true" if executed else "false").observe(seconds)

    def _collect(self) -> Iterator[Metric]:
        source = self._source
        if source is None:
            return
        dispatched = CounterMetricFamily(
            f"{_PREFIX}_dispatched_requests", "Requests let in.", labels=("priority_level", "flow_schema")
        )
        for flow in source.flows:
            dispatched.add_metric((flow.level.settings.name, flow.name), flow.dispatched)
        yield dispatched
        gauges: tuple[tuple[str, str, Callable[[Level], int]], ...] = (
            ("current_inqueue_requests", "Requests in queues.", lambda level: level.waiting),
            ("current_executing_requests", "Requests at work.", lambda level: level.requests),
            ("current_executing_seats", "Seats of the requests at work.", lambda level: level.seats),
            ("nominal_limit_seats", "The level's share of the server's seats.", lambda level: level.nominal),
            ("lower_limit_seats", "Seats that the level never lends.", lambda level: level.kept),
        )
        for name, text, read in gauges:
            gauge = GaugeMetricFamily(f"{_PREFIX}_{name}", text, labels=("priority_level",))
            for level_name, level in source.levels.items():
                gauge.add_metric((level_name,), read(level))
            yield gauge
