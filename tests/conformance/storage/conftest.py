"""Every store that the contract suite runs against."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.etcd import EtcdMember
from tiphys_apiserver.storage.etcd.connection import EtcdOptions
from tiphys_apiserver.storage.etcd.store import EtcdStore, open_etcd
from tiphys_apiserver.storage.interface import Store
from tiphys_apiserver.storage.memory.store import MemoryStore
from tiphys_apiserver.storage.sqlite.store import SqliteStore
from tiphys_component.clock import FakeClock, SystemClock


@dataclass(frozen=True, slots=True)
class Bench:
    """A store under test. ``root`` is a prefix of this test's own, as an etcd is shared by many tests."""

    store: Store
    root: str
    # None where time is real.
    clock: FakeClock | None

    def key(self, name: str) -> str:
        """A key of this test."""
        return self.root + name


@pytest.fixture(scope="session")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdMember]:
    """One real etcd for all tests."""
    member = EtcdMember(tmp_path_factory.mktemp("etcd"))
    member.start()
    yield member
    member.kill()


@pytest.fixture(params=["memory", "sqlite", pytest.param("etcd", marks=pytest.mark.etcd)])
async def bench(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bench]:
    """A store of each kind."""
    root = f"/registry/{uuid.uuid4().hex[:8]}/"
    clock = FakeClock()
    store: Store
    if request.param == "memory":
        store = MemoryStore(clock)
        yield Bench(store, root, clock)
    elif request.param == "sqlite":
        store = await SqliteStore.open(tmp_path / "store.db", clock)
        yield Bench(store, root, clock)
    else:
        member: EtcdMember = request.getfixturevalue("etcd")
        async with held(open_etcd(EtcdOptions([member.endpoint]), SystemClock())) as store:
            yield Bench(store, root, None)
    await store.close()


@asynccontextmanager
async def held(context: AbstractAsyncContextManager[EtcdStore]) -> AsyncIterator[EtcdStore]:
    """Enter and leave a context in one task: fixtures begin and end in different ones, task groups can't."""
    entered: asyncio.Future[EtcdStore] = asyncio.get_running_loop().create_future()
    leave = asyncio.Event()

    async def hold() -> None:
        async with context as store:
            entered.set_result(store)
            await leave.wait()

    async with asyncio.timeout(60):
        task = asyncio.get_running_loop().create_task(hold())
        waited: list[asyncio.Future[Any]] = [entered, task]
        await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
    yield entered.result()
    leave.set()
    await task
