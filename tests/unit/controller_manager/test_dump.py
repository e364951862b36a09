"""The state of a controller is its views, its queue and what it remembers, and all of it can be seen."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from typing import Any

import orjson
import pytest

from tests.unit.controller_manager.controllers.test_replicaset import replica_set
from tests.unit.controller_manager.harness import Events, House, house, make_parts, names, options
from tiphys.api.apps.v1 import apps_pb2
from tiphys.api.core.v1 import pod_pb2
from tiphys_client.fake import FakeClient
from tiphys_client.informer import Informer
from tiphys_client.workqueue import RateLimitingQueue
from tiphys_component.clock import FakeClock
from tiphys_controller_manager.dump import memory_of, state_of
from tiphys_controller_manager.expectations import Expectations
from tiphys_controller_manager.frame import Loop
from tiphys_controller_manager.registry import controllers

CONTROLLERS = [spec.name for spec in controllers(options())]
# Shared by all controllers, or dumped beside the memory.
SHARED = (FakeClient, Informer, Expectations, RateLimitingQueue, FakeClock, Events)


def collections_in(obj: Any, path: str, depth: int = 0) -> list[str]:
    """The paths of all collections that can change, in an object of the controllers' own and below it."""
    found: list[str] = []
    for name in [*getattr(obj, "__dict__", ()), *getattr(type(obj), "__slots__", ())]:
        value = getattr(obj, name, None)
        here = f"{path}.{name.lstrip('_')}"
        if isinstance(value, SHARED) or depth > 4:
            continue
        if isinstance(value, dict | list | set | deque):
            found.append(here)
        elif type(value).__module__.startswith("tiphys_controller_manager.controllers"):
            found += collections_in(value, here, depth + 1)
    return found


def has_path(memory: Any, path: str) -> bool:
    for name in path.split(".")[1:]:
        if not isinstance(memory, dict) or name not in memory:
            return False
        memory = memory[name]
    return True


@pytest.fixture
async def loops() -> dict[str, Loop]:
    parts = make_parts(FakeClient(FakeClock()), FakeClock(), cluster_cidr=("10.0.0.0/8",))
    return {spec.name: Loop(spec, parts) for spec in controllers(parts.options)}


@pytest.mark.parametrize("name", CONTROLLERS)
async def test_M10_every_controller_tells_all_that_it_holds(name: str, loops: dict[str, Loop]) -> None:
    state = state_of(loops[name])
    assert state.views, "a controller sees the world by its views alone"
    text = orjson.dumps(state.memory)
    kept = collections_in(loops[name].reconciler, "memory")
    hidden = [path for path in kept if not has_path(json.loads(text), path)]
    assert not hidden, f"{name} remembers what nobody can see: {hidden}"


async def test_M10_a_collection_that_is_passed_over_would_be_noticed(loops: dict[str, Loop]) -> None:
    reconciler = loops["node-ipam-controller"].reconciler
    memory = memory_of(reconciler)
    del memory["given"]
    assert [path for path in collections_in(reconciler, "memory") if not has_path(memory, path)] == ["memory.given"]


async def test_M10_what_was_written_and_not_seen_is_told_with_its_key() -> None:
    async with house("replicaset-controller") as built:
        loop = built.loops["replicaset-controller"]
        created = await built.client.create(replica_set())
        loop.expectations[0][1].wrote("default/web", created)
        loop.queue.add_after("default/later", 7.0)
        state = state_of(loop)
        assert ("k8s.io.api.core.v1.Pod", "default/web") in {(kind, one.key) for kind, one in state.unseen}
        after_s, failures = state.queue.delayed["default/later"]
        assert after_s == pytest.approx(7.0)
        assert failures == 0


async def test_M10_views_are_cut_at_the_limit_and_still_counted() -> None:
    async with house("replicaset-controller") as built:
        await built.client.create(replica_set(replicas=30))
        await built.settle()
        pods = next(
            view for view in state_of(built.loops["replicaset-controller"], most=5).views if "Pod" in view.message
        )
        assert (pods.objects, len(pods.keys)) == (30, 5)


async def _end(built: House, replicas: int) -> tuple[list[str], int]:
    await built.run_for(400)
    sets = await built.all(apps_pb2.ReplicaSet)
    pods = [pod for pod in await built.pods() if not pod.metadata.HasField("deletionTimestamp")]
    assert len(pods) == replicas
    return names(sets), sets[0].status.replicas


@pytest.mark.parametrize("rounds", [0, 1, 2, 3, 5, 8])
async def test_M10_a_controller_begun_afresh_in_the_middle_ends_where_the_old_one_would_have(rounds: int) -> None:
    """Memory is lost at any step of its work; what the API has is enough."""
    client = FakeClient(FakeClock())
    async with house("replicaset-controller", client=client):
        await client.create(replica_set(replicas=9))
        for _ in range(rounds):
            await asyncio.sleep(0)
    async with house("replicaset-controller", client=client) as afresh:
        assert await _end(afresh, 9) == (["web"], 9)
        assert len(await afresh.all(pod_pb2.Pod, "default")) == 9
