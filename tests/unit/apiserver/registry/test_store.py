"""The generic store: retries, allocations and deletions, over a store in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import pytest

from tiphys.api.core.v1 import config_map_pb2
from tiphys_apimachinery.errors import (
    AlreadyExists,
    Conflict,
    FieldError,
    Invalid,
    NotFound,
    ServerTimeout,
    ServiceUnavailable,
    Timeout,
)
from tiphys_apimachinery.scheme import load_default
from tiphys_apiserver.registry.access import RegistryAccess
from tiphys_apiserver.registry.admit import Admit
from tiphys_apiserver.registry.deletion import DeleteRequest
from tiphys_apiserver.registry.store import ResourceStore
from tiphys_apiserver.registry.strategy import Environment, Finish, Strategy, WriteContext
from tiphys_apiserver.registry.table import object_format
from tiphys_apiserver.registry.write_steps import copy_of
from tiphys_apiserver.storage.cacher import Cacher
from tiphys_apiserver.storage.interface import OutcomeUnknown, StoreFull
from tiphys_apiserver.storage.memory.store import MemoryStore
from tiphys_component.clock import FakeClock


class Allocating(Strategy):
    """Reserves something for each write and notes how it ended."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.ended: list[bool] = []
        self.gone: list[str] = []

    async def begin_create(self, ctx: WriteContext, obj: Any) -> Finish:
        return self._finish

    async def begin_update(self, ctx: WriteContext, new: Any, old: Any) -> Finish:
        return self._finish

    async def _finish(self, stored: bool) -> None:
        self.ended.append(stored)

    async def after_delete(self, ctx: WriteContext, obj: Any) -> None:
        self.gone.append(obj.metadata.name)


