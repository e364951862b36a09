"""What was read at one moment, and what two moments say of the time between them. Values and arithmetic, no I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

# Over less time a counter of processor time says little: schedulers give it in slices of milliseconds.
MIN_WINDOW_S = 1.0
_NANO = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Reading:
    """Counters of one container, pod or node; at_ns is since the epoch, cpu_ns is of one core since the start."""

    at_ns: int
    cpu_ns: int
    working_set_bytes: int
    usage_bytes: int = 0
    rss_bytes: int = 0


@dataclass(frozen=True, slots=True)
class ContainerReading:
    """A running container; started_ns is 0 where nobody knows."""

    id: str
    pod_uid: str
    namespace: str
    pod: str
    name: str
    reading: Reading
    image: str = ""
    started_ns: int = 0
    disk_bytes: int = 0
    disk_inodes: int = 0


@dataclass(frozen=True, slots=True)
class Sample:
    """Everything at one moment; taken_s is the clock's monotonic time. Pods are by uid, and those without cgroup are
    not in it. failed says that the runtime could not be asked."""

    taken_s: float
    containers: Sequence[ContainerReading] = ()
    pods: Mapping[str, Reading] = field(default_factory=dict)
    node: Reading | None = None
    failed: bool = False


@dataclass(frozen=True, slots=True)
class Rate:
    """Use of processors over a span of time that ends with the reading, in billionths of a core."""

    nano_cores: int
    window_s: float


@dataclass(frozen=True, slots=True)
class Usage:
    """A sample with what it says together with the one before it; what has no rate yet is not in the rates."""

    sample: Sample
    containers: Mapping[str, Rate] = field(default_factory=dict)
    pods: Mapping[str, Rate] = field(default_factory=dict)
    node: Rate | None = None


def rate_between(before: Reading | None, after: Reading) -> Rate | None:
    """The rate from one reading to the next; None where they are too close or the counter began anew."""
    if before is None or after.cpu_ns < before.cpu_ns:
        return None
    return _rate(after.cpu_ns - before.cpu_ns, after.at_ns - before.at_ns)


def _rate(used_ns: int, span_ns: int) -> Rate | None:
    # Clocks of two readings are the runtime's: a window a little short of the least is still one.
    if span_ns < 0.9 * MIN_WINDOW_S * _NANO:
        return None
    return Rate(used_ns * _NANO // span_ns, span_ns / _NANO)


def usage_between(before: Sample | None, after: Sample) -> Usage:
    """What was used from one sample to the next. A container that began in between counts from its start."""
    if before is None:
        return Usage(after)
    known = {one.id: one.reading for one in before.containers}
    containers: dict[str, Rate] = {}
    for one in after.containers:
        rate = rate_between(known.get(one.id), one.reading)
        if rate is None and one.id not in known and one.started_ns:
            rate = _rate(one.reading.cpu_ns, one.reading.at_ns - one.started_ns)
        if rate is not None:
            containers[one.id] = rate
    pods: dict[str, Rate] = {}
    for uid, reading in after.pods.items():
        rate = rate_between(before.pods.get(uid), reading)
        if rate is not None:
            pods[uid] = rate
    node = rate_between(before.node, after.node) if after.node is not None else None
    return Usage(after, containers, pods, node)
