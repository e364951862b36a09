"""The workloads of the whole road to the store, with the counts and the thresholds of upstream's benchmarks.

Source: kubernetes test/integration/scheduler_perf/*/performance-config.yaml, those labelled performance. A threshold is
pods a second that upstream's own run must reach; the required rates are the issue's, durable over SQLite.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from tests.bench.pod_shapes import (
    MOON,
    NodeShape,
    Shape,
    affinity,
    anti_affinity,
    basic,
    by_namespaces,
    daemon_of,
    filler,
    high_priority,
    low_priority,
    many_shapes,
    node_affinity,
    plain_node,
    preferring,
    soft_preferences,
    softly_tainted,
    spreading,
    zoned,
)

ETCD_SHARE = 0.5
_ZONE_1 = zoned("zone1")


@dataclass(frozen=True, slots=True)
class RoadWorkload:
    """Pods that are bound before, and those that are measured.

    gate is upstream's threshold. hopeless pods fit nowhere and wait beside; churn has a node and a pod come and go.
    """

    name: str
    measured: Shape
    count: int
    before: tuple[tuple[Shape, int], ...] = ()
    nodes: int = 5000
    node: NodeShape = plain_node
    required: float | None = None
    gate: float | None = None
    hopeless: int = 0
    churn: bool = False

    def sized(self, nodes: int, before: int, count: int) -> RoadWorkload:
        """The same with other counts; each kind of pods before has so many."""
        return replace(self, nodes=nodes, before=tuple((shape, before) for shape, _ in self.before), count=count)


_MIXED_BEFORE = tuple(
    (shape, 2000)
    for shape in (filler, affinity, anti_affinity, preferring("podAffinity"), preferring("podAntiAffinity"))
)

ROAD = (
    RoadWorkload("SchedulingBasic", basic, 10_000, ((filler, 1000),), required=6000, gate=680),
    RoadWorkload("SchedulingBasic, 50,000 pods", basic, 50_000, ((filler, 5000),), required=6000, gate=810),
    RoadWorkload("50 shapes in turn", many_shapes, 10_000, ((filler, 1000),), required=3000),
    RoadWorkload("PodAntiAffinity", anti_affinity, 2000, ((anti_affinity, 1000),), required=2000, gate=60),
    RoadWorkload("PodAffinity", affinity, 5000, ((affinity, 5000),), node=_ZONE_1, gate=35),
    RoadWorkload(
        "PreferredPodAffinity",
        preferring("podAffinity"),
        5000,
        ((preferring("podAffinity"), 5000),),
        required=2500,
        gate=90,
    ),
    RoadWorkload(
        "PreferredPodAntiAffinity",
        preferring("podAntiAffinity"),
        5000,
        ((preferring("podAntiAffinity"), 5000),),
        required=2500,
        gate=90,
    ),
    RoadWorkload("preferred node affinity, soft taints", soft_preferences, 5000, node=softly_tainted, required=2500),
    RoadWorkload("NodeAffinity", node_affinity, 10_000, ((node_affinity, 5000),), node=_ZONE_1, gate=220),
    RoadWorkload("MixedSchedulingBasePod", basic, 5000, _MIXED_BEFORE, node=_ZONE_1, required=3000, gate=140),
    RoadWorkload(
        "TopologySpreading", spreading("DoNotSchedule"), 5000, ((filler, 5000),), node=MOON, required=3000, gate=460
    ),
    RoadWorkload(
        "PreferredTopologySpreading", spreading("ScheduleAnyway"), 5000, ((filler, 5000),), node=MOON, gate=340
    ),
    RoadWorkload("Unschedulable", basic, 10_000, ((filler, 100),), gate=590, hopeless=200),
    RoadWorkload("MixedChurn", basic, 10_000, gate=710, churn=True),
    RoadWorkload("NSSelector", by_namespaces, 2000, ((by_namespaces, 4000),), nodes=6000, gate=24),
    RoadWorkload("Daemonset", daemon_of(15_000), 30_000, nodes=15_000, required=3000, gate=1100),
    RoadWorkload("Preemption", high_priority, 2000, ((low_priority, 20_000),), required=500),
)
