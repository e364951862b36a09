"""The store on etcd: writes that wait at the same time share a transaction, see ``packs``.

Revisions are not etcd's own but made of them, see ``revisions``.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

import grpc

from tiphys.thirdparty.etcd import kv_pb2, rpc_pb2
from tiphys_apiserver.storage.etcd import revisions
from tiphys_apiserver.storage.etcd.connection import EtcdConnection, EtcdOptions, range_end
from tiphys_apiserver.storage.etcd.follower import Follower
from tiphys_apiserver.storage.etcd.lease import Leases
from tiphys_apiserver.storage.etcd.newest import NewestRevision
from tiphys_apiserver.storage.etcd.packs import DELETIONS, Packs, Write, key_value, read_deletions, removed
from tiphys_apiserver.storage.interface import (
    Compacted,
    FutureRevision,
    KeyMissing,
    KeyValue,
    ListPage,
    NewKey,
    NotTogether,
    Replacement,
    RevisionMismatch,
    StorageError,
    StoreClosed,
    ValueTooLarge,
    Watch,
    check_together,
)
from tiphys_component.clock import Clock
from tiphys_component.log import get_logger

_log = get_logger(__name__)

# Keys of one answer where the caller wants all: a list of everything would be one message of hundreds of megabytes.
_PAGE = 2000
# Asks for no key, only for what every answer says.
_NEWEST = rpc_pb2.RangeRequest(key=b"\0", count_only=True)
# From these versions on a progress answer never overtakes events (etcd issue 15220) and comes also where there was no
# event before it (17507). Source: the minimum that kube-apiserver asks for, storage/etcd3 feature support.
_TRUSTED_PROGRESS = ((3, 4, 31), (3, 5, 13))


class EtcdStore:
    """The Store in an etcd; see Store for what each call promises. Made by ``open_etcd``, which runs its tasks."""

    spacing = revisions.SPACING

    def __init__(self, connection: EtcdConnection, clock: Clock, group: asyncio.TaskGroup, version: str) -> None:
        self._connection = connection
        self._clock = clock
        self._group = group
        self._timeout_s = connection.options.call_timeout_s
        self._leases = Leases(connection, clock)
        self._followers: dict[Follower, asyncio.Task[None]] = {}
        self._trusts_progress = has_trusted_progress(version)
        self._packs = Packs(self._transact, self._leases, group, root=connection.options.root)
        self._newest = NewestRevision(self._ask_newest, group)
        self._closed = False

    # -- reading

    async def get(self, key: str, *, revision: int = 0) -> KeyValue | None:
        """The key now or at ``revision``."""
        request = rpc_pb2.RangeRequest(key=key.encode(), revision=revisions.in_etcd(revision))
        answer = await self._range(request)
        found = key_value(answer.kvs[0]) if answer.kvs else None
        if not revision or revisions.is_whole(revision):
            return found
        if found is None:
            was_there = await self._deleted_after(revision, request)
        else:
            was_there = [request.key] if found.mod_revision > revision else []
        return (await self._before(was_there, request.revision)).get(request.key) if was_there else found

    async def list(self, prefix: str, *, revision: int = 0, limit: int = 0, start_after: str = "") -> ListPage:
        """Keys under ``prefix`` in order."""
        request = rpc_pb2.RangeRequest(
            key=max(prefix.encode(), start_after.encode() + b"\0" if start_after else b""),
            range_end=range_end(prefix),
            revision=revisions.in_etcd(revision),
        )
        before = await self._written_after(revision, request)
        restored = await self._before(await self._deleted_after(revision, request), request.revision)
        request.limit = limit + len(before) if limit else _PAGE
        answer = await self._range(request)
        kvs = list(answer.kvs)
        at = revision or revisions.of_state(answer.header.revision)
        while not limit and answer.more:
            request.key = kvs[-1].key + b"\0"
            request.revision = revisions.in_etcd(at)
            answer = await self._range(request)
            kvs.extend(answer.kvs)
        found = (before[kv.key] if kv.key in before else key_value(kv) for kv in kvs)
        items = [item for item in found if item is not None]
        if restored:
            is_cut = limit and answer.more
            items += [item for key, item in restored.items() if not is_cut or key < kvs[-1].key]
            items.sort(key=_key)
        if not limit:
            return ListPage(items, at, False, 0)
        hidden = sum(item is None for item in before.values())
        remaining = max(0, answer.count - hidden + len(restored) - limit)
        return ListPage(items[:limit], at, remaining > 0, remaining)

    async def _written_after(self, revision: int, request: rpc_pb2.RangeRequest) -> Mapping[bytes, KeyValue | None]:
        """The keys in a range that the transaction of a revision writes after it, as they were before.

        None for those that were not there. There are none at all but for a revision amid a pack.
        """
        if not revision or revisions.is_whole(revision):
            return {}
        kvs = await self._made_at(request.revision, request)
        later = [kv for kv in kvs if key_value(kv).mod_revision > revision]
        replaced = [kv.key for kv in later if kv.create_revision < request.revision]
        absent: dict[bytes, KeyValue | None] = {kv.key: None for kv in later}
        return absent | await self._before(replaced, request.revision)

    async def _deleted_after(self, revision: int, where: rpc_pb2.RangeRequest) -> Sequence[bytes]:
        """The keys in a range, or the one, that the transaction of a revision deletes after it."""
        if not revision or revisions.is_whole(revision):
            return []
        told = rpc_pb2.RangeRequest(key=(self._connection.options.root + DELETIONS).encode())
        places = {
            key.encode(): place
            for kv in await self._made_at(revisions.in_etcd(revision), told)
            for key, place in read_deletions(revisions.opened(kv.value)[0]).items()
        }
        first, end = where.key, where.range_end or where.key + b"\0"
        at = revision % revisions.SPACING
        return [key for key, place in places.items() if place > at and first <= key and (key < end or end == b"\0")]

    async def _before(self, keys: Sequence[bytes], etcd_revision: int) -> dict[bytes, KeyValue]:
        """Those of the keys that were there before a transaction, as they were then."""
        found: dict[bytes, KeyValue] = {}
        for key in keys:
            request = rpc_pb2.RangeRequest(key=key, revision=etcd_revision - 1)
            found |= {kv.key: key_value(kv) for kv in (await self._range(request)).kvs}
        return found

    async def _made_at(self, etcd_revision: int, where: rpc_pb2.RangeRequest) -> Sequence[kv_pb2.KeyValue]:
        """What stands in a range just as a transaction has left it."""
        request = rpc_pb2.RangeRequest(
            key=where.key,
            range_end=where.range_end,
            revision=etcd_revision,
            min_mod_revision=etcd_revision,
            max_mod_revision=etcd_revision,
        )
        return (await self._range(request)).kvs

    async def _range(self, request: rpc_pb2.RangeRequest) -> rpc_pb2.RangeResponse:
        self._check_open()
        try:
            return await self._connection.read(lambda member: member.kv.Range(request, timeout=self._timeout_s))
        except grpc.aio.AioRpcError as err:
            # Forgotten or not yet happened; etcd has one code for both.
            newest = await self.revision()
            is_future = revisions.of_change(request.revision) > newest
            raise (FutureRevision(newest) if is_future else Compacted(0)) from err

    async def revision(self) -> int:
        """The newest revision, by a linearizable read shared by all who ask at the same time."""
        self._check_open()
        return await self._newest.read()

    async def _ask_newest(self) -> int:
        answer = await self._connection.read(lambda member: member.kv.Range(_NEWEST, timeout=self._timeout_s))
        return revisions.of_state(answer.header.revision)

    @asynccontextmanager
    async def watch(self, prefix: str, *, after_revision: int) -> AsyncIterator[Watch]:
        """Events under ``prefix``, which lies under the root, after a revision."""
        self._check_open()
        if not prefix.startswith(self._connection.options.root):
            raise ValueError(f"only keys under {self._connection.options.root} are watched, not {prefix!r}")
        follower = self._follower(after_revision)
        watch = follower.open(prefix, after_revision)
        try:
            yield watch
        finally:
            follower.forget(watch)
            self._drop_idle()

    def _follower(self, after_revision: int) -> Follower:
        for follower in self._followers:
            if follower.floor <= after_revision and not follower.is_over:
                return follower
        follower = Follower(
            self._connection,
            self._clock,
            after_revision=after_revision,
            touch=self._touch,
            trusts_progress=self._trusts_progress,
        )
        self._followers[follower] = self._group.create_task(follower.run(), name="etcd-follower")
        return follower

    def _drop_idle(self) -> None:
        """End followers that nobody needs; of the idle ones the youngest stays, so that a new watch finds it."""
        idle = [follower for follower in self._followers if not follower.watches]
        keep = [follower for follower in idle if not follower.is_over][-1:]
        for follower in idle:
            if follower not in keep or len(self._followers) > len(idle):
                self._followers.pop(follower).cancel()

    async def _touch(self) -> None:
        """Write a small key, whose event tells every watch of every server how far it has come."""
        key = f"{self._connection.options.root}tiphys.io/progress"
        request = rpc_pb2.PutRequest(key=key.encode(), value=b"")
        await self._connection.write(lambda member: member.kv.Put(request, timeout=self._timeout_s))

    # -- writing

    async def create(self, key: str, value: bytes, *, ttl_s: int = 0) -> int:
        """Write a new key."""
        return await self._write_one(Write(key, value, 0, ttl_s))

    async def create_together(self, keys: Sequence[NewKey]) -> Sequence[int]:
        """Write new keys in one transaction, each at its place."""
        check_together(keys)
        self._check_open()
        if not keys:
            return []
        try:
            return await self._packs.together([Write(new.key, new.value, 0, new.ttl_s) for new in keys])
        except ValueTooLarge as err:
            raise NotTogether(f"the objects are too large for one transaction of etcd: {err}; send fewer") from err

    async def write_each(self, writes: Sequence[NewKey | Replacement]) -> Sequence[int | StorageError]:
        """Write each by itself, in packs of many."""
        self._check_open()
        outcomes: list[int | StorageError] = [0] * len(writes)
        asked: list[int] = []
        sent: list[Write] = []
        for index, write in enumerate(writes):
            expected = 0 if isinstance(write, NewKey) else write.expected_revision
            if isinstance(write, Replacement) and expected <= 0:
                outcomes[index] = await self._never_there(write.key)
            else:
                asked.append(index)
                sent.append(Write(write.key, write.value, expected, write.ttl_s))
        for index, future in zip(asked, self._packs.add(sent), strict=True):
            try:
                outcomes[index] = await future
            except StorageError as err:
                outcomes[index] = err
        return outcomes

    async def update(self, key: str, value: bytes, *, expected_revision: int, ttl_s: int = 0) -> int:
        """Replace a key."""
        if expected_revision <= 0:
            raise await self._never_there(key)
        return await self._write_one(Write(key, value, expected_revision, ttl_s))

    async def _write_one(self, write: Write) -> int:
        self._check_open()
        return await self._packs.add((write,))[0]

    async def _never_there(self, key: str, absent: StorageError | None = None) -> StorageError:
        """Why a change of what is at no revision is refused, with an answer of its own where the key is absent."""
        try:
            found = await self.get(key)
            return absent if absent is not None and found is None else RevisionMismatch(key, found)
        except StorageError as err:
            return err

    async def delete(self, key: str, *, expected_revision: int | None = None) -> KeyValue:
        """Delete a key."""
        if expected_revision is None:
            self._check_open()
            removal = rpc_pb2.DeleteRangeRequest(key=key.encode(), prev_kv=True)
            answer = await self._connection.write(
                lambda member: member.kv.DeleteRange(removal, timeout=self._timeout_s)
            )
            if not answer.deleted:
                raise KeyMissing(key)
            return removed(answer.prev_kvs[0], revisions.of_change(answer.header.revision))
        if expected_revision <= 0:
            raise await self._never_there(key, KeyMissing(key))
        write = Write(key, None, expected_revision)
        await self._write_one(write)
        assert write.removed is not None
        return write.removed

    async def _transact(self, request: rpc_pb2.TxnRequest) -> rpc_pb2.TxnResponse:
        self._check_open()
        return await self._connection.write(lambda member: member.kv.Txn(request, timeout=self._timeout_s))

    # -- upkeep

    async def compact(self, revision: int) -> None:
        """Forget what was before ``revision``."""
        self._check_open()
        request = rpc_pb2.CompactionRequest(revision=await self._compactable(revision))
        try:
            await self._connection.write(lambda member: member.kv.Compact(request, timeout=self._timeout_s))
        except grpc.aio.AioRpcError as err:
            newest = await self.revision()
            if revision > newest:
                raise FutureRevision(newest) from err
            # Compacted so far or further already, by us or another server.
            _log.debug("compacted already", rv=revision)

    async def _compactable(self, revision: int) -> int:
        """The transaction to compact at, so that the state at a revision can still be told.

        It is the one before, where the revision is amid a pack that replaces or deletes something after it.
        """
        whole = rpc_pb2.RangeRequest(key=b"\0", range_end=b"\0", revision=revisions.in_etcd(revision))
        try:
            later = await self._written_after(revision, whole)
            is_needed = any(later.values()) or bool(await self._deleted_after(revision, whole))
        except Compacted:
            return whole.revision
        return max(1, whole.revision - 1) if is_needed else whole.revision

    async def close(self) -> None:
        """End all watches and close the connection."""
        if self._closed:
            return
        self._closed = True
        self._packs.close()
        self._newest.close()
        followers, self._followers = dict(self._followers), {}
        for follower, task in followers.items():
            follower.end(StoreClosed("the store is closed"))
            task.cancel()
        await self._connection.close()

    def _check_open(self) -> None:
        if self._closed:
            raise StoreClosed("the store is closed")


@asynccontextmanager
async def open_etcd(options: EtcdOptions, clock: Clock) -> AsyncIterator[EtcdStore]:
    """A store on a running etcd, closed on leaving. Raises StoreUnavailable if no member answers."""
    connection = EtcdConnection(options)
    try:
        status = await connection.read(
            lambda member: member.maintenance.Status(rpc_pb2.StatusRequest(), timeout=options.call_timeout_s)
        )
        failure: Exception | None = None
        async with asyncio.TaskGroup() as group:
            store = EtcdStore(connection, clock, group, status.version)
            try:
                yield store
            except Exception as err:
                # Raised again outside the group, which would wrap the caller's own error.
                failure = err
            finally:
                await store.close()
        if failure is not None:
            raise failure
    finally:
        await connection.close()


def has_trusted_progress(version: str) -> bool:
    """Whether an etcd of this version answers progress requests only after all events."""
    numbers = tuple(int(part) for part in version.split("-")[0].split(".") if part.isdigit())
    return any(numbers[:2] == fixed[:2] and numbers >= fixed for fixed in _TRUSTED_PROGRESS) or numbers >= (3, 6)


def _key(item: KeyValue) -> str:
    return item.key
