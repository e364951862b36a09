"""The store on etcd: each write a transaction of its own, many under way at once, or a pack of new keys in one.

Revisions are not etcd's own but made of them, see ``revisions``.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import grpc

from tiphys.thirdparty.etcd import kv_pb2, rpc_pb2
from tiphys_apiserver.storage.etcd import revisions
from tiphys_apiserver.storage.etcd.connection import EtcdConnection, EtcdOptions, range_end
from tiphys_apiserver.storage.etcd.follower import Follower
from tiphys_apiserver.storage.etcd.lease import Leases
from tiphys_apiserver.storage.interface import (
    MOST_TOGETHER,
    Compacted,
    FutureRevision,
    KeyExists,
    KeyMissing,
    KeyValue,
    ListPage,
    NewKey,
    NotTogether,
    OutcomeUnknown,
    Replacement,
    RevisionMismatch,
    StorageError,
    StoreClosed,
    StoreFull,
    StoreUnavailable,
    ValueTooLarge,
    Watch,
    check_together,
    write_each,
)
from tiphys_component.clock import Clock
from tiphys_component.log import get_logger

_log = get_logger(__name__)

# Keys of one answer where the caller wants all: a list of everything would be one message of hundreds of megabytes.
_PAGE = 2000
# etcd takes requests up to this as it is shipped. Source: etcd's --max-request-bytes, 1.5 MiB, with room for the rest.
_LARGE_BYTES = 1400 * 1024
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
        self._revision_read: asyncio.Future[int] | None = None
        self._closed = False

    # -- reading

    async def get(self, key: str, *, revision: int = 0) -> KeyValue | None:
        """The key now or at ``revision``."""
        request = rpc_pb2.RangeRequest(key=key.encode(), revision=revisions.in_etcd(revision))
        answer = await self._range(request)
        found = _key_value(answer.kvs[0]) if answer.kvs else None
        # What a transaction makes after the revision is new there: packs hold nothing but new keys.
        return None if found is not None and 0 < revision < found.mod_revision else found

    async def list(self, prefix: str, *, revision: int = 0, limit: int = 0, start_after: str = "") -> ListPage:
        """Keys under ``prefix`` in order."""
        request = rpc_pb2.RangeRequest(
            key=max(prefix.encode(), start_after.encode() + b"\0" if start_after else b""),
            range_end=range_end(prefix),
            revision=revisions.in_etcd(revision),
        )
        hidden = await self._made_after(revision, request)
        request.limit = limit + len(hidden) if limit else _PAGE
        answer = await self._range(request)
        kvs = list(answer.kvs)
        at = revision or revisions.of_state(answer.header.revision)
        while not limit and answer.more:
            request.key = kvs[-1].key + b"\0"
            request.revision = revisions.in_etcd(at)
            answer = await self._range(request)
            kvs.extend(answer.kvs)
        items = [_key_value(kv) for kv in kvs if kv.key not in hidden]
        if not limit:
            return ListPage(items, at, False, 0)
        remaining = max(0, answer.count - len(hidden) - limit)
        return ListPage(items[:limit], at, remaining > 0, remaining)

    async def _made_after(self, revision: int, request: rpc_pb2.RangeRequest) -> frozenset[bytes]:
        """The keys in a range that the transaction of a revision makes after it; none, but for one amid a pack."""
        if not revision or revisions.is_whole(revision):
            return frozenset()
        kvs = await self._made_at(request.revision, request)
        return frozenset(kv.key for kv in kvs if _key_value(kv).mod_revision > revision)

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
        """The newest revision, by a linearizable read shared by all who ask in one turn of the loop."""
        self._check_open()
        if self._revision_read is not None:
            return await asyncio.shield(self._revision_read)
        read = self._revision_read = asyncio.get_running_loop().create_future()
        try:
            # Whoever asks before the read is sent may share it, nobody after.
            await asyncio.sleep(0)
            self._revision_read = None
            request = rpc_pb2.RangeRequest(key=b"\0", count_only=True)
            answer = await self._connection.read(lambda member: member.kv.Range(request, timeout=self._timeout_s))
        except StorageError as err:
            read.set_exception(err)
            # Seen here, in case nobody shares it.
            read.exception()
            raise
        except BaseException:
            read.set_exception(StorageError("the one who asked etcd for all was cancelled; try again"))
            read.exception()
            raise
        else:
            newest = revisions.of_state(answer.header.revision)
            read.set_result(newest)
            return newest
        finally:
            if self._revision_read is read:
                self._revision_read = None

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
        answer = await self._put(key, value, expected_revision=0, ttl_s=ttl_s)
        if not answer.succeeded:
            raise KeyExists(key)
        return revisions.of_change(answer.header.revision)

    async def create_together(self, keys: Sequence[NewKey]) -> Sequence[int]:
        """Write new keys in one transaction, each at its place."""
        check_together(keys)
        if not keys:
            return []
        request = rpc_pb2.TxnRequest()
        for place, new in enumerate(keys):
            raw = new.key.encode()
            request.compare.append(_unchanged(raw, 0))
            lease = await self._leases.lease(new.ttl_s)
            value = revisions.sealed(new.value, place)
            request.success.add(request_put=rpc_pb2.PutRequest(key=raw, value=value, lease=lease))
            request.failure.add(request_range=rpc_pb2.RangeRequest(key=raw, keys_only=True))
        try:
            answer = await self._write(request, [new.ttl_s for new in keys], sum(len(new.value) for new in keys))
        except ValueTooLarge as err:
            raise NotTogether(f"the objects are too large for one transaction of etcd: {err}; send fewer") from err
        if not answer.succeeded:
            found = (one.response_range.kvs for one in answer.responses)
            raise KeyExists(next((kvs[0].key.decode() for kvs in found if kvs), keys[0].key))
        return [revisions.of_change(answer.header.revision, place) for place in range(len(keys))]

    async def write_each(self, writes: Sequence[NewKey | Replacement]) -> Sequence[int | StorageError]:
        """Write each by itself: in transactions of many as long as all of one go well, else one after another."""
        parts = [writes[start : start + MOST_TOGETHER] for start in range(0, len(writes), MOST_TOGETHER)]
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._write_part(part)) for part in parts]
        return [outcome for task in tasks for outcome in task.result()]

    async def _write_part(self, writes: Sequence[NewKey | Replacement]) -> Sequence[int | StorageError]:
        expected = [0 if isinstance(write, NewKey) else write.expected_revision or -1 for write in writes]
        if min(expected) < 0 or len({write.key for write in writes}) < len(writes):
            return await write_each(self, writes)
        request = rpc_pb2.TxnRequest()
        for place, (write, revision) in enumerate(zip(writes, expected, strict=True)):
            raw = write.key.encode()
            request.compare.append(_unchanged(raw, revision))
            lease = await self._leases.lease(write.ttl_s)
            value = revisions.sealed(write.value, place)
            request.success.add(request_put=rpc_pb2.PutRequest(key=raw, value=value, lease=lease))
        try:
            answer = await self._write(request, [write.ttl_s for write in writes], sum(len(w.value) for w in writes))
        except OutcomeUnknown as err:
            return [err] * len(writes)
        except StorageError:
            # One of them may be at fault, or all together too large; nothing was written.
            return await write_each(self, writes)
        if not answer.succeeded:
            return await write_each(self, writes)
        return [revisions.of_change(answer.header.revision, place) for place in range(len(writes))]

    async def update(self, key: str, value: bytes, *, expected_revision: int, ttl_s: int = 0) -> int:
        """Replace a key."""
        if expected_revision <= 0:
            raise RevisionMismatch(key, await self.get(key))
        answer = await self._put(key, value, expected_revision=expected_revision, ttl_s=ttl_s)
        if not answer.succeeded:
            raise RevisionMismatch(key, _found(answer))
        return revisions.of_change(answer.header.revision)

    async def _put(self, key: str, value: bytes, *, expected_revision: int, ttl_s: int) -> rpc_pb2.TxnResponse:
        raw = key.encode()
        lease = await self._leases.lease(ttl_s)
        request = rpc_pb2.TxnRequest(compare=[_unchanged(raw, expected_revision)])
        request.success.add(request_put=rpc_pb2.PutRequest(key=raw, value=revisions.sealed(value, 0), lease=lease))
        if expected_revision:
            request.failure.add(request_range=rpc_pb2.RangeRequest(key=raw))
        return await self._write(request, [ttl_s], len(value))

    async def _write(self, request: rpc_pb2.TxnRequest, lives_s: Sequence[int], size_bytes: int) -> rpc_pb2.TxnResponse:
        """Run a transaction of puts with these lives and bytes in all. Raises ValueTooLarge for more than it takes."""
        try:
            return await self._transact(request)
        except StorageError as err:
            # Refused by etcd, or by the wire before it, each in its own way; both may have been told to take more.
            known = isinstance(err, StoreFull) or not isinstance(err, (OutcomeUnknown, StoreClosed, StoreUnavailable))
            if known and size_bytes > _LARGE_BYTES:
                raise ValueTooLarge(f"the object is too large for etcd: {size_bytes} bytes as it is stored") from err
            raise
        except grpc.aio.AioRpcError as err:
            if err.code() is not grpc.StatusCode.NOT_FOUND or not any(lives_s):
                key = request.success[0].request_put.key.decode()
                raise StorageError(f"etcd refuses a write of {key}: {err.details()}") from err
        # A lease has ended meanwhile (a clock that stood still): nothing was written, take others.
        for one in request.success:
            self._leases.forget(one.request_put.lease)
        for one, ttl_s in zip(request.success, lives_s, strict=True):
            one.request_put.lease = await self._leases.lease(ttl_s)
        return await self._transact(request)

    async def delete(self, key: str, *, expected_revision: int | None = None) -> KeyValue:
        """Delete a key."""
        raw = key.encode()
        removal = rpc_pb2.DeleteRangeRequest(key=raw, prev_kv=True)
        if expected_revision is None:
            self._check_open()
            removed = await self._connection.write(
                lambda member: member.kv.DeleteRange(removal, timeout=self._timeout_s)
            )
            if not removed.deleted:
                raise KeyMissing(key)
            return _removed(removed.prev_kvs[0], removed.header.revision)
        request = rpc_pb2.TxnRequest(compare=[_unchanged(raw, expected_revision)])
        request.success.add(request_delete_range=removal)
        request.failure.add(request_range=rpc_pb2.RangeRequest(key=raw))
        answer = await self._transact(request)
        if not answer.succeeded:
            current = _found(answer)
            raise KeyMissing(key) if current is None else RevisionMismatch(key, current)
        prev = answer.responses[0].response_delete_range.prev_kvs
        if not prev:
            raise KeyMissing(key)
        return _removed(prev[0], answer.header.revision)

    async def _transact(self, request: rpc_pb2.TxnRequest) -> rpc_pb2.TxnResponse:
        self._check_open()
        return await self._connection.write(lambda member: member.kv.Txn(request, timeout=self._timeout_s))

    # -- upkeep

    async def compact(self, revision: int) -> None:
        """Forget what was before ``revision``."""
        self._check_open()
        request = rpc_pb2.CompactionRequest(revision=revisions.in_etcd(revision))
        try:
            await self._connection.write(lambda member: member.kv.Compact(request, timeout=self._timeout_s))
        except grpc.aio.AioRpcError as err:
            newest = await self.revision()
            if revision > newest:
                raise FutureRevision(newest) from err
            # Compacted so far or further already, by us or another server.
            _log.debug("compacted already", rv=revision)

    async def close(self) -> None:
        """End all watches and close the connection."""
        if self._closed:
            return
        self._closed = True
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


def _unchanged(key: bytes, expected_revision: int) -> rpc_pb2.Compare:
    """The condition that a key is at a revision; 0 is that it is not there."""
    return rpc_pb2.Compare(
        result=rpc_pb2.Compare.EQUAL,
        target=rpc_pb2.Compare.MOD,
        key=key,
        mod_revision=revisions.in_etcd(expected_revision),
    )


def _found(answer: rpc_pb2.TxnResponse) -> KeyValue | None:
    kvs = answer.responses[0].response_range.kvs
    return _key_value(kvs[0]) if kvs else None


def _key_value(kv: kv_pb2.KeyValue) -> KeyValue:
    value, place = revisions.opened(kv.value)
    made = revisions.of_change(kv.create_revision)
    return KeyValue(kv.key.decode(), value, revisions.of_change(kv.mod_revision, place), made)


def _removed(kv: kv_pb2.KeyValue, etcd_revision: int) -> KeyValue:
    value, _ = revisions.opened(kv.value)
    made = revisions.of_change(kv.create_revision)
    return KeyValue(kv.key.decode(), value, revisions.of_change(etcd_revision), made)
