"""The reflector and the informer that sits on it."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.client.builders import config_map
from tiphys.api.core.v1.config_map_pb2 import ConfigMap
from tiphys_apimachinery.errors import Expired, Forbidden, InternalError, ServiceUnavailable
from tiphys_client.fake import FakeClient
from tiphys_client.informer import Informer
from tiphys_component.clock import FakeClock


class Journal:
    """What a handler heard, in order, checked against the promise: add, updates, delete, and round again."""

    def __init__(self, informer: Informer[ConfigMap, Any]) -> None:
        self.lines: list[tuple[str, str, str]] = []
        self.alive: dict[str, int] = {}
        informer.add_handler(self.on_add, self.on_update, self.on_delete)

    def on_add(self, obj: ConfigMap) -> None:
        assert obj.metadata.name not in self.alive
        self.alive[obj.metadata.name] = int(obj.metadata.resourceVersion)
        self.lines.append(("add", obj.metadata.name, obj.data.get("v", "")))

    def on_update(self, old: ConfigMap, new: ConfigMap) -> None:
        assert self.alive[new.metadata.name] == int(old.metadata.resourceVersion)
        assert int(new.metadata.resourceVersion) > int(old.metadata.resourceVersion)
        assert new.metadata.uid == old.metadata.uid
        self.alive[new.metadata.name] = int(new.metadata.resourceVersion)
        self.lines.append(("update", new.metadata.name, new.data.get("v", "")))

    def on_delete(self, obj: ConfigMap) -> None:
        del self.alive[obj.metadata.name]
        self.lines.append(("delete", obj.metadata.name, ""))


@asynccontextmanager
async def informing(client: FakeClient, clock: FakeClock) -> AsyncIterator[tuple[Informer[ConfigMap, Any], Journal]]:
    informer: Informer[ConfigMap, Any] = Informer(client, ConfigMap, clock=clock, rng=random.Random(1))
    journal = Journal(informer)
    task = asyncio.ensure_future(informer.run())
    try:
        await clock.run_for(1)
        yield informer, journal
    finally:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def client(clock: FakeClock) -> FakeClient:
    return FakeClient(clock)


async def test_changes_reach_copy_and_handlers(client: FakeClient, clock: FakeClock) -> None:
    client.seed(config_map("a", v="1"))
    async with informing(client, clock) as (informer, journal):
        assert informer.is_synced()
        await client.patch(ConfigMap, "a", "default", {"data": {"v": "2"}})
        await client.create(config_map("b"))
        await client.delete(ConfigMap, "a", "default")
        await clock.settle()
        assert journal.lines == [("add", "a", "1"), ("update", "a", "2"), ("add", "b", ""), ("delete", "a", "")]
        assert list(informer.keys()) == ["default/b"]
        assert informer.reflector.lists == 1


async def test_M15_first_list_takes_nothing_but_the_newest_state(
    client: FakeClient, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The simulation's seed 18: a process that came back saw the time before what it had done, and did it again."""
    asked: list[str] = []
    list_of = client.list

    async def listen(*args: Any, resource_version: str = "", **options: Any) -> Any:
        asked.append(resource_version)
        return await list_of(*args, resource_version=resource_version, **options)

    monkeypatch.setattr(client, "list", listen)
    async with informing(client, clock):
        assert asked == [""]


async def test_A11_broken_watch_resumes_where_it_broke(client: FakeClient, clock: FakeClock) -> None:
    async with informing(client, clock) as (informer, journal):
        for number in range(5):
            client.server.cut_watches()
            await client.create(config_map(f"c{number}"))
            await clock.run_for(60)
        assert [name for _, name, _ in journal.lines] == ["c0", "c1", "c2", "c3", "c4"]
        assert informer.reflector.lists == 1


async def test_A11_lost_history_is_made_up_by_a_list(client: FakeClient, clock: FakeClock) -> None:
    client.seed(config_map("stays"), config_map("goes"), config_map("changes", v="1"), config_map("replaced"))
    async with informing(client, clock) as (informer, journal):
        journal.lines.clear()
        client.server.cut_watches()
        await client.delete(ConfigMap, "goes", "default")
        await client.patch(ConfigMap, "changes", "default", {"data": {"v": "2"}})
        await client.delete(ConfigMap, "replaced", "default")
        await client.create(config_map("replaced"))
        await client.create(config_map("new"))
        client.server.store.compact()
        await clock.run_for(60)
        assert informer.reflector.lists == 2
        assert sorted(journal.lines) == sorted(
            [
                ("update", "changes", "2"),
                ("delete", "replaced", ""),
                ("add", "replaced", ""),
                ("add", "new", ""),
                ("delete", "goes", ""),
            ]
        )


async def test_server_that_went_back_in_time_is_listed_anew(client: FakeClient, clock: FakeClock) -> None:
    for number in range(5):
        client.seed(config_map(f"c{number}"))
    informer: Informer[ConfigMap, Any] = Informer(client, ConfigMap, clock=clock)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(informer.run())
        await informer.wait_synced()
        restored = FakeClient(clock)
        restored.seed(config_map("c0"))
        client.transport = restored.transport
        client.server.cut_watches()
        await clock.run_for(60)
        assert list(informer.keys()) == ["default/c0"]
        await restored.create(config_map("new"))
        await clock.run_for(1)
        assert list(informer.keys()) == ["default/c0", "default/new"]
        task.cancel()


async def test_bookmark_moves_the_point_of_resumption(client: FakeClient, clock: FakeClock) -> None:
    async with informing(client, clock) as (informer, _):
        client.seed(_other_kind())
        client.server.store.bookmark()
        await clock.settle()
        assert informer.reflector.resource_version == str(client.server.store.revision)
        client.server.store.compact()
        client.server.cut_watches()
        await clock.run_for(60)
        assert informer.reflector.lists == 1


