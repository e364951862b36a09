"""The embedded store: one SQLite file, written in groups.

A write is decided at once on the loop (the newest revision of every key is in memory, and this server is the only
writer), then waits with all others for the next transaction of the one writer thread. So a refused write costs its
neighbours nothing, and sixteen waiting writes share one flush of the disk. If the transaction fails, all that was
decided on top of it is undone and told so; nothing of it was acknowledged or shown to a watch.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from tiphys_apiserver.storage.feed import Feed
from tiphys_apiserver.storage.interface import (
    Compacted,
    Event,
    FutureRevision,
    KeyExists,
    KeyMissing,
    KeyValue,
    ListPage,
    NewKey,
    Replacement,
    RevisionMismatch,
    StorageError,
    StoreClosed,
    StoreUnavailable,
    Watch,
    check_together,
    write_each,
)
from tiphys_apiserver.storage.sqlite.database import Entry, Events, Opened, Reader, Row, Writer
from tiphys_component.clock import Clock, Timer
from tiphys_component.log import get_logger

_log = get_logger(__name__)
T = TypeVar("T")

# Writes of one transaction at most, and writes that may wait before new ones are refused.
_GROUP = 512
_QUEUE = 20_000
# Retry of an expiry that failed, and the least time between two rounds of expiry.
_EXPIRY_ROUND_S = 1.0


@dataclass(slots=True)
class _Write:
    row: Row
    # Where the key stood before, to undo; None if it was not there.
    before: Entry | None
    done: asyncio.Future[Event]
    # The same for writes that go into one transaction, whatever else does.
    pack: object | None = None


class SqliteStore:
    """The Store in one file; see Store for what each call promises. Made by ``open``."""

    spacing = 1

    def __init__(self, path: Path, clock: Clock, opened: Opened, threads: _Threads) -> None:
        self._path = path
        self._clock = clock
        self._threads = threads
        # Where each key stands, writes that are not yet committed included.
        self._entries = opened.entries
        self._decided = opened.revision
        self._compacted = opened.compacted
        self._swept = opened.swept
        # Its revision is the newest committed one.
        self._feed = Feed(opened.revision)
        self._waiting: list[_Write] = []
        self._committing: list[_Write] = []
        # The newest write of each key that is not committed, and who waits to see what becomes of them.
        self._unsettled: dict[str, _Write] = {}
        self._settled: asyncio.Future[None] | None = None
        self._is_scheduled = False
        self._closing = False
        self._idle = asyncio.Event()
        self._idle.set()
        self._compact_lock = asyncio.Lock()
        self._expiries = [(entry.expires, key) for key, entry in self._entries.items() if entry.expires is not None]
        heapq.heapify(self._expiries)
        self._timer: Timer | None = None
        self._set_timer()

    @classmethod
    async def open(cls, path: Path, clock: Clock) -> SqliteStore:
        """Open or make the file; its folder is made too. Close the store when done.

        Raises StoreInUse if another server has it, StoreDamaged, StoreUnavailable.
        """
        threads = _Threads(path)
        try:
            opened = await threads.open()
        except BaseException:
            threads.shutdown()
            raise
        store = cls(path, clock, opened, threads)
        if store._swept < store._compacted:
            await store._sweep()
        return store

    # -- reading

    async def get(self, key: str, *, revision: int = 0) -> KeyValue | None:
        """The key now or at ``revision``."""
        self._check_open()
        return await self._threads.read(lambda reader: reader.get(key, revision))

    async def list(self, prefix: str, *, revision: int = 0, limit: int = 0, start_after: str = "") -> ListPage:
        """Keys under ``prefix`` in order."""
        self._check_open()
        return await self._threads.read(lambda reader: reader.list(prefix, revision, limit, start_after))

    async def revision(self) -> int:
        """The newest committed revision."""
        self._check_open()
        return self._feed.revision

    @asynccontextmanager
    async def watch(self, prefix: str, *, after_revision: int) -> AsyncIterator[Watch]:
        """Events under ``prefix`` after a revision."""
        self._check_open()
        if after_revision < self._compacted:
            raise Compacted(self._compacted)
        watch = self._feed.open(prefix, after_revision)
        try:
            until = self._feed.revision
            history: Events = []
            if after_revision < until:
                history = await self._threads.read(lambda reader: reader.history(prefix, after_revision, until))
            watch.open_gate(history)
            yield watch
        finally:
            self._feed.forget(watch)

    # -- writing

    async def create(self, key: str, value: bytes, *, ttl_s: int = 0) -> int:
        """Write a new key."""
        while key in self._entries:
            if await self._is_settled(key):
                raise KeyExists(key)
        event = await self._write(key, value, None, ttl_s)
        return event.mod_revision

    async def create_together(self, keys: Sequence[NewKey]) -> Sequence[int]:
        """Write new keys, all or none."""
        check_together(keys)
        while taken := next((new.key for new in keys if new.key in self._entries), ""):
            if await self._is_settled(taken):
                raise KeyExists(taken)
        self._check_room(len(keys))
        pack = object()
        writes = [self._decide(new.key, new.value, None, new.ttl_s, pack=pack) for new in keys]
        return [(await write).mod_revision for write in writes]

    async def update(self, key: str, value: bytes, *, expected_revision: int, ttl_s: int = 0) -> int:
        """Replace a key."""
        while True:
            entry = self._entries.get(key)
            if entry is not None and entry.revision == expected_revision:
                event = await self._write(key, value, entry, ttl_s)
                return event.mod_revision
            if await self._is_settled(key):
                raise RevisionMismatch(key, await self.get(key))

    async def write_each(self, writes: Sequence[NewKey | Replacement]) -> Sequence[int | StorageError]:
        """Write each by itself; those whose key stands as they expect are decided at once."""
        self._check_room(len(writes))
        outcomes: list[int | StorageError] = [0] * len(writes)
        decided: list[tuple[int, asyncio.Future[Event]]] = []
        others: list[int] = []
        for index, write in enumerate(writes):
            entry = self._entries.get(write.key)
            expected = write.expected_revision if isinstance(write, Replacement) else None
            if (entry.revision if entry is not None else None) == expected:
                decided.append((index, self._decide(write.key, write.value, entry, write.ttl_s)))
            else:
                others.append(index)
        for index, done in decided:
            try:
                outcomes[index] = (await done).mod_revision
            except StorageError as err:
                outcomes[index] = err
        if others:
            for index, outcome in zip(others, await write_each(self, [writes[index] for index in others]), strict=True):
                outcomes[index] = outcome
        return outcomes

    async def delete(self, key: str, *, expected_revision: int | None = None) -> KeyValue:
        """Delete a key."""
        while True:
            entry = self._entries.get(key)
            if entry is not None and expected_revision in (None, entry.revision):
                event = await self._write(key, None, entry, 0)
                return KeyValue(key, event.value, event.mod_revision, entry.create_revision)
            if await self._is_settled(key):
                if entry is None:
                    raise KeyMissing(key)
                raise RevisionMismatch(key, await self.get(key))

    async def _is_settled(self, key: str) -> bool:
        """Whether where the key stands is committed; else wait until that is decided: the caller looks again."""
        self._check_open()
        if key not in self._unsettled:
            return True
        if self._settled is None:
            self._settled = asyncio.get_running_loop().create_future()
        # Shared by all who wait: one who gives up must not wake the others.
        await asyncio.shield(self._settled)
        return False

    def _settle(self) -> None:
        if self._settled is not None:
            self._settled.set_result(None)
            self._settled = None

    async def _write(self, key: str, value: bytes | None, before: Entry | None, ttl_s: int) -> Event:
        self._check_room(1)
        return await self._decide(key, value, before, ttl_s)

    def _check_room(self, writes: int) -> None:
        self._check_open()
        if len(self._waiting) + writes > _QUEUE:
            raise StoreUnavailable(f"{_QUEUE} writes wait for the disk of {self._path}; try again later")

    def _decide(
        self, key: str, value: bytes | None, before: Entry | None, ttl_s: int, *, pack: object | None = None
    ) -> asyncio.Future[Event]:
        self._decided += 1
        revision = self._decided
        created = before.create_revision if before is not None else revision
        expires = self._clock.now().timestamp() + ttl_s if ttl_s else None
        row = Row(key, value, revision, created, before.revision if before is not None else 0, expires)
        if value is None:
            del self._entries[key]
        else:
            self._entries[key] = Entry(revision, created, expires)
        return self._enqueue(row, before, pack)

    def _enqueue(self, row: Row, before: Entry | None, pack: object | None = None) -> asyncio.Future[Event]:
        done: asyncio.Future[Event] = asyncio.get_running_loop().create_future()
        write = self._unsettled[row.key] = _Write(row, before, done, pack)
        self._waiting.append(write)
        self._schedule()
        return done

    def _schedule(self) -> None:
        """Begin a transaction at the end of this turn of the loop, if none runs."""
        if not self._is_scheduled and not self._committing:
            self._is_scheduled = True
            self._idle.clear()
            asyncio.get_running_loop().call_soon(self._commit)

    def _commit(self) -> None:
        self._is_scheduled = False
        size = self._group_size()
        self._committing, self._waiting = self._waiting[:size], self._waiting[size:]
        if not self._committing:
            self._idle.set()
            return
        rows = [write.row for write in self._committing]
        self._threads.write(lambda writer: writer.commit(rows)).add_done_callback(self._committed)

    def _group_size(self) -> int:
        """How many of those that wait go into the next transaction: as many as it takes, and no pack in two."""
        waiting, size = self._waiting, _GROUP
        while size < len(waiting) and waiting[size].pack is not None and waiting[size].pack is waiting[size - 1].pack:
            size += 1
        return size

    def _committed(self, outcome: asyncio.Future[Events]) -> None:
        error = outcome.exception()
        if error is None:
            self._acknowledge(outcome.result())
        else:
            self._undo(error)
        if self._waiting:
            self._commit()
        else:
            self._idle.set()

    def _acknowledge(self, events: Events) -> None:
        writes, self._committing = self._committing, []
        # Watches first: whoever sees its write return also finds it in the watch caches.
        self._feed.publish(events, events[-1].mod_revision)
        has_expiry = False
        for write, event in zip(writes, events, strict=True):
            if write.row.expires is not None:
                heapq.heappush(self._expiries, (write.row.expires, write.row.key))
                has_expiry = True
            if self._unsettled.get(write.row.key) is write:
                del self._unsettled[write.row.key]
            if not write.done.done():
                write.done.set_result(event)
        self._settle()
        if has_expiry:
            self._set_timer()

    def _undo(self, error: BaseException) -> None:
        """Take back what was decided since the last commit, the newest first, and tell the writers."""
        failed, based_on_it = self._committing, self._waiting
        self._committing, self._waiting = [], []
        self._decided = self._feed.revision
        self._unsettled.clear()
        for write in reversed([*failed, *based_on_it]):
            if write.before is None:
                self._entries.pop(write.row.key, None)
            else:
                self._entries[write.row.key] = write.before
        if not isinstance(error, StorageError):
            error = StoreUnavailable(f"{self._path} can't be written: {error!r}")
        _log.error("writes failed", store=str(self._path), writes=len(failed) + len(based_on_it), err=str(error))
        for write in failed:
            _fail(write.done, error)
        follow = StoreUnavailable(f"nothing was written, a write before it failed: {error}")
        for write in based_on_it:
            _fail(write.done, error if isinstance(error, StoreUnavailable) else follow)
        self._settle()

    # -- expiry

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._expiries and not self._closing:
            delay = max(0.0, self._expiries[0][0] - self._clock.now().timestamp())
            self._timer = self._clock.call_later(delay, self._expire)

    def _expire(self) -> None:
        """Delete what is over its time: writes like any other, but nobody waits for them."""
        self._timer = None
        now = self._clock.now().timestamp()
        while self._expiries and self._expiries[0][0] <= now:
            expires, key = heapq.heappop(self._expiries)
            entry = self._entries.get(key)
            # Written again since, or deleted: that write has its own expiry.
            if entry is None or entry.expires != expires:
                continue
            self._expire_key(key, entry)
        self._set_timer()

    def _expire_key(self, key: str, entry: Entry) -> None:
        self._decided += 1
        row = Row(key, None, self._decided, entry.create_revision, entry.revision, None)
        del self._entries[key]
        self._enqueue(row, entry).add_done_callback(lambda outcome: self._expired(outcome, key))

    def _expired(self, outcome: asyncio.Future[Event], key: str) -> None:
        if outcome.cancelled() or outcome.exception() is None:
            return
        entry = self._entries.get(key)
        if entry is not None and entry.expires is not None and not self._closing:
            # Still there because the disk refused: try again soon. The undo has put the entry back.
            self._clock.call_later(_EXPIRY_ROUND_S, lambda: self._expire_again(key))

    def _expire_again(self, key: str) -> None:
        entry = self._entries.get(key)
        if entry is not None and entry.expires is not None and not self._closing:
            heapq.heappush(self._expiries, (entry.expires, key))
            self._set_timer()

    # -- upkeep

    async def compact(self, revision: int) -> None:
        """Forget what was before ``revision``; the file keeps its size and uses the room again."""
        self._check_open()
        if revision > self._feed.revision:
            raise FutureRevision(self._feed.revision)
        async with self._compact_lock:
            if revision <= self._compacted:
                return
            self._compacted = revision
            await self._threads.write(lambda writer: writer.mark_compacted(revision))
            await self._sweep()

    async def _sweep(self) -> None:
        """Delete in parts, other writes between them."""
        while self._swept < self._compacted:
            self._check_open()
            after, until = self._swept, self._compacted
            self._swept = await self._threads.write(partial(Writer.sweep, after=after, revision=until))

    async def close(self) -> None:
        """Finish the writes begun and close the file."""
        if self._closing:
            return
        self._closing = True
        if self._timer is not None:
            self._timer.cancel()
        await self._idle.wait()
        self._feed.close()
        await self._threads.close()

    def _check_open(self) -> None:
        if self._closing:
            raise StoreClosed(f"the store {self._path} is closed")


def _fail(done: asyncio.Future[Event], error: BaseException) -> None:
    if not done.done():
        done.set_exception(error)
        # Seen here, in case the caller has gone.
        done.exception()


class _Threads:
    """The two threads: one writes, one reads, each with its own connection."""

    def __init__(self, path: Path) -> None:
        self._writer = Writer(path)
        self._reader: Reader | None = None
        self._writing = ThreadPoolExecutor(1, thread_name_prefix="sqlite-writer")
        self._reading = ThreadPoolExecutor(1, thread_name_prefix="sqlite-reader")

    async def open(self) -> Opened:
        loop = asyncio.get_running_loop()
        opened = await loop.run_in_executor(self._writing, self._writer.open)
        try:
            self._reader = await loop.run_in_executor(self._reading, Reader, self._writer.path)
        except BaseException:
            await loop.run_in_executor(self._writing, self._writer.close)
            raise
        return opened

    def write(self, work: Callable[[Writer], T]) -> asyncio.Future[T]:
        return asyncio.get_running_loop().run_in_executor(self._writing, work, self._writer)

    def read(self, work: Callable[[Reader], T]) -> asyncio.Future[T]:
        assert self._reader is not None
        return asyncio.get_running_loop().run_in_executor(self._reading, work, self._reader)

    async def close(self) -> None:
        loop = asyncio.get_running_loop()
        if self._reader is not None:
            await loop.run_in_executor(self._reading, self._reader.close)
        await loop.run_in_executor(self._writing, self._writer.close)
        self.shutdown()

    def shutdown(self) -> None:
        self._writing.shutdown(wait=False)
        self._reading.shutdown(wait=False)
