"""HTTP extenders, by a real one on the loopback."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from tests.unit.scheduler.objects import node, pod_message
from tests.unit.scheduler.world import world
from tiphys_scheduler.configuration.model import Configuration, ExtenderConfig

_NO_PORT = 1


@asynccontextmanager
async def extender(**answers: Any) -> AsyncIterator[tuple[str, dict[str, Any]]]:
    """Answers each verb as told; yields its URL and what it was asked last by verb."""
    asked: dict[str, Any] = {}

    async def answer(request: web.Request) -> web.Response:
        verb = request.match_info["verb"]
        asked[verb] = await request.json()
        return web.json_response(answers[verb])

    app = web.Application()
    app.router.add_post("/{verb}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        host, port = runner.addresses[0][:2]
        yield f"http://{host}:{port}", asked
    finally:
        await runner.cleanup()


def config(url: str, **more: Any) -> Configuration:
    return Configuration(extenders=(ExtenderConfig(url, **more),))


def failures(found: Any) -> list[str]:
    return [message for _, reason, message in found.events.seen if reason == "FailedScheduling"]


async def test_an_extender_filters_nodes_by_name() -> None:
    async with (
        extender(filter={"NodeNames": ["b"], "FailedNodes": {"a": "wrong colour"}}) as (url, asked),
        world(
            node("a", cpu="64"), node("b"), config=config(url, filter_verb="filter", node_cache_capable=True)
        ) as found,
    ):
        await found.client.create(pod_message("p"))
        await found.until(lambda: found.node_of("p") == "b")
        assert sorted(asked["filter"]["NodeNames"]) == ["a", "b"]
        assert asked["filter"]["Pod"]["metadata"]["name"] == "p"


async def test_an_extender_without_a_cache_gets_whole_nodes() -> None:
    answer = {"nodes": {"items": [{"metadata": {"name": "a"}}]}}
    async with (
        extender(filter=answer) as (url, asked),
        world(node("a"), node("b", cpu="64"), config=config(url, filter_verb="filter")) as found,
    ):
        await found.client.create(pod_message("p"))
        await found.until(lambda: found.node_of("p") == "a")
        assert {item["metadata"]["name"] for item in asked["filter"]["Nodes"]["items"]} == {"a", "b"}


async def test_reasons_of_an_extender_are_told_like_those_of_plugins() -> None:
    answer = {"NodeNames": [], "FailedNodes": {"a": "wrong colour", "b": "wrong colour"}}
    async with (
        extender(filter=answer) as (url, _),
        world(node("a"), node("b"), config=config(url, filter_verb="filter")) as found,
    ):
        await found.client.create(pod_message("p"))
        await found.until(lambda: bool(failures(found)))
        assert failures(found)[0].startswith("0/2 nodes are available: 2 wrong colour.")


async def test_an_extender_s_ranking_counts_by_its_weight() -> None:
    ranks = [{"Host": "a", "Score": 10}, {"Host": "b", "Score": 0}]
    async with (
        extender(rank=ranks) as (url, _),
        world(
            node("a"), node("b", cpu="64", memory="64Gi"), config=config(url, prioritize_verb="rank", weight=5)
        ) as found,
    ):
        await found.client.create(pod_message("p", cpu="1"))
        await found.until(lambda: found.node_of("p") == "a")


async def test_an_extender_binds_its_pods_itself() -> None:
    async with (
        extender(bind={"Error": ""}) as (url, asked),
        world(node("a"), config=config(url, bind_verb="bind")) as found,
    ):
        created = await found.client.create(pod_message("p"))
        await found.until(lambda: "bind" in asked)
        assert asked["bind"] == {
            "PodName": "p",
            "PodNamespace": "default",
            "PodUID": created.metadata.uid,
            "Node": "a",
        }


async def test_only_pods_with_a_managed_resource_are_its_business() -> None:
    wants = pod_message("wants")
    wants.spec.containers[0].resources.requests["example.com/fpga"].string = "1"
    managed = {"example.com/fpga": True}
    async with (
        extender(filter={"NodeNames": ["a"]}) as (url, asked),
        world(node("a"), config=config(url, filter_verb="filter", managed=managed, node_cache_capable=True)) as found,
    ):
        await found.client.create(pod_message("plain"))
        await found.until(lambda: found.node_of("plain") == "a")
        assert asked == {}
        # No node has the resource: the scheduler leaves it to the extender.
        await found.client.create(wants)
        await found.until(lambda: found.node_of("wants") == "a")
        assert asked["filter"]["Pod"]["metadata"]["name"] == "wants"


@pytest.mark.parametrize("is_ignorable", [True, False], ids=["ignorable", "needed"])
async def test_an_extender_that_is_away_holds_pods_up_unless_it_may_be_ignored(is_ignorable: bool) -> None:
    away = config(f"http://127.0.0.1:{_NO_PORT}", filter_verb="filter", is_ignorable=is_ignorable)
    async with world(node("a"), config=away) as found:
        await found.client.create(pod_message("p"))
        if is_ignorable:
            await found.until(lambda: found.node_of("p") == "a")
        else:
            await found.until(lambda: found.place_of("p") == "backoff")
            assert failures(found)[0].startswith(f"extender http://127.0.0.1:{_NO_PORT}/filter: ")


@pytest.mark.parametrize("is_cached", [True, False], ids=["names", "whole pods"])
async def test_an_extender_spares_the_victims_of_a_node(is_cached: bool) -> None:
    spared: dict[str, Any] = {}
    async with (
        extender(preempt={"NodeNameToMetaVictims": spared}) as (url, asked),
        world(
            node("a", cpu="1"),
            node("b", cpu="1"),
            config=config(url, preempt_verb="preempt", node_cache_capable=is_cached),
        ) as found,
    ):
        for name, at in (("on-a", "a"), ("on-b", "b")):
            created = await found.client.create(pod_message(name, cpu="1", priority=1, nodeName=at))
            spared["b"] = {"Pods": [{"UID": created.metadata.uid}], "NumPDBViolations": 0}
        await found.until(lambda: bool(found.scheduler.cache.node_of("default/on-b")))
        await found.client.create(pod_message("vip", cpu="1", priority=9))
        await found.until(lambda: any(reason == "Preempted" for _, reason, _ in found.events.seen))
        # By itself the scheduler would have taken the first of two equal nodes.
        assert [name for name, reason, _ in found.events.seen if reason == "Preempted"] == ["on-b"]
        key = "NodeNameToMetaVictims" if is_cached else "NodeNameToVictims"
        assert set(asked["preempt"][key]) == {"a", "b"}


async def test_nobody_goes_where_the_extender_leaves_no_node() -> None:
    async with (
        extender(preempt={"NodeNameToMetaVictims": {}}) as (url, asked),
        world(node("a", cpu="1"), config=config(url, preempt_verb="preempt")) as found,
    ):
        await found.client.create(pod_message("low", cpu="1", priority=1))
        await found.until(lambda: found.node_of("low") == "a")
        await found.client.create(pod_message("vip", cpu="1", priority=9))
        await found.until(lambda: found.place_of("vip") == "unschedulable")
        assert "preempt" in asked
        assert not any(reason == "Preempted" for _, reason, _ in found.events.seen)
