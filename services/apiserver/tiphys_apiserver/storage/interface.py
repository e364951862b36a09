"""What every store promises: SQLite, etcd and memory pass one contract suite, tests/conformance/storage.

A store maps keys (``/registry/pods/NS/NAME``, as Kubernetes names them) to opaque bytes and counts all its changes with
one revision, an integer that only grows. A revision is what the API calls a resourceVersion.

Errors::

    StorageError                 the store could not do it; the message says what to do
      KeyExists                  create: the key is there
      KeyMissing                 delete: the key is not there
      RevisionMismatch           update, delete: the key is not at the revision expected
      Compacted                  list, watch: the revision asked for is forgotten; list anew
      FutureRevision             list: the revision asked for has not happened yet
      OutcomeUnknown             a write may have happened or not (connection lost); read before trying again
      StoreUnavailable           nothing was done, a later try may succeed (locked, no leader, time-out)
        StoreFull                no space: free some, reads still work
      ValueTooLarge                a write: the store takes no value of this size; nothing was written
      NotTogether                  create_together: the store can't write several keys as one; nothing was written
      StoreInUse                 another server holds the file; at opening only
      StoreDamaged               the data is not readable or of a newer layout; at opening only
      StoreClosed                the store was closed
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

# Keys of one create_together at most. Source: etcd's --max-txn-ops, 128 by default.
MOST_TOGETHER = 128


class StorageError(Exception):
    """A store could not do what was asked. The text is meant for people and says what to do about it."""


class KeyExists(StorageError):
    """Create was refused because the key is there; nothing was written."""

    def __init__(self, key: str) -> None:
        super().__init__(f"{key} exists already")
        self.key = key


class KeyMissing(StorageError):
    """Delete was refused because the key is not there."""

    def __init__(self, key: str) -> None:
        super().__init__(f"{key} does not exist")
        self.key = key


class RevisionMismatch(StorageError):
    """A precondition failed; nothing was written. ``current`` is what is there now, None if nothing is."""

    def __init__(self, key: str, current: KeyValue | None) -> None:
        now = "is gone" if current is None else f"is at revision {current.mod_revision}"
        super().__init__(f"{key} {now}, another one was expected")
        self.key = key
        self.current = current


class Compacted(StorageError):
    """The revision asked for is forgotten. ``revision`` is the oldest one that still answers, 0 if unknown."""

    def __init__(self, revision: int) -> None:
        super().__init__(f"the revision asked for has been compacted, the oldest left is {revision or 'not known'}")
        self.revision = revision


class FutureRevision(StorageError):
    """The revision asked for has not happened; ``revision`` is the newest there is."""

    def __init__(self, revision: int) -> None:
        super().__init__(f"the revision asked for is in the future, the newest is {revision}")
        self.revision = revision


class OutcomeUnknown(StorageError):
    """A write was sent and no answer came: it may have happened. Read the key before deciding to try again."""


class StoreUnavailable(StorageError):
    """Nothing was done, and a later try may succeed."""


class StoreFull(StoreUnavailable):
    """There is no space left to write to; nothing acknowledged is lost, and reads go on."""


class ValueTooLarge(StorageError):
    """The store takes no value of this size; nothing was written."""


class NotTogether(StorageError):
    """The store can't write several keys all or none; nothing was written."""


class StoreInUse(StorageError):
    """The files belong to another server that runs now."""


class StoreDamaged(StorageError):
    """The files are not a store, are damaged, or were written by a newer version."""


class StoreClosed(StorageError):
    """The store was closed before or during the call."""


class EventType(enum.IntEnum):
    """What happened to a key."""

    PUT = 0
    DELETE = 1


@dataclass(frozen=True, slots=True)
class KeyValue:
    """One key as it stood after the change ``mod_revision``; it exists since ``create_revision``."""

    key: str
    value: bytes
    mod_revision: int
    create_revision: int


@dataclass(frozen=True, slots=True)
class ListPage:
    """Keys in byte order as they stood at ``revision``; ``remaining`` counts those after the last item."""

    items: list[KeyValue]
    revision: int
    more: bool
    remaining: int


