"""The contract of Store: one suite, run against every backend."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from tests.conformance.storage.conftest import Bench
from tiphys_apiserver.storage.interface import (
    Compacted,
    Event,
    EventType,
    FutureRevision,
    KeyExists,
    KeyMissing,
    NewKey,
    NotTogether,
    RevisionMismatch,
    StoreClosed,
    Watch,
)

LONG = 20.0


async def take(watch: Watch, count: int) -> list[Event]:
    """The next events of a watch; fails when they do not come."""
    events: list[Event] = []
    async with asyncio.timeout(LONG):
        while len(events) < count:
            events.extend(await watch.__anext__())
    return events


def summary(events: Sequence[Event]) -> list[tuple[EventType, str, bytes, int]]:
    """What was deleted, a store may tell or not."""
    return [
        (event.type, event.key, b"" if event.type is EventType.DELETE else event.value, event.mod_revision)
        for event in events
    ]


async def test_created_key_is_read_back_with_its_revisions(bench: Bench) -> None:
    revision = await bench.store.create(bench.key("pods/a/x"), b"one")
    found = await bench.store.get(bench.key("pods/a/x"))
    assert found is not None
    assert (found.value, found.mod_revision, found.create_revision) == (b"one", revision, revision)


async def test_get_of_absent_key_is_none(bench: Bench) -> None:
    assert await bench.store.get(bench.key("pods/a/x")) is None


async def test_create_of_existing_key_is_refused_and_changes_nothing(bench: Bench) -> None:
    key = bench.key("pods/a/x")
    revision = await bench.store.create(key, b"one")
    before = await bench.store.revision()
    with pytest.raises(KeyExists, match="pods/a/x exists already"):
        await bench.store.create(key, b"two")
    found = await bench.store.get(key)
    assert found is not None
    assert (found.value, found.mod_revision) == (b"one", revision)
    assert await bench.store.revision() == before


async def test_update_at_the_expected_revision_replaces_and_keeps_the_creation(bench: Bench) -> None:
    key = bench.key("pods/a/x")
    created = await bench.store.create(key, b"one")
    updated = await bench.store.update(key, b"two", expected_revision=created)
    found = await bench.store.get(key)
    assert updated > created
    assert found is not None
    assert (found.value, found.mod_revision, found.create_revision) == (b"two", updated, created)


async def test_update_at_another_revision_is_refused_with_what_is_there(bench: Bench) -> None:
    key = bench.key("pods/a/x")
    created = await bench.store.create(key, b"one")
    updated = await bench.store.update(key, b"two", expected_revision=created)
    with pytest.raises(RevisionMismatch) as caught:
        await bench.store.update(key, b"three", expected_revision=created)
    assert caught.value.current is not None
    assert (caught.value.current.value, caught.value.current.mod_revision) == (b"two", updated)


async def test_update_of_absent_key_is_refused_with_nothing_there(bench: Bench) -> None:
    with pytest.raises(RevisionMismatch) as caught:
        await bench.store.update(bench.key("pods/a/x"), b"one", expected_revision=1)
    assert caught.value.current is None
    assert await bench.store.get(bench.key("pods/a/x")) is None


async def test_delete_gives_the_last_value_and_the_revision_of_the_deletion(bench: Bench) -> None:
    key = bench.key("pods/a/x")
    created = await bench.store.create(key, b"one")
    gone = await bench.store.delete(key)
    assert (gone.value, gone.create_revision) == (b"one", created)
    assert created < gone.mod_revision <= await bench.store.revision()
    assert await bench.store.get(key) is None


async def test_delete_of_absent_key_is_refused(bench: Bench) -> None:
    with pytest.raises(KeyMissing):
        await bench.store.delete(bench.key("pods/a/x"))
    with pytest.raises(KeyMissing):
        await bench.store.delete(bench.key("pods/a/x"), expected_revision=3)


async def test_delete_at_another_revision_is_refused(bench: Bench) -> None:
    key = bench.key("pods/a/x")
    created = await bench.store.create(key, b"one")
    updated = await bench.store.update(key, b"two", expected_revision=created)
    with pytest.raises(RevisionMismatch) as caught:
        await bench.store.delete(key, expected_revision=created)
    assert caught.value.current is not None
    assert caught.value.current.mod_revision == updated
    assert (await bench.store.delete(key, expected_revision=updated)).value == b"two"


async def test_key_created_again_begins_anew(bench: Bench) -> None:
    key = bench.key("pods/a/x")
    await bench.store.create(key, b"one")
    gone = await bench.store.delete(key)
    again = await bench.store.create(key, b"two")
    found = await bench.store.get(key)
    assert found is not None
    assert found.create_revision == again > gone.mod_revision


@pytest.mark.parametrize("value", [b"", b"\0\xff" * 7, bytes(1_200_000)], ids=["empty", "not-text", "over-a-megabyte"])
async def test_values_are_any_bytes(bench: Bench, value: bytes) -> None:
    await bench.store.create(bench.key("pods/a/ü"), value)
    found = await bench.store.get(bench.key("pods/a/ü"))
    assert found is not None
    assert found.value == value


async def fill(bench: Bench, names: Sequence[str]) -> dict[str, int]:
    return {name: await bench.store.create(bench.key(name), name.encode()) for name in names}


async def test_list_has_the_keys_under_the_prefix_in_byte_order(bench: Bench) -> None:
    await fill(bench, ["pods/b/y", "pods/a/z", "podsx/a/x", "pods/a-b/x", "pod", "pods/a/é", "pods/a/x"])
    page = await bench.store.list(bench.key("pods/"))
    names = ["pods/a-b/x", "pods/a/x", "pods/a/z", "pods/a/é", "pods/b/y"]
    assert [item.key for item in page.items] == [bench.key(name) for name in names]
    assert [item.value for item in page.items] == [name.encode() for name in names]
    assert (page.more, page.remaining) == (False, 0)
    assert page.revision == await bench.store.revision()


async def test_list_of_nothing_tells_the_revision(bench: Bench) -> None:
    await fill(bench, ["pods/a/x"])
    page = await bench.store.list(bench.key("nodes/"))
    assert page.items == []
    assert page.revision == await bench.store.revision()


async def test_pages_follow_each_other_and_count_what_remains(bench: Bench) -> None:
    await fill(bench, [f"pods/a/{number}" for number in range(7)])
    first = await bench.store.list(bench.key("pods/"), limit=3)
    assert [item.key[-1] for item in first.items] == ["0", "1", "2"]
    assert (first.more, first.remaining) == (True, 4)
    second = await bench.store.list(
        bench.key("pods/"), limit=4, revision=first.revision, start_after=first.items[-1].key
    )
    assert [item.key[-1] for item in second.items] == ["3", "4", "5", "6"]
    assert (second.more, second.remaining) == (False, 0)


async def test_pages_at_one_revision_show_one_state(bench: Bench) -> None:
    made = await fill(bench, [f"pods/a/{number}" for number in range(6)])
    first = await bench.store.list(bench.key("pods/"), limit=2)
    await bench.store.delete(bench.key("pods/a/3"))
    await bench.store.create(bench.key("pods/a/35"), b"new")
    await bench.store.update(bench.key("pods/a/4"), b"changed", expected_revision=made["pods/a/4"])
    await bench.store.delete(bench.key("pods/a/5"))
    await bench.store.create(bench.key("pods/a/5"), b"again")
    second = await bench.store.list(
        bench.key("pods/"), limit=3, revision=first.revision, start_after=first.items[-1].key
    )
    assert [(item.key[-1], item.value) for item in second.items] == [
        ("2", b"pods/a/2"),
        ("3", b"pods/a/3"),
        ("4", b"pods/a/4"),
    ]
    assert (second.revision, second.more, second.remaining) == (first.revision, True, 1)
    third = await bench.store.list(
        bench.key("pods/"), limit=3, revision=first.revision, start_after=second.items[-1].key
    )
    assert [(item.value, item.create_revision) for item in third.items] == [(b"pods/a/5", made["pods/a/5"])]


async def test_get_at_a_revision_shows_the_past(bench: Bench) -> None:
    key = bench.key("pods/a/x")
    created = await bench.store.create(key, b"one")
    updated = await bench.store.update(key, b"two", expected_revision=created)
    gone = (await bench.store.delete(key)).mod_revision
    seen = [await bench.store.get(key, revision=revision) for revision in (created - 1, created, updated, gone)]
    assert [found.value if found else None for found in seen] == [None, b"one", b"two", None]


async def test_future_revision_is_refused(bench: Bench) -> None:
    await bench.store.create(bench.key("pods/a/x"), b"one")
    to_come = await bench.store.revision() + 1000 * bench.store.spacing
    with pytest.raises(FutureRevision):
        await bench.store.list(bench.key("pods/"), revision=to_come)
    with pytest.raises(FutureRevision):
        await bench.store.compact(to_come)


async def test_compaction_forgets_the_past_and_keeps_the_present(bench: Bench) -> None:
    key, prefix = bench.key("pods/a/x"), bench.key("pods/")
    created = await bench.store.create(key, b"one")
    updated = await bench.store.update(key, b"two", expected_revision=created)
    other = await bench.store.create(bench.key("pods/a/y"), b"other")
    last = await bench.store.update(key, b"three", expected_revision=updated)
    await bench.store.compact(other)
    with pytest.raises(Compacted):
        await bench.store.list(prefix, revision=updated)
    with pytest.raises(Compacted):
        await bench.store.get(key, revision=created)
    at = await bench.store.list(prefix, revision=other)
    assert [item.value for item in at.items] == [b"two", b"other"]
    now = await bench.store.list(prefix)
    assert [(item.value, item.mod_revision) for item in now.items] == [(b"three", last), (b"other", other)]


async def test_watch_from_a_compacted_revision_is_refused_and_from_its_edge_is_not(bench: Bench) -> None:
    key = bench.key("pods/a/x")
    created = await bench.store.create(key, b"one")
    updated = await bench.store.update(key, b"two", expected_revision=created)
    gone = await bench.store.delete(key)
    await bench.store.compact(updated)
    with pytest.raises(Compacted):
        async with bench.store.watch(bench.key("pods/"), after_revision=created) as watch:
            await take(watch, 1)
    async with bench.store.watch(bench.key("pods/"), after_revision=updated) as watch:
        assert summary(await take(watch, 1)) == [(EventType.DELETE, key, b"", gone.mod_revision)]


async def test_compacting_again_or_further_back_does_nothing(bench: Bench) -> None:
    created = await bench.store.create(bench.key("pods/a/x"), b"one")
    updated = await bench.store.update(bench.key("pods/a/x"), b"two", expected_revision=created)
    await bench.store.compact(updated)
    await bench.store.compact(updated)
    await bench.store.compact(created)
    assert len((await bench.store.list(bench.key("pods/"), revision=updated)).items) == 1


async def test_deleted_keys_stay_away_after_compaction(bench: Bench) -> None:
    await fill(bench, ["pods/a/x", "pods/a/y"])
    gone = await bench.store.delete(bench.key("pods/a/x"))
    await bench.store.compact(gone.mod_revision)
    assert [item.key for item in (await bench.store.list(bench.key("pods/"))).items] == [bench.key("pods/a/y")]
    assert await bench.store.create(bench.key("pods/a/x"), b"new") > gone.mod_revision


async def test_watch_tells_each_change_once_in_order(bench: Bench) -> None:
    key = bench.key("pods/a/x")
    start = await bench.store.revision()
    async with bench.store.watch(bench.key("pods/"), after_revision=start) as watch:
        created = await bench.store.create(key, b"one")
        updated = await bench.store.update(key, b"two", expected_revision=created)
        await bench.store.create(bench.key("nodes/n"), b"another resource")
        gone = (await bench.store.delete(key)).mod_revision
        events = await take(watch, 3)
    assert summary(events) == [
        (EventType.PUT, key, b"one", created),
        (EventType.PUT, key, b"two", updated),
        (EventType.DELETE, key, b"", gone),
    ]
    assert events[2].value in (b"two", b"")


async def test_watch_from_the_past_begins_right_after_it_and_goes_on(bench: Bench) -> None:
    made = await fill(bench, [f"pods/a/{number}" for number in range(5)])
    async with bench.store.watch(bench.key("pods/"), after_revision=made["pods/a/1"]) as watch:
        past = await take(watch, 3)
        new = await bench.store.create(bench.key("pods/a/9"), b"new")
        live = await take(watch, 1)
    assert [event.key[-1] for event in past] == ["2", "3", "4"]
    assert summary(live) == [(EventType.PUT, bench.key("pods/a/9"), b"new", new)]


async def test_watch_begun_from_a_list_misses_nothing(bench: Bench) -> None:
    await fill(bench, ["pods/a/1"])
    page = await bench.store.list(bench.key("pods/"))
    await fill(bench, ["pods/a/2"])
    async with bench.store.watch(bench.key("pods/"), after_revision=page.revision) as watch:
        await fill(bench, ["pods/a/3"])
        assert [event.key[-1] for event in await take(watch, 2)] == ["2", "3"]


async def test_all_watches_see_one_order_under_concurrent_writes(bench: Bench) -> None:
    start = await bench.store.revision()
    prefix = bench.key("pods/")
    async with (
        bench.store.watch(prefix, after_revision=start) as first,
        bench.store.watch(prefix, after_revision=start) as second,
    ):
        async with asyncio.TaskGroup() as group:
            for number in range(40):
                group.create_task(bench.store.create(bench.key(f"pods/a/{number}"), b"v"))
        seen = summary(await take(first, 40))
        assert summary(await take(second, 40)) == seen
    revisions = [entry[3] for entry in seen]
    assert revisions == sorted(set(revisions))


async def test_progress_reaches_a_revision_made_by_other_keys(bench: Bench) -> None:
    start = await bench.store.revision()
    async with bench.store.watch(bench.key("pods/"), after_revision=start) as watch, asyncio.TaskGroup() as group:
        reading = group.create_task(take(watch, 2))
        await bench.store.create(bench.key("pods/a/x"), b"mine")
        revision = await bench.store.create(bench.key("nodes/n"), b"not mine")
        async with asyncio.timeout(LONG):
            await watch.wait_revision(revision)
        assert watch.revision >= revision
        await bench.store.create(bench.key("pods/a/y"), b"mine")
        assert len(await reading) == 2


async def test_progress_is_not_claimed_before_the_reader_took_the_events(bench: Bench) -> None:
    start = await bench.store.revision()
    async with bench.store.watch(bench.key("pods/"), after_revision=start) as watch:
        revision = await bench.store.create(bench.key("pods/a/x"), b"one")
        assert watch.revision < revision
        await take(watch, 1)
        assert watch.revision < revision


async def test_of_many_creates_of_one_key_one_wins(bench: Bench) -> None:
    async def attempt(number: int) -> bool:
        try:
            await bench.store.create(bench.key("pods/a/x"), str(number).encode())
        except KeyExists:
            return False
        return True

    async with asyncio.TaskGroup() as group:
        attempts = [group.create_task(attempt(number)) for number in range(20)]
        neighbours = [group.create_task(bench.store.create(bench.key(f"pods/b/{n}"), b"v")) for n in range(20)]
    winners = [number for number, task in enumerate(attempts) if task.result()]
    found = await bench.store.get(bench.key("pods/a/x"))
    assert found is not None
    assert [str(number).encode() for number in winners] == [found.value]
    assert len({task.result() for task in neighbours}) == 20


async def test_of_many_updates_at_one_revision_one_wins(bench: Bench) -> None:
    key = bench.key("pods/a/x")
    created = await bench.store.create(key, b"start")
    losers: list[int] = []

    async def attempt(number: int) -> int:
        try:
            return await bench.store.update(key, str(number).encode(), expected_revision=created)
        except RevisionMismatch as err:
            losers.append(err.current.mod_revision if err.current else 0)
            return 0

    async with asyncio.TaskGroup() as group:
        attempts = [group.create_task(attempt(number)) for number in range(20)]
    winners = [task.result() for task in attempts if task.result()]
    assert len(winners) == 1
    assert losers == winners * 19


async def test_counter_of_many_writers_with_retries_is_exact(bench: Bench) -> None:
    key = bench.key("pods/a/x")
    await bench.store.create(key, b"0")

    async def increment() -> None:
        current = await bench.store.get(key)
        while True:
            assert current is not None
            value = str(int(current.value) + 1).encode()
            try:
                await bench.store.update(key, value, expected_revision=current.mod_revision)
            except RevisionMismatch as err:
                current = err.current
            else:
                return

    async with asyncio.TaskGroup() as group:
        for _ in range(15):
            group.create_task(increment())
    found = await bench.store.get(key)
    assert found is not None
    assert found.value == b"15"


async def test_delete_and_create_in_flight_together_leave_one_true_story(bench: Bench) -> None:
    key = bench.key("pods/a/x")
    start = await bench.store.create(key, b"old")
    async with bench.store.watch(bench.key("pods/"), after_revision=start) as watch:
        async with asyncio.TaskGroup() as group:
            deleting = group.create_task(bench.store.delete(key))
            creating = group.create_task(create_patiently(bench, key))
        events = await take(watch, 2)
    assert summary(events) == [
        (EventType.DELETE, key, b"", deleting.result().mod_revision),
        (EventType.PUT, key, b"new", creating.result()),
    ]


async def create_patiently(bench: Bench, key: str) -> int:
    while True:
        try:
            return await bench.store.create(key, b"new")
        except KeyExists:
            await asyncio.sleep(0)


async def test_cancelled_write_leaves_the_store_usable(bench: Bench) -> None:
    async with asyncio.TaskGroup() as group:
        doomed = group.create_task(bench.store.create(bench.key("pods/a/x"), b"one"))
        other = group.create_task(bench.store.create(bench.key("pods/a/y"), b"two"))
        await asyncio.sleep(0)
        doomed.cancel()
    kept = await bench.store.get(bench.key("pods/a/y"))
    assert kept is not None
    assert kept.mod_revision == other.result()
    await bench.store.create(bench.key("pods/a/z"), b"three")


async def wait_expired(bench: Bench, watch: Watch, seconds: float) -> list[Event]:
    if bench.clock is not None:
        bench.clock.advance(seconds)
    return await take(watch, 1)


async def test_key_with_a_life_is_deleted_as_an_event(bench: Bench) -> None:
    key = bench.key("events/a/x")
    created = await bench.store.create(key, b"short", ttl_s=2)
    stays = await bench.store.create(bench.key("events/a/y"), b"long", ttl_s=3600)
    async with bench.store.watch(bench.key("events/"), after_revision=stays) as watch:
        events = await wait_expired(bench, watch, 2.1)
    assert [(event.type, event.key) for event in events] == [(EventType.DELETE, key)]
    assert events[0].mod_revision > created
    assert await bench.store.get(key) is None
    assert await bench.store.get(bench.key("events/a/y")) is not None


async def test_A56_keys_whose_lives_end_together_are_deleted_at_revisions_of_their_own(bench: Bench) -> None:
    last = 0
    for number in range(20):
        last = await bench.store.create(bench.key(f"events/a/{number:02}"), b"e", ttl_s=2)
    async with bench.store.watch(bench.key("events/"), after_revision=last) as watch:
        events = await wait_expired(bench, watch, 2.1)
        while len(events) < 20:
            events += await watch.__anext__()
    gone = [event.mod_revision for event in events]
    assert gone == sorted(set(gone))
    async with bench.store.watch(bench.key("events/"), after_revision=gone[6]) as watch:
        assert [event.mod_revision for event in await take(watch, 13)] == gone[7:]


async def test_update_without_a_life_makes_a_key_stay(bench: Bench) -> None:
    key = bench.key("events/a/x")
    created = await bench.store.create(key, b"short", ttl_s=2)
    await bench.store.update(key, b"for good", expected_revision=created)
    other = await bench.store.create(bench.key("events/a/y"), b"short", ttl_s=2)
    async with bench.store.watch(bench.key("events/"), after_revision=other) as watch:
        events = await wait_expired(bench, watch, 2.1)
    assert [event.key for event in events] == [bench.key("events/a/y")]
    assert await bench.store.get(key) is not None


async def test_close_ends_watches_and_refuses_calls(bench: Bench) -> None:
    async with bench.store.watch(bench.key("pods/"), after_revision=await bench.store.revision()) as watch:
        await bench.store.close()
        with pytest.raises(StopAsyncIteration):
            await watch.__anext__()
    await bench.store.close()
    with pytest.raises(StoreClosed):
        await bench.store.create(bench.key("pods/a/x"), b"late")
    with pytest.raises(StoreClosed):
        await bench.store.list(bench.key("pods/"))


def together(bench: Bench, *names: str) -> list[NewKey]:
    return [NewKey(bench.key(f"pods/a/{name}"), name.encode()) for name in names]


async def test_A56_keys_created_together_have_revisions_of_their_own_and_an_event_each(bench: Bench) -> None:
    before = await bench.store.revision()
    async with bench.store.watch(bench.key("pods/"), after_revision=before) as watch:
        revisions = await bench.store.create_together(together(bench, "c", "a", "b"))
        assert list(revisions) == sorted(set(revisions))
        assert before < revisions[0]
        assert revisions[-1] <= await bench.store.revision()
        events = await take(watch, 3)
    told = [(bench.key(f"pods/a/{name}"), name.encode(), at) for name, at in zip("cab", revisions, strict=True)]
    assert [(event.key, event.value, event.mod_revision) for event in events] == told
    found = await bench.store.list(bench.key("pods/"))
    assert [(item.key, item.value, item.mod_revision) for item in found.items] == sorted(told)


async def test_A56_a_watch_resumes_between_two_keys_created_together(bench: Bench) -> None:
    revisions = await bench.store.create_together(together(bench, "a", "b", "c", "d"))
    for at, revision in enumerate(revisions[:-1]):
        async with bench.store.watch(bench.key("pods/"), after_revision=revision) as watch:
            events = await take(watch, 3 - at)
        assert [event.mod_revision for event in events] == list(revisions[at + 1 :])


async def test_A56_a_list_at_a_revision_amid_a_pack_shows_what_was_created_up_to_it(bench: Bench) -> None:
    await bench.store.create(bench.key("pods/a/0"), b"0")
    revisions = await bench.store.create_together(together(bench, "c", "a", "b"))
    for count, revision in enumerate(revisions, start=1):
        expected = [bench.key(f"pods/a/{name}") for name in sorted(["0", *"cab"[:count]])]
        page = await bench.store.list(bench.key("pods/"), revision=revision)
        assert [item.key for item in page.items] == expected
        page = await bench.store.list(bench.key("pods/"), revision=revision, limit=2)
        assert ([item.key for item in page.items], page.remaining) == (expected[:2], count - 1)
        there = [await bench.store.get(bench.key(f"pods/a/{name}"), revision=revision) is not None for name in "cab"]
        assert there == [number < count for number in range(3)]


async def test_A56_a_key_created_in_a_pack_is_written_and_deleted_as_any_other(bench: Bench) -> None:
    revisions = await bench.store.create_together(together(bench, "a", "b", "c"))
    with pytest.raises(RevisionMismatch):
        await bench.store.update(bench.key("pods/a/b"), b"!", expected_revision=1)
    updated = await bench.store.update(bench.key("pods/a/b"), b"2", expected_revision=revisions[1])
    gone = await bench.store.delete(bench.key("pods/a/c"), expected_revision=revisions[2])
    assert gone.value == b"c"
    assert revisions[-1] < updated < gone.mod_revision
    async with bench.store.watch(bench.key("pods/"), after_revision=revisions[-1]) as watch:
        events = await take(watch, 2)
    assert summary(events) == [
        (EventType.PUT, bench.key("pods/a/b"), b"2", updated),
        (EventType.DELETE, bench.key("pods/a/c"), b"", gone.mod_revision),
    ]


async def test_A56_compaction_amid_a_pack_leaves_the_rest_of_it_to_watches(bench: Bench) -> None:
    first = await bench.store.create(bench.key("pods/a/first"), b"")
    revisions = await bench.store.create_together(together(bench, "a", "b", "c"))
    await bench.store.create(bench.key("pods/a/last"), b"")
    await bench.store.compact(revisions[1])
    async with bench.store.watch(bench.key("pods/"), after_revision=revisions[1]) as watch:
        events = await take(watch, 2)
    assert [event.key.rsplit("/", 1)[1] for event in events] == ["c", "last"]
    with pytest.raises(Compacted):
        await bench.store.list(bench.key("pods/"), revision=first)


@pytest.mark.parametrize("value", [b"\xf4TPl", b"\xfa\x7f\x06\x00\x05\xf4TPl", b"ends like a trailer \xf4TPl"])
async def test_A56_values_that_look_like_what_a_store_adds_are_given_back(bench: Bench, value: bytes) -> None:
    revisions = await bench.store.create_together([NewKey(bench.key(f"pods/a/{n}"), value) for n in range(2)])
    for number, revision in enumerate(revisions):
        found = await bench.store.get(bench.key(f"pods/a/{number}"))
        assert found is not None
        assert (found.value, found.mod_revision) == (value, revision)
    updated = await bench.store.update(bench.key("pods/a/1"), value, expected_revision=revisions[1])
    found = await bench.store.get(bench.key("pods/a/1"))
    assert found is not None
    assert (found.value, found.mod_revision) == (value, updated)


@pytest.mark.parametrize(
    "names",
    [
        pytest.param(("new", "there", "other"), id="there already"),
        pytest.param(("new", "other", "new"), id="twice in the pack"),
    ],
)
async def test_A56_one_key_that_is_there_refuses_all(bench: Bench, names: tuple[str, ...]) -> None:
    await bench.store.create(bench.key("pods/a/there"), b"first")
    before = await bench.store.revision()
    with pytest.raises(KeyExists):
        await bench.store.create_together(together(bench, *names))
    assert await bench.store.revision() == before
    found = await bench.store.list(bench.key("pods/"))
    assert [item.value for item in found.items] == [b"first"]


async def test_A56_more_keys_than_a_transaction_takes_are_refused(bench: Bench) -> None:
    with pytest.raises(NotTogether):
        await bench.store.create_together(together(bench, *(f"{number:03}" for number in range(129))))
    assert (await bench.store.list(bench.key("pods/"))).items == []


async def test_A56_a_thousand_keys_are_eight_packs_among_other_writers(bench: Bench) -> None:
    names = [f"{number:04}" for number in range(1000)]
    packs = [together(bench, *names[start : start + 125]) for start in range(0, 1000, 125)]
    async with asyncio.timeout(LONG), asyncio.TaskGroup() as group:
        for pack in packs:
            group.create_task(bench.store.create_together(pack))
            group.create_task(bench.store.create(pack[0].key + "-other", b""))
    found = await bench.store.list(bench.key("pods/"))
    assert len(found.items) == 1008
    assert len({item.mod_revision for item in found.items}) == 1008
