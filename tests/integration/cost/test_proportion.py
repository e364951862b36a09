"""M5: nothing costs more than in proportion to the objects. Taken at N, 2N and 4N, less what one object costs.

Costs are calls of functions and no times, so that they are the same on any machine; what runs inside one call in C (a
sort, a move of keys, a message parsed) is not seen.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.integration.apiserver.test_rest_watch import watch
from tests.integration.controller_manager.conftest import config_of
from tests.support.apiserver import RunningServer, running_server
from tests.support.effort import calls, exponent
from tests.unit.controller_manager.controllers.jobs import job
from tests.unit.controller_manager.controllers.test_endpointslice import pod as backend
from tests.unit.controller_manager.controllers.test_endpointslice import service
from tests.unit.controller_manager.controllers.test_nodes import node
from tests.unit.controller_manager.controllers.test_replicaset import replica_set
from tests.unit.controller_manager.harness import House, house
from tiphys.api.core.v1.config_map_pb2 import ConfigMap
from tiphys_apimachinery.codec import json_codec
from tiphys_client.client import Client
from tiphys_client.transport import GrpcTransport

MOST = 1.1
NUMBER = 60
SIZES = (1, NUMBER, 2 * NUMBER, 4 * NUMBER)
# Controllers begin with small batches: what a few objects cost says little of many.
LOOP_SIZES = (1, 2 * NUMBER, 4 * NUMBER, 8 * NUMBER)
MAPS = "/api/v1/namespaces/default/configmaps"
MERGE, STRATEGIC = "application/merge-patch+json", "application/strategic-merge-patch+json"
APPLY = "application/apply-patch+yaml"

Operation = Callable[[RunningServer], Awaitable[object]]


def config_map(name: str, **data: str) -> dict[str, Any]:
    labels = {"group": "first" if name in ("m0", "m1") else "rest"}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": labels}, "data": data}


def ask(method: str, path: str = "", body: Any = None, **options: Any) -> Operation:
    async def operation(server: RunningServer) -> None:
        reply = await server.http(method, MAPS + path, body, **options)
        assert reply.status < 300, reply.body

    return operation


async def come_and_go(server: RunningServer) -> None:
    await ask("POST", body=config_map("guest"))(server)
    await ask("DELETE", "/guest")(server)


async def second_page(server: RunningServer) -> None:
    first = (await server.http("GET", f"{MAPS}?limit=30")).json()
    token = first["metadata"].get("continue", "")
    await ask("GET", f"?limit=30&continue={token}")(server)


async def state_of_a_watch(server: RunningServer) -> None:
    query = "&sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan"
    async with watch(server, query, path=MAPS) as watching:
        while (await watching.next())["type"] != "BOOKMARK":
            continue


@asynccontextmanager
async def filled(count: int) -> AsyncIterator[RunningServer]:
    async with running_server() as server:
        client = Client(GrpcTransport(config_of(server, "admin")))
        maps = [json_codec.from_json(ConfigMap, config_map(f"m{number}", k="v")) for number in range(count)]
        for made in maps:
            made.metadata.namespace = "default"
        await client.batch_create(maps)
        await client.close()
        yield server


OPERATIONS: dict[str, Operation] = {
    "get": ask("GET", "/m0"),
    "list": ask("GET"),
    "list as table": ask("GET", headers={"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io"}),
    "list by label": ask("GET", "?labelSelector=group%3Dfirst"),
    "list by name": ask("GET", "?fieldSelector=metadata.name%3Dm0"),
    "first page": ask("GET", "?limit=5"),
    "second page": second_page,
    "create and delete": come_and_go,
    "update": ask("PUT", "/m0", config_map("m0", k="w")),
    "merge patch": ask("PATCH", "/m0", {"data": {"k": "x"}}, content_type=MERGE),
    "strategic patch": ask("PATCH", "/m0", {"data": {"k": "y"}}, content_type=STRATEGIC),
    "apply": ask("PATCH", "/m0?fieldManager=m&force=true", config_map("m0", k="z"), content_type=APPLY),
    "state of a watch": state_of_a_watch,
}


@pytest.fixture(scope="module")
def costs() -> dict[str, dict[int, float]]:
    """Of each operation, by how many objects there are."""
    found: dict[str, dict[int, float]] = {}

    async def measure(size: int) -> None:
        async with filled(size) as server:
            for name, operation in OPERATIONS.items():
                # The first of its kind compiles and fills memories.
                await operation(server)
                found.setdefault(name, {})[size] = await calls(lambda operation=operation: operation(server))  # type: ignore[misc]
            found.setdefault("delete all", {})[size] = await calls(lambda: ask("DELETE")(server))

    for size in SIZES:
        asyncio.run(measure(size))
    return found


@pytest.mark.parametrize("operation", [*OPERATIONS, "delete all"])
def test_M5_no_operation_costs_more_than_in_proportion(costs: dict[str, dict[int, float]], operation: str) -> None:
    assert exponent(costs[operation]) <= MOST, costs[operation]


Loop = Callable[[House, int], Awaitable[None]]


async def make_pods(h: House, count: int) -> None:
    await h.client.create(replica_set(replicas=count))
    await h.settle(40)
    assert len(await h.pods()) == count


async def run_job(h: House, count: int) -> None:
    await h.client.create(job(completions=count, parallelism=count))
    await h.settle(40)
    assert len(await h.pods()) == count


async def follow_pods(h: House, count: int) -> None:
    h.client.seed(*(backend(f"p{number}", f"10.0.{number // 250}.{number % 250 + 1}") for number in range(count)))
    target = service()
    target.metadata.ClearField("uid")
    await h.client.create(target)
    await h.settle()


async def look_after_nodes(h: House, count: int) -> None:
    h.client.seed(*(node(f"n{number}") for number in range(count)))
    await h.run_for(60)


LOOPS: dict[str, Loop] = {
    "replicaset-controller": make_pods,
    "job-controller": run_job,
    "endpointslice-controller": follow_pods,
    "endpoints-controller": follow_pods,
    "node-lifecycle-controller": look_after_nodes,
}


@pytest.mark.parametrize("loop", LOOPS)
async def test_M5_no_loop_costs_more_than_in_proportion(loop: str) -> None:
    costs: dict[int, float] = {}
    for size in LOOP_SIZES:
        async with house(loop) as h:
            costs[size] = await calls(lambda h=h, size=size: LOOPS[loop](h, size))  # type: ignore[misc]
    assert exponent(costs) <= MOST, costs


@pytest.mark.parametrize(
    ("cost", "found"),
    [(lambda n: 700 + n / 10, 0.0), (lambda n: 700 + 3 * n, 1.0), (lambda n: 700 + n * n, 2.0)],
    ids=["flat", "in proportion", "square"],
)
def test_M5_an_exponent_is_found(cost: Callable[[int], float], found: float) -> None:
    assert exponent({size: cost(size) for size in SIZES}) == pytest.approx(found, abs=0.02)
