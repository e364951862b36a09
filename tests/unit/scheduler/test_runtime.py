"""Placing pods: plugins' verdicts, and the proof that keeping classes changes no outcome."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.scheduler.objects import node, pod, pod_message
from tiphys_scheduler.cache import Cache
from tiphys_scheduler.columns import Columns, Rows
from tiphys_scheduler.framework.interface import Normalize, Scores
from tiphys_scheduler.framework.registry import DEFAULT_PROFILE
from tiphys_scheduler.framework.runtime import Framework, Placement
from tiphys_scheduler.framework.status import FitError
from tiphys_scheduler.plugins.node_affinity import NodeAffinity
from tiphys_scheduler.pod_info import PodInfo, pod_info


def cluster(*nodes: Any) -> tuple[Cache, Framework]:
    cache = Cache(Columns())
    for found in nodes:
        cache.set_node(found)
    return cache, Framework(DEFAULT_PROFILE, cache.columns)


def placed(framework: Framework, info: PodInfo) -> str:
    found = framework.place(info)
    assert isinstance(found, Placement), found
    return found.node


def refused(framework: Framework, info: PodInfo) -> FitError:
    found = framework.place(info)
    assert isinstance(found, FitError), found
    return found


def tolerating(**fields: str) -> PodInfo:
    message = pod_message()
    message.spec.tolerations.add(**fields)
    return pod_info(message)


def requiring(key: str, operator: str, *values: str) -> PodInfo:
    message = pod_message()
    affinity = message.spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution
    affinity.nodeSelectorTerms.add().matchExpressions.add(key=key, operator=operator, values=values)
    return pod_info(message)


def test_the_emptier_node_is_chosen() -> None:
    cache, framework = cluster(node("a"), node("b"))
    cache.assume(pod("first", cpu="2", memory="1Gi"), "a")
    assert placed(framework, pod("second", cpu="1")) == "b"


def test_too_little_of_anything_is_said_by_name() -> None:
    _, framework = cluster(node("a", cpu="1"), node("b", memory="1Gi"), node("c", pods="0"))
    assert refused(framework, pod(cpu="2", memory="2Gi")).message == (
        "0/3 nodes are available: 1 Insufficient cpu, 1 Insufficient memory, 1 Too many pods."
    )


def test_a_resource_that_no_node_has_is_insufficient() -> None:
    message = pod_message()
    message.spec.containers[0].resources.requests["nvidia.com/gpu"].string = "1"
    _, framework = cluster(node("a"))
    assert refused(framework, pod_info(message)).message == ("0/1 nodes are available: 1 Insufficient nvidia.com/gpu.")


def test_without_nodes_the_message_says_so() -> None:
    _, framework = cluster()
    assert refused(framework, pod()).message == "no nodes available to schedule pods"


def test_cordoned_nodes_are_left_out() -> None:
    _, framework = cluster(node("a", unschedulable=True), node("b"))
    assert placed(framework, pod()) == "b"
    assert [r.reasons for r in framework.explain(pod()).refusals] == [("node(s) were unschedulable",)]


@pytest.mark.parametrize(
    ("toleration", "fits"),
    [
        ({"key": "k", "operator": "Equal", "value": "v", "effect": "NoSchedule"}, True),
        ({"key": "k", "operator": "Exists"}, True),
        ({"operator": "Exists"}, True),
        ({"key": "k", "operator": "Equal", "value": "other"}, False),
        ({"key": "k", "operator": "Exists", "effect": "NoExecute"}, False),
        ({"key": "other", "operator": "Exists"}, False),
    ],
    ids=["equal", "exists", "everything", "value", "effect", "key"],
)
def test_tolerations_decide_over_taints(toleration: dict[str, str], fits: bool) -> None:
    _, framework = cluster(node("a", taints=[("k", "v", "NoSchedule")]))
    found = framework.place(tolerating(**toleration))
    assert isinstance(found, Placement) == fits
    if isinstance(found, FitError):
        assert found.message == "0/1 nodes are available: 1 node(s) had untolerated taint {k: v}."


def test_soft_taints_make_a_node_less_wanted() -> None:
    _, framework = cluster(node("a", taints=[("k", "", "PreferNoSchedule")]), node("b", cpu="2"))
    assert placed(framework, pod(cpu="1")) == "b"


@pytest.mark.parametrize(
    ("operator", "values", "nodes"),
    [
        ("In", ("ssd", "nvme"), {"a"}),
        ("NotIn", ("ssd",), {"b", "c"}),
        ("Exists", (), {"a", "b"}),
        ("DoesNotExist", (), {"c"}),
    ],
    ids=["in", "not in", "exists", "does not exist"],
)
def test_affinity_operators(operator: str, values: tuple[str, ...], nodes: set[str]) -> None:
    _, framework = cluster(node("a", labels={"disk": "ssd"}), node("b", labels={"disk": "hdd"}), node("c"))
    refusals = {r.node for r in framework.explain(requiring("disk", operator, *values)).refusals}
    assert {"a", "b", "c"} - refusals == nodes


def test_affinity_compares_numbers() -> None:
    _, framework = cluster(node("a", labels={"gen": "3"}), node("b", labels={"gen": "11"}), node("c"))
    assert placed(framework, requiring("gen", "Gt", "9")) == "b"


def test_node_selector_wants_every_label() -> None:
    message = pod_message()
    message.spec.nodeSelector.update({"zone": "x", "disk": "ssd"})
    _, framework = cluster(node("a", labels={"zone": "x"}), node("b", labels={"zone": "x", "disk": "ssd"}))
    assert placed(framework, pod_info(message)) == "b"


def test_preferences_count_by_weight() -> None:
    message = pod_message()
    preferred = message.spec.affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution
    for weight, value in ((10, "x"), (90, "y")):
        expressions = preferred.add(weight=weight).preference.matchExpressions
        expressions.add(key="zone", operator="In", values=[value])
    _, framework = cluster(node("a", labels={"zone": "x"}), node("b", labels={"zone": "y"}))
    assert placed(framework, pod_info(message)) == "b"


def test_F6_a_host_port_is_given_once() -> None:
    cache, framework = cluster(node("a"))
    cache.assume(pod("first", port=80), "a")
    assert refused(framework, pod("second", port=80)).message == (
        "0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports."
    )
    assert placed(framework, pod("third", port=81)) == "a"


def test_more_nodes_than_the_first_rows_are_known() -> None:
    cache, framework = cluster(*(node(f"n{i:03}") for i in range(300)))
    cache.set_node(node("big", cpu="64", memory="256Gi"))
    assert placed(framework, pod(cpu="32", memory="64Gi")) == "big"


def test_rows_of_removed_nodes_are_used_again_without_their_past() -> None:
    cache, framework = cluster(node("a", labels={"x": "y"}, taints=[("k", "v", "NoSchedule")]))
    cache.assume(pod("first", cpu="3"), "a")
    cache.remove_node("a")
    cache.set_node(node("b"))
    assert placed(framework, pod("second", cpu="4")) == "b"


_SHAPES: list[dict[str, Any]] = [
    {"cpu": "100m", "memory": "64Mi"},
    {"cpu": "1"},
    {},
    {"port": 80},
    {"cpu": "500m", "memory": "1Gi"},
]


_KINDS = ["pod", "delete", "taint", "node", "cordon"]


def _reference(cache: Cache, info: PodInfo) -> str | None:
    """One pod at a time over every node, nothing kept from pod to pod: the slow truth."""
    found = Framework(DEFAULT_PROFILE, cache.columns).place(info)
    return found.node if isinstance(found, Placement) else None


@settings(deadline=None, max_examples=60)
@given(
    sizes=st.lists(st.sampled_from(["1", "2", "4"]), min_size=1, max_size=6),
    steps=st.lists(
        st.tuples(st.sampled_from(["pod", "delete", "taint", "node", "cordon"]), st.integers(0, 9)), max_size=40
    ),
)
def test_C_keeping_classes_gives_what_the_slow_reference_gives(sizes: list[str], steps: list[tuple[str, int]]) -> None:
    cache, framework = cluster(*(node(f"n{i}", cpu=size, memory=f"{size}Gi") for i, size in enumerate(sizes)))
    running: list[str] = []
    for count, (what, number) in enumerate(steps):
        name = f"n{number % len(sizes)}"
        size = sizes[number % len(sizes)]
        if what == "pod":
            info = pod(f"p{count}", **_SHAPES[number % len(_SHAPES)])
            wanted = _reference(cache, info)
            found = framework.place(info)
            assert (found.node if isinstance(found, Placement) else None) == wanted
            if wanted is not None:
                cache.assume(info, wanted)
                running.append(info.key)
        elif what == "delete" and running:
            cache.remove_pod(running.pop(number % len(running)))
        elif what == "taint":
            effect = ("NoSchedule", "PreferNoSchedule")[number % 2]
            cache.set_node(node(name, cpu=size, memory=f"{size}Gi", taints=[("k", str(number), effect)]))
        elif what == "cordon":
            cache.set_node(node(name, cpu=size, memory=f"{size}Gi", unschedulable=number % 2 == 0))
        elif what == "node":
            cache.set_node(node(f"extra{number}", cpu="2", memory="2Gi"))


def _kube_score(capacity: tuple[int, int], used: tuple[int, int], wanted: tuple[int, int]) -> int:
    """LeastAllocated and BalancedAllocation by scalar arithmetic, from Kubernetes' description."""
    least = sum((c - u - w) * 100 // c for c, u, w in zip(capacity, used, wanted, strict=True)) // 2
    parts = [(u + w) / c for c, u, w in zip(capacity, used, wanted, strict=True)]
    return least + int((1 - abs(parts[0] - parts[1]) / 2) * 100)


def test_scores_are_those_of_plain_arithmetic() -> None:
    cache, framework = cluster(node("a", cpu="4", memory="8Gi"))
    cache.assume(pod("first", cpu="1", memory="1Gi"), "a")
    found = framework.place(pod("second", cpu="500m", memory="2Gi"))
    assert isinstance(found, Placement)
    expected = _kube_score((4000, 8 << 30), (1000, 1 << 30), (500, 2 << 30))
    # TaintToleration adds 3 x 100 where there are no soft taints.
    assert found.score == expected + 300


class _Scored:
    """Notes how often nodes are scored."""

    name = "Scored"
    events: frozenset[Any] = frozenset()
    normalize = Normalize.NONE

    def __init__(self) -> None:
        self.calls = 0

    def score(self, pod: PodInfo, nodes: Columns, rows: Rows) -> Scores:
        self.calls += 1
        return np.zeros(nodes.present[rows].shape, np.int64)


def daemon(operator: str, *names: str, cpu: str = "") -> PodInfo:
    message = pod_message("daemon", cpu=cpu)
    affinity = message.spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution
    affinity.nodeSelectorTerms.add().matchFields.add(key="metadata.name", operator=operator, values=names)
    return pod_info(message)


@pytest.mark.parametrize(
    ("info", "scored", "goes_to"),
    [
        pytest.param(daemon("In", "b"), 0, "b", id="one node"),
        pytest.param(daemon("In", "b", "gone"), 0, "b", id="one that is there"),
        pytest.param(daemon("In", "gone"), 0, None, id="none that is there"),
        pytest.param(daemon("In", "b", cpu="9"), 0, None, id="one that has no room"),
        pytest.param(daemon("In", "a", "b"), 1, "a", id="two nodes"),
        pytest.param(daemon("NotIn", "a"), 1, "b", id="all but one"),
    ],
)
def test_only_where_there_is_a_choice_nodes_are_scored(info: PodInfo, scored: int, goes_to: str | None) -> None:
    cache, score = Cache(Columns()), _Scored()
    for name in "abc":
        cache.set_node(node(name))
    framework = Framework(replace(DEFAULT_PROFILE, scores=((score, 1),), pre_scores=()), cache.columns)
    found = framework.place(info, is_scored=False)
    assert (found.node if isinstance(found, Placement) else None) == goes_to
    assert score.calls == scored


def _one_term(fields: Sequence[tuple[str, str, str]], expressions: Sequence[tuple[str, str, str]]) -> PodInfo:
    message = pod_message()
    affinity = message.spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution
    term = affinity.nodeSelectorTerms.add()
    for key, operator, value in fields:
        term.matchFields.add(key=key, operator=operator, values=[value])
    for key, operator, value in expressions:
        term.matchExpressions.add(key=key, operator=operator, values=[value])
    return pod_info(message)


@pytest.mark.parametrize(
    "info",
    [
        pytest.param(_one_term([], []), id="an empty term"),
        pytest.param(_one_term([("metadata.name", "In", "a")], []), id="by name"),
        pytest.param(_one_term([("metadata.name", "NotIn", "a")], []), id="by another name"),
        pytest.param(_one_term([("metadata.uid", "NotIn", "a")], []), id="by what is no field"),
        pytest.param(_one_term([("metadata.name", "In", "a")], [("disk", "In", "ssd")]), id="by name and label"),
        pytest.param(_one_term([], [("disk", "NotIn", "ssd")]), id="by label"),
    ],
)
def test_affinity_says_of_one_node_what_it_says_of_all(info: PodInfo) -> None:
    cache, affinity = Cache(Columns()), NodeAffinity()
    for name, disk in (("a", "ssd"), ("b", "hdd"), ("c", "ssd")):
        cache.set_node(node(name, labels={"disk": disk}))
    nodes = cache.columns
    rows = np.array(sorted(nodes.row_of.values()), np.intp)
    assert [affinity.passes(info, nodes, row) for row in rows.tolist()] == affinity.filter(info, nodes, rows).tolist()
