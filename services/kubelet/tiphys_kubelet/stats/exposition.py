"""GET /metrics/resource and /metrics/cadvisor: a sample in Prometheus' text form, by Kubernetes' names. Pure.

Every sample has the time at which it was read, as scrapers work out rates from it.
Source: kubernetes pkg/kubelet/metrics/collectors/resource_metrics.go; the names of cAdvisor's prometheus collector.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from tiphys_kubelet.stats.readings import ContainerReading, Reading, Sample

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_NANO = 1_000_000_000
_ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n"})

Labels = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class _Family:
    """One metric: what of a reading it shows."""

    name: str
    kind: str
    meaning: str
    read: Callable[[Reading], float]


@dataclass(frozen=True, slots=True)
class _Point:
    labels: Labels
    reading: Reading


def _cpu_seconds(reading: Reading) -> float:
    return reading.cpu_ns / _NANO


def _working_set(reading: Reading) -> float:
    return reading.working_set_bytes


def _families(thing: str) -> tuple[_Family, _Family]:
    return (
        _Family(
            f"{thing}_cpu_usage_seconds_total",
            "counter",
            f"Cumulative cpu time consumed by the {thing} in core-seconds",
            _cpu_seconds,
        ),
        _Family(
            f"{thing}_memory_working_set_bytes",
            "gauge",
            f"Current working set of the {thing} in bytes",
            _working_set,
        ),
    )


_CADVISOR: Final = (
    *_families("container"),
    _Family("container_memory_rss", "gauge", "Size of RSS in bytes.", lambda reading: reading.rss_bytes),
    _Family("container_memory_usage_bytes", "gauge", "Memory in bytes, caches too.", lambda r: r.usage_bytes),
)
_STARTED: Final = ("container_start_time_seconds", "gauge", "Start time of the container since unix epoch in seconds")
_FAILED: Final = ("gauge", "1 if there was an error while getting container metrics, 0 otherwise")


def resource_metrics(sample: Sample) -> bytes:
    """What autoscalers and metrics servers read."""
    containers = sample.containers
    names = {one.pod_uid: {"namespace": one.namespace, "pod": one.pod} for one in containers}
    pods = [_Point(names[uid], reading) for uid, reading in sample.pods.items() if uid in names]
    node = [_Point({}, sample.node)] if sample.node is not None else []
    lines = [
        *_lines(_families("container"), [_Point(_container(one), one.reading) for one in containers]),
        *_started(containers, _container),
        *_lines(_families("node"), node),
        *_lines(_families("pod"), pods),
    ]
    # By its name and by the older one.
    for name in ("resource_scrape_error", "scrape_error"):
        lines += [_head(name, *_FAILED), _line(name, {}, float(sample.failed))]
    return "".join(lines).encode()


def cadvisor_metrics(sample: Sample) -> bytes:
    """The part of cAdvisor's metrics that dashboards and rules ask for."""
    points = [_Point(_cadvisor(one), one.reading) for one in sample.containers]
    usage, *rest = _CADVISOR
    total = [_Point({**point.labels, "cpu": "total"}, point.reading) for point in points]
    lines = [*_lines((usage,), total), *_lines(rest, points), *_started(sample.containers, _cadvisor)]
    return "".join(lines).encode()


def _container(one: ContainerReading) -> Labels:
    return {"container": one.name, "namespace": one.namespace, "pod": one.pod}


def _cadvisor(one: ContainerReading) -> Labels:
    return {**_container(one), "id": one.id, "image": one.image, "name": one.id}


def _started(containers: Iterable[ContainerReading], labels: Callable[[ContainerReading], Labels]) -> Iterator[str]:
    known = [one for one in containers if one.started_ns]
    if known:
        yield _head(*_STARTED)
    for one in known:
        yield _line(_STARTED[0], labels(one), one.started_ns / _NANO, one.reading.at_ns)


def _lines(families: Iterable[_Family], points: Sequence[_Point]) -> Iterator[str]:
    for family in families if points else ():
        yield _head(family.name, family.kind, family.meaning)
        for point in points:
            yield _line(family.name, point.labels, family.read(point.reading), point.reading.at_ns)


def _head(name: str, kind: str, meaning: str) -> str:
    return f"# HELP {name} {meaning}\n# TYPE {name} {kind}\n"


def _line(name: str, labels: Labels, value: float, at_ns: int = 0) -> str:
    inner = ",".join(f'{key}="{text.translate(_ESCAPES)}"' for key, text in sorted(labels.items()))
    shown = f"{{{inner}}}" if inner else ""
    stamp = f" {at_ns // 1_000_000}" if at_ns else ""
    return f"{name}{shown} {float(value)!r}{stamp}\n"
