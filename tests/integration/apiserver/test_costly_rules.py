"""Rules that use up their whole budget hold up nobody but who asked for them: the server answers others meanwhile."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.integration.apiserver.test_admission_policies import register
from tests.support.apiserver import Reply, RunningServer

CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
BASE = "/apis/example.com/v1/namespaces/default/lists"
OTHER = "/apis/example.com/v2/namespaces/default/lists"
# About 630,000 units for 300 numbers, of 1,000,000 that a rule and 10,000,000 that all rules of an object may cost.
COSTLY = "self.numbers.all(x, self.numbers.all(y, x + y >= 0))"
RULES_OF_AN_OBJECT = 5


def definition() -> dict[str, Any]:
    numbers = {"type": "array", "maxItems": 300, "items": {"type": "integer"}}
    rules = [{"rule": COSTLY}] * RULES_OF_AN_OBJECT
    spec = {"type": "object", "properties": {"numbers": numbers}, "x-kubernetes-validations": rules}
    schema = {"openAPIV3Schema": {"type": "object", "properties": {"spec": spec}}}
    versions = [
        {"name": "v1", "served": True, "storage": True, "schema": schema, "subresources": {"status": {}}},
        {"name": "v2", "served": True, "storage": False, "schema": schema, "subresources": {"status": {}}},
    ]
    names = {"plural": "lists", "kind": "Numbers", "listKind": "NumbersList"}
    spec = {"group": "example.com", "scope": "Namespaced", "names": names, "versions": versions}
    return {"metadata": {"name": "lists.example.com"}, "spec": spec}


def numbers(name: str, count: int, version: str = "v1") -> dict[str, Any]:
    return {
        "apiVersion": f"example.com/{version}",
        "kind": "Numbers",
        "metadata": {"name": name},
        "spec": {"numbers": list(range(count))},
    }


async def answered_meanwhile(server: RunningServer, *costly: Any) -> tuple[list[Reply], int]:
    """The answers to costly requests, and how many health checks were answered before the last of them."""
    answered = 0
    async with asyncio.TaskGroup() as group:
        running = [group.create_task(request) for request in costly]
        while not all(task.done() for task in running):
            assert (await server.http("GET", "/livez")).status == 200
            answered += not all(task.done() for task in running)
    return [task.result() for task in running], answered


@pytest.fixture
async def defined(server: RunningServer) -> RunningServer:
    assert (await server.http("POST", CRDS, definition())).status == 201
    async with asyncio.timeout(30):
        while (await server.http("GET", BASE)).status != 200:
            continue
    return server


@pytest.mark.parametrize("where", [BASE, OTHER], ids=["stored version", "other version"])
async def test_A38_others_are_served_while_rules_of_a_schema_run(defined: RunningServer, where: str) -> None:
    version = where.split("/")[3]
    made, answered = await answered_meanwhile(defined, defined.http("POST", where, numbers("a", 300, version)))
    assert made[0].status == 201, made[0].body
    assert answered >= 3


async def test_A38_others_are_served_while_an_update_is_judged(defined: RunningServer) -> None:
    assert (await defined.http("POST", BASE, numbers("a", 3))).status == 201
    patch = {"spec": {"numbers": list(range(300))}}
    merge = "application/merge-patch+json"
    replies, answered = await answered_meanwhile(defined, defined.http("PATCH", f"{BASE}/a", patch, content_type=merge))
    assert replies[0].status == 200, replies[0].body
    assert answered >= 3


async def test_A38_many_costly_objects_at_once_leave_the_server_alive(defined: RunningServer) -> None:
    costly = [defined.http("POST", BASE, numbers(f"a{number}", 300)) for number in range(3)]
    replies, answered = await answered_meanwhile(defined, *costly)
    assert [reply.status for reply in replies] == [201] * 3
    assert answered >= 3


async def test_A47_others_are_served_while_a_policy_is_evaluated(server: RunningServer) -> None:
    costly = "[1, 2, 3].all(z, object.data.all(x, object.data.all(y, x + y != '')))"
    await register(server, *({"expression": costly} for _ in range(6)))
    data = {f"key{number}": "v" for number in range(280)}
    body = {"metadata": {"name": "a"}, "data": data}
    replies, answered = await answered_meanwhile(
        server, server.http("POST", "/api/v1/namespaces/default/configmaps", body)
    )
    assert replies[0].status in (201, 422)
    assert answered >= 3
