"""Scores of small clusters, worked out by hand from what Kubernetes documents of each plugin.

Weighted by the defaults: TaintToleration 3, NodeAffinity, PodTopologySpread and InterPodAffinity 2, the others 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from tests.unit.scheduler.objects import node, pod_message
from tiphys.api.core.v1.node_pb2 import Node
from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys_scheduler.cache import Cache
from tiphys_scheduler.columns import Columns
from tiphys_scheduler.framework.interface import Scores
from tiphys_scheduler.framework.registry import DEFAULT_PROFILE
from tiphys_scheduler.framework.runtime import Framework
from tiphys_scheduler.plugins.allocation_scores import (
    LeastAllocated,
    MostAllocated,
    RequestedToCapacityRatio,
    Strategy,
)
from tiphys_scheduler.plugins.balanced_allocation import BalancedAllocation
from tiphys_scheduler.plugins.node_resources_fit import NodeResourcesFit
from tiphys_scheduler.pod_info import pod_info

HOST, ZONE = "kubernetes.io/hostname", "topology.kubernetes.io/zone"
MB = 1024 * 1024
LEAST, MOST, RATIO = LeastAllocated(), MostAllocated(), RequestedToCapacityRatio()
PACKED = RequestedToCapacityRatio(((0, 10), (70, 5), (100, 0)))


@dataclass(frozen=True)
class Room:
    """One node: what it has, what is used, what is wanted; CPU in millis, memory in bytes."""

    has: tuple[int, int]
    used: tuple[int, int]
    wanted: tuple[int, int]


def _amounts(pod: Pod, cpu: int, memory: int) -> Pod:
    requests = pod.spec.containers[0].resources.requests
    requests["cpu"].string, requests["memory"].string = f"{cpu}m", str(memory)
    return pod


def _score(room: Room, plugin: NodeResourcesFit | BalancedAllocation) -> Scores:
    cache = Cache(Columns())
    cache.set_node(node("a", cpu=f"{room.has[0]}m", memory=str(room.has[1])))
    if any(room.used):
        cache.assume(pod_info(_amounts(pod_message("there"), *room.used)), "a")
    row = cache.columns.row_of["a"]
    return plugin.score(pod_info(_amounts(pod_message("p"), *room.wanted)), cache.columns, slice(row, row + 1))


@pytest.mark.parametrize(
    ("strategy", "room", "score"),
    [
        (LEAST, Room((4000, 10000), (0, 0), (3000, 5000)), 37),  # (25 + 50) / 2
        (LEAST, Room((6000, 10000), (0, 0), (3000, 5000)), 50),
        (LEAST, Room((10000, 20000), (6000, 0), (0, 0)), 70),  # (40 + 100) / 2
        (LEAST, Room((10000, 20000), (6000, 5000), (0, 0)), 57),  # (40 + 75) / 2
        (LEAST, Room((10000, 20000), (3000, 5000), (3000, 5000)), 45),  # (40 + 50) / 2
        (LEAST, Room((10000, 20000), (6000, 10000), (3000, 5000)), 17),  # (10 + 25) / 2
        (LEAST, Room((1000, 1000), (0, 0), (1000, 1000)), 0),
        (LEAST, Room((1000, 1000), (500, 0), (1000, 0)), 50),  # overfull counts 0
        (LEAST, Room((1000, 0), (0, 0), (250, 0)), 75),  # no memory at all is left out
        (LEAST, Room((0, 0), (0, 0), (0, 0)), 0),
        (MOST, Room((4000, 10000), (0, 0), (3000, 5000)), 62),  # (75 + 50) / 2
        (MOST, Room((6000, 10000), (0, 0), (3000, 5000)), 50),
        (MOST, Room((10000, 20000), (6000, 5000), (0, 0)), 42),  # (60 + 25) / 2
        (MOST, Room((10000, 20000), (6000, 10000), (3000, 5000)), 82),  # (90 + 75) / 2
        (MOST, Room((1000, 1000), (900, 0), (900, 0)), 50),  # overfull counts as full
        (MOST, Room((1000, 0), (0, 0), (250, 0)), 25),
        (RATIO, Room((4000, 10000), (0, 0), (3000, 5000)), 63),  # 62.5
        (RATIO, Room((4000, 10000), (0, 0), (4000, 0)), 100),  # a score of 0 weighs nothing
        (RATIO, Room((1000, 1000), (900, 0), (900, 500)), 75),  # overfull counts as full
        (RATIO, Room((1000, 1000), (0, 0), (0, 0)), 0),
        (PACKED, Room((1000, 1000), (0, 0), (350, 700)), 63),  # 75 at 35 %, 50 at 70 %
        (PACKED, Room((1000, 1000), (0, 0), (850, 850)), 25),
        (PACKED, Room((1000, 1000), (0, 0), (1000, 850)), 25),
        (PACKED, Room((1000, 1000), (0, 0), (330, 330)), 77),  # 100 - 1650 / 70, the fraction dropped
    ],
)
def test_C21_C26_how_full_a_node_would_be(strategy: Strategy, room: Room, score: int) -> None:
    assert _score(room, NodeResourcesFit(strategy)).tolist() == [score]


@pytest.mark.parametrize(
    ("room", "score"),
    [
        (Room((4000, 10000), (0, 0), (3000, 5000)), 87),  # 75 % and 50 %: deviation 12.5
        (Room((6000, 10000), (0, 0), (3000, 5000)), 100),
        (Room((10000, 20000), (6000, 0), (0, 1)), 70),  # 60 % and next to nothing
        (Room((10000, 20000), (3000, 5000), (3000, 5000)), 95),  # 60 % and 50 %
        (Room((10000, 20000), (6000, 10000), (3000, 5000)), 92),  # 90 % and 75 %
        (Room((1000, 1000), (900, 0), (900, 0)), 50),  # more than all counts as all
        (Room((1000, 0), (0, 0), (500, 0)), 100),  # one resource is in balance with itself
        (Room((1000, 1000), (1000, 0), (0, 0)), 0),  # says nothing of pods without requests
    ],
)
def test_C21_how_even_a_node_would_be(room: Room, score: int) -> None:
    assert _score(room, BalancedAllocation()).tolist() == [score]


@pytest.mark.parametrize(
    ("plugin", "wanted", "score"),
    [
        # 1.1 of 4 CPUs, the pod that is there counting as 100m, and half of the disk by it: 72 and 50.
        (NodeResourcesFit(LEAST, (("cpu", 1), ("ephemeral-storage", 1))), {"cpu": "1"}, 61),
        # A device counts for pods that want it, and for no others.
        (NodeResourcesFit(LEAST, (("cpu", 1), ("example.com/gpu", 1))), {"cpu": "1"}, 72),
        (NodeResourcesFit(LEAST, (("cpu", 1), ("example.com/gpu", 3))), {"cpu": "1", "example.com/gpu": "1"}, 55),
        (BalancedAllocation(("cpu", "ephemeral-storage")), {"cpu": "1"}, 87),
        (BalancedAllocation(("cpu", "example.com/gpu")), {"example.com/gpu": "1"}, 75),
        (BalancedAllocation(("cpu", "memory")), {"example.com/gpu": "1"}, 0),
    ],
)
def test_C21_other_resources_that_are_scored(
    plugin: NodeResourcesFit | BalancedAllocation, wanted: dict[str, str], score: int
) -> None:
    cache = Cache(Columns())
    having = node("a", cpu="4")
    for resource, amount in {"ephemeral-storage": "10G", "example.com/gpu": "2"}.items():
        having.status.allocatable[resource].string = amount
    cache.set_node(having)
    there, message = pod_message("there"), pod_message("p")
    there.spec.containers[0].resources.requests["ephemeral-storage"].string = "5G"
    cache.assume(pod_info(there), "a")
    for resource, amount in wanted.items():
        message.spec.containers[0].resources.requests[resource].string = amount
    row = cache.columns.row_of["a"]
    assert plugin.score(pod_info(message), cache.columns, slice(row, row + 1)).tolist() == [score]
    assert plugin.score_row(pod_info(message), cache.columns, row) == score


def _scores(plugin: str, nodes: Sequence[Node], pod: Pod, there: Sequence[tuple[Pod, str]] = ()) -> list[int]:
    cache = Cache(Columns())
    for item in nodes:
        cache.set_node(item)
    for number, (message, name) in enumerate(there):
        placed = Pod()
        placed.CopyFrom(message)
        placed.metadata.name = f"there{number}"
        cache.assume(pod_info(placed), name)
    table = Framework(DEFAULT_PROFILE, cache.columns).scores(pod_info(pod))
    return [table[item.metadata.name][plugin] for item in nodes]


def _tainted(name: str, count: int) -> Node:
    return node(name, taints=[(f"k{i}", "", "PreferNoSchedule") for i in range(count)])


@pytest.mark.parametrize(
    ("counts", "tolerated", "scores"),
    [
        ((0, 0), 0, (300, 300)),
        ((0, 1), 0, (300, 0)),
        ((1, 2), 0, (150, 0)),
        ((0, 1, 3), 0, (300, 201, 0)),  # 100 - 33
        ((0, 2, 2), 1, (300, 0, 0)),
        ((0, 1), 1, (300, 300)),
    ],
)
def test_C21_soft_taints(counts: tuple[int, ...], tolerated: int, scores: tuple[int, ...]) -> None:
    message = pod_message("p")
    for number in range(tolerated):
        message.spec.tolerations.add(key=f"k{number}", operator="Exists")
    nodes = [_tainted(f"n{i}", count) for i, count in enumerate(counts)]
    assert _scores("TaintToleration", nodes, message) == list(scores)


@pytest.mark.parametrize(
    ("weights", "disks", "scores"),
    [
        ({}, ("a", "b"), (0, 0)),
        ({"a": 10}, ("a", "b"), (200, 0)),
        ({"a": 10, "b": 40}, ("a", "b"), (50, 200)),
        ({"a": 1, "b": 3}, ("a", "b", "c"), (66, 200, 0)),
    ],
)
def test_C21_preferred_nodes(weights: dict[str, int], disks: tuple[str, ...], scores: tuple[int, ...]) -> None:
    message = pod_message("p")
    preferred = message.spec.affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution
    for disk, weight in weights.items():
        preferred.add(weight=weight).preference.matchExpressions.add(key="disk", operator="In", values=[disk])
    nodes = [node(f"n{i}", labels={"disk": disk}) for i, disk in enumerate(disks)]
    assert _scores("NodeAffinity", nodes, message) == list(scores)


@pytest.mark.parametrize(
    ("sizes", "scores"),
    [
        ((0, 0), (0, 0)),
        ((250 * MB, 0), (10, 0)),  # half of the nodes have it: 125 MB, of which 102 of 977 count
        ((1000 * MB, 1000 * MB), (100, 100)),
        ((40 * MB, 0), (0, 0)),  # 20 MB is less than counts
        ((5000 * MB, 0), (100, 0)),  # no more than 1000 MB counts
    ],
)
def test_C21_images_that_are_there(sizes: tuple[int, ...], scores: tuple[int, ...]) -> None:
    nodes = []
    for number, size in enumerate(sizes):
        nodes.append(node(f"n{number}"))
        if size:
            nodes[-1].status.images.add(names=["busybox:latest"], sizeBytes=size)
    assert _scores("ImageLocality", nodes, pod_message("p")) == list(scores)


def _web(name: str = "p") -> Pod:
    message = pod_message(name)
    message.metadata.labels["app"] = "web"
    return message


@pytest.mark.parametrize(
    ("key", "there", "scores"),
    [
        (HOST, (0, 0, 0, 0), (200, 200, 200, 200)),
        # log(4 + 2) = 1.79: 3 pods are 5, 2 are 4, 1 is 2.
        (HOST, (3, 2, 1, 0), (0, 40, 120, 200)),
        # Zones x (n0, n1) and y (n2, n3), log(2 + 2) = 1.39: 3 pods are 4, 1 is 1.
        (ZONE, (2, 1, 0, 1), (50, 50, 200, 200)),
        (ZONE, (1, 1, 1, 1), (200, 200, 200, 200)),
    ],
)
def test_C21_spreading(key: str, there: tuple[int, ...], scores: tuple[int, ...]) -> None:
    message = _web()
    constraint = message.spec.topologySpreadConstraints.add(maxSkew=1, topologyKey=key)
    constraint.whenUnsatisfiable = "ScheduleAnyway"
    constraint.labelSelector.matchLabels["app"] = "web"
    nodes = [node(f"n{i}", labels={HOST: f"n{i}", ZONE: "xxyy"[i]}) for i in range(4)]
    placed = [(_web(), f"n{i}") for i, count in enumerate(there) for _ in range(count)]
    assert _scores("PodTopologySpread", nodes, message, placed) == list(scores)


@pytest.mark.parametrize(
    ("weights", "there", "scores"),
    [
        ((5,), (0, 0, 0), (0, 0, 0)),
        ((5,), (1, 0, 0), (200, 200, 0)),  # n0 and n1 are one zone
        ((-5,), (1, 0, 0), (0, 0, 200)),
        ((5,), (1, 1, 1), (200, 200, 0)),  # 10 and 5
        ((8, -3), (1, 0, 2), (0, 0, 200)),  # 5 and 10
    ],
)
def test_C21_pods_that_are_wanted_near(
    weights: tuple[int, ...], there: tuple[int, ...], scores: tuple[int, ...]
) -> None:
    message = pod_message("p")
    for weight in weights:
        side = message.spec.affinity.podAffinity if weight > 0 else message.spec.affinity.podAntiAffinity
        term = side.preferredDuringSchedulingIgnoredDuringExecution.add(weight=abs(weight)).podAffinityTerm
        term.topologyKey = ZONE
        term.labelSelector.matchLabels["app"] = "web"
    nodes = [node(f"n{i}", labels={ZONE: "xxy"[i]}) for i in range(3)]
    placed = [(_web(), f"n{i}") for i, count in enumerate(there) for _ in range(count)]
    assert _scores("InterPodAffinity", nodes, message, placed) == list(scores)


@pytest.mark.parametrize(
    ("strategy", "most_nodes"), [(MOST, 8), (RATIO, 8), (LEAST, 40)], ids=["most", "ratio", "least allocated"]
)
def test_C26_the_same_trace_needs_the_fewest_nodes_when_packed(strategy: Strategy, most_nodes: int) -> None:
    cache = Cache(Columns())
    for number in range(40):
        cache.set_node(node(f"n{number}", cpu="4", memory="8Gi"))
    fit = NodeResourcesFit(strategy)
    used: set[int] = set()
    for number in range(64):
        info = pod_info(pod_message(f"p{number}", cpu="500m", memory="1Gi"))
        feasible = fit.filter(info, cache.columns, slice(None)) & cache.columns.present
        scores = fit.score(info, cache.columns, slice(None))
        row = max((r for r in range(cache.columns.rows) if feasible[r]), key=lambda r: int(scores[r]))
        cache.assume(info, cache.columns.names[row])
        used.add(row)
    # 64 pods of an eighth of a node each: 8 nodes are the fewest possible.
    assert len(used) == most_nodes
