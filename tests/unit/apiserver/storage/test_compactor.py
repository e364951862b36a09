"""Compaction at a steady pace."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from tiphys_apiserver.storage.compactor import Compactor
from tiphys_apiserver.storage.interface import Compacted, StoreUnavailable
from tiphys_apiserver.storage.memory.store import MemoryStore
from tiphys_component.clock import FakeClock


class Flaky(MemoryStore):
    """Refuses compaction as often as told."""

    refusals = 0

    async def compact(self, revision: int) -> None:
        if self.refusals:
            self.refusals -= 1
            raise StoreUnavailable("no leader")
        await super().compact(revision)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def store(clock: FakeClock) -> AsyncIterator[Flaky]:
    store = Flaky(clock)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(Compactor(store, clock, interval_s=300).run())
        await clock.settle()
        yield store
        task.cancel()


async def is_forgotten(store: MemoryStore, revision: int) -> bool:
    try:
        await store.list("/registry/", revision=revision)
    except Compacted:
        return True
    return False


async def test_history_lives_at_least_one_interval_and_at_most_two(store: Flaky, clock: FakeClock) -> None:
    await store.create("/registry/a", b"1")
    await clock.run_for(299)
    before = await store.create("/registry/b", b"2")
    await clock.run_for(1)
    first = await store.create("/registry/c", b"3")
    await clock.run_for(299)
    assert not await is_forgotten(store, before)
    await clock.run_for(1)
    last = await store.create("/registry/d", b"4")
    assert not await is_forgotten(store, before)
    await clock.run_for(300)
    assert [await is_forgotten(store, revision) for revision in (before, first, last)] == [True, False, False]


async def test_store_without_an_answer_is_asked_again(store: Flaky, clock: FakeClock) -> None:
    old = await store.create("/registry/a", b"1")
    await store.create("/registry/b", b"1")
    store.refusals = 1
    await clock.run_for(600)
    assert not await is_forgotten(store, old)
    await clock.run_for(600)
    assert await is_forgotten(store, old)
