"""Writes that wait at the same time go to etcd in one transaction, each with a condition and an answer of its own.

A call costs gRPC, here and in etcd, several times what its content does, and etcd puts what it is told at once on the
disk at once. So while a pack is under way whoever writes waits for the next: one who is alone waits for nobody, and
packs grow with the load. A full pack waits for none, and none waits long for one that etcd does not answer.

A pack is put whole where all its conditions hold. Where some do not, nothing is written: the answer tells which, they
are refused, and the rest, which etcd has just found in order, goes again by itself. So each round refuses at least one
and every pack comes to its end. Nested transactions, which would do it in one round, were weighed: they cost etcd and
us more in the many packs without a conflict, and would leave gaps among the places (see ``revisions``).

Deletions are among them. A value tells the place of its own change, but nothing is left of a deletion that could: so a
pack with deletions ends with a put of one key of our own, ``DELETIONS``, which names those of this transaction. As it
stands after the transaction it always tells of that one, also where a compaction has left nothing before. A deletion
alone, like any change alone, has place 0 and needs none.

A key is in a pack once: who writes it a second time waits for the next pack, and is refused there.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass

import grpc
import orjson

from tiphys.thirdparty.etcd import kv_pb2, rpc_pb2
from tiphys_apiserver.storage.etcd import revisions
from tiphys_apiserver.storage.etcd.lease import Leases
from tiphys_apiserver.storage.interface import (
    MOST_TOGETHER,
    KeyExists,
    KeyMissing,
    KeyValue,
    OutcomeUnknown,
    RevisionMismatch,
    StorageError,
    StoreClosed,
    StoreFull,
    StoreUnavailable,
    ValueTooLarge,
)

Transact = Callable[[rpc_pb2.TxnRequest], Awaitable[rpc_pb2.TxnResponse]]

# Under the root; names the keys that its own transaction has deleted, with their places.
DELETIONS = "tiphys.io/deletions"
# etcd takes requests up to this as it is shipped. Source: etcd's --max-request-bytes, 1.5 MiB, with room for the rest.
_LARGE_BYTES = 1400 * 1024
# A pack is closed with this: larger ones cost nothing less by the byte.
_PACK_BYTES = 512 * 1024
# Full packs under way at once: more of them wait for the disk all the same.
_MOST_UNDER_WAY = 8
# So long does a pack that is not full wait for the one before it: far longer than a disk takes.
_PATIENCE_S = 0.1


@dataclass(eq=False, slots=True)
class Write:
    """A key to put where it is at a revision, 0 where it is not there; without a value, to delete.

    ``done`` gets the revision of the write, and ``removed`` what a deletion has removed.
    """

    key: str
    value: bytes | None
    expected_revision: int
    ttl_s: int = 0
    done: asyncio.Future[int] | None = None
    removed: KeyValue | None = None

    @property
    def size_bytes(self) -> int:
        """What it adds to a request, roughly."""
        return len(self.value or b"")

    @property
    def is_dropped(self) -> bool:
        """Whether nobody waits for it any more."""
        return self.done is not None and self.done.done()


class Packs:
    """Gathers single writes and sends them; its tasks run in the group given."""

    def __init__(self, transact: Transact, leases: Leases, group: asyncio.TaskGroup, *, root: str) -> None:
        self._transact = transact
        self._deletions = (root + DELETIONS).encode()
        self._leases = leases
        self._group = group
        self._waiting: deque[Write] = deque()
        self._under_way = 0

    def add(self, writes: Sequence[Write]) -> list[asyncio.Future[int]]:
        """Send each by itself, together with others; what becomes of each, in order.

        The futures raise KeyExists, RevisionMismatch, and what hinders all. One that is cancelled before it was sent is
        not sent.
        """
        loop = asyncio.get_running_loop()
        futures: list[asyncio.Future[int]] = []
        for write in writes:
            write.done = loop.create_future()
            futures.append(write.done)
        self._waiting.extend(writes)
        if writes and (not self._under_way or self._may_start_full()):
            self._start()
        return futures

    async def together(self, writes: Sequence[Write]) -> Sequence[int]:
        """Write all of them or none, at once; their revisions. Raises KeyExists or RevisionMismatch for the first."""
        answer = await self._send(writes)
        if not answer.succeeded:
            refusals = (refusal(write, one) for write, one in zip(writes, answer.responses, strict=True))
            raise next(found for found in refusals if found is not None)
        return [revisions.of_change(answer.header.revision, place) for place in range(len(writes))]

    def _may_start_full(self) -> bool:
        return len(self._waiting) >= MOST_TOGETHER and self._under_way < _MOST_UNDER_WAY

    def _start(self) -> None:
        self._under_way += 1
        self._group.create_task(self._run(), name="etcd-packs")

    async def _run(self) -> None:
        """Send packs, one after another, as long as it is this task's turn."""
        try:
            pack = self._take()
            while pack:
                if self._may_start_full():
                    self._start()
                await self._deliver(pack)
                # What is left is gathered for those still under way, unless it fills a pack.
                is_mine = self._under_way == 1 or len(self._waiting) >= MOST_TOGETHER
                pack = self._take() if is_mine else []
        finally:
            self._under_way -= 1

    def _take(self) -> list[Write]:
        """The next pack: at most so many keys and bytes, each key once."""
        pack: dict[str, Write] = {}
        put_off: list[Write] = []
        size, deletes = 0, False
        waiting = self._waiting
        while waiting:
            # One less than there may be, where there are deletions to tell of.
            deletes = deletes or waiting[0].value is None
            if len(pack) >= MOST_TOGETHER - deletes or (pack and size + waiting[0].size_bytes > _PACK_BYTES):
                break
            write = waiting.popleft()
            if write.is_dropped:
                continue
            if write.key in pack:
                put_off.append(write)
                continue
            pack[write.key] = write
            size += write.size_bytes
        waiting.extendleft(reversed(put_off))
        return list(pack.values())

    def _lose_patience(self) -> None:
        if self._waiting and self._under_way < _MOST_UNDER_WAY:
            self._start()

    async def _deliver(self, pack: Sequence[Write]) -> None:
        """Write each and tell it what became of it."""
        patience = asyncio.get_running_loop().call_later(_PATIENCE_S, self._lose_patience)
        try:
            await self._settle(pack)
        except asyncio.CancelledError:
            _fail(pack, StoreClosed("the store was closed before the write was answered"))
            raise
        except Exception as err:
            # A fault of this pack is none of the next one's; whoever waits stops it.
            _fail(pack, StorageError(f"etcd could not be asked for a write of {pack[0].key}: {err}"))
        finally:
            patience.cancel()

    def close(self) -> None:
        """Send no more; whoever waits is told."""
        _fail(self._waiting, StoreClosed("the store is closed"))
        self._waiting.clear()

    async def _settle(self, pack: Sequence[Write]) -> None:
        while pack:
            try:
                answer = await self._send(pack)
            except (OutcomeUnknown, StoreClosed) as err:
                _fail(pack, err)
                return
            except StorageError as err:
                is_away = isinstance(err, StoreUnavailable) and not isinstance(err, StoreFull)
                if is_away or len(pack) == 1:
                    _fail(pack, err)
                    return
                # One of them may be at fault, or all together too large; nothing was written.
                half = len(pack) // 2
                await self._settle(pack[:half])
                await self._settle(pack[half:])
                return
            if answer.succeeded:
                for place, write in enumerate(pack):
                    _tell(write, answer, place)
                return
            pack = _refuse(pack, answer)

    async def _send(self, pack: Sequence[Write]) -> rpc_pb2.TxnResponse:
        """Ask for one transaction of all. Raises ValueTooLarge for more than etcd takes."""
        request = await self._request(pack)
        try:
            return await self._transact(request)
        except StorageError as err:
            # Refused by etcd, or by the wire before it, each in its own way; both may have been told to take more.
            known = isinstance(err, StoreFull) or not isinstance(err, (OutcomeUnknown, StoreClosed, StoreUnavailable))
            size_bytes = sum(write.size_bytes for write in pack)
            if known and size_bytes > _LARGE_BYTES:
                raise ValueTooLarge(f"the object is too large for etcd: {size_bytes} bytes as it is stored") from err
            raise
        except grpc.aio.AioRpcError as err:
            if err.code() is not grpc.StatusCode.NOT_FOUND or not any(write.ttl_s for write in pack):
                raise StorageError(f"etcd refuses a write of {pack[0].key}: {err.details()}") from err
        # A lease has ended meanwhile (a clock that stood still): nothing was written, take others.
        for one in request.success:
            if one.request_put.lease:
                self._leases.forget(one.request_put.lease)
        return await self._transact(await self._request(pack))

    async def _request(self, pack: Sequence[Write]) -> rpc_pb2.TxnRequest:
        """One condition and one change for each, and where some condition does not hold a look at each instead."""
        request = rpc_pb2.TxnRequest()
        deleted: dict[str, int] = {}
        for place, write in enumerate(pack):
            raw = write.key.encode()
            request.compare.append(unchanged(raw, write.expected_revision))
            if write.value is None:
                request.success.add(request_delete_range=rpc_pb2.DeleteRangeRequest(key=raw, prev_kv=True))
                deleted[write.key] = place
            else:
                value = revisions.sealed(write.value, place)
                lease = await self._leases.lease(write.ttl_s) if write.ttl_s else 0
                request.success.add(request_put=rpc_pb2.PutRequest(key=raw, value=value, lease=lease))
            # Whoever creates asks only whether there is one.
            look = rpc_pb2.RangeRequest(key=raw, keys_only=not write.expected_revision)
            request.failure.add(request_range=look)
        if deleted and len(pack) > 1:
            value = revisions.sealed(orjson.dumps(deleted), len(pack))
            request.success.add(request_put=rpc_pb2.PutRequest(key=self._deletions, value=value))
        return request