def _other_kind() -> Any:
    from tiphys.api.core.v1.namespace_pb2 import Namespace

    obj = Namespace()
    obj.metadata.name = "other"
    return obj


@pytest.mark.parametrize(
    "error",
    [ServiceUnavailable("restarting"), Forbidden("not yet"), InternalError("bug"), Expired("too old")],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("method", ["List", "Watch"])
async def test_every_error_heals(client: FakeClient, clock: FakeClock, method: str, error: Exception) -> None:
    client.server.fail(method, ConfigMap, error, times=3)
    client.seed(config_map("a"))
    async with informing(client, clock) as (informer, journal):
        await clock.run_for(120)
        await client.create(config_map("b"))
        await clock.run_for(1)
        assert [name for _, name, _ in journal.lines] == ["a", "b"]
        assert informer.is_synced()


async def test_server_that_ends_watches_at_once_is_not_asked_in_a_busy_loop(
    client: FakeClient, clock: FakeClock
) -> None:
    async with informing(client, clock) as (informer, _):
        for _ in range(100):
            client.server.end_watches()
            await clock.run_for(0.01)
        assert informer.reflector.watches < 10


async def test_list_comes_in_pages(client: FakeClient, clock: FakeClock) -> None:
    client.seed(*(config_map(f"c{number}") for number in range(10)))
    informer: Informer[ConfigMap, Any] = Informer(client, ConfigMap, clock=clock)
    informer.reflector._page_size = 3
    async with asyncio.TaskGroup() as group:
        task = group.create_task(informer.run())
        await informer.wait_synced()
        assert len(informer) == 10
        assert sum(call.method == "List" for call in client.server.calls) == 4
        task.cancel()


async def test_failing_handler_keeps_neither_copy_nor_others_from_the_truth(
    client: FakeClient, clock: FakeClock
) -> None:
    def fail(_obj: ConfigMap) -> None:
        raise KeyError("bug")

    informer: Informer[ConfigMap, Any] = Informer(client, ConfigMap, clock=clock)
    informer.add_handler(on_add=fail)
    journal = Journal(informer)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(informer.run())
        await informer.wait_synced()
        await client.create(config_map("a"))
        await clock.run_for(1)
        assert [line[1] for line in journal.lines] == ["a"]
        task.cancel()


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.integers(0, 4)),
        st.tuples(st.just("put"), st.integers(0, 4)),
        st.tuples(st.just("delete"), st.integers(0, 4)),
        st.tuples(st.just("replace"), st.integers(0, 4)),
        st.tuples(st.just("cut"), st.just(0)),
        st.tuples(st.just("end"), st.just(0)),
        st.tuples(st.just("compact"), st.just(0)),
        st.tuples(st.just("bookmark"), st.just(0)),
        st.tuples(st.just("refuse"), st.integers(1, 2)),
        st.tuples(st.just("settle"), st.integers(0, 2)),
    ),
    max_size=40,
)


async def _play(steps: list[tuple[str, int]], batch: int) -> None:
    clock = FakeClock()
    client = FakeClient(clock)
    client.server.batch_size = lambda: batch
    compacted = False
    expected: list[tuple[str, str]] = []
    async with informing(client, clock) as (informer, journal):
        for count, (step, number) in enumerate(steps):
            name = f"c{number}"
            exists = client.find_stored(ConfigMap, name, "default") is not None
            if step == "put" and not exists:
                await client.create(config_map(name))
                expected.append(("add", name))
            elif step == "put":
                await client.patch(ConfigMap, name, "default", {"data": {"v": str(count)}})
                expected.append(("update", name))
            elif step in ("delete", "replace") and exists:
                await client.delete(ConfigMap, name, "default")
                expected.append(("delete", name))
                if step == "replace":
                    await client.create(config_map(name))
                    expected.append(("add", name))
            elif step == "cut":
                client.server.cut_watches()
            elif step == "end":
                client.server.end_watches()
            elif step == "compact":
                client.server.store.compact()
                compacted = True
            elif step == "bookmark":
                client.server.store.bookmark()
            elif step == "refuse":
                client.server.fail("Watch", ConfigMap, ServiceUnavailable("down"), times=number)
            elif step == "settle":
                await (clock.run_for(number) if number else asyncio.sleep(0))
        await clock.run_for(300)
        stored = (await client.list(ConfigMap)).items
        assert {obj.metadata.name: int(obj.metadata.resourceVersion) for obj in stored} == journal.alive
        assert [obj.metadata.name for obj in stored] == sorted(obj.metadata.name for obj in informer.list())
        if not compacted:
            # Nothing was lost and nothing came twice: handlers heard of each change, in order.
            assert [line[:2] for line in journal.lines] == expected
            assert informer.reflector.lists == 1


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps=STEPS, batch=st.integers(1, 3))
def test_A11_no_change_is_lost_or_doubled_over_random_disconnects(steps: list[tuple[str, int]], batch: int) -> None:
    asyncio.run(_play(steps, batch))


@pytest.mark.slow
def test_A11_no_change_is_lost_or_doubled_over_10000_disconnects() -> None:
    rng = random.Random(7)
    kinds = ["put"] * 6 + ["delete", "replace", "settle"]
    for _ in range(50):
        steps: list[tuple[str, int]] = []
        for _ in range(200):
            steps += [(rng.choice(kinds), rng.randrange(3)), ("cut", 0)]
        asyncio.run(_play(steps, rng.randint(1, 3)))
