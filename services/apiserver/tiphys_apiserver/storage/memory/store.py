"""A store in memory. Everything happens at once on the loop, so no write ever waits for another."""

from __future__ import annotations

import asyncio
from bisect import bisect_left, bisect_right, insort
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

from tiphys_apiserver.storage.feed import Feed
from tiphys_apiserver.storage.interface import (
    Compacted,
    Event,
    EventType,
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
    Watch,
    check_together,
    write_each,
)
from tiphys_component.clock import Clock, Timer

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Change:
    event: Event
    previous: KeyValue | None


class MemoryStore:
    """The Store of tests and simulation; see Store for what each call promises."""

    spacing = 1

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        # As in a fresh etcd the first write gets 2, so that revision 1 can be listed and 0 can mean none.
        self._revision = 1
        self._compacted = 0
        self._rows: dict[str, KeyValue] = {}
        self._keys: list[str] = []
        # Changes of the revisions after _compacted, without a gap: index = revision - _log_start.
        self._log: list[_Change] = []
        self._log_start = 2
        self._timers: dict[str, Timer] = {}
        self._feed = Feed(self._revision)
        self._closed = False

    async def get(self, key: str, *, revision: int = 0) -> KeyValue | None:
        """The key now or at ``revision``."""
        self._check_revision(revision)
        if revision:
            for change in self._log[revision + 1 - self._log_start :]:
                if change.event.key == key:
                    return change.previous
        return self._rows.get(key)

    async def list(self, prefix: str, *, revision: int = 0, limit: int = 0, start_after: str = "") -> ListPage:
        """Keys under ``prefix`` in order."""
        self._check_revision(revision)
        first = bisect_left(self._keys, prefix)
        last = bisect_left(self._keys, prefix + "\U0010ffff", lo=first)
        keys, rows = self._keys[first:last], self._rows
        if revision and revision < self._revision:
            rows = {key: self._rows[key] for key in keys}
            self._undo(rows, prefix, revision)
            keys = sorted(rows)
        if start_after:
            keys = keys[bisect_right(keys, start_after) :]
        chosen = keys[:limit] if limit else keys
        remaining = len(keys) - len(chosen)
        items = [rows[key] for key in chosen]
        return ListPage(items, revision or self._revision, remaining > 0, remaining)

    def _undo(self, rows: dict[str, KeyValue], prefix: str, revision: int) -> None:
        for change in reversed(self._log[revision + 1 - self._log_start :]):
            if change.event.key.startswith(prefix):
                if change.previous is None:
                    rows.pop(change.event.key, None)
                else:
                    rows[change.event.key] = change.previous

    async def create(self, key: str, value: bytes, *, ttl_s: int = 0) -> int:
        """Write a new key."""
        self._check_open()
        if key in self._rows:
            raise KeyExists(key)
        insort(self._keys, key)
        return await _after_watches(self._put(key, value, None, ttl_s))

    async def create_together(self, keys: Sequence[NewKey]) -> Sequence[int]:
        """Write new keys, all or none."""
        self._check_open()
        check_together(keys)
        for new in keys:
            if new.key in self._rows:
                raise KeyExists(new.key)
        revisions = []
        for new in keys:
            insort(self._keys, new.key)
            revisions.append(self._put(new.key, new.value, None, new.ttl_s))
        return await _after_watches(revisions)

    async def write_each(self, writes: Sequence[NewKey | Replacement]) -> Sequence[int | StorageError]:
        """Write each by itself, side by side."""
        return await write_each(self, writes)

    async def update(self, key: str, value: bytes, *, expected_revision: int, ttl_s: int = 0) -> int:
        """Replace a key."""
        self._check_open()
        current = self._rows.get(key)
        if current is None or current.mod_revision != expected_revision:
            raise RevisionMismatch(key, current)
        return await _after_watches(self._put(key, value, current, ttl_s))

    def _put(self, key: str, value: bytes, previous: KeyValue | None, ttl_s: int) -> int:
        self._revision += 1
        created = previous.create_revision if previous else self._revision
        self._rows[key] = KeyValue(key, value, self._revision, created)
        self._set_timer(key, ttl_s)
        self._record(Event(EventType.PUT, key, value, self._revision), previous)
        return self._revision

    async def delete(self, key: str, *, expected_revision: int | None = None) -> KeyValue:
        """Delete a key."""
        self._check_open()
        current = self._rows.get(key)
        if current is None:
            raise KeyMissing(key)
        if expected_revision is not None and current.mod_revision != expected_revision:
            raise RevisionMismatch(key, current)
        return await _after_watches(self._remove(current))

    def _remove(self, current: KeyValue) -> KeyValue:
        self._revision += 1
        key, value, created = current.key, current.value, current.create_revision
        del self._rows[key]
        del self._keys[bisect_left(self._keys, key)]
        self._set_timer(key, 0)
        self._record(Event(EventType.DELETE, key, value, self._revision), current)
        return KeyValue(key, value, self._revision, created)

    def _record(self, event: Event, previous: KeyValue | None) -> None:
        self._log.append(_Change(event, previous))
        self._feed.publish((event,), event.mod_revision)

    def _set_timer(self, key: str, ttl_s: int) -> None:
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()
        if ttl_s:
            self._timers[key] = self._clock.call_later(ttl_s, lambda: self._expire(key))

    def _expire(self, key: str) -> None:
        current = self._rows.get(key)
        if current is not None and not self._closed:
            self._remove(current)

    @asynccontextmanager
    async def watch(self, prefix: str, *, after_revision: int) -> AsyncIterator[Watch]:
        """Events under ``prefix`` after a revision."""
        self._check_open()
        if after_revision < self._compacted:
            raise Compacted(self._compacted)
        watch = self._feed.open(prefix, after_revision)
        try:
            past = self._log[max(0, after_revision + 1 - self._log_start) :]
            watch.open_gate([change.event for change in past if change.event.key.startswith(prefix)])
            yield watch
        finally:
            self._feed.forget(watch)

    async def revision(self) -> int:
        """The newest revision."""
        self._check_open()
        return self._revision

    async def compact(self, revision: int) -> None:
        """Forget what was before ``revision``."""
        self._check_open()
        if revision > self._revision:
            raise FutureRevision(self._revision)
        if revision > self._compacted:
            del self._log[: revision + 1 - self._log_start]
            self._log_start = revision + 1
            self._compacted = revision
            await asyncio.sleep(0)

    async def close(self) -> None:
        """End all watches."""
        self._closed = True
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        self._feed.close()

    def _check_open(self) -> None:
        if self._closed:
            raise StoreClosed("the store is closed")

    def _check_revision(self, revision: int) -> None:
        self._check_open()
        if revision:
            if revision < self._compacted:
                raise Compacted(self._compacted)
            if revision > self._revision:
                raise FutureRevision(self._revision)


async def _after_watches(result: T) -> T:
    """The result, one turn of the loop later: whoever sees its write return also finds it in the watch caches."""
    await asyncio.sleep(0)
    return result
