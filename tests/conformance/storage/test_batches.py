"""Writes of one batch: each succeeds or fails by itself, on every backend."""

from __future__ import annotations

import asyncio

from tests.conformance.storage.conftest import Bench
from tests.conformance.storage.test_store import LONG, take
from tiphys_apiserver.storage.interface import KeyExists, NewKey, Replacement, RevisionMismatch


async def test_writes_of_a_batch_succeed_or_fail_each_by_itself(bench: Bench) -> None:
    keys = {name: bench.key(f"pods/a/{name}") for name in ("new", "there", "fresh", "stale", "absent")}
    revisions = {name: await bench.store.create(keys[name], b"old") for name in ("there", "fresh", "stale")}
    await bench.store.update(keys["stale"], b"newer", expected_revision=revisions["stale"])
    outcomes = await bench.store.write_each(
        [
            NewKey(keys["new"], b"x"),
            NewKey(keys["there"], b"x"),
            Replacement(keys["fresh"], b"x", revisions["fresh"]),
            Replacement(keys["stale"], b"x", revisions["stale"]),
            Replacement(keys["absent"], b"x", 0),
        ]
    )
    assert [type(outcome) for outcome in outcomes] == [int, KeyExists, int, RevisionMismatch, RevisionMismatch]
    stale = outcomes[3]
    assert isinstance(stale, RevisionMismatch)
    assert stale.current is not None
    assert stale.current.value == b"newer"
    found = {item.key: item for item in (await bench.store.list(bench.key("pods/"))).items}
    assert {name: found[key].value for name, key in keys.items() if key in found} == {
        "new": b"x",
        "there": b"old",
        "fresh": b"x",
        "stale": b"newer",
    }
    assert (found[keys["new"]].mod_revision, found[keys["fresh"]].mod_revision) == (outcomes[0], outcomes[2])


async def test_key_that_is_written_twice_in_a_batch_is_written_once(bench: Bench) -> None:
    key = bench.key("pods/a/x")
    outcomes = await bench.store.write_each([NewKey(key, b"one"), NewKey(key, b"two")])
    assert sorted(isinstance(outcome, KeyExists) for outcome in outcomes) == [False, True]


async def test_large_batch_has_a_revision_and_an_event_for_each(bench: Bench) -> None:
    names = [bench.key(f"pods/a/{number:03}") for number in range(300)]
    before = await bench.store.revision()
    async with bench.store.watch(bench.key("pods/"), after_revision=before) as watch:
        created = await bench.store.write_each([NewKey(name, b"x") for name in names])
        replaced = await bench.store.write_each(
            [Replacement(name, b"y", at) for name, at in zip(names, created, strict=True) if isinstance(at, int)]
        )
        events = await take(watch, 600)
    revisions = [event.mod_revision for event in events]
    assert revisions == sorted(at for at in (*created, *replaced) if isinstance(at, int))
    assert sorted(event.key for event in events if event.value == b"y") == names


async def test_batches_of_several_writers_lose_nothing(bench: Bench) -> None:
    batches = [[NewKey(bench.key(f"pods/a/{writer}-{n}"), b"x") for n in range(50)] for writer in range(8)]
    async with asyncio.timeout(LONG), asyncio.TaskGroup() as group:
        for batch in batches:
            group.create_task(bench.store.write_each(batch))
            group.create_task(bench.store.create(batch[0].key + "-other", b"x"))
    found = (await bench.store.list(bench.key("pods/"))).items
    assert len(found) == len({item.mod_revision for item in found}) == 408


async def test_empty_batch_is_no_write(bench: Bench) -> None:
    before = await bench.store.revision()
    assert list(await bench.store.write_each([])) == []
    assert await bench.store.revision() == before
