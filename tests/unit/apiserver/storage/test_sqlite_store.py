"""What only the SQLite store has: a file that outlives the process, groups of writes, a disk that fails."""

from __future__ import annotations

import asyncio
import fcntl
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.support.pod_cache import key, pod_value, running_cacher, take, told
from tiphys_apiserver.storage.interface import (
    Compacted,
    Event,
    EventType,
    KeyExists,
    NewKey,
    OutcomeUnknown,
    RevisionMismatch,
    StoreDamaged,
    StoreFull,
    StoreInUse,
    StoreUnavailable,
)
from tiphys_apiserver.storage.list_query import WatchQuery
from tiphys_apiserver.storage.selection import Selection
from tiphys_apiserver.storage.sqlite.database import Row, Writer
from tiphys_apiserver.storage.sqlite.store import SqliteStore
from tiphys_component.clock import FakeClock

A, B = "/registry/pods/a/x", "/registry/pods/a/y"


@asynccontextmanager
async def opened(path: Path, clock: FakeClock | None = None) -> AsyncIterator[SqliteStore]:
    store = await SqliteStore.open(path, clock or FakeClock())
    try:
        yield store
    finally:
        await store.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "store.db"


async def test_what_was_written_is_there_after_reopening(path: Path) -> None:
    async with opened(path) as store:
        created = await store.create(A, b"one")
        updated = await store.update(A, b"two", expected_revision=created)
        await store.create(B, b"gone")
        gone = (await store.delete(B)).mod_revision
    async with opened(path) as store:
        assert await store.revision() == gone
        found = await store.get(A)
        assert found is not None
        assert (found.value, found.mod_revision, found.create_revision) == (b"two", updated, created)
        assert await store.get(B) is None
        with pytest.raises(KeyExists):
            await store.create(A, b"again")
        assert await store.create(B, b"new") == gone + 1


async def test_A11_watch_resumes_across_a_restart(path: Path) -> None:
    async with opened(path) as store:
        first = await store.create(A, b"one")
        await store.update(A, b"two", expected_revision=first)
        await store.delete(A)
    async with opened(path) as store, store.watch("/registry/pods/", after_revision=first) as watch:
        events = await watch.__anext__()
        assert [(event.type, event.value) for event in events] == [(EventType.PUT, b"two"), (EventType.DELETE, b"")]


async def test_compaction_holds_across_a_restart_even_when_the_last_change_was_a_deletion(path: Path) -> None:
    async with opened(path) as store:
        first = await store.create(A, b"one")
        gone = (await store.delete(A)).mod_revision
        await store.compact(gone)
    async with opened(path) as store:
        assert await store.revision() == gone
        with pytest.raises(Compacted):
            await store.list("/registry/pods/", revision=first)
        assert await store.create(A, b"new") == gone + 1


async def test_compaction_cut_short_is_finished_at_the_next_start(path: Path) -> None:
    async with opened(path) as store:
        revision = await store.create(A, b"0")
        for number in range(1, 6):
            revision = await store.update(A, str(number).encode(), expected_revision=revision)
    writer = Writer(path)
    writer.open()
    writer.mark_compacted(revision)
    writer.close()
    async with opened(path):
        pass
    assert count_events(path) == 1


def count_events(path: Path) -> int:
    connection = sqlite3.connect(path)
    count: int = connection.execute("SELECT count(*) FROM event").fetchone()[0]
    connection.close()
    return count


async def test_compaction_frees_every_row_nobody_can_ask_for(path: Path) -> None:
    async with opened(path) as store:
        for name in range(20):
            revision = await store.create(f"{A}{name}", b"one")
            revision = await store.update(f"{A}{name}", b"two", expected_revision=revision)
            if name % 2:
                await store.delete(f"{A}{name}")
        await store.compact(await store.revision())
    assert count_events(path) == 10


async def test_second_server_is_refused_and_the_first_goes_on(path: Path) -> None:
    async with opened(path) as store:
        with pytest.raises(StoreInUse, match=r"in use by another API server \(process \d+\); stop it"):
            await SqliteStore.open(path, FakeClock())
        await store.create(A, b"one")
    async with opened(path) as store:
        assert await store.get(A) is not None


def write_text(path: Path) -> None:
    path.write_bytes(b"this is no database" * 100)


def write_foreign(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE notes (text)")
    connection.close()


def write_newer(path: Path) -> None:
    writer = Writer(path)
    writer.open()
    writer.close()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        pytest.param(write_text, "is damaged", id="not-a-database"),
        pytest.param(write_foreign, "another program", id="foreign-database"),
        pytest.param(write_newer, "has layout 99, this version reads 1", id="newer-layout"),
    ],
)
async def test_file_that_is_not_ours_is_refused(path: Path, spoil: object, words: str) -> None:
    path.parent.mkdir()
    assert callable(spoil)
    spoil(path)
    with pytest.raises(StoreDamaged, match=words):
        await SqliteStore.open(path, FakeClock())


async def test_path_that_can_not_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreUnavailable, match="check that the folder is there"):
        await SqliteStore.open(tmp_path / "file" / "store.db", FakeClock())


