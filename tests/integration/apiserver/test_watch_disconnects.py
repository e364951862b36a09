"""Ten thousand lost connections: what each watcher hears, put together, is what was written, once and in order.

In process against the watch cache in `make test`; over sockets, with servers that are stopped and started over one
store whose past is compacted meanwhile, shortly there and in full length in `make test-long`.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.support.apiserver import RunningServer, read_chunks, running_server
from tests.support.pod_cache import key, pod_value, running_cacher, selection, settle
from tiphys_apiserver.storage.cacher import Cacher, CacherSettings
from tiphys_apiserver.storage.list_query import WatchQuery
from tiphys_apiserver.storage.memory.store import MemoryStore
from tiphys_apiserver.storage.selection import Selection
from tiphys_apiserver.storage.subscription import Subscription
from tiphys_apiserver.storage.watch_event import EventBatch
from tiphys_component.clock import FakeClock

MAPS = "/api/v1/namespaces/default/configmaps"


@dataclass(frozen=True, slots=True)
class Written:
    """One write as it was acknowledged."""

    revision: int
    name: str
    label: str
    is_deleted: bool = False


@dataclass(slots=True)
class Listener:
    """A client of the cache who remembers every revision it was told, over all of its connections."""

    cacher: Cacher
    selection: Selection
    at: int
    heard: list[int] = field(default_factory=list)
    subscription: Subscription | None = None

    async def connect(self) -> None:
        query = WatchQuery(str(self.at), allow_bookmarks=True)
        self.subscription = await self.cacher.watch(self.selection, self, query)

    def deliver(self, batch: EventBatch) -> None:
        for event in batch.events:
            self.at = event.object.rv
            if event.type != "BOOKMARK":
                self.heard.append(event.object.rv)

    def ended(self, error: object) -> None:
        assert error is None
        self.subscription = None

    def disconnect(self) -> None:
        assert self.subscription is not None
        self.subscription.close()


async def test_A11_ten_thousand_disconnects_lose_and_double_nothing() -> None:
    rng, clock = random.Random(11), FakeClock()
    store = MemoryStore(clock)
    async with running_cacher(store, clock, settings=CacherSettings(history_events=20_000)) as cacher:
        start = await store.create(key("first"), pod_value("first"))
        everything = [Listener(cacher, selection(), start) for _ in range(15)]
        web = [Listener(cacher, selection("app=web"), start) for _ in range(10)]
        for listener in [*everything, *web]:
            await listener.connect()
        revisions: list[int] = []
        chosen: list[int] = []
        states: dict[str, tuple[int, bool]] = {}
        disconnects = 0
        while disconnects < 10_000:
            for _ in range(rng.randrange(4)):
                await _write(store, rng, states, revisions, chosen)
            for listener in [*everything, *web]:
                if rng.random() < 0.6:
                    # At any moment: before, amid and after the turns in which events come.
                    listener.disconnect()
                    disconnects += 1
                    if rng.random() < 0.5:
                        await _write(store, rng, states, revisions, chosen)
                    await listener.connect()
            if rng.random() < 0.3:
                clock.advance(51)
        await settle()
        await settle()
        assert len(revisions) > 3_000
        for listener in everything:
            assert listener.heard == revisions
        for listener in web:
            assert listener.heard == chosen


async def _write(
    store: MemoryStore, rng: random.Random, states: dict[str, tuple[int, bool]], revisions: list[int], chosen: list[int]
) -> None:
    name = f"p{rng.randrange(30)}"
    at, was_web = states.get(name, (0, False))
    is_web = rng.random() < 0.5
    value = pod_value(name, labels={"app": "web" if is_web else "db"})
    if at and rng.random() < 0.3:
        at = (await store.delete(key(name))).mod_revision
        del states[name]
        is_web = False
    else:
        at = await (store.update(key(name), value, expected_revision=at) if at else store.create(key(name), value))
        states[name] = (at, is_web)
    revisions.append(at)
    if was_web or is_web:
        chosen.append(at)


@pytest.mark.parametrize("compacted", [False, True], ids=["remembered", "compacted"])
async def test_A11_a_cache_begun_anew_goes_on_or_says_that_it_cannot(compacted: bool) -> None:
    """As after a restart of the server: a gap is never passed over in silence."""
    clock = FakeClock()
    store = MemoryStore(clock)
    first = await store.create(key("p0"), pod_value("p0"))
    revisions = [await store.create(key(f"p{number}"), pod_value(f"p{number}")) for number in range(1, 20)]
    if compacted:
        await store.compact(revisions[9])
    async with running_cacher(store, clock) as cacher:
        for at in (first, revisions[9], revisions[-1]):
            listener = Listener(cacher, selection(), at)
            if compacted and at < revisions[9]:
                with pytest.raises(Exception, match="too old resource version"):
                    await listener.connect()
                continue
            await listener.connect()
            await settle()
            assert listener.heard == [revision for revision in revisions if revision > at]


@dataclass(slots=True)
class Client:
    """A client over HTTP: it resumes after each loss of its connection, and lists anew when it is told 410."""

    rng: random.Random
    server: Callable[[], RunningServer | None]
    at: int = 0
    known: dict[str, int] = field(default_factory=dict)
    heard: list[int] = field(default_factory=list)
    losses: int = 0
    lists: int = 0

    async def run(self, losses: int) -> None:
        while self.losses < losses:
            server = self.server()
            if server is None:
                await asyncio.sleep(0.02)
                continue
            with suppress(ConnectionError, asyncio.IncompleteReadError, TimeoutError):
                if not self.at:
                    await self.list(server)
                await self.watch(server, self.rng.random() * 0.03)
            self.losses += 1

    async def list(self, server: RunningServer) -> None:
        reply = await server.http("GET", MAPS)
        if reply.status != 200:
            return
        found = reply.json()
        self.known = {item["metadata"]["name"]: int(item["metadata"]["resourceVersion"]) for item in found["items"]}
        self.at = int(found["metadata"]["resourceVersion"])
        self.heard = [self.at]
        self.lists += 1

    async def watch(self, server: RunningServer, seconds: float) -> None:
        """Watch for a while, then hang up wherever one is in the stream."""
        reader, writer = await server.connect()
        try:
            path = f"{MAPS}?watch=1&allowWatchBookmarks=1&resourceVersion={self.at}"
            writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            async with asyncio.timeout(10):
                head = await reader.readuntil(b"\r\n\r\n")
            if b" 200 " not in head.split(b"\r\n")[0]:
                self.at = 0 if b" 410 " in head.split(b"\r\n")[0] else self.at
                return
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    rest = b""
                    async for piece in read_chunks(reader):
                        *lines, rest = (rest + piece).split(b"\n")
                        for line in lines:
                            self.hear(orjson.loads(line))
        finally:
            writer.transport.abort()

    def hear(self, event: Any) -> None:
        if event["type"] == "ERROR":
            assert event["object"]["code"] == 410
            self.at = 0
            return
        metadata = event["object"]["metadata"]
        revision = int(metadata["resourceVersion"])
        if event["type"] == "BOOKMARK":
            assert revision >= self.at
            self.at = revision
            return
        assert revision > self.at, f"{revision} after {self.at}: twice, or out of order"
        name = metadata["name"]
        assert (name in self.known) == (event["type"] != "ADDED"), f"{event['type']} of {name}: something was lost"
        self.at = revision
        self.heard.append(revision)
        if event["type"] == "DELETED":
            del self.known[name]
        else:
            self.known[name] = revision


class World:
    """A server over one SQLite file that is stopped and started again, and a writer who remembers what was taken."""

    def __init__(self, file: Path, rng: random.Random) -> None:
        self._file = file
        self._rng = rng
        self.server: RunningServer | None = None
        self.written: list[int] = []
        self.known: dict[str, int] = {}
        self.restarts = 0

    @asynccontextmanager
    async def up(self) -> AsyncIterator[None]:
        async with running_server(store="sqlite", store_file=self._file) as server:
            self.server = server
            try:
                yield
            finally:
                self.server = None

    async def write(self, count: int) -> None:
        for _ in range(count):
            server = self.server
            assert server is not None
            name = f"c{self._rng.randrange(20)}"
            body = {"metadata": {"name": name}, "data": {"n": str(len(self.written))}}
            if name not in self.known:
                reply = await server.http("POST", MAPS, body)
            elif self._rng.random() < 0.3:
                reply = await server.http("DELETE", f"{MAPS}/{name}")
                assert reply.status == 200
                del self.known[name]
                continue
            else:
                reply = await server.http("PUT", f"{MAPS}/{name}", body)
            assert reply.status in (200, 201), reply.body
            self.known[name] = int(reply.json()["metadata"]["resourceVersion"])
            self.written.append(self.known[name])


async def run_world(folder: Path, *, clients: int, losses: int, restarts: int) -> list[Client]:
    """Clients that lose connections and a server that loses all of them at times; then everybody must know the same."""
    rng = random.Random(53)
    world = World(folder / "store.db", rng)
    found = [Client(random.Random(number), lambda: world.server) for number in range(clients)]
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one.run(losses), name=f"client {n}") for n, one in enumerate(found)]
        while not all(task.done() for task in tasks):
            async with world.up():
                share = losses * (world.restarts + 1) // (restarts + 1)
                while not all(task.done() or one.losses >= share for task, one in zip(tasks, found, strict=True)):
                    await world.write(3)
            world.restarts += 1
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(world.up())
        assert world.server is not None
        final = await listed(world.server)
        assert final == world.known
        for one in found:
            for _ in range(50):
                await one.watch(world.server, 0.2) if one.at else await one.list(world.server)
                if one.known == final:
                    break
            assert one.known == final
    for one in found:
        # Deletions have revisions that no answer told; of all others not one may lack after the last list.
        due = [revision for revision in world.written if revision > one.heard[0]]
        assert [revision for revision in one.heard[1:] if revision in set(world.written)] == due
        assert one.heard == sorted(set(one.heard))
    assert world.restarts >= restarts
    return found


async def listed(server: RunningServer) -> dict[str, int]:
    """Names and revisions of what is there."""
    items = (await server.http("GET", MAPS)).json()["items"]
    return {item["metadata"]["name"]: int(item["metadata"]["resourceVersion"]) for item in items}


async def test_A11_watches_resume_across_restarts_of_the_server(tmp_path: Path) -> None:
    clients = await run_world(tmp_path, clients=4, losses=12, restarts=2)
    # The store remembers, so nobody had to list anew.
    assert [one.lists for one in clients] == [1] * 4


@pytest.mark.slow
async def test_A11_ten_thousand_disconnects_from_a_server_that_is_restarted_meanwhile(tmp_path: Path) -> None:
    await run_world(tmp_path, clients=20, losses=500, restarts=10)
