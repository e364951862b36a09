"""What each filter promises, as people rely on it."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.unit.scheduler.objects import node, pod, pod_message
from tiphys.api.core.v1.node_pb2 import Node
from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys_scheduler.cache import Cache
from tiphys_scheduler.columns import Columns
from tiphys_scheduler.framework.registry import DEFAULT_PROFILE
from tiphys_scheduler.framework.runtime import Framework, Placement
from tiphys_scheduler.framework.status import FitError
from tiphys_scheduler.pod_info import PodInfo, pod_info

HOST, ZONE = "kubernetes.io/hostname", "topology.kubernetes.io/zone"


class Cluster:
    """Nodes, and pods that are placed one after another."""

    def __init__(self, *nodes: Node) -> None:
        self.cache = Cache(Columns())
        for item in nodes:
            self.cache.set_node(item)
        self.framework = Framework(DEFAULT_PROFILE, self.cache.columns)

    def run(self, info: PodInfo | Pod) -> str:
        """Places a pod; its node, or why there is none."""
        made = pod_info(info) if isinstance(info, Pod) else info
        found = self.framework.place(made)
        if isinstance(found, FitError):
            return found.message
        self.cache.assume(made, found.node)
        return found.node


def test_C4_a_node_is_filled_to_the_last_milli_cpu() -> None:
    cluster = Cluster(node("a", cpu="1"))
    assert cluster.run(pod("first", cpu="999m")) == "a"
    assert cluster.run(pod("second", cpu="1m")) == "a"
    assert cluster.run(pod("third", cpu="1m")) == "0/1 nodes are available: 1 Insufficient cpu."


@pytest.mark.parametrize(
    ("resource", "text"),
    [("nvidia.com/gpu", "Insufficient nvidia.com/gpu"), ("ephemeral-storage", "Insufficient ephemeral-storage")],
)
def test_C4_every_resource_is_counted(resource: str, text: str) -> None:
    having = node("a")
    having.status.allocatable[resource].string = "2"
    cluster = Cluster(having)
    for number in range(3):
        message = pod_message(f"p{number}")
        message.spec.containers[0].resources.requests[resource].string = "1"
        found = cluster.run(message)
    assert found == f"0/1 nodes are available: 1 {text}."


def test_C5_a_node_selector_is_respected_if_matching() -> None:
    cluster = Cluster(node("a"), node("b", labels={"disk": "ssd"}))
    message = pod_message("p")
    message.spec.nodeSelector["disk"] = "ssd"
    assert cluster.run(message) == "b"


def test_C5_a_node_selector_is_respected_if_not_matching() -> None:
    message = pod_message("p")
    message.spec.nodeSelector["disk"] = "ssd"
    assert Cluster(node("a")).run(message) == (
        "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector."
    )


def test_C6_a_pod_that_names_a_node_fits_there_alone() -> None:
    cluster = Cluster(node("a"), node("b"))
    refusals = cluster.framework.explain(pod("p", nodeName="b")).refusals
    assert [(r.node, r.plugin) for r in refusals] == [("a", "NodeName")]


def _with_port(name: str, port: int, address: str = "", protocol: str = "TCP") -> Pod:
    message = pod_message(name)
    message.spec.containers[0].ports.add(containerPort=80, hostPort=port, hostIP=address, protocol=protocol)
    return message


def test_C9_one_host_port_serves_pods_that_differ_in_address_or_protocol() -> None:
    cluster = Cluster(node("a"))
    assert cluster.run(_with_port("first", 54323, "127.0.0.1")) == "a"
    assert cluster.run(_with_port("second", 54323, "10.0.0.1")) == "a"
    assert cluster.run(_with_port("third", 54323, "10.0.0.1", "UDP")) == "a"


@pytest.mark.parametrize(("first", "second"), [("0.0.0.0", "127.0.0.1"), ("127.0.0.1", "0.0.0.0"), ("", "")])
def test_C9_every_address_clashes_with_each(first: str, second: str) -> None:
    cluster = Cluster(node("a"))
    assert cluster.run(_with_port("first", 54322, first)) == "a"
    assert cluster.run(_with_port("second", 54322, second)) == (
        "0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports."
    )


def test_C13_requests_schedule_and_limits_do_not() -> None:
    cluster = Cluster(node("a", cpu="1"))
    for number in range(10):
        message = pod_message(f"p{number}", cpu="100m")
        message.spec.containers[0].resources.limits["cpu"].string = "64"
        assert cluster.run(message) == "a"


def test_C15_required_affinity_is_an_or_of_ands() -> None:
    cluster = Cluster(
        node("a", labels={"disk": "ssd", "gen": "1"}), node("b", labels={"disk": "ssd", "gen": "7"}), node("c")
    )
    message = pod_message("p")
    terms = message.spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms
    first = terms.add()
    first.matchExpressions.add(key="disk", operator="In", values=["ssd"])
    first.matchExpressions.add(key="gen", operator="Gt", values=["5"])
    terms.add().matchFields.add(key="metadata.name", operator="In", values=["c"])
    assert {r.node for r in cluster.framework.explain(pod_info(message)).refusals} == {"a"}


def test_C15_a_pod_of_a_daemon_set_goes_to_the_node_it_names() -> None:
    cluster = Cluster(*(node(f"n{i}", unschedulable=i == 3) for i in range(5)))
    message = pod_message("p")
    terms = message.spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms
    terms.add().matchFields.add(key="metadata.name", operator="In", values=["n3"])
    message.spec.tolerations.add(key="node.kubernetes.io/unschedulable", operator="Exists", effect="NoSchedule")
    assert cluster.run(message) == "n3"


@pytest.mark.parametrize("effect", ["NoSchedule", "NoExecute"])
def test_C16_a_hard_taint_keeps_pods_away_that_do_not_tolerate_it(effect: str) -> None:
    cluster = Cluster(node("a", taints=[("k", "v", effect)]))
    assert cluster.run(pod("p")) == "0/1 nodes are available: 1 node(s) had untolerated taint {k: v}."
    message = pod_message("q")
    message.spec.tolerations.add(key="k", operator="Equal", value="v", effect=effect)
    assert cluster.run(message) == "a"


def test_C16_of_several_taints_the_first_that_the_node_lists_is_told() -> None:
    first, second = ("z", "", "NoSchedule"), ("a", "", "NoExecute")
    cluster = Cluster(
        node("both", taints=[first, second]), node("turned", taints=[second, first]), node("one", taints=[first])
    )
    told = "0/3 nodes are available: 1 node(s) had untolerated taint {a: }, 2 node(s) had untolerated taint {z: }."
    assert cluster.run(pod("p")) == told
    assert [r.reasons for r in cluster.framework.explain(pod("p")).refusals] == [
        ("node(s) had untolerated taint {z: }",),
        ("node(s) had untolerated taint {a: }",),
        ("node(s) had untolerated taint {z: }",),
    ]


def _far(name: str, key: str = HOST) -> Pod:
    message = pod_message(name, cpu="10m")
    message.metadata.labels["app"] = "far"
    terms = message.spec.affinity.podAntiAffinity.requiredDuringSchedulingIgnoredDuringExecution
    terms.add(topologyKey=key).labelSelector.matchLabels["app"] = "far"
    return message


def test_C17_pods_that_keep_apart_get_a_node_each_and_no_more() -> None:
    cluster = Cluster(*(node(f"n{i}", labels={HOST: f"n{i}"}) for i in range(20)))
    assert len({cluster.run(_far(f"p{i}")) for i in range(20)}) == 20
    assert cluster.run(_far("p20")) == "0/20 nodes are available: 20 node(s) didn't match pod anti-affinity rules."


def test_C17_a_pod_that_others_keep_away_says_so() -> None:
    cluster = Cluster(node("a", labels={HOST: "a"}))
    cluster.run(_far("p"))
    message = pod_message("q")
    message.metadata.labels["app"] = "far"
    assert cluster.run(message) == (
        "0/1 nodes are available: 1 node(s) didn't satisfy existing pods anti-affinity rules."
    )


def test_C17_a_group_that_wants_to_be_together_starts_anywhere_and_stays_there() -> None:
    cluster = Cluster(*(node(f"n{i}", labels={HOST: f"n{i}", ZONE: "xyz"[i % 3]}) for i in range(9)))
    zones = set()
    for number in range(12):
        message = pod_message(f"p{number}", cpu="100m")
        message.metadata.labels["app"] = "near"
        terms = message.spec.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution
        terms.add(topologyKey=ZONE).labelSelector.matchLabels["app"] = "near"
        row = cluster.cache.columns.row_of[cluster.run(message)]
        zones.add(cluster.cache.columns.labels(row)[ZONE])
    assert len(zones) == 1


def test_C18_three_zones_keep_a_skew_of_one_through_a_rolling_update() -> None:
    cluster = Cluster(*(node(f"n{i}", labels={HOST: f"n{i}", ZONE: "xyz"[i % 3]}) for i in range(12)))
    placed: dict[str, list[tuple[str, str]]] = {"old": [], "new": []}

    def start(version: str, number: int) -> None:
        message = pod_message(f"{version}{number}", cpu="10m")
        message.metadata.labels.update({"app": "web", "pod-template-hash": version})
        constraint = message.spec.topologySpreadConstraints.add(maxSkew=1, topologyKey=ZONE)
        constraint.whenUnsatisfiable = "DoNotSchedule"
        constraint.labelSelector.matchLabels["app"] = "web"
        constraint.matchLabelKeys.append("pod-template-hash")
        found = cluster.run(message)
        zone = cluster.cache.columns.labels(cluster.cache.columns.row_of[found])[ZONE]
        placed[version].append((f"default/{version}{number}", zone))
        counts = Counter(zone for _, zone in placed[version])
        assert max(counts.values()) - min(counts[z] for z in "xyz") <= 1

    for number in range(30):
        start("old", number)
    for number in range(30):
        start("new", number)
        cluster.cache.remove_pod(placed["old"].pop()[0])
    assert Counter(zone for _, zone in placed["new"]) == {"x": 10, "y": 10, "z": 10}


def test_C18_with_too_few_zones_the_emptiest_counts_as_empty() -> None:
    cluster = Cluster(node("a", labels={ZONE: "x"}), node("b", labels={ZONE: "y"}), node("c"))
    found = []
    for number in range(3):
        message = pod_message(f"p{number}")
        message.metadata.labels["app"] = "web"
        constraint = message.spec.topologySpreadConstraints.add(maxSkew=1, topologyKey=ZONE, minDomains=3)
        constraint.whenUnsatisfiable = "DoNotSchedule"
        constraint.labelSelector.matchLabels["app"] = "web"
        found.append(cluster.run(message))
    assert sorted(found[:2]) == ["a", "b"]
    assert found[2] == (
        "0/3 nodes are available: 1 node(s) didn't match pod topology spread constraints (missing required label), "
        "2 node(s) didn't match pod topology spread constraints."
    )


def _sampled(cluster: Cluster, info: PodInfo, start: int) -> tuple[str, int]:
    """Where kube-scheduler would put a pod: the best of the first feasible nodes from a place that moves on.

    It looks for 50 - nodes / 125 percent of them, but at least 100 nodes; returns the next place too.
    """
    table = {name: sum(by_plugin.values()) for name, by_plugin in cluster.framework.scores(info).items()}
    names = sorted(cluster.cache.columns.row_of)
    enough = max(len(names) * max(50 - len(names) // 125, 5) // 100, 100)
    seen: list[str] = []
    looked = 0
    for looked in range(1, len(names) + 1):
        name = names[(start + looked - 1) % len(names)]
        if name in table:
            seen.append(name)
        if len(seen) == enough:
            break
    return max(seen, key=lambda name: table[name]) if seen else "", (start + looked) % len(names)


def test_C22_no_choice_of_a_trace_is_worse_than_that_of_a_sample() -> None:
    """The same trace twice: by all nodes, and by as many as kube-scheduler would look at; machines of three sizes."""
    sizes = [str(4 << (i * 7 % 3)) for i in range(240)]
    ours, theirs = (Cluster(*(node(f"n{i:03}", cpu=size) for i, size in enumerate(sizes))) for _ in range(2))
    start = placed = 0
    totals = [0, 0]
    for number in range(60):
        info = pod(f"p{number}", cpu=f"{1 + number % 3}", memory="1Gi")
        best = ours.framework.place(info)
        assert isinstance(best, Placement)
        scores = theirs.framework.scores(info)
        name, start = _sampled(theirs, info, start)
        totals[0] += best.score
        totals[1] += sum(scores[name].values())
        ours.cache.assume(info, best.node)
        theirs.cache.assume(info, name)
        placed += 1
        # For the one pod, of the same cluster, all nodes are never worse than some of them.
        assert sum(scores[name].values()) <= max(sum(by_plugin.values()) for by_plugin in scores.values())
    assert placed == 60
    assert totals[0] >= totals[1]


def test_C22_all_nodes_are_looked_at() -> None:
    """kube-scheduler would look at 144 of these 300 nodes, and miss the one that is best."""
    cluster = Cluster(*(node(f"n{i}", cpu="4" if i != 250 else "64") for i in range(300)))
    assert cluster.run(pod("p", cpu="2", memory="1Gi")) == "n250"
    assert isinstance(cluster.framework.place(pod("q", cpu="2", memory="1Gi")), Placement)
