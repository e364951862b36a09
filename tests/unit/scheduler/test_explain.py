"""Why a pod goes where it goes, what would help one that fits nowhere, and plans for pods that do not exist yet."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from tests.unit.scheduler.objects import node, pod, pod_message
from tests.unit.scheduler.world import world
from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys.scheduler.v1 import scheduler_pb2
from tiphys_apimachinery.errors import NotFound
from tiphys_client.informer import Informer
from tiphys_scheduler.cache import Cache
from tiphys_scheduler.columns import Columns
from tiphys_scheduler.explain import Explanation, explain, what_if
from tiphys_scheduler.framework.registry import DEFAULT_PROFILE
from tiphys_scheduler.framework.runtime import Framework, Placement
from tiphys_scheduler.pod_info import PodInfo, pod_info
from tiphys_scheduler.servicer import SchedulerServicer

TAINT = ("team", "red", "NoSchedule")


def cluster(*nodes: Any) -> tuple[Cache, Framework]:
    cache = Cache(Columns())
    for item in nodes:
        cache.set_node(item)
    return cache, Framework(DEFAULT_PROFILE, cache.columns)


def asked(info: PodInfo, *nodes: Any) -> Explanation:
    cache, framework = cluster(*nodes)
    return explain(framework, info, cache.columns)


def with_selector(cpu: str = "1", **labels: str) -> PodInfo:
    message = pod_message(cpu=cpu)
    message.spec.nodeSelector.update(labels)
    return pod_info(message)


def test_C31_nodes_of_which_all_plugins_say_the_same_are_one_class() -> None:
    nodes = [node(f"small{i}", cpu="1") for i in range(30)] + [node(f"red{i}", taints=[TAINT]) for i in range(7)]
    nodes += [node(f"both{i}", cpu="1", taints=[TAINT]) for i in range(2)]
    found = asked(pod(cpu="2"), *nodes)
    taint = ("node(s) had untolerated taint {team: red}",)
    assert [(item.count, dict(item.refusals)) for item in found.classes] == [
        (30, {"NodeResourcesFit": ("Insufficient cpu",)}),
        (7, {"TaintToleration": taint}),
        (2, {"TaintToleration": taint, "NodeResourcesFit": ("Insufficient cpu",)}),
    ]
    # Counted as kubectl's event shows it: by the first plugin that refuses.
    assert found.message == (
        "0/39 nodes are available: 30 Insufficient cpu, 9 node(s) had untolerated taint {team: red}."
    )


def test_C31_where_it_fits_the_best_node_and_its_scores_are_told() -> None:
    cache, framework = cluster(node("a", cpu="1"), node("b", cpu="4"), node("c", cpu="8"))
    info = pod(cpu="2")
    found = explain(framework, info, cache.columns)
    placed = framework.place(info)
    assert isinstance(placed, Placement)
    assert (found.message, found.best, found.score) == ("", placed.node, placed.score)
    fits = found.classes[0]
    assert (fits.count, fits.nodes[0], sum(fits.scores.values())) == (2, placed.node, placed.score)
    assert found.classes[1].nodes == ("a",)


@pytest.mark.parametrize(
    ("info", "nodes", "remedies"),
    [
        (
            pod(cpu="2"),
            [node("a", cpu="1"), node("b", cpu="1500m")],
            [("request at most 1500m of cpu instead of 2", 2, "b")],
        ),
        (pod(), [node("a", taints=[TAINT])], [("tolerate team=red:NoSchedule", 1, "a")]),
        (pod(), [node("a", unschedulable=True)], [("uncordon a", 1, "a")]),
        (
            with_selector(disk="ssd"),
            [node("a"), node("b"), node("c", cpu="500m")],
            [("drop the node selector or required node affinity", 2, "a")],
        ),
        (
            with_selector("2", disk="ssd"),
            [node("a", cpu="1")],
            [
                (
                    "drop the node selector or required node affinity and request at most 1 of cpu instead of 2",
                    1,
                    "a",
                )
            ],
        ),
        (
            pod(cpu="2"),
            [node("a", cpu="1"), node("b", taints=[TAINT]), node("c", taints=[TAINT])],
            [("tolerate team=red:NoSchedule", 2, "b"), ("request at most 1 of cpu instead of 2", 1, "a")],
        ),
        (pod(), [node("a", pods="0")], [("end a pod there", 1, "a")]),
        (pod(), [], []),
    ],
    ids=["less cpu", "toleration", "cordon", "selector", "two at once", "the wider first", "pods", "no nodes"],
)
def test_C31_the_least_change_that_would_make_it_fit(
    info: PodInfo, nodes: list[Any], remedies: list[tuple[str, int, str]]
) -> None:
    found = asked(info, *nodes)
    assert [(item.text, item.nodes, item.example) for item in found.remedies] == remedies


def test_C31_the_change_it_names_does_make_it_fit() -> None:
    cache, framework = cluster(node("a", cpu="1500m"))
    assert asked(pod(cpu="2"), node("a", cpu="1500m")).remedies[0].text.startswith("request at most 1500m of cpu")
    assert isinstance(framework.place(pod(cpu="1500m")), Placement)
    assert not isinstance(framework.place(pod(cpu="1501m")), Placement)
    assert len(cache.columns) == 1


def test_C32_a_plan_is_what_the_scheduler_then_does() -> None:
    nodes = [node(f"n{i}", cpu="4", memory="8Gi") for i in range(6)]
    sizes: list[Mapping[str, Any]] = [{"cpu": f"{500 + 250 * (i % 5)}m", "priority": i % 3} for i in range(24)]
    planned_on, planner = cluster(*nodes)
    before = planned_on.columns.requested.copy()
    plan = what_if(planned_on, planner, [pod(f"p{i}", **size) for i, size in enumerate(sizes)])
    assert (planned_on.columns.requested == before).all()
    cache, framework = cluster(*nodes)
    done: dict[str, str] = {}
    for i in sorted(range(len(sizes)), key=lambda i: (-sizes[i]["priority"], i)):
        info = pod(f"p{i}", **sizes[i])
        found = framework.place(info)
        if isinstance(found, Placement):
            cache.assume(info, found.node)
            done[info.name] = found.node
    assert {item.pod.name: item.node for item in plan if item.node} == done
    # Asked again it says the same.
    again = what_if(planned_on, planner, [pod(f"p{i}", **size) for i, size in enumerate(sizes)])
    assert again == plan


async def test_C32_the_answer_over_the_api_equals_what_happens_then() -> None:
    async with world(*(node(f"n{i}", cpu="2") for i in range(3))) as found:
        await found.until(lambda: len(found.scheduler.cache.columns) == 3)
        servicer = _servicer(found.scheduler)
        messages = [pod_message(f"p{i}", cpu="1") for i in range(7)]
        reply = await servicer.WhatIf(scheduler_pb2.WhatIfRequest(pods=messages), None)
        for message in messages:
            await found.client.create(message)
        await found.until(lambda: found.place_of("p6") == "unschedulable")
        await found.until(lambda: all(found.node_of(f"p{i}") for i in range(6)))
        assert [item.node for item in reply.outcomes] == [found.node_of(f"p{i}") for i in range(7)]
        assert reply.outcomes[6].message.startswith("0/3 nodes are available: 3 Insufficient cpu.")


async def test_C32_a_plan_names_who_would_have_to_go() -> None:
    async with world(node("a", cpu="1")) as found:
        await found.client.create(pod_message("low", cpu="1", priority=1))
        await found.until(lambda: found.node_of("low") == "a")
        vip = pod_message("vip", cpu="1", priority=100)
        reply = await _servicer(found.scheduler).WhatIf(scheduler_pb2.WhatIfRequest(pods=[vip]), None)
        assert (reply.outcomes[0].node, list(reply.outcomes[0].victims)) == ("", ["default/low"])
        assert len(found.scheduler.nominations) == 0


async def test_C31_explain_over_the_api() -> None:
    async with world(node("a", cpu="1"), node("b", taints=[TAINT])) as found:
        await found.client.create(pod_message("p", cpu="2"))
        await found.until(lambda: found.place_of("p") == "unschedulable")
        servicer = _servicer(found.scheduler)
        request = scheduler_pb2.ExplainRequest(namespace="default", name="p", every_node=True)
        reply = await servicer.Explain(request, None)
        assert [item.count for item in reply.classes] == [1, 1]
        assert [(item.node, item.refused_by) for item in reply.nodes] == [
            ("a", "NodeResourcesFit"),
            ("b", "TaintToleration"),
        ]
        assert {item.text for item in reply.remedies} == {
            "tolerate team=red:NoSchedule",
            "request at most 1 of cpu instead of 2",
        }
        with pytest.raises(NotFound):
            await servicer.Explain(scheduler_pb2.ExplainRequest(namespace="default", name="absent"), None)


def _servicer(scheduler: Any) -> SchedulerServicer:
    pods: Informer[Pod, PodInfo] = scheduler._pods
    return SchedulerServicer(scheduler, pods)
