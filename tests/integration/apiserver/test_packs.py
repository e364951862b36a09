"""A56: objects stored together, all or none, through kills of server and store, and lost connections of watchers."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.integration.apiserver.storage_writer import PACK_SIZE
from tests.integration.apiserver.test_rest_watch import watch
from tests.integration.apiserver.test_rpc import config_map, create_together, names_of
from tests.integration.apiserver.test_storage_kill import WriterProcess
from tests.support.apiserver import RunningServer, running_server
from tests.support.chance import rng
from tests.support.etcd import EtcdMember
from tiphys_apiserver.storage.etcd.connection import EtcdOptions
from tiphys_apiserver.storage.etcd.store import open_etcd
from tiphys_apiserver.storage.interface import EventType, Store
from tiphys_apiserver.storage.sqlite.store import SqliteStore
from tiphys_component.clock import SystemClock

CONFIG_MAPS = "/api/v1/namespaces/default/configmaps"


@pytest.fixture
def member(tmp_path: Path) -> Iterator[EtcdMember]:
    member = EtcdMember(tmp_path)
    member.start()
    yield member
    member.kill()


@asynccontextmanager
async def two_servers(member: EtcdMember) -> AsyncIterator[tuple[RunningServer, RunningServer]]:
    over: dict[str, Any] = {"store": "etcd", "etcd_servers": (f"http://{member.endpoint}",)}
    async with running_server(**over) as one, running_server(**over) as other:
        yield one, other


@pytest.mark.etcd
async def test_A56_batch_of_all_or_nothing_over_etcd_is_one_transaction(member: EtcdMember) -> None:
    async with two_servers(member) as (one, other), open_etcd(EtcdOptions([member.endpoint]), SystemClock()) as store:
        began = await store.revision()
        names = [f"m{number}" for number in range(1000)]
        for start in range(0, 1000, 125):
            made = await create_together(one, *map(config_map, names[start : start + 125]))
            assert made == [("", "")] * 125
        page = await store.list("/registry/configmaps/default/m")
        transactions = Counter(item.mod_revision // store.spacing for item in page.items)
        assert list(transactions.values()) == [125] * 8
        assert min(transactions) > began // store.spacing
        assert await names_of(other) == set(names)
        versions = {item.mod_revision for item in page.items}
        assert len(versions) == 1000


@pytest.mark.etcd
async def test_A56_one_refused_object_leaves_nothing_of_its_batch_over_etcd(member: EtcdMember) -> None:
    async with two_servers(member) as (one, other):
        assert await create_together(one, config_map("there")) == [("", "")]
        results = await create_together(other, *map(config_map, ("a", "there", "b")))
        assert [reason for reason, _ in results] == ["Conflict", "AlreadyExists", "Conflict"]
        assert await names_of(one) == {"there"}


@pytest.mark.etcd
async def test_A56_too_many_bytes_for_etcd_are_refused_with_what_to_do(member: EtcdMember) -> None:
    async with two_servers(member) as (one, _):
        results = await create_together(one, *(config_map(f"m{number}", k="x" * 400_000) for number in range(5)))
        assert "send fewer" in results[0][1]
        assert await names_of(one) == set()


@dataclass(slots=True)
class Watcher:
    """A client that loses its connection after any event, and goes on at the other server from what it saw last."""

    version: str
    names: list[str] = field(default_factory=list)
    versions: list[int] = field(default_factory=list)
    disconnects: int = 0

    async def follow(self, servers: tuple[RunningServer, ...], until: int, seed: str) -> None:
        draw = rng(seed)
        while len(self.names) < until:
            server = servers[self.disconnects % 2]
            async with watch(server, f"&resourceVersion={self.version}") as watching:
                for _ in range(min(draw.randint(1, 40), until - len(self.names))):
                    event = await watching.next()
                    assert event["type"] == "ADDED"
                    metadata = event["object"]["metadata"]
                    self.version = metadata["resourceVersion"]
                    self.names.append(metadata["name"])
                    self.versions.append(int(self.version))
            self.disconnects += 1


@pytest.mark.etcd
async def test_A56_watchers_cut_off_amid_packs_lose_and_double_nothing(member: EtcdMember) -> None:
    packs, size = 12, 60
    async with two_servers(member) as servers:
        version = (await servers[0].http("GET", CONFIG_MAPS)).json()["metadata"]["resourceVersion"]
        watchers = [Watcher(version) for _ in range(6)]
        async with asyncio.timeout(120), asyncio.TaskGroup() as group:
            for number, watcher in enumerate(watchers):
                group.create_task(watcher.follow(servers, packs * size, f"watcher {number}"))
            for number in range(packs):
                pack = [config_map(f"p{number}-{place}") for place in range(size)]
                group.create_task(create_together(servers[number % 2], *pack))
        listed = (await servers[1].http("GET", CONFIG_MAPS)).json()["items"]
    expected = {item["metadata"]["name"] for item in listed} - {"kube-root-ca.crt"}
    assert len(expected) == packs * size
    for watcher in watchers:
        assert set(watcher.names) == expected
        assert watcher.names == watchers[0].names
        assert watcher.versions == sorted(set(watcher.versions))
    assert sum(watcher.disconnects for watcher in watchers) > 100


async def check_packs(store: Store, said: str) -> int:
    """No pack is there in part; those acknowledged are there at their revisions; a watch from any revision goes on."""
    items = {item.key: item for item in (await store.list("/registry/pods/")).items}
    sizes = Counter(key.rsplit("-", 1)[0] for key in items)
    assert set(sizes.values()) <= {PACK_SIZE}
    lines = [line.split(" ")[1:] for line in said.splitlines() if line.startswith("pack ")]
    for pack in lines:
        for key, _, revision in (entry.partition("@") for entry in pack):
            assert items[key].mod_revision == int(revision)
    everything = sorted(item.mod_revision for item in items.values())
    assert len(set(everything)) == len(everything)
    draw = rng("a place to resume")
    for at in draw.sample(range(len(everything) - 1), 10):
        heard: list[int] = []
        async with asyncio.timeout(60), store.watch("/registry/pods/", after_revision=everything[at]) as watch:
            while len(heard) < len(everything) - at - 1:
                events = await watch.__anext__()
                assert {event.type for event in events} == {EventType.PUT}
                heard += [event.mod_revision for event in events]
        assert heard == everything[at + 1 :]
    return len(lines)


@pytest.mark.etcd
async def test_A56_packs_are_whole_or_absent_when_server_and_etcd_are_killed(member: EtcdMember) -> None:
    said, draw = "", rng("moments to kill")
    for round_number in range(3):
        writer = WriterProcess("etcd-packs", member.endpoint)
        writer.let_write(draw.uniform(0.1, 0.4))
        if round_number % 2 == 0:
            member.kill()
            member.start()
            writer.let_write(0.5)
        said += writer.kill()
    async with open_etcd(EtcdOptions([member.endpoint]), SystemClock()) as store:
        assert await check_packs(store, said) > 10


async def test_A56_packs_are_whole_or_absent_when_a_server_with_sqlite_is_killed(tmp_path: Path) -> None:
    path, said, draw = tmp_path / "store.db", "", rng("moments to kill")
    for _ in range(3):
        writer = WriterProcess("sqlite-packs", str(path))
        writer.let_write(draw.uniform(0.1, 0.4))
        said += writer.kill()
    store = await SqliteStore.open(path, SystemClock())
    try:
        assert await check_packs(store, said) > 10
    finally:
        await store.close()