@dataclass(frozen=True, slots=True)
class Event:
    """One change of one key.

    ``value`` is the new value, or for DELETE the last one there was, where the store has it at hand, else empty: who
    follows a store knows what there was. A DELETE has the revision of the deletion.
    """

    type: EventType
    key: str
    value: bytes
    mod_revision: int


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key to write that is not there yet; ttl_s as in Store.create."""

    key: str
    value: bytes
    ttl_s: int = 0


@dataclass(frozen=True, slots=True)
class Replacement:
    """A key to replace where it is at expected_revision; ttl_s as in Store.update."""

    key: str
    value: bytes
    expected_revision: int
    ttl_s: int = 0


class Watch(Protocol):
    """A running watch: an iterator of batches, each in order of revision.

    It ends with StopAsyncIteration when the store is closed, and raises Compacted when it can't go on without a gap
    (the reader was too slow, or the store forgot what lies between). A lost connection is mended inside.
    """

    @property
    def revision(self) -> int:
        """Every event up to here has been handed out, and the reader came back for more after it.

        It also moves on when only keys outside the prefix change.
        """

    async def wait_revision(self, revision: int) -> None:
        """Return once ``self.revision`` has reached ``revision``, asking the store for progress where that helps.

        Somebody must be reading the watch meanwhile. Bounded by the caller's own time limit.
        Raises StoreClosed when the watch ends before.
        """

    def __aiter__(self) -> AsyncIterator[list[Event]]: ...

    async def __anext__(self) -> list[Event]: ...


class Store(Protocol):
    """A map of keys to bytes with one revision for all changes. Safe for any number of tasks of one loop.

    Writes are linearizable and durable: when a write returns, it survives kill -9 and loss of power, and every later
    read sees it. A write that raises anything but OutcomeUnknown changed nothing. A cancelled write may or may not
    happen. Nothing is retried inside a write whose outcome is unknown. Each write gets a revision of its own.

    Reads wait for no writer. Any call may raise StoreUnavailable or StoreClosed.
    """

    @property
    def spacing(self) -> int:
        """How far the revisions of two writes, one right after the other, are apart: 1 where none is left out."""

    async def get(self, key: str, *, revision: int = 0) -> KeyValue | None:
        """The key as it is now, or stood at ``revision``; None if it was not there.

        Raises Compacted or FutureRevision as list does.
        """

    async def list(self, prefix: str, *, revision: int = 0, limit: int = 0, start_after: str = "") -> ListPage:
        """Keys that begin with ``prefix``, in byte order, beginning after ``start_after``; one state, never a mix.

        ``revision`` 0 is now; ``limit`` 0 is all. Pages of one list are asked for at the revision of the first.
        Raises Compacted if ``revision`` is forgotten, FutureRevision if it has not happened.
        """

    async def create(self, key: str, value: bytes, *, ttl_s: int = 0) -> int:
        """Write a key that is not there; the revision of the write.

        With ``ttl_s`` the key is deleted, as an ordinary event, not before and soon after that many seconds.
        Raises KeyExists.
        """

    async def create_together(self, keys: Sequence[NewKey]) -> Sequence[int]:
        """Write at most MOST_TOGETHER keys, all of them or none; the revision of each, in order and one after another.

        A watch gets an event for each, and may see the first before the last.
        Raises KeyExists for the first one that is there, NotTogether.
        """

    async def update(self, key: str, value: bytes, *, expected_revision: int, ttl_s: int = 0) -> int:
        """Replace a key that is at ``expected_revision``; the revision of the write.

        ``ttl_s`` counts anew; 0 makes the key stay for good.
        Raises RevisionMismatch, with current None if the key is gone.
        """

    async def write_each(self, writes: Sequence[NewKey | Replacement]) -> Sequence[int | StorageError]:
        """As create and update for each by itself, for less than that many calls cost.

        In place of the revision of a write that was refused is what that call would have raised.
        """

    async def delete(self, key: str, *, expected_revision: int | None = None) -> KeyValue:
        """Delete a key; the last value, with the revision of the deletion as ``mod_revision``.

        Raises KeyMissing, or RevisionMismatch if ``expected_revision`` is given and not the key's.
        """

    def watch(self, prefix: str, *, after_revision: int) -> AbstractAsyncContextManager[Watch]:
        """Every event under ``prefix`` with a revision above ``after_revision``, once, in order, past and future.

        ``prefix`` ends with a slash. Entering, or the first reading, raises Compacted if some of them are forgotten.
        """

    async def revision(self) -> int:
        """The newest revision, read consistently: no write acknowledged before the call is above it."""

    async def compact(self, revision: int) -> None:
        """Forget what was overwritten or deleted up to ``revision``: older lists and watches get Compacted.

        The newest state is never touched. Compacting again at or below does nothing.
        Raises FutureRevision.
        """

    async def close(self) -> None:
        """Finish the writes begun, end all watches, free everything. Closing twice is fine."""


def check_together(keys: Sequence[NewKey]) -> None:
    """Raise NotTogether for too many keys, KeyExists for one that is there twice."""
    if len(keys) > MOST_TOGETHER:
        raise NotTogether(f"{len(keys)} keys are too many for one transaction, the limit is {MOST_TOGETHER}")
    seen: set[str] = set()
    for new in keys:
        if new.key in seen:
            raise KeyExists(new.key)
        seen.add(new.key)


async def write_each(store: Store, writes: Sequence[NewKey | Replacement]) -> list[int | StorageError]:
    """Store.write_each by a call for each, side by side."""
    outcomes: list[int | StorageError] = [0] * len(writes)

    async def one(index: int, write: NewKey | Replacement) -> None:
        try:
            outcomes[index] = await _written(store, write)
        except StorageError as err:
            outcomes[index] = err

    async with asyncio.TaskGroup() as group:
        for index, write in enumerate(writes):
            group.create_task(one(index, write))
    return outcomes


async def _written(store: Store, write: NewKey | Replacement) -> int:
    if isinstance(write, NewKey):
        return await store.create(write.key, write.value, ttl_s=write.ttl_s)
    return await store.update(write.key, write.value, expected_revision=write.expected_revision, ttl_s=write.ttl_s)
