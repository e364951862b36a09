"""The columns say what plugins say that look at one node and one pod object at a time, and keep nothing."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.scheduler_reference.cluster import Cluster
from tests.support.scheduler_reference.verdict import Verdict, judge
from tests.unit.scheduler.random_cluster import PARTS, World
from tiphys.api.core.v1.node_pb2 import Node
from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys_scheduler.cache import Cache
from tiphys_scheduler.columns import Columns
from tiphys_scheduler.framework.classes import PluginLists, takes
from tiphys_scheduler.framework.registry import DEFAULT_PROFILE
from tiphys_scheduler.framework.runtime import Framework, Placement
from tiphys_scheduler.pod_info import PodInfo, pod_info


class Twin:
    """The same cluster twice: as objects for the reference, as columns for the scheduler."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.cache = Cache(Columns())
        for name, labels in cluster.namespaces.items():
            self.cache.columns.set_namespace(name, labels)
        for node in cluster.nodes:
            self.cache.set_node(node)
        self.framework = Framework(DEFAULT_PROFILE, self.cache.columns)

    def set_node(self, node: Node) -> None:
        """A node, new or changed."""
        known = [n for n in self.cluster.nodes if n.metadata.name != node.metadata.name]
        self.cluster.nodes = [*known, node]
        self.cache.set_node(node)

    def remove_node(self, name: str) -> None:
        """A node that is gone, and its pods with it."""
        for pod in [p for p in self.cluster.pods if p.spec.nodeName == name]:
            self.take(pod)
        self.cluster.nodes = [n for n in self.cluster.nodes if n.metadata.name != name]
        self.cache.remove_node(name)

    def set_namespace(self, name: str, labels: dict[str, str]) -> None:
        """A namespace with other labels."""
        self.cluster.namespaces[name] = labels
        self.cache.columns.set_namespace(name, labels)

    def put(self, pod: Pod, node: str) -> None:
        """A pod on a node, as the API tells it."""
        pod.spec.nodeName = node
        self.cluster.pods = [p for p in self.cluster.pods if p.metadata.name != pod.metadata.name] + [pod]
        self.cache.set_pod(pod_info(pod))

    def take(self, pod: Pod) -> None:
        """A pod that is gone."""
        self.cluster.pods.remove(pod)
        self.cache.remove_pod(pod_info(pod).key)


def assert_exact(twin: Twin, framework: Framework, pod: Pod) -> Placement | None:
    """Feasible nodes, who refuses the others, every score and the choice are the reference's."""
    info, wanted = pod_info(pod), judge(twin.cluster, pod)
    refused = {r.node: r.plugin for r in framework.explain(info).refusals}
    assert refused == wanted.refused
    columns, lists = twin.cache.columns, PluginLists(DEFAULT_PROFILE)
    taking = {name: takes(lists, info, columns, row) for name, row in columns.row_of.items()}
    assert taking == {name: name not in refused for name in columns.row_of}
    found = framework.place(info)
    if not wanted.scores:
        assert not isinstance(found, Placement)
        return None
    assert _scores(framework, info) == _without_zeros(wanted)
    assert isinstance(found, Placement)
    totals = wanted.totals()
    assert found.score == max(totals.values())
    assert totals[found.node] == found.score
    return found


def _scores(framework: Framework, info: PodInfo) -> dict[str, dict[str, int]]:
    return {n: {p: s for p, s in by_plugin.items() if s} for n, by_plugin in framework.scores(info).items()}


def _without_zeros(verdict: Verdict) -> dict[str, dict[str, int]]:
    return {n: {p: s for p, s in by_plugin.items() if s} for n, by_plugin in verdict.scores.items()}


def run_world(random: Random, parts: Sequence[str], steps: int = 14) -> None:
    """A cluster in which pods come, go and are changed, and nodes too; every placement is compared."""
    world = World(random, parts)
    twin = Twin(world.cluster())
    shapes = [world.pod(f"shape{i}") for i in range(4)]
    for step in range(steps):
        kind = random.random()
        if kind < 0.12 and twin.cluster.pods:
            twin.take(random.choice(twin.cluster.pods))
        elif kind < 0.2 and twin.cluster.pods:
            going = Pod()
            going.CopyFrom(random.choice(twin.cluster.pods))
            going.metadata.deletionTimestamp.seconds = 1
            twin.put(going, going.spec.nodeName)
        elif kind < 0.25:
            twin.set_node(world.node(f"n{random.randint(0, 7)}"))
        elif kind < 0.28 and len(twin.cluster.nodes) > 1:
            twin.remove_node(random.choice(twin.cluster.nodes).metadata.name)
        elif kind < 0.31:
            twin.set_namespace(random.choice(("default", "other")), {"team": random.choice("ab")})
        else:
            pod = Pod()
            pod.CopyFrom(random.choice(shapes))
            pod.metadata.name = f"p{step}"
            found = assert_exact(twin, twin.framework, pod)
            if found is not None:
                twin.put(pod, found.node)


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("seed", range(10))
def test_C1_each_plugin_says_what_the_slow_reference_says(seed: int, part: str) -> None:
    run_world(Random(seed), (part,))


@settings(deadline=None, max_examples=40)
@given(random=st.randoms(use_true_random=False), parts=st.sets(st.sampled_from(PARTS), min_size=2))
def test_C1_mixes_of_plugins_say_what_the_slow_reference_says(random: Random, parts: set[str]) -> None:
    run_world(random, sorted(parts))


@pytest.mark.parametrize("part", ["spread", "inter-pod"])
@pytest.mark.parametrize("seed", range(3))
def test_C1_classes_place_pods_as_if_each_were_the_first(seed: int, part: str) -> None:
    """A long run with one framework, whose classes follow every change, and a new framework for each pod beside it."""
    random = Random(seed)
    world = World(random, (part, "resources"))
    twin = Twin(world.cluster(8))
    shapes = [world.pod(f"shape{i}") for i in range(3)]
    for number in range(30):
        pod = Pod()
        pod.CopyFrom(random.choice(shapes))
        pod.metadata.name = f"p{number}"
        alone = Framework(DEFAULT_PROFILE, twin.cache.columns).place(pod_info(pod))
        assert twin.framework.place(pod_info(pod)) == alone
        if isinstance(alone, Placement):
            twin.put(pod, alone.node)
        if number % 3 == 2 and twin.cluster.pods:
            twin.take(random.choice(twin.cluster.pods))


@pytest.mark.slow
@pytest.mark.parametrize("hundred", range(100))
def test_C1_ten_thousand_random_clusters(hundred: int) -> None:
    for seed in range(hundred * 100, hundred * 100 + 100):
        run_world(Random(seed), PARTS)
