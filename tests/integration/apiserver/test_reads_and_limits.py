"""Reads, writers that meet and sizes, over REST."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.integration.apiserver.test_rest_watch import watch
from tests.support.apiserver import RunningServer, running_server
from tests.support.etcd import EtcdMember
from tiphys.api.core.v1 import config_map_pb2
from tiphys.apiserver.v1 import wire_pb2

CONFIG_MAPS = "/api/v1/namespaces/default/configmaps"
STREAMED = "&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
KIB = 1024


def config_map(name: str, **data: str) -> dict[str, Any]:
    return {"metadata": {"name": name}, "data": data}


async def test_A18_fifty_writers_lose_no_update(server: RunningServer) -> None:
    """Over gRPC, as a thousand refusals take long over connections of their own."""
    await server.http("POST", CONFIG_MAPS, config_map("counter", n="0"))
    name: dict[str, Any] = {"namespace": "default", "name": "counter"}

    async def add() -> None:
        while True:
            found = await server.grpc("core.v1.ConfigMapService", "Get", wire_pb2.GetRequest(**name))
            read: Any = config_map_pb2.ConfigMap.FromString(wire_pb2.GetResponse.FromString(found).object)
            read.data["n"] = str(int(read.data["n"]) + 1)
            update = wire_pb2.UpdateRequest(object=read.SerializeToString(), **name)
            try:
                await server.grpc("core.v1.ConfigMapService", "Update", update)
                return
            except grpc.aio.AioRpcError as err:
                # Not in the state that the update presupposes: read again.
                assert err.code() is grpc.StatusCode.ABORTED  # noqa: PT017  it is part of the loop

    async with asyncio.TaskGroup() as group:
        for _ in range(50):
            group.create_task(add())
    assert (await server.http("GET", f"{CONFIG_MAPS}/counter")).json()["data"]["n"] == "50"


async def test_A18_update_without_a_version_replaces_whatever_is_there(server: RunningServer) -> None:
    await server.http("POST", CONFIG_MAPS, config_map("a", k="1"))
    await server.http("PUT", f"{CONFIG_MAPS}/a", config_map("a", k="2"))
    reply = await server.http("PUT", f"{CONFIG_MAPS}/a", config_map("a", k="3"))
    assert (reply.status, reply.json()["data"]) == (200, {"k": "3"})


async def test_A16_exact_version_shows_what_stood_then(server: RunningServer) -> None:
    made = (await server.http("POST", CONFIG_MAPS, config_map("a", k="old"))).json()
    version = made["metadata"]["resourceVersion"]
    await server.http("PUT", f"{CONFIG_MAPS}/a", config_map("a", k="new"))
    await server.http("POST", CONFIG_MAPS, config_map("b"))
    reply = await server.http("GET", f"{CONFIG_MAPS}?resourceVersion={version}&resourceVersionMatch=Exact")
    assert [item["data"] for item in reply.json()["items"] if item["metadata"]["name"] == "a"] == [{"k": "old"}]
    assert "b" not in {item["metadata"]["name"] for item in reply.json()["items"]}
    assert reply.json()["metadata"]["resourceVersion"] == version


async def test_A14_list_is_streamed_and_goes_on_as_a_watch(server: RunningServer) -> None:
    for name in "ab":
        await server.http("POST", CONFIG_MAPS, config_map(name))
    async with watch(server, STREAMED) as watching:
        seen = [await watching.next() for _ in range(3)]
        end = next(event for event in seen if event["type"] == "BOOKMARK")
        assert seen[-1] is end
        assert end["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}
        await server.http("POST", CONFIG_MAPS, config_map("c"))
        assert (await watching.next())["object"]["metadata"]["name"] == "c"


@pytest.mark.parametrize(
    ("query", "message"),
    [
        pytest.param("&sendInitialEvents=true", "sendInitialEvents", id="no match"),
        pytest.param("&resourceVersionMatch=NotOlderThan", "resourceVersionMatch is forbidden", id="match alone"),
    ],
)
async def test_A14_options_that_do_not_go_together_are_refused(server: RunningServer, query: str, message: str) -> None:
    reply = await server.http("GET", f"{CONFIG_MAPS}?watch=1{query}")
    assert (reply.status, message in reply.json()["message"]) == (422, True)


SIZES = [
    pytest.param({"k": "v" * (1000 * KIB)}, 201, "", id="under 1 MiB"),
    pytest.param({"k": "v" * (1100 * KIB)}, 422, "Too long", id="ConfigMap over 1 MiB"),
    pytest.param({"k": "v" * (3100 * KIB)}, 413, "limit is 3145728", id="request over 3 MiB"),
]


@pytest.mark.parametrize(("data", "status", "message"), SIZES)
async def test_A53_size_has_limits_and_the_refusal_says_which(
    server: RunningServer, data: dict[str, str], status: int, message: str
) -> None:
    reply = await server.http("POST", CONFIG_MAPS, config_map("big", **data))
    assert reply.status == status
    assert message in reply.json().get("message", "")
    assert (await server.http("GET", "/readyz")).status == 200


@pytest.mark.etcd
async def test_A53_object_too_large_for_the_store_is_refused_in_clear_words(tmp_path: Path) -> None:
    member = EtcdMember(tmp_path)
    member.start()
    try:
        async with running_server(store="etcd", etcd_servers=(f"http://{member.endpoint}",)) as server:
            big: Any = {"metadata": {"name": "big"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
            big["spec"]["containers"][0]["args"] = ["x" * (400 * KIB)] * 4
            await server.http("POST", "/api/v1/namespaces/default/serviceaccounts", {"metadata": {"name": "default"}})
            reply = await server.http("POST", "/api/v1/namespaces/default/pods", big)
            assert (reply.status, reply.json()["reason"]) == (413, "RequestEntityTooLarge")
            assert (await server.http("GET", "/readyz")).status == 200
    finally:
        member.kill()