class Rig:
    """One resource over memory; `stale` holds back what the cache is told."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        info = load_default().by_resource("", "v1", "configmaps")
        assert info is not None
        counter = iter(range(1000))
        environment = Environment(self.clock, lambda: f"uid-{next(counter)}", Random(1), RegistryAccess(self.clock))
        self.backend = MemoryStore(self.clock)
        self.strategy = Allocating(info, environment)
        cacher = Cacher(f"{info.storage_key_prefix}/", object_format(info), self.backend, self.clock)
        self.store = ResourceStore(info, self.strategy, self.backend, cacher, environment=environment)

    def ctx(self, **changes: Any) -> WriteContext:
        return WriteContext(now=self.clock.now(), namespace="default", **changes)

    async def create(self, name: str = "a", **data: str) -> Any:
        return await self.store.create(self.ctx(), config_map(name, **data))


def config_map(name: str = "a", **data: str) -> Any:
    made: Any = config_map_pb2.ConfigMap()
    made.metadata.name = name
    for key, value in data.items():
        made.data[key] = value
    return made


@asynccontextmanager
async def following(rig: Rig) -> AsyncIterator[None]:
    """Run the cache and let it catch up."""
    task = asyncio.create_task(rig.store.cacher.run())
    await rig.store.cacher.ready()
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait((task,))


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    made = Rig()
    yield made
    await made.backend.close()


async def test_reservation_is_kept_when_stored_and_undone_when_refused(rig: Rig) -> None:
    await rig.create()
    with pytest.raises(AlreadyExists):
        await rig.create()
    assert rig.strategy.ended == [True, False]


@pytest.mark.parametrize(
    ("error", "raised", "ended"), [(OutcomeUnknown, Timeout, []), (StoreFull, ServiceUnavailable, [False])]
)
async def test_reservation_of_a_write_that_may_have_happened_is_not_undone(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, error: type[Exception], raised: type[Exception], ended: list[bool]
) -> None:
    async def fail(*_args: Any, **_more: Any) -> int:
        raise error("trouble")

    monkeypatch.setattr(rig.backend, "create", fail)
    with pytest.raises(raised):
        await rig.create()
    assert rig.strategy.ended == ended


async def test_update_is_made_anew_on_what_another_writer_stored(rig: Rig) -> None:
    await rig.create(count="0")
    waiting = asyncio.Event()

    async def slowly(obj: Any) -> Any:
        obj.data["slow"] = obj.data["count"]
        if not waiting.is_set():
            waiting.set()
            await rig.store.update(rig.ctx(), "a", quickly)
        return obj

    async def quickly(obj: Any) -> Any:
        obj.data["count"] = "1"
        return obj

    stored, is_new = await rig.store.update(rig.ctx(), "a", slowly)
    assert (dict(stored.data), is_new) == ({"count": "1", "slow": "1"}, False)
    assert rig.strategy.ended == [True, True, False, True]


async def test_refusal_is_never_based_on_a_stale_cache(rig: Rig) -> None:
    async with following(rig):
        first = await rig.create(v="1")
        await rig.store.cacher.wait_applied(int(first.metadata.resourceVersion))
        # Written behind the back of the cache, which hears of it only in the next turn.
        newer = copy_of(first)
        newer.data["v"] = "2"

        async def put(_obj: Any) -> Any:
            return copy_of(newer)

        second, _ = await rig.store.update(rig.ctx(), "a", put)
        third = copy_of(second)
        third.data["v"] = "3"

        async def put_third(_obj: Any) -> Any:
            return copy_of(third)

        stored, _ = await rig.store.update(rig.ctx(), "a", put_third)
        assert stored.data["v"] == "3"
        with pytest.raises(Conflict):
            await rig.store.update(rig.ctx(), "a", put)


async def test_write_that_changes_nothing_is_none(rig: Rig) -> None:
    made = await rig.create(v="1")

    async def same(obj: Any) -> Any:
        return obj

    stored, _ = await rig.store.update(rig.ctx(), "a", same)
    assert stored.metadata.resourceVersion == made.metadata.resourceVersion
    assert rig.strategy.ended == [True]


async def test_generated_name_that_is_taken_is_tried_again(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    names = iter(["x-1", "x-1", "x-2"])
    monkeypatch.setattr("tiphys_apimachinery.names.generate_name", lambda _prefix, _rng: next(names))

    def unnamed() -> Any:
        made: Any = config_map_pb2.ConfigMap()
        made.metadata.generateName = "x-"
        return made

    assert (await rig.store.create(rig.ctx(), unnamed())).metadata.name == "x-1"
    assert (await rig.store.create(rig.ctx(), unnamed())).metadata.name == "x-2"
    monkeypatch.setattr("tiphys_apimachinery.names.generate_name", lambda _prefix, _rng: "x-1")
    with pytest.raises(ServerTimeout):
        await rig.store.create(rig.ctx(), unnamed())


async def test_delete_releases_once_and_checks_what_it_deletes(rig: Rig) -> None:
    await rig.create()
    with pytest.raises(Conflict):
        await rig.store.delete(rig.ctx(), "a", DeleteRequest(uid="other"))
    deleted = await rig.store.delete(rig.ctx(), "a", DeleteRequest())
    assert deleted.gone
    with pytest.raises(NotFound):
        await rig.store.delete(rig.ctx(), "a", DeleteRequest())
    assert rig.strategy.gone == ["a"]


async def test_last_finalizer_removed_deletes(rig: Rig) -> None:
    made = config_map()
    made.metadata.finalizers.append("example.com/f")
    await rig.store.create(rig.ctx(), made)
    deleted = await rig.store.delete(rig.ctx(), "a", DeleteRequest())
    assert not deleted.gone
    assert rig.strategy.gone == []

    async def release(obj: Any) -> Any:
        del obj.metadata.finalizers[:]
        return obj

    await rig.store.update(rig.ctx(), "a", release)
    assert rig.strategy.gone == ["a"]


async def test_dry_run_reserves_and_undoes(rig: Rig) -> None:
    await rig.store.create(rig.ctx(dry_run=True), config_map())
    assert rig.strategy.ended == [False]
    assert (await rig.backend.list("/registry/")).items == []


async def test_admission_sees_each_write_and_may_refuse(rig: Rig) -> None:
    seen: list[tuple[bool, bool]] = []

    async def refuse(new: Any, old: Any) -> None:
        seen.append((new is not None, old is not None))
        raise Invalid.of("ConfigMap", "a", [])

    with pytest.raises(Invalid):
        await rig.store.create(rig.ctx(), config_map(), Admit(validate=refuse))
    assert (await rig.backend.list("/registry/")).items == []
    await rig.create()

    async def same(obj: Any) -> Any:
        obj.data["x"] = "y"
        return obj

    with pytest.raises(Invalid):
        await rig.store.update(rig.ctx(), "a", same, Admit(validate=refuse))
    with pytest.raises(Invalid):
        await rig.store.delete(rig.ctx(), "a", DeleteRequest(), Admit(validate=refuse))
    assert seen == [(True, False), (True, True), (False, True)]
    assert rig.strategy.ended == [True]


async def test_a_fault_that_two_rules_find_is_told_once(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    found = [FieldError.required("data"), FieldError.required("data"), FieldError.required("metadata.labels")]
    monkeypatch.setattr(type(rig.strategy), "validate", lambda *_args: found)
    with pytest.raises(Invalid) as refused:
        await rig.create()
    assert [cause.field for cause in refused.value.to_status().details.causes] == ["data", "metadata.labels"]
