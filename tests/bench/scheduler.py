"""The scheduler alone: pods placed a second, all nodes scored, by the shapes of upstream's public scheduler benchmarks.

Run: -m tests.bench.scheduler [name …]. CPU time of this process. Nodes and pods are those of upstream's
test/integration/scheduler_perf: 4 CPUs, 32 GiB and 110 pods a node; 100m and 500 MiB a pod. The issue requires the
rates over the whole road to the store; alone the scheduler must do better than that.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from time import process_time

from tests.bench.figures import Figure, median, print_figures, print_heading
from tests.bench.pod_shapes import (
    MOON,
    NodeShape,
    Shape,
    affinity,
    anti_affinity,
    basic,
    by_namespaces,
    daemon,
    filler,
    many_shapes,
    mixed,
    node_affinity,
    plain_node,
    preferring,
    soft_preferences,
    softly_tainted,
    spreading,
    zoned,
)
from tests.unit.scheduler.objects import pod_message
from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys_scheduler.cache import Cache
from tiphys_scheduler.columns import Columns
from tiphys_scheduler.framework.registry import DEFAULT_PROFILE
from tiphys_scheduler.framework.runtime import Framework, Placement
from tiphys_scheduler.pod_info import pod_info

NODES = 5000
_ROUNDS = 3


@dataclass(frozen=True, slots=True)
class Workload:
    """Pods to place before, and those that are measured; churn happens every so many pods."""

    name: str
    required: float | None
    measured: Shape
    count: int = 5000
    before: Shape | None = None
    count_before: int = 0
    nodes: int = NODES
    node: NodeShape | None = None
    # Pods that fit nowhere, tried first.
    hopeless: int = 0
    churn: bool = False
    note: str = ""


WORKLOADS = (
    Workload("SchedulingBasic", 10_000, basic, before=filler, count_before=1000, note="upstream's gate 680"),
    Workload("SchedulingBasic, 50,000 nodes", 1500, basic, nodes=50_000, count=3000),
    Workload("50 shapes in turn", 3000, many_shapes),
    Workload("PodAntiAffinity", 2000, anti_affinity, 2000, anti_affinity, 1000, note="upstream's gate 60"),
    Workload("PodAffinity", None, affinity, 5000, filler, 5000, node=zoned("zone1"), note="upstream's gate 35"),
    Workload("PreferredPodAffinity", 2500, preferring("podAffinity"), 5000, filler, 5000),
    Workload("PreferredPodAntiAffinity", 2500, preferring("podAntiAffinity"), 5000, filler, 5000),
    Workload(
        "TopologySpreading", 3000, spreading("DoNotSchedule"), 5000, filler, 5000, node=MOON, note="upstream's gate 460"
    ),
    Workload("PreferredTopologySpreading", 3000, spreading("ScheduleAnyway"), 5000, filler, 5000, node=MOON),
    Workload("NodeAffinity", 3000, node_affinity, 5000, filler, 5000, node=zoned("zone1")),
    Workload("preferred affinity and soft taints", 2500, soft_preferences, node=softly_tainted),
    Workload("Unschedulable", 3000, basic, 5000, hopeless=200),
    Workload("MixedChurn", 3000, mixed, 3000, mixed, 2000, node=zoned("zone1"), churn=True),
    Workload("Daemonset, 15,000 nodes", 3000, daemon, 15_000, nodes=15_000),
    Workload("NSSelector", 2000, by_namespaces, 1000, by_namespaces, 2000, note="upstream's gate 24"),
)


def measure_scheduler(wanted: tuple[str, ...] = ()) -> list[Figure]:
    """Every workload, or those whose names hold one of the words."""
    return [_figure(work) for work in WORKLOADS if not wanted or any(word in work.name for word in wanted)]


def _figure(work: Workload) -> Figure:
    rates = [_Run(work).rate() for _ in range(_ROUNDS)]
    return Figure(f"scheduler alone: {work.name}", median(rates), "per s", note=work.note, at_least=work.required)


class _Run:
    """One cluster, filled and measured."""

    def __init__(self, work: Workload) -> None:
        self._work = work
        self._cache = Cache(Columns())
        for number in range(100):
            self._cache.columns.set_namespace(f"ns-{number}", {"team": "devops"})
        self._node = work.node or plain_node
        for number in range(work.nodes):
            self._cache.set_node(self._node(number))
        self._framework = Framework(DEFAULT_PROFILE, self._cache.columns)

    def rate(self) -> float:
        """Pods a second."""
        work = self._work
        if work.before is not None:
            for number in range(work.count_before):
                self._place(self._named(work.before, number, "before"))
        pods = [pod_info(self._named(work.measured, number, "p")) for number in range(work.count)]
        hopeless = [pod_info(pod_message(f"h{i}", cpu="9", memory="500Mi")) for i in range(work.hopeless)]
        churn = self._churn() if work.churn else iter(())
        began = process_time()
        for info in hopeless:
            if isinstance(self._framework.place(info), Placement):
                raise TypeError(f"{info.key} fits")
        for number, info in enumerate(pods):
            if number % 500 == 0:
                next(churn, None)
            found = self._framework.place(info)
            if not isinstance(found, Placement):
                raise TypeError(f"no node for {info.key}: {found.message}")
            self._cache.assume(info, found.node)
        return len(pods) / (process_time() - began)

    def _place(self, message: Pod) -> None:
        info = pod_info(message)
        found = self._framework.place(info)
        if isinstance(found, Placement):
            self._cache.assume(info, found.node)

    @staticmethod
    def _named(shape: Shape, number: int, prefix: str) -> Pod:
        found = shape(number)
        found.metadata.name = f"{prefix}{number}"
        return found

    def _churn(self) -> Iterator[None]:
        """A node and a pod that fits nowhere come and go."""
        number = self._work.nodes
        while True:
            self._cache.set_node(self._node(number))
            self._framework.place(pod_info(pod_message(f"large{number}", cpu="9")))
            yield
            self._cache.remove_node(f"n{number}")
            yield
            number += 1


if __name__ == "__main__":
    print_heading()
    print_figures(measure_scheduler(tuple(sys.argv[1:])))
