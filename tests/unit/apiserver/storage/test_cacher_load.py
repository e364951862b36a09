"""What many readers cost the store: nothing that grows with their number."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.support.pod_cache import key, pod_value, running_cacher, take, told
from tiphys_apiserver.storage.cacher import Cacher, CacherSettings
from tiphys_apiserver.storage.interface import ListPage
from tiphys_apiserver.storage.list_query import NOT_OLDER_THAN, ListQuery, WatchQuery
from tiphys_apiserver.storage.memory.store import MemoryStore
from tiphys_apiserver.storage.selection import Selection
from tiphys_component.clock import FakeClock


class CountingStore(MemoryStore):
    """Counts what is asked of it."""

    def __init__(self) -> None:
        super().__init__(FakeClock())
        self.asked: Counter[str] = Counter()

    async def list(self, prefix: str, *, revision: int = 0, limit: int = 0, start_after: str = "") -> ListPage:
        self.asked["list"] += 1
        return await super().list(prefix, revision=revision, limit=limit, start_after=start_after)

    def watch(self, prefix: str, *, after_revision: int) -> Any:
        self.asked["watch"] += 1
        return super().watch(prefix, after_revision=after_revision)


@pytest.fixture
async def store() -> AsyncIterator[CountingStore]:
    made = CountingStore()
    for number in range(5):
        await made.create(key(f"p{number}"), pod_value(f"p{number}"))
    yield made
    await made.close()


@pytest.fixture
async def cacher(store: CountingStore) -> AsyncIterator[Cacher]:
    settings = CacherSettings(fresh_wait_s=0.5)
    async with running_cacher(store, FakeClock(), settings=settings) as cacher:
        await cacher.list(Selection())
        store.asked.clear()
        yield cacher


async def test_A13_informers_cost_the_store_nothing(store: CountingStore, cacher: Cacher) -> None:
    """Five hundred list and watch; one change reaches each of them."""
    with ExitStack() as stack:
        streams = []
        for _ in range(500):
            page = await cacher.list(Selection(), ListQuery(resource_version="0"))
            query = WatchQuery(str(page.revision), allow_bookmarks=True)
            streams.append(stack.enter_context(await cacher.stream(Selection(), query)))
        revision = await store.create(key("new"), pod_value("new"))
        for stream in streams:
            assert told(await take(stream, 1)) == [("ADDED", "new", revision)]
    assert store.asked == {}


async def test_A14_streamed_lists_cost_the_store_nothing(store: CountingStore, cacher: Cacher) -> None:
    query = WatchQuery(resource_version_match=NOT_OLDER_THAN, allow_bookmarks=True, send_initial_events=True)
    for _ in range(50):
        with await cacher.stream(Selection(), query) as stream:
            assert [kind for kind, _, _ in told(await take(stream, 6))] == ["ADDED"] * 5 + ["BOOKMARK"]
    assert store.asked == {}


async def test_A15_consistent_lists_cost_the_store_no_range(store: CountingStore, cacher: Cacher) -> None:
    for number in range(200):
        revision = await store.create(key(f"n{number}"), pod_value(f"n{number}"))
        found = await cacher.list(Selection())
        assert found.revision >= revision
        assert len(found.items) == 6 + number
    assert store.asked == {}


async def test_A16_pages_and_exact_versions_cost_the_store_nothing(store: CountingStore, cacher: Cacher) -> None:
    """Two hundred objects in pages of seven, while one of them is changed and one made between any two pages."""
    for number in range(195):
        await store.create(key(f"q{number:03}"), pod_value(f"q{number:03}"))
    page = first = await cacher.list(Selection(), ListQuery(limit=7))
    names = [cached.name for cached in page.items]
    turn = 0
    while page.continue_token:
        turn += 1
        await store.delete(key(f"q{195 - turn:03}"))
        await store.create(key(f"r{turn:03}"), pod_value(f"r{turn:03}"))
        page = await cacher.list(Selection(), ListQuery(limit=7, continue_token=page.continue_token))
        assert page.revision == first.revision
        names += [cached.name for cached in page.items]
    expected = sorted([f"p{n}" for n in range(5)] + [f"q{n:03}" for n in range(195)])
    assert names == expected
    exact = await cacher.list(Selection(), ListQuery(str(first.revision), "Exact"))
    assert [cached.name for cached in exact.items] == expected
    assert store.asked == {}


async def test_A10_a_hundred_watchers_see_one_order(store: CountingStore, cacher: Cacher) -> None:
    revision = await store.revision()
    with ExitStack() as stack:
        streams = [stack.enter_context(await cacher.stream(Selection(), WatchQuery(str(revision)))) for _ in range(100)]
        for number in range(20):
            await store.create(key(f"w{number}"), pod_value(f"w{number}"))
            await store.delete(key(f"w{number}"))
        seen = [told(await take(stream, 40)) for stream in streams]
    assert all(one == seen[0] for one in seen)
    versions = [version for _, _, version in seen[0]]
    assert versions == sorted(set(versions))
