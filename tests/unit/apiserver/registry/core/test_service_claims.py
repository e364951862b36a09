"""Addresses and ports that several servers give out: each to one service, and none is lost."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from tests.unit.apiserver.fake_objects import FakeObjects, environment, info_of, read
from tiphys.api.core.v1.service_pb2 import Service
from tiphys_apimachinery.errors import Invalid, ServiceUnavailable
from tiphys_apiserver.registry.core.service import ServiceStrategy
from tiphys_apiserver.registry.core.service_claims import DEAD_AFTER_S, PREFIX
from tiphys_apiserver.registry.strategy import WriteContext
from tiphys_apiserver.storage.memory.store import MemoryStore
from tiphys_component.clock import FakeClock

CONTEXT = WriteContext(FakeClock().now(), namespace="web")
NODE_PORT = "{type: NodePort, ports: [{port: 80, nodePort: 30500}]}"
PLAIN = "{ports: [{port: 80}]}"
FIXED = "{clusterIP: 10.0.0.9, ports: [{port: 80}]}"


class Server:
    """One server's rules of services. Its cache shows what the test puts there, so it may be behind."""

    def __init__(self, store: MemoryStore, clock: FakeClock) -> None:
        self.objects = FakeObjects()
        base = replace(environment(self.objects, clock), shared_store=store, service_cluster_ip_range="10.0.0.0/28")
        self.strategy = ServiceStrategy(info_of(Service), base)

    async def create(self, name: str, spec: str, *, stored: bool = True) -> Any:
        obj = read(Service, f"{{metadata: {{name: {name}, namespace: web, uid: {name}}}, spec: {spec}}}")
        self.strategy.apply_defaults(obj)
        self.strategy.prepare_for_create(CONTEXT, obj)
        finish = await self.strategy.begin_create(CONTEXT, obj)
        assert finish is not None
        await finish(stored)
        return obj


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def store(clock: FakeClock) -> AsyncIterator[MemoryStore]:
    made = MemoryStore(clock)
    yield made
    await made.close()


@pytest.fixture
def servers(store: MemoryStore, clock: FakeClock) -> tuple[Server, Server]:
    return Server(store, clock), Server(store, clock)


async def test_no_address_is_given_out_by_two_servers(servers: tuple[Server, Server]) -> None:
    made = [await servers[number % 2].create(f"s{number}", PLAIN) for number in range(14)]
    assert len({service.spec.clusterIP for service in made}) == 14
    with pytest.raises(Invalid, match="range is full"):
        await servers[0].create("one-too-many", PLAIN)


@pytest.mark.parametrize("spec", [FIXED, NODE_PORT], ids=["address", "port"])
async def test_what_another_server_gave_out_is_refused(servers: tuple[Server, Server], spec: str) -> None:
    await servers[0].create("first", spec)
    with pytest.raises(Invalid, match="already allocated"):
        await servers[1].create("second", spec)


async def test_what_another_server_took_back_is_free(servers: tuple[Server, Server]) -> None:
    one, other = servers
    first = await one.create("first", FIXED)
    with pytest.raises(Invalid):
        await other.create("second", FIXED)
    await one.strategy.after_delete(CONTEXT, first)
    assert (await other.create("second", FIXED)).spec.clusterIP == "10.0.0.9"


async def test_refused_write_claims_nothing(servers: tuple[Server, Server], store: MemoryStore) -> None:
    await servers[0].create("first", NODE_PORT, stored=False)
    assert (await store.list(PREFIX)).items == []


async def test_refused_port_gives_the_address_back(servers: tuple[Server, Server], store: MemoryStore) -> None:
    await servers[0].create("first", NODE_PORT)
    with pytest.raises(Invalid):
        await servers[1].create("second", NODE_PORT)
    assert len((await store.list(PREFIX)).items) == 2


async def test_dry_run_claims_nothing(servers: tuple[Server, Server], store: MemoryStore) -> None:
    obj = read(Service, f"{{metadata: {{name: s, namespace: web, uid: s}}, spec: {PLAIN}}}")
    finish = await servers[0].strategy.begin_create(replace(CONTEXT, dry_run=True), obj)
    assert finish is not None
    assert (await store.list(PREFIX)).items == []


async def test_claim_of_a_server_that_died_is_taken_over(servers: tuple[Server, Server], clock: FakeClock) -> None:
    """It claimed the address and stored no service; while that could still come, nobody else gets it."""
    await servers[0].create("lost", FIXED)
    with pytest.raises(Invalid):
        await servers[1].create("next", FIXED)
    clock.advance(DEAD_AFTER_S)
    assert (await servers[1].create("next", FIXED)).spec.clusterIP == "10.0.0.9"


async def test_old_claim_with_its_service_is_left_alone(servers: tuple[Server, Server], clock: FakeClock) -> None:
    servers[1].objects.put(await servers[0].create("first", FIXED))
    clock.advance(DEAD_AFTER_S)
    with pytest.raises(Invalid):
        await servers[1].create("second", FIXED)


async def test_services_that_were_stored_before_are_claimed_at_start(
    servers: tuple[Server, Server], store: MemoryStore
) -> None:
    stored = read(Service, "{metadata: {name: old, namespace: web, uid: old}, spec: {clusterIP: 10.0.0.9}}")
    servers[0].objects.put(stored)
    await servers[0].strategy.start()
    assert [item.key for item in (await store.list(PREFIX)).items] == [f"{PREFIX}10.0.0.9"]
    with pytest.raises(Invalid):
        await servers[1].create("second", FIXED)


async def test_store_that_does_not_answer_leaves_nothing_reserved(
    servers: tuple[Server, Server], store: MemoryStore
) -> None:
    await store.close()
    for _ in range(2):
        with pytest.raises(ServiceUnavailable):
            await servers[0].create("first", FIXED)