async def test_file_is_for_its_owner_only(path: Path) -> None:
    async with opened(path) as store:
        await store.create(A, b"secret")
        modes = {found.name: found.stat().st_mode & 0o777 for found in path.parent.iterdir()}
    assert set(modes.values()) == {0o600}, modes


class Scripted(Writer):
    """A writer that notes its transactions, and fails those it is told to."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.groups: list[int] = []
        self.failures: list[Exception] = []

    def commit(self, rows: Sequence[Row]) -> list[Event]:
        self.groups.append(len(rows))
        if self.failures:
            raise self.failures.pop(0)
        return super().commit(rows)


@pytest.fixture
async def scripted(path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[SqliteStore, Scripted]]:
    writer = Scripted(path)
    monkeypatch.setattr("tiphys_apiserver.storage.sqlite.store.Writer", lambda _path: writer)
    async with opened(path) as store:
        yield store, writer


async def test_writes_in_flight_share_a_transaction(scripted: tuple[SqliteStore, Scripted]) -> None:
    store, writer = scripted
    async with asyncio.TaskGroup() as group:
        for number in range(16):
            group.create_task(store.create(f"{A}{number}", b"v"))
    assert writer.groups == [16]


async def test_refused_write_costs_its_neighbours_nothing(scripted: tuple[SqliteStore, Scripted]) -> None:
    store, writer = scripted
    await store.create(A, b"there")
    async with asyncio.TaskGroup() as group:
        fine = [group.create_task(store.create(f"{B}{number}", b"v")) for number in range(3)]
        refused = [
            group.create_task(caught(store.create(A, b"again"))),
            group.create_task(caught(store.update(A, b"stale", expected_revision=1))),
            group.create_task(caught(store.delete(B))),
        ]
    assert [type(task.result()).__name__ for task in refused] == ["KeyExists", "RevisionMismatch", "KeyMissing"]
    assert sorted(task.result() for task in fine) == [3, 4, 5]
    assert writer.groups == [1, 3]


async def caught(write: Awaitable[object]) -> BaseException | None:
    try:
        await write
    except Exception as err:
        return err
    return None


@pytest.mark.parametrize(
    ("failure", "first", "follower"),
    [
        pytest.param(StoreFull("no space left"), StoreFull, StoreFull, id="disk-full"),
        pytest.param(OutcomeUnknown("disk failed"), OutcomeUnknown, StoreUnavailable, id="disk-failed"),
        pytest.param(ValueError("a fault of ours"), StoreUnavailable, StoreUnavailable, id="fault"),
    ],
)
async def test_failed_transaction_is_undone_with_all_that_was_based_on_it(
    scripted: tuple[SqliteStore, Scripted], failure: Exception, first: type, follower: type
) -> None:
    store, writer = scripted
    kept = await store.create(A, b"kept")
    writer.failures.append(failure)
    async with store.watch("/registry/", after_revision=kept) as watch, asyncio.TaskGroup() as group:
        update = group.create_task(caught(store.update(A, b"lost", expected_revision=kept)))
        create = group.create_task(caught(store.create(B, b"lost")))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        # Decided on top of the update, which is on its way to the disk by now.
        late = group.create_task(caught(store.update(A, b"later", expected_revision=kept + 1)))
        again = group.create_task(caught(store.create(f"{B}2", b"later")))
        await asyncio.wait([update, create, late, again])
        assert [type(task.result()) for task in (update, create)] == [first, first]
        assert [type(task.result()) for task in (late, again)] == [follower, follower]
        found = await store.get(A)
        assert found is not None
        assert (found.value, found.mod_revision) == (b"kept", kept)
        assert await store.revision() == kept
        # The next write is as if nothing had been: same revision, and it is the first thing a watch hears of.
        assert await store.update(A, b"better", expected_revision=kept) == kept + 1
        assert [event.value for event in await watch.__anext__()] == [b"better"]


async def test_refusal_waits_to_see_whether_what_stands_in_the_way_is_written(
    scripted: tuple[SqliteStore, Scripted],
) -> None:
    store, writer = scripted
    writer.failures.append(StoreFull("no space left"))
    async with asyncio.TaskGroup() as group:
        lost = group.create_task(caught(store.create(A, b"lost")))
        second = group.create_task(store.create(A, b"second"))
    assert isinstance(lost.result(), StoreFull)
    found = await store.get(A)
    assert found is not None
    assert (found.value, found.mod_revision) == (b"second", second.result())


async def test_full_disk_refuses_writes_keeps_reads_and_heals(path: Path) -> None:
    async with opened(path) as store:
        kept = await store.create(A, b"kept")
        limit_pages(store, 12)
        acknowledged: list[int] = []
        with pytest.raises(StoreFull, match=r"no space left .* free space on the file system of"):
            await fill(store, acknowledged)
        found = await store.get(A)
        assert found is not None
        assert found.mod_revision == kept
        assert len((await store.list("/registry/")).items) == len(acknowledged) + 1
        limit_pages(store, 10_000)
        assert await store.create(f"{B}new", bytes(2000)) == acknowledged[-1] + 1


async def fill(store: SqliteStore, acknowledged: list[int]) -> None:
    for number in range(100):
        acknowledged.append(await store.create(f"{B}{number}", bytes(2000)))


def limit_pages(store: SqliteStore, pages: int) -> None:
    """Make SQLite refuse to grow the file, as a full disk does."""
    store._threads._writer._db.execute(f"PRAGMA max_page_count = {pages}")


async def test_locked_database_is_unavailable_and_heals(path: Path) -> None:
    async with opened(path) as store:
        await store.create(A, b"one")
        store._threads._writer._db.execute("PRAGMA busy_timeout = 10")
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailable, match="locked by another program; close it"):
            await store.create(B, b"two")
        assert await store.get(A) is not None
        other.execute("ROLLBACK")
        other.close()
        await store.create(B, b"two")


async def test_lock_of_a_dead_server_is_free(path: Path) -> None:
    async with opened(path):
        pass
    lock = path.with_name("store.db.lock")
    assert lock.exists()
    with lock.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with pytest.raises(StoreInUse):
            await SqliteStore.open(path, FakeClock())
    async with opened(path):
        pass


async def test_life_of_a_key_goes_on_across_a_restart(path: Path) -> None:
    clock = FakeClock()
    async with opened(path, clock) as store:
        await store.create(A, b"short", ttl_s=100)
        await store.create(B, b"long", ttl_s=1000)
    clock.advance(150)
    async with opened(path, clock) as store:
        async with store.watch("/registry/", after_revision=await store.revision()) as watch:
            clock.advance(0)
            assert [event.key for event in await watch.__anext__()] == [A]
        assert [item.key for item in (await store.list("/registry/")).items] == [B]


async def test_expiry_that_the_disk_refused_is_tried_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer, clock = Scripted(path), FakeClock()
    monkeypatch.setattr("tiphys_apiserver.storage.sqlite.store.Writer", lambda _path: writer)
    async with opened(path, clock) as store:
        created = await store.create(A, b"short", ttl_s=10)
        writer.failures.append(StoreFull("no space left"))
        async with store.watch("/registry/", after_revision=created) as watch:
            clock.advance(11)
            assert isinstance(await caught(store.update(A, b"x", expected_revision=99)), RevisionMismatch)
            clock.advance(2)
            assert [event.type for event in await watch.__anext__()] == [EventType.DELETE]


async def test_close_finishes_the_writes_begun(path: Path) -> None:
    store = await SqliteStore.open(path, FakeClock())
    async with asyncio.TaskGroup() as group:
        writes = [group.create_task(store.create(f"{A}{number}", b"v")) for number in range(5)]
        await asyncio.sleep(0)
        await store.close()
    assert [task.result() for task in writes] == [2, 3, 4, 5, 6]
    async with opened(path) as store:
        assert await store.revision() == 6


async def test_A11_client_watch_resumes_across_a_restart_of_the_server(path: Path) -> None:
    clock = FakeClock()
    async with opened(path, clock) as store, running_cacher(store, clock):
        first = await store.create(key("one"), pod_value("one"))
        second = await store.create(key("two"), pod_value("two"))
        third = (await store.delete(key("one"))).mod_revision
    async with opened(path, clock) as store, running_cacher(store, clock) as cacher:
        with await cacher.stream(Selection(), WatchQuery(str(first))) as stream:
            assert told(await take(stream, 2)) == [("ADDED", "two", second), ("DELETED", "one", third)]


async def test_object_is_in_the_cache_when_its_write_returns(path: Path) -> None:
    clock = FakeClock()
    async with opened(path, clock) as store, running_cacher(store, clock) as cacher:

        async def write_and_look(name: str) -> bool:
            await store.create(key(name), pod_value(name))
            return cacher.get_nowait("a", name) is not None

        async with asyncio.TaskGroup() as group:
            looks = [group.create_task(write_and_look(f"p{number}")) for number in range(20)]
        assert all(look.result() for look in looks)


async def test_A56_pack_is_never_parted_between_two_transactions(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second of two transactions fails: of no pack is a part there."""
    commits: list[list[str]] = []
    commit = Writer.commit

    def counted(writer: Writer, rows: Sequence[Row]) -> list[Event]:
        commits.append([row.key for row in rows])
        if len(commits) > 1:
            raise StoreFull("no space")
        return commit(writer, rows)

    monkeypatch.setattr("tiphys_apiserver.storage.sqlite.store._GROUP", 4)
    monkeypatch.setattr(Writer, "commit", counted)
    packs = [[NewKey(f"/registry/pods/a/{pack}{number}", b"") for number in range(3)] for pack in "xyz"]
    async with opened(path) as store:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(_outcome(store, pack)) for pack in packs]
        assert [task.result() for task in tasks] == ["stored", "stored", "refused"]
        found = {item.key for item in (await store.list("/registry/pods/")).items}
    assert found == {new.key for pack in packs[:2] for new in pack}
    assert [len(keys) for keys in commits] == [6, 3]


async def _outcome(store: SqliteStore, pack: Sequence[NewKey]) -> str:
    try:
        await store.create_together(pack)
    except StoreUnavailable:
        return "refused"
    return "stored"