def unchanged(key: bytes, expected_revision: int) -> rpc_pb2.Compare:
    """The condition that a key is at a revision; 0 is that it is not there."""
    return rpc_pb2.Compare(
        result=rpc_pb2.Compare.EQUAL,
        target=rpc_pb2.Compare.MOD,
        key=key,
        mod_revision=revisions.in_etcd(expected_revision),
    )


def key_value(kv: kv_pb2.KeyValue) -> KeyValue:
    """A key as etcd answers a read."""
    value, place = revisions.opened(kv.value)
    made = revisions.of_change(kv.create_revision)
    return KeyValue(kv.key.decode(), value, revisions.of_change(kv.mod_revision, place), made)


def removed(kv: kv_pb2.KeyValue, revision: int) -> KeyValue:
    """A key that was deleted, as it was, with the revision of the deletion."""
    value, _ = revisions.opened(kv.value)
    return KeyValue(kv.key.decode(), value, revision, revisions.of_change(kv.create_revision))


def read_deletions(value: bytes) -> dict[str, int]:
    """The keys that the transaction of ``DELETIONS`` has deleted, and their places."""
    found: dict[str, int] = orjson.loads(value)
    return found


def refusal(write: Write, looked: rpc_pb2.ResponseOp) -> StorageError | None:
    """Why a write can't be, by what its key is at; None where its condition holds."""
    kvs = looked.response_range.kvs
    found = kvs[0].mod_revision if kvs else 0
    if found == revisions.in_etcd(write.expected_revision):
        return None
    if not write.expected_revision:
        return KeyExists(write.key)
    if write.value is None and not kvs:
        return KeyMissing(write.key)
    return RevisionMismatch(write.key, key_value(kvs[0]) if kvs else None)


def _refuse(pack: Sequence[Write], answer: rpc_pb2.TxnResponse) -> list[Write]:
    """Tell those whose conditions do not hold; the others."""
    left: list[Write] = []
    for write, looked in zip(pack, answer.responses, strict=True):
        refused = refusal(write, looked)
        if refused is None:
            left.append(write)
        else:
            _refuse_one(write, refused)
    return [write for write in left if not write.is_dropped]


def _tell(write: Write, answer: rpc_pb2.TxnResponse, place: int) -> None:
    revision = revisions.of_change(answer.header.revision, place)
    if write.value is None:
        write.removed = removed(answer.responses[place].response_delete_range.prev_kvs[0], revision)
    if write.done is not None and not write.done.done():
        write.done.set_result(revision)


def _refuse_one(write: Write, err: StorageError) -> None:
    if write.done is not None and not write.done.done():
        write.done.set_exception(err)
        # Told, also where whoever waits for several has been cancelled meanwhile.
        write.done.exception()


def _fail(pack: Iterable[Write], err: StorageError) -> None:
    """Tell each of them; an error of its own, as whoever raises one adds to it."""
    for write in pack:
        _refuse_one(write, type(err)(*err.args))
