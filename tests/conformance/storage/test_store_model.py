"""Random histories against a model: what every revision shows, and what a watch from any of them tells."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.etcd import EtcdMember
from tiphys_apiserver.storage.etcd.connection import EtcdOptions
from tiphys_apiserver.storage.etcd.store import open_etcd
from tiphys_apiserver.storage.interface import (
    EventType,
    KeyExists,
    KeyMissing,
    NewKey,
    RevisionMismatch,
    StorageError,
    Store,
)
from tiphys_apiserver.storage.memory.store import MemoryStore
from tiphys_apiserver.storage.sqlite.store import SqliteStore
from tiphys_component.clock import FakeClock, SystemClock

# A verb, a key's number, and for a watch or list how far back it reaches, for a compaction how far it goes.
Step = tuple[str, int, int]
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["create", "update", "delete", "stale", "reopen", "together", "beside"]),
        st.integers(0, 5),
        st.integers(0, 9),
    ),
    max_size=30,
)


@dataclass(slots=True)
class Model:
    """Every state there was, by revision."""

    states: list[tuple[int, dict[str, tuple[bytes, int]]]]

    @property
    def now(self) -> dict[str, tuple[bytes, int]]:
        return self.states[-1][1]

    def put(self, revision: int, key: str, value: bytes) -> None:
        self.states.append((revision, {**self.now, key: (value, revision)}))

    def drop(self, revision: int, key: str) -> None:
        self.states.append((revision, {name: entry for name, entry in self.now.items() if name != key}))


async def run_step(store: Store, model: Model, root: str, step: Step, number: int) -> None:
    verb, which, _ = step
    key, value = f"{root}pods/{which % 2}/{which}", f"{number}".encode()
    entry = model.now.get(key)
    if verb == "create":
        try:
            model.put(await store.create(key, value), key, value)
            assert entry is None
        except KeyExists:
            assert entry is not None
    elif verb == "together":
        names = [f"{root}pods/{one % 2}/{one}" for one in range(which, which + 3)]
        try:
            revisions = await store.create_together([NewKey(name, value) for name in names])
            assert not model.now.keys() & set(names)
        except KeyExists:
            assert model.now.keys() & set(names)
            return
        for name, revision in zip(names, revisions, strict=True):
            model.put(revision, name, value)
    elif verb == "beside":
        names = [f"{root}pods/{one % 2}/{one}" for one in range(which, which + 4)]
        await run_beside(store, model, names, value, how=step[2])
    elif verb in ("update", "stale"):
        expected = entry[1] if entry and verb == "update" else 1
        if entry and verb == "update":
            model.put(await store.update(key, value, expected_revision=expected), key, value)
            return
        with pytest.raises(RevisionMismatch) as refused:
            await store.update(key, value, expected_revision=expected)
        assert (refused.value.current is None) == (entry is None)
    elif verb == "delete":
        try:
            gone = await store.delete(key)
            assert entry is not None
            assert gone.value == entry[0]
            model.drop(gone.mod_revision, key)
        except KeyMissing:
            assert entry is None


async def run_beside(store: Store, model: Model, names: Sequence[str], value: bytes, *, how: int) -> None:
    """Change several keys at once, each by itself: what is there is replaced or deleted, one of them too late."""
    before = model.now
    too_late = how % 4

    async def change(at: int, name: str) -> int | StorageError:
        if name not in before:
            return await store.create(name, value)
        expected = max(1, before[name][1] - store.spacing * (at == too_late))
        try:
            if (at + how) % 3:
                return await store.update(name, value, expected_revision=expected)
            gone = await store.delete(name, expected_revision=expected)
            assert gone.value == before[name][0]
            return gone.mod_revision
        except RevisionMismatch as err:
            return err

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(change(at, name)) for at, name in enumerate(names)]
    changed: dict[int, int] = {}
    for at, task in enumerate(tasks):
        outcome = task.result()
        assert isinstance(outcome, RevisionMismatch) == (names[at] in before and at == too_late)
        if isinstance(outcome, int):
            changed[outcome] = at
    for revision, at in sorted(changed.items()):
        if names[at] in before and (at + how) % 3 == 0:
            model.drop(revision, names[at])
        else:
            model.put(revision, names[at], value)


async def check_states(store: Store, model: Model, root: str) -> None:
    for revision, state in model.states:
        page = await store.list(f"{root}pods/", revision=revision)
        assert [(item.key, (item.value, item.mod_revision)) for item in page.items] == sorted(state.items())
        first = await store.list(f"{root}pods/", revision=revision, limit=2)
        assert [item.key for item in first.items] == sorted(state)[:2]
        assert first.remaining == max(0, len(state) - 2)
        for which in range(3):
            found = await store.get(key := f"{root}pods/{which % 2}/{which}", revision=revision)
            assert (None if found is None else (found.value, found.mod_revision)) == state.get(key)
        rest = await store.list(f"{root}pods/1/", revision=revision, limit=2, start_after=f"{root}pods/1/1")
        assert [item.key for item in rest.items] == [k for k in sorted(state) if k > f"{root}pods/1/1"][:2]


async def check_watches(store: Store, model: Model, root: str) -> None:
    """From every revision, the events lead from its state to the last."""
    last_revision, last = model.states[-1]
    for revision, state in model.states[:-1]:
        seen = dict(state)
        async with asyncio.timeout(20), store.watch(f"{root}pods/", after_revision=revision) as watch:
            at = revision
            while at < last_revision:
                for event in await watch.__anext__():
                    assert event.mod_revision > at, "out of order or twice"
                    at = event.mod_revision
                    if event.type is EventType.DELETE:
                        assert event.value in (seen.pop(event.key)[0], b"")
                    else:
                        seen[event.key] = (event.value, at)
        assert seen == last


async def run(store: Store, steps: Sequence[Step], root: str, model: Model) -> None:
    for number, step in enumerate(steps):
        await run_step(store, model, root, step, number)


async def check_history(store: Store, steps: Sequence[Step], root: str) -> None:
    model = Model([(await store.revision(), {})])
    await run(store, steps, root, model)
    await check_states(store, model, root)
    await check_watches(store, model, root)
    middle = model.states[len(model.states) // 2][0]
    await store.compact(middle)
    model.states = [entry for entry in model.states if entry[0] >= middle]
    await check_states(store, model, root)
    await check_watches(store, model, root)


@given(steps=STEPS)
@settings(max_examples=60, deadline=None)
async def test_memory_tells_every_state_and_change(steps: Sequence[Step]) -> None:
    await check_history(MemoryStore(FakeClock()), steps, "/registry/")


@given(steps=STEPS)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_sqlite_tells_every_state_and_change_across_restarts(tmp_path: Path, steps: Sequence[Step]) -> None:
    path = tmp_path / f"{uuid.uuid4()}.db"
    async with opened(path) as store:
        model = Model([(await store.revision(), {})])
    rest = list(steps)
    while rest:
        cut = next((at for at, step in enumerate(rest) if step[0] == "reopen"), len(rest))
        async with opened(path) as store:
            await run(store, rest[:cut], "/registry/", model)
        rest = rest[cut + 1 :]
    async with opened(path) as store:
        await check_states(store, model, "/registry/")
        await check_watches(store, model, "/registry/")
        middle = model.states[len(model.states) // 2][0]
        await store.compact(middle)
    model.states = [entry for entry in model.states if entry[0] >= middle]
    async with opened(path) as store:
        await check_states(store, model, "/registry/")
        await check_watches(store, model, "/registry/")


@asynccontextmanager
async def opened(path: Path) -> AsyncIterator[SqliteStore]:
    store = await SqliteStore.open(path, FakeClock())
    try:
        yield store
    finally:
        await store.close()


@pytest.mark.etcd
@given(steps=STEPS)
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_etcd_tells_every_state_and_change(etcd: EtcdMember, steps: Sequence[Step]) -> None:
    async with open_etcd(EtcdOptions([etcd.endpoint]), SystemClock()) as store:
        await check_history(store, steps, f"/registry/{uuid.uuid4().hex[:8]}/")
