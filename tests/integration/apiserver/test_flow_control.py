"""Priority and fairness by both doors: who is sent away, who is not, and what goes on under a flood."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.support.apiserver import Reply, RunningServer, read_reply, running_server
from tiphys.api.core.v1 import config_map_pb2
from tiphys.apiserver.v1 import wire_pb2

CONFIG_MAPS = "/api/v1/namespaces/default/configmaps"
FLOW = "/apis/flowcontrol.apiserver.k8s.io/v1"
MERGE = "application/merge-patch+json"


def level(name: str, **limited: Any) -> dict[str, Any]:
    limited.setdefault("limitResponse", {"type": "Reject"})
    return {"metadata": {"name": name}, "spec": {"type": "Limited", "limited": limited}}


def schema(name: str, user: str, priority_level: str) -> dict[str, Any]:
    rule = {
        "subjects": [{"kind": "User", "user": {"name": user}}],
        "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"]}],
    }
    spec = {
        "priorityLevelConfiguration": {"name": priority_level},
        "matchingPrecedence": 50,
        "distinguisherMethod": {"type": "ByUser"},
        "rules": [rule],
    }
    return {"metadata": {"name": name}, "spec": spec}


async def make(server: RunningServer, *objects: tuple[str, dict[str, Any]]) -> list[Any]:
    made = []
    for path, obj in objects:
        reply = await server.http("POST", path, obj)
        assert reply.status == 201, reply.body
        made.append(reply.json())
    return made


async def allow(server: RunningServer, *users: str) -> None:
    binding = {
        "metadata": {"name": "tests"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"kind": "User", "name": user, "apiGroup": "rbac.authorization.k8s.io"} for user in users],
    }
    await make(server, ("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", binding))


class Client:
    """One connection of a user, for many requests one after the other."""

    def __init__(self, server: RunningServer, user: str) -> None:
        self._server = server
        self._user = user

    async def __aenter__(self) -> Client:
        self._reader, self._writer = await self._server.connect(self._user)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._writer.transport.abort()

    async def request(self, method: str, path: str, body: bytes = b"") -> Reply:
        head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        self._writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        return await read_reply(self._reader)


@pytest.fixture
async def closed(server: RunningServer) -> tuple[RunningServer, list[Any]]:
    """A server that has no seat at all for alice."""
    await allow(server, "alice")
    made = await make(
        server,
        (f"{FLOW}/prioritylevelconfigurations", level("none", nominalConcurrencyShares=0, borrowingLimitPercent=0)),
        (f"{FLOW}/flowschemas", schema("alice", "alice", "none")),
    )
    return server, made


async def test_A49_request_that_is_sent_away_is_told_by_whom_and_when_to_come_back(
    closed: tuple[RunningServer, list[Any]],
) -> None:
    server, (its_level, its_schema) = closed
    refused = await server.http("GET", CONFIG_MAPS, user="alice")
    assert (refused.status, refused.json()["reason"]) == (429, "TooManyRequests")
    assert refused.header("Retry-After") == ["1"]
    assert refused.header("X-Kubernetes-PF-FlowSchema-UID") == [its_schema["metadata"]["uid"]]
    assert refused.header("X-Kubernetes-PF-PriorityLevel-UID") == [its_level["metadata"]["uid"]]
    assert (await server.http("GET", "/readyz", user="alice")).status == 200
    assert (await server.http("GET", CONFIG_MAPS)).status == 200


async def test_A49_the_same_holds_over_grpc(closed: tuple[RunningServer, list[Any]]) -> None:
    server, _ = closed
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await server.grpc("core.v1.ConfigMapService", "List", wire_pb2.ListRequest(namespace="default"), user="alice")
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_A49_change_of_a_level_counts_at_once(closed: tuple[RunningServer, list[Any]]) -> None:
    server, _ = closed
    change = {"spec": {"limited": {"nominalConcurrencyShares": 10}}}
    path = f"{FLOW}/prioritylevelconfigurations/none"
    assert (await server.http("PATCH", path, change, content_type=MERGE)).status == 200
    assert (await server.http("GET", CONFIG_MAPS, user="alice")).status == 200


@pytest.mark.parametrize(
    ("path", "obj", "message"),
    [
        pytest.param(
            "flowschemas",
            {**schema("x", "u", "l"), "metadata": {"name": "exempt"}},
            "spec of 'exempt' must equal the fixed value",
            id="mandatory schema",
        ),
        pytest.param(
            "prioritylevelconfigurations",
            {"metadata": {"name": "x"}, "spec": {"type": "Exempt"}},
            "spec.type: Invalid value",
            id="second exempt level",
        ),
        pytest.param(
            "prioritylevelconfigurations",
            level("x", limitResponse={"type": "Queue", "queuing": {"queues": 2, "handSize": 3}}),
            "should not be greater than queues (2)",
            id="hand larger than deck",
        ),
        pytest.param("prioritylevelconfigurations", level("x", limitResponse={"type": "Queue"}), "queuing", id="queue"),
    ],
)
async def test_A49_faulty_objects_are_refused(
    server: RunningServer, path: str, obj: dict[str, Any], message: str
) -> None:
    if obj["metadata"]["name"] == "exempt":
        reply = await server.http("PATCH", f"{FLOW}/{path}/exempt", {"spec": obj["spec"]}, content_type=MERGE)
    else:
        reply = await server.http("POST", f"{FLOW}/{path}", obj)
    assert reply.status == 422
    assert message in reply.json()["message"]


@pytest.mark.parametrize(("plural", "name"), [("flowschemas", "probes"), ("prioritylevelconfigurations", "system")])
async def test_A49_status_is_a_subresource(server: RunningServer, plural: str, name: str) -> None:
    condition = {"type": "Dangling", "status": "False", "reason": "Found", "message": "there"}
    path = f"{FLOW}/{plural}/{name}"
    reply = await server.http("PATCH", f"{path}/status", {"status": {"conditions": [condition]}}, content_type=MERGE)
    assert reply.status == 200
    kept = (await server.http("GET", path)).json()
    assert kept["status"]["conditions"][0]["message"] == "there"
    assert kept["spec"]


async def test_A49_beyond_its_capacity_the_server_sends_away_and_keeps_answering_the_system(tmp_path: Path) -> None:
    """Sixty-four writers at a level that takes two and lets eight wait."""
    queues = {"type": "Queue", "queuing": {"queues": 1, "handSize": 1, "queueLengthLimit": 8}}
    narrow = level("narrow", nominalConcurrencyShares=1, borrowingLimitPercent=0, limitResponse=queues)
    store: dict[str, Any] = {"store": "sqlite", "store_file": tmp_path / "t.db"}
    async with running_server(**store, max_requests_inflight=200, max_mutating_requests_inflight=200) as server:
        await allow(server, "alice")
        await make(
            server,
            (f"{FLOW}/prioritylevelconfigurations", narrow),
            (f"{FLOW}/flowschemas", schema("alice", "alice", "narrow")),
        )
        statuses: Counter[int] = Counter()
        waits: set[tuple[str, ...]] = set()

        async def flood(number: int) -> None:
            async with Client(server, "alice") as client:
                for turn in range(5):
                    body = b'{"metadata":{"name":"m-%d-%d"}}' % (number, turn)
                    reply = await client.request("POST", CONFIG_MAPS, body)
                    statuses[reply.status] += 1
                    if reply.status == 429:
                        waits.add(tuple(reply.header("Retry-After")))

        async with asyncio.TaskGroup() as group:
            for number in range(64):
                group.create_task(flood(number))
            for _ in range(5):
                assert (await server.http("GET", "/readyz", user=None)).status == 200
                assert (await server.http("GET", "/api/v1/nodes", user="admin")).status == 200
        assert set(statuses) == {201, 429}
        assert waits == {("1",)}
        stored = (await server.http("GET", CONFIG_MAPS)).json()["items"]
        assert len(stored) == statuses[201]
        metrics = (await server.http("GET", "/metrics")).body.decode()
        assert 'apiserver_flowcontrol_current_executing_seats{priority_level="narrow"} 0.0' in metrics
        assert 'apiserver_flowcontrol_current_inqueue_requests{priority_level="narrow"} 0.0' in metrics


async def test_A49_one_tenants_lists_do_not_hold_up_anothers_gets(server: RunningServer) -> None:
    await allow(server, "alice", "system:flannel")
    for number in range(400):
        await server.grpc(
            "core.v1.ConfigMapService",
            "Create",
            wire_pb2.CreateRequest(namespace="default", object=_config_map(f"c{number}")),
        )
    over = asyncio.Event()

    async def flood() -> None:
        async with Client(server, "alice") as client:
            while not over.is_set():
                assert (await client.request("GET", CONFIG_MAPS)).status == 200

    slowest = 0.0
    async with asyncio.TaskGroup() as group:
        for _ in range(24):
            group.create_task(flood())
        async with Client(server, "system:flannel") as client:
            for number in range(30):
                began = time.perf_counter()
                assert (await client.request("GET", f"{CONFIG_MAPS}/c{number}")).status == 200
                slowest = max(slowest, time.perf_counter() - began)
        over.set()
    assert slowest < 1.0


def _config_map(name: str) -> bytes:
    made: Any = config_map_pb2.ConfigMap()
    made.metadata.name = name
    made.metadata.namespace = "default"
    made.data["k"] = "v" * 1000
    return bytes(made.SerializeToString())
