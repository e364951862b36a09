"""The store on etcd: each write a transaction of its own, many under way at once.

Several objects are never packed into one transaction: their keys would share a revision, and a watch that resumes
between them would lose events.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import grpc

from tiphys.thirdparty.etcd import kv_pb2, rpc_pb2
from tiphys_apiserver.storage.etcd.connection import EtcdConnection, EtcdOptions, range_end
from tiphys_apiserver.storage.etcd.follower import Follower
from tiphys_apiserver.storage.etcd.lease import Leases
from tiphys_apiserver.storage.interface import (
    Compacted,
    FutureRevision,
    KeyExists,
    KeyMissing,
    KeyValue,
    ListPage,
    NewKey,
    NotTogether,
    OutcomeUnknown,
    RevisionMismatch,
    StorageError,
    StoreClosed,
    StoreFull,
    StoreUnavailable,
    ValueTooLarge,
    Watch,
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
        answer = await self._range(rpc_pb2.RangeRequest(key=key.encode(), revision=revision))
        return _key_value(answer.kvs[0]) if answer.kvs else None

    async def list(self, prefix: str, *, revision: int = 0, limit: int = 0, start_after: str = "") -> ListPage:
        """Keys under ``prefix`` in order."""
        request = rpc_pb2.RangeRequest(
            key=max(prefix.encode(), start_after.encode() + b"\0" if start_after else b""),
            range_end=range_end(prefix),
            limit=limit or _PAGE,
            revision=revision,
        )
        answer = await self._range(request)
        kvs = list(answer.kvs)
        at = revision or answer.header.revision
        while not limit and answer.more:
            request.key = kvs[-1].key + b"\0"
            request.revision = at
            answer = await self._range(request)
            kvs.extend(answer.kvs)
        remaining = answer.count - len(answer.kvs) if limit else 0
        return ListPage([_key_value(kv) for kv in kvs], at, remaining > 0, remaining)

    async def _range(self, request: rpc_pb2.RangeRequest) -> rpc_pb2.RangeResponse:
        self._check_open()
        try:
            return await self._connection.read(lambda member: member.kv.Range(request, timeout=self._timeout_s))
        except grpc.aio.AioRpcError as err:
            # Forgotten or not yet happened; etcd has one code for both.
            newest = await self.revision()
            raise (FutureRevision(newest) if request.revision > newest else Compacted(0)) from err

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
            read.set_result(answer.header.revision)
            return answer.header.revision
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
        return answer.header.revision

    async def create_together(self, keys: Sequence[NewKey]) -> Sequence[int]:
        """Refuse: see Store.create_together."""
        raise NotTogether("etcd gives all keys of a transaction one revision, so that a watch could lose some of them")

    async def update(self, key: str, value: bytes, *, expected_revision: int, ttl_s: int = 0) -> int:
        """Replace a key."""
        if expected_revision <= 0:
            raise RevisionMismatch(key, await self.get(key))
        answer = await self._put(key, value, expected_revision=expected_revision, ttl_s=ttl_s)
        if not answer.succeeded:
            raise RevisionMismatch(key, _found(answer))
        return answer.header.revision

    async def _put(self, key: str, value: bytes, *, expected_revision: int, ttl_s: int) -> rpc_pb2.TxnResponse:
        raw = key.encode()
        lease = await self._leases.lease(ttl_s)
        request = _txn(raw, expected_revision)
        request.success.add(request_put=rpc_pb2.PutRequest(key=raw, value=value, lease=lease))
        if expected_revision:
            request.failure.add(request_range=rpc_pb2.RangeRequest(key=raw))
        try:
            return await self._transact(request)
        except StorageError as err:
            # Refused by etcd, or by the wire before it, each in its own way; both may have been told to take more.
            known = isinstance(err, StoreFull) or not isinstance(err, (OutcomeUnknown, StoreClosed, StoreUnavailable))
            if known and len(value) > _LARGE_BYTES:
                raise ValueTooLarge(f"the object is too large for etcd: {len(value)} bytes as it is stored") from err
            raise
        except grpc.aio.AioRpcError as err:
            if err.code() is not grpc.StatusCode.NOT_FOUND or not lease:
                raise StorageError(f"etcd refuses a write of {key}: {err.details()}") from err
        # The lease has ended meanwhile (a clock that stood still): nothing was written, take another.
        self._leases.forget(lease)
        request.success[0].request_put.lease = await self._leases.lease(ttl_s)
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
        request = _txn(raw, expected_revision)
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
        request = rpc_pb2.CompactionRequest(revision=revision)
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


def _txn(key: bytes, expected_revision: int) -> rpc_pb2.TxnRequest:
    request = rpc_pb2.TxnRequest()
    request.compare.add(
        result=rpc_pb2.Compare.EQUAL,
        target=rpc_pb2.Compare.MOD,
        key=key,
        mod_revision=expected_revision,
    )
    return request


def _found(answer: rpc_pb2.TxnResponse) -> KeyValue | None:
    kvs = answer.responses[0].response_range.kvs
    return _key_value(kvs[0]) if kvs else None


def _key_value(kv: kv_pb2.KeyValue) -> KeyValue:
    return KeyValue(kv.key.decode(), kv.value, kv.mod_revision, kv.create_revision)


def _removed(kv: kv_pb2.KeyValue, revision: int) -> KeyValue:
    return KeyValue(kv.key.decode(), kv.value, revision, kv.create_revision)
