"""Watches from the cache: what each watcher is told, in which order, and when it is cut off."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator

import pytest

from tests.support.pod_cache import (
    PREFIX,
    CountingJson,
    Recorder,
    key,
    pod_format,
    pod_value,
    running_cacher,
    selection,
    settle,
    take,
    told,
)
from tiphys.api.meta.v1 import meta_pb2
from tiphys.api.runtime import runtime_pb2
from tiphys.apiserver.v1 import wire_pb2
from tiphys_apimachinery.errors import Expired, Invalid, ServiceUnavailable, Timeout
from tiphys_apiserver.storage.cacher import Cacher, CacherSettings
from tiphys_apiserver.storage.interface import Compacted, ListPage, StoreUnavailable
from tiphys_apiserver.storage.list_query import WatchQuery
from tiphys_apiserver.storage.memory.store import MemoryStore
from tiphys_apiserver.storage.selection import Selection
from tiphys_apiserver.storage.subscription import Subscription
from tiphys_apiserver.storage.watch_event import EventBatch
from tiphys_component.clock import FakeClock

SETTINGS = CacherSettings(fresh_wait_s=0.05, history_events=50, bookmark_interval_s=50.0)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def store(clock: FakeClock) -> MemoryStore:
    return MemoryStore(clock)


@pytest.fixture
def dumps() -> CountingJson:
    return CountingJson()


@pytest.fixture
async def cacher(store: MemoryStore, clock: FakeClock, dumps: CountingJson) -> AsyncIterator[Cacher]:
    async with running_cacher(store, clock, settings=SETTINGS, dumps=dumps) as cacher:
        yield cacher


async def test_watch_without_version_begins_with_the_state(store: MemoryStore, cacher: Cacher) -> None:
    revision = await store.create(key("one"), pod_value("one"))
    with await cacher.stream(Selection()) as stream:
        later = await store.create(key("two"), pod_value("two"))
        assert told(await take(stream, 2)) == [("ADDED", "one", revision), ("ADDED", "two", later)]


async def test_A11_watch_resumes_exactly_after_a_version(store: MemoryStore, cacher: Cacher) -> None:
    first = await store.create(key("one"), pod_value("one"))
    second = await store.update(key("one"), pod_value("one", node="n"), expected_revision=first)
    third = (await store.delete(key("one"))).mod_revision
    with await cacher.stream(Selection(), WatchQuery(str(first))) as stream:
        assert told(await take(stream, 2)) == [("MODIFIED", "one", second), ("DELETED", "one", third)]


async def test_A10_object_entering_or_leaving_a_selection_is_added_or_deleted(
    store: MemoryStore, cacher: Cacher
) -> None:
    first = await store.create(key("one"), pod_value("one", node="n0"))
    with await cacher.stream(selection(fields="spec.nodeName=n1")) as stream:
        entered = await store.update(key("one"), pod_value("one", node="n1"), expected_revision=first)
        changed = await store.update(key("one"), pod_value("one", node="n1", note="x"), expected_revision=entered)
        left = await store.update(key("one"), pod_value("one", node="n2"), expected_revision=changed)
        await store.delete(key("one"))
        again = await store.create(key("one"), pod_value("one", node="n1"))
        events = await take(stream, 4)
    assert told(events) == [
        ("ADDED", "one", entered),
        ("MODIFIED", "one", changed),
        ("DELETED", "one", left),
        ("ADDED", "one", again),
    ]
    # What leaves is shown as it was last chosen, at the revision of the change.
    gone = events[2].object.message()
    assert (gone.spec.nodeName, gone.metadata.resourceVersion) == ("n1", str(left))


@pytest.mark.parametrize(
    "chosen",
    [
        pytest.param(selection(namespace="b"), id="namespace"),
        pytest.param(selection("app=web"), id="label"),
        pytest.param(selection(fields="metadata.name=two"), id="name"),
        pytest.param(selection(fields="spec.nodeName=n2,metadata.namespace=b"), id="fields"),
    ],
)
async def test_watcher_hears_only_of_what_it_chose(store: MemoryStore, cacher: Cacher, chosen: Selection) -> None:
    with await cacher.stream(chosen) as stream, await cacher.stream(Selection()) as everything:
        await store.create(key("one"), pod_value("one", node="n1"))
        two = await store.create(key("two", "b"), pod_value("two", "b", node="n2", labels={"app": "web"}))
        assert told(await take(stream, 1)) == [("ADDED", "two", two)]
        assert len(await take(everything, 2)) == 2


async def test_A11_version_too_old_is_expired(store: MemoryStore, cacher: Cacher) -> None:
    first = await store.create(key("x"), pod_value("x"))
    for number in range(60):
        await store.create(key(f"p{number}"), pod_value(f"p{number}"))
    with pytest.raises(Expired, match=rf"too old resource version: {first} \(\d+\)"):
        await cacher.stream(Selection(), WatchQuery(str(first)))


async def test_version_of_the_future_is_refused_after_a_wait(store: MemoryStore, cacher: Cacher) -> None:
    with pytest.raises(Timeout, match="Too large resource version"):
        await cacher.stream(Selection(), WatchQuery(str(await store.revision() + 7)))


@pytest.mark.parametrize(
    "query",
    [
        pytest.param(WatchQuery("5", "NotOlderThan"), id="match-without-initial-events"),
        pytest.param(WatchQuery("", "", send_initial_events=True), id="initial-events-without-match"),
        pytest.param(WatchQuery("", "Exact", send_initial_events=True), id="initial-events-exact"),
    ],
)
async def test_options_that_exclude_each_other_are_refused(cacher: Cacher, query: WatchQuery) -> None:
    with pytest.raises(Invalid):
        await cacher.stream(Selection(), query)


async def test_A14_initial_events_end_with_a_marked_bookmark(store: MemoryStore, cacher: Cacher) -> None:
    for name in ("one", "two"):
        await store.create(key(name), pod_value(name))
    other = await store.create("/registry/minions/n", b"another resource")
    query = WatchQuery("", "NotOlderThan", allow_bookmarks=True, send_initial_events=True)
    with await cacher.stream(Selection(), query) as stream:
        events = await take(stream, 3)
        assert [event.type for event in events] == ["ADDED", "ADDED", "BOOKMARK"]
        bookmark = events[2].object.message()
        assert bookmark.metadata.annotations["k8s.io/initial-events-end"] == "true"
        assert int(bookmark.metadata.resourceVersion) == other
        later = await store.create(key("three"), pod_value("three"))
        assert told(await take(stream, 1)) == [("ADDED", "three", later)]


async def test_watch_may_begin_with_neither_state_nor_version(store: MemoryStore, cacher: Cacher) -> None:
    await store.create(key("one"), pod_value("one"))
    query = WatchQuery("", "NotOlderThan", allow_bookmarks=True, send_initial_events=False)
    with await cacher.stream(Selection(), query) as stream:
        later = await store.create(key("two"), pod_value("two"))
        assert told(await take(stream, 1)) == [("ADDED", "two", later)]


async def test_A12_bookmark_moves_an_idle_watch_past_other_resources_churn(
    store: MemoryStore, cacher: Cacher, clock: FakeClock
) -> None:
    taker, other = Recorder(), Recorder()
    await cacher.watch(Selection(), taker, WatchQuery(allow_bookmarks=True))
    await cacher.watch(Selection(), other, WatchQuery())
    await settle()
    for number in range(5):
        revision = await store.create(f"/registry/minions/n{number}", b"another resource")
    clock.advance(51)
    await settle()
    assert [(event.type, event.object.rv) for event in taker.events] == [("BOOKMARK", revision)]
    assert other.events == []
    await store.compact(revision)
    with await cacher.stream(Selection(), WatchQuery(str(revision))) as stream:
        later = await store.create(key("one"), pod_value("one"))
        assert told(await take(stream, 1)) == [("ADDED", "one", later)]
    clock.advance(51)
    await settle()
    assert len([event for event in taker.events if event.type == "BOOKMARK"]) == 2


# -- slow, broken and many watchers


async def test_paused_watcher_gets_what_it_missed_in_order(store: MemoryStore, cacher: Cacher) -> None:
    sink = Recorder()
    subscription = await cacher.watch(Selection(), sink)
    await settle()
    subscription.pause()
    revisions = [await store.create(key(f"p{number}"), pod_value(f"p{number}")) for number in range(10)]
    assert sink.events == []
    subscription.resume()
    await settle()
    later = await store.create(key("last"), pod_value("last"))
    assert [event.object.rv for event in sink.events] == [*revisions, later]


async def test_A10_watcher_too_slow_is_expired_and_the_others_go_on(store: MemoryStore, cacher: Cacher) -> None:
    slow, fast = Recorder(), Recorder()
    subscription = await cacher.watch(Selection(), slow)
    await cacher.watch(Selection(), fast)
    await settle()
    subscription.pause()
    for number in range(60):
        await store.create(key(f"p{number}"), pod_value(f"p{number}"))
    assert len(slow.errors) == 1
    assert isinstance(slow.errors[0], Expired)
    assert slow.events == []
    assert len(fast.events) == 60
    assert cacher.watchers == 1


async def test_paused_watcher_is_not_expired_by_events_it_did_not_choose(store: MemoryStore, cacher: Cacher) -> None:
    sink = Recorder()
    subscription = await cacher.watch(selection(namespace="b"), sink)
    await settle()
    subscription.pause()
    for number in range(60):
        await store.create(key(f"p{number}"), pod_value(f"p{number}"))
    mine = await store.create(key("mine", "b"), pod_value("mine", "b"))
    subscription.resume()
    await settle()
    assert (told(sink.events), sink.errors) == ([("ADDED", "mine", mine)], [])


async def test_connection_that_raises_loses_only_its_own_watch(store: MemoryStore, cacher: Cacher) -> None:
    class Broken(Recorder):
        def deliver(self, batch: EventBatch) -> None:
            raise ConnectionResetError("gone")

    broken, fine = Broken(), Recorder()
    await cacher.watch(Selection(), broken)
    await cacher.watch(Selection(), fine)
    await settle()
    await store.create(key("one"), pod_value("one"))
    await store.create(key("two"), pod_value("two"))
    assert (len(fine.events), broken.errors) == (2, [None])


async def test_sink_may_close_or_pause_while_it_is_delivered_to(store: MemoryStore, cacher: Cacher) -> None:
    class Closing(Recorder):
        subscription: Subscription

        def deliver(self, batch: EventBatch) -> None:
            super().deliver(batch)
            self.subscription.close()

    class Pausing(Recorder):
        subscription: Subscription

        def deliver(self, batch: EventBatch) -> None:
            super().deliver(batch)
            self.subscription.pause()

    closing, pausing, fine = Closing(), Pausing(), Recorder()
    closing.subscription = await cacher.watch(Selection(), closing)
    pausing.subscription = await cacher.watch(Selection(), pausing)
    await cacher.watch(Selection(), fine)
    await settle()
    for name in ("one", "two"):
        await store.create(key(name), pod_value(name))
    assert (len(closing.events), closing.errors) == (1, [None])
    assert (len(pausing.events), len(fine.events)) == (1, 2)
    pausing.subscription.resume()
    await settle()
    assert [event.object.name for event in pausing.events] == ["one", "two"]


async def test_sink_may_end_another_watch_of_its_group_while_it_is_delivered_to(
    store: MemoryStore, cacher: Cacher
) -> None:
    class Killing(Recorder):
        victim: Subscription

        def deliver(self, batch: EventBatch) -> None:
            super().deliver(batch)
            self.victim.close()

    killing, victim = Killing(), Recorder()
    await cacher.watch(Selection(), killing)
    killing.victim = await cacher.watch(Selection(), victim)
    await settle()
    await store.create(key("one"), pod_value("one"))
    assert (len(killing.events), victim.events, victim.errors) == (1, [], [None])


async def test_slow_reader_of_a_stream_loses_nothing(store: MemoryStore, cacher: Cacher) -> None:
    with await cacher.stream(Selection()) as stream:
        await settle()
        revisions = [await store.create(key(f"p{number}"), pod_value(f"p{number}")) for number in range(40)]
        assert [event.object.rv for event in await take(stream, 40)] == revisions


async def test_closed_store_ends_watches_without_error(store: MemoryStore, cacher: Cacher) -> None:
    sink = Recorder()
    await cacher.watch(Selection(), sink)
    await settle()
    await store.close()
    await settle()
    assert sink.errors == [None]


# -- frames


async def test_A13_frame_is_made_once_for_all_watchers(store: MemoryStore, cacher: Cacher, dumps: CountingJson) -> None:
    class Writing(Recorder):
        def __init__(self) -> None:
            super().__init__()
            self.frames: list[bytes] = []

        def deliver(self, batch: EventBatch) -> None:
            super().deliver(batch)
            self.frames.append(batch.frame("json"))

    sinks = [Writing() for _ in range(10)]
    for sink in sinks:
        await cacher.watch(Selection(), sink)
    await settle()
    revision = await store.create(key("one"), pod_value("one"))
    assert dumps.made == 1
    assert sinks[0].frames == [b'{"type":"ADDED","object":{"name":"one","rv":"%d"}}\n' % revision]
    assert all(sink.frames[0] is sinks[0].frames[0] for sink in sinks)


async def test_A13_json_of_a_version_is_made_once_for_lists_and_watches(
    store: MemoryStore, cacher: Cacher, dumps: CountingJson
) -> None:
    await store.create(key("one"), pod_value("one"))
    for _ in range(3):
        found = await cacher.list(Selection())
        assert found.items[0].json().startswith(b'{"name":"one"')
    assert dumps.made == 1


async def test_protobuf_frame_is_a_length_and_a_watch_event(store: MemoryStore, cacher: Cacher) -> None:
    sink = Recorder()
    await cacher.watch(Selection(), sink)
    await settle()
    revision = await store.create(key("one"), pod_value("one", labels={"app": "w" * 300}))
    frame = sink.batches[0].frame("protobuf")
    assert struct.unpack(">I", frame[:4])[0] == len(frame) - 4
    event = meta_pb2.WatchEvent.FromString(frame[4:])
    assert event.type == "ADDED"
    assert event.object.raw[:4] == b"k8s\0"
    unknown = runtime_pb2.Unknown.FromString(event.object.raw[4:])
    assert (unknown.typeMeta.apiVersion, unknown.typeMeta.kind) == ("v1", "Pod")
    assert cacher.format.parse(unknown.raw).metadata.resourceVersion == str(revision)


async def test_joined_grpc_frames_are_one_response(store: MemoryStore, cacher: Cacher) -> None:
    for name in ("one", "two"):
        await store.create(key(name), pod_value(name, note="n" * 200))
    sink = Recorder()
    await cacher.watch(Selection(), sink)
    await settle()
    response = wire_pb2.WatchResponse.FromString(sink.batches[0].frame("grpc"))
    assert [event.type for event in response.events] == [wire_pb2.EVENT_TYPE_ADDED] * 2
    assert [cacher.format.parse(event.object).metadata.name for event in response.events] == ["one", "two"]


# -- beginning anew


async def test_A11_watch_goes_on_after_the_server_was_restarted(store: MemoryStore, clock: FakeClock) -> None:
    first = await store.create(key("one"), pod_value("one"))
    async with running_cacher(store, clock, settings=SETTINGS):
        second = await store.create(key("two"), pod_value("two"))
    third = (await store.delete(key("one"))).mod_revision
    async with running_cacher(store, clock, settings=SETTINGS) as cacher:
        with await cacher.stream(Selection(), WatchQuery(str(first))) as stream:
            assert told(await take(stream, 2)) == [("ADDED", "two", second), ("DELETED", "one", third)]


async def test_A11_after_compaction_and_restart_old_versions_are_expired(store: MemoryStore, clock: FakeClock) -> None:
    first = await store.create(key("one"), pod_value("one"))
    second = await store.create(key("two"), pod_value("two"))
    await store.compact(second)
    async with running_cacher(store, clock, settings=SETTINGS) as cacher:
        with pytest.raises(Expired):
            await cacher.stream(Selection(), WatchQuery(str(first)))
        with await cacher.stream(Selection(), WatchQuery(str(second))) as stream:
            third = await store.create(key("three"), pod_value("three"))
            assert told(await take(stream, 1)) == [("ADDED", "three", third)]


async def test_cache_that_lost_sight_of_events_begins_anew_and_says_so(
    store: MemoryStore, cacher: Cacher, clock: FakeClock
) -> None:
    sink = Recorder()
    await cacher.watch(Selection(), sink)
    first = await store.create(key("one"), pod_value("one"))
    store._feed.end_all(Compacted(0))
    second = await store.create(key("two"), pod_value("two"))
    await cacher.ready()
    assert [type(error) for error in sink.errors] == [Expired]
    assert [cached.name for cached in (await cacher.list(Selection())).items] == ["one", "two"]
    with pytest.raises(Expired):
        await cacher.stream(Selection(), WatchQuery(str(first)))
    with await cacher.stream(Selection(), WatchQuery(str(second))) as stream:
        third = (await store.delete(key("one"))).mod_revision
        assert told(await take(stream, 1)) == [("DELETED", "one", third)]


class Unavailable(MemoryStore):
    """Does not answer lists as often as told."""

    refusals = 2

    async def list(self, prefix: str, *, revision: int = 0, limit: int = 0, start_after: str = "") -> ListPage:
        if self.refusals:
            self.refusals -= 1
            raise StoreUnavailable("no leader")
        return await super().list(prefix, revision=revision, limit=limit, start_after=start_after)


async def test_cache_is_filled_as_soon_as_the_store_answers(clock: FakeClock) -> None:
    store = Unavailable(clock)
    await store.create(key("one"), pod_value("one"))
    cacher = Cacher(PREFIX, pod_format(), store, clock, settings=SETTINGS)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(cacher.run())
        await clock.settle()
        was_ready = cacher.is_ready
        with pytest.raises(ServiceUnavailable, match="not filled yet"):
            await cacher.list(Selection())
        await clock.run_for(1)
        assert (was_ready, cacher.is_ready) == (False, True)
        assert [cached.name for cached in (await cacher.list(Selection())).items] == ["one"]
        running.cancel()
