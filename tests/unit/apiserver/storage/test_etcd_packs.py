"""Writes that wait at once share a transaction of etcd: how many it takes, and what each writer is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import pytest

from tests.support.promptness import PROMPTLY_S
from tiphys.thirdparty.etcd import rpc_pb2
from tiphys_apiserver.storage.etcd import packs as packs_module
from tiphys_apiserver.storage.etcd import revisions
from tiphys_apiserver.storage.etcd.connection import EtcdConnection, EtcdOptions
from tiphys_apiserver.storage.etcd.lease import Leases
from tiphys_apiserver.storage.etcd.packs import DELETIONS, Packs, Write, read_deletions
from tiphys_apiserver.storage.interface import (
    MOST_TOGETHER,
    KeyExists,
    KeyMissing,
    OutcomeUnknown,
    RevisionMismatch,
    StorageError,
    StoreClosed,
    StoreUnavailable,
)
from tiphys_component.clock import FakeClock

BASE = 1 << 10


class Etcd:
    """Answers transactions of conditions and puts as etcd does, once it is let; ``sizes`` of those asked for."""

    def __init__(self) -> None:
        self.revision = 1
        self.keys: dict[bytes, int] = {}
        self.values: dict[bytes, bytes] = {}
        self.sizes: list[int] = []
        self._asked = asyncio.Semaphore(0)
        self._seen = 0
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.fault: Callable[[rpc_pb2.TxnRequest], StorageError | None] = lambda _: None

    async def wait_asked(self, transactions: int) -> None:
        while self._seen < transactions:
            await self._asked.acquire()
            self._seen += 1

    async def transact(self, request: rpc_pb2.TxnRequest) -> rpc_pb2.TxnResponse:
        self.sizes.append(len(request.success))
        self._asked.release()
        await self.may_answer.wait()
        fault = self.fault(request)
        if fault is not None:
            raise fault
        answer = rpc_pb2.TxnResponse()
        answer.succeeded = all(self.keys.get(one.key, 0) == one.mod_revision for one in request.compare)
        if answer.succeeded:
            self.revision += 1
            for one in request.success:
                self._do(one, answer.responses.add())
        else:
            for one in request.failure:
                found = answer.responses.add().response_range
                key = one.request_range.key
                if key in self.keys:
                    found.kvs.add(key=key, mod_revision=self.keys[key], create_revision=self.keys[key])
        answer.header.revision = self.revision
        return answer

    def _do(self, one: rpc_pb2.RequestOp, answer: rpc_pb2.ResponseOp) -> None:
        if one.HasField("request_put"):
            self.keys[one.request_put.key] = self.revision
            self.values[one.request_put.key] = one.request_put.value
        else:
            key = one.request_delete_range.key
            made = self.keys.pop(key)
            answer.response_delete_range.prev_kvs.add(key=key, value=self.values[key], create_revision=made)


@asynccontextmanager
async def packing(etcd: Etcd) -> AsyncIterator[Packs]:
    connection = EtcdConnection(EtcdOptions(["127.0.0.1:1"]))
    async with asyncio.timeout(PROMPTLY_S), asyncio.TaskGroup() as group:
        packs = Packs(etcd.transact, Leases(connection, FakeClock()), group, root="/registry/")
        try:
            yield packs
        finally:
            packs.close()
    await connection.close()


def new(*names: str) -> list[Write]:
    return [Write(f"/registry/pods/{name}", name.encode(), 0) for name in names]


async def outcomes(futures: Sequence[asyncio.Future[int]]) -> list[int | StorageError]:
    found: list[int | StorageError] = []
    for future in futures:
        try:
            found.append(await future)
        except StorageError as err:
            found.append(err)
    return found


async def test_A56_writes_that_wait_at_once_are_one_transaction() -> None:
    etcd = Etcd()
    async with packing(etcd) as packs:
        futures = [packs.add(new(f"p{number}"))[0] for number in range(16)]
        assert await outcomes(futures) == [2 * BASE + place for place in range(16)]
    assert etcd.sizes == [16]


async def test_A56_who_comes_while_a_pack_is_under_way_shares_the_next() -> None:
    etcd = Etcd()
    async with packing(etcd) as packs:
        etcd.may_answer.clear()
        futures = packs.add(new("first"))
        await etcd.wait_asked(1)
        for number in range(15):
            futures += packs.add(new(f"p{number}"))
            await asyncio.sleep(0)
        assert etcd.sizes == [1]
        etcd.may_answer.set()
        assert all(isinstance(outcome, int) for outcome in await outcomes(futures))
    assert etcd.sizes == [1, 15]


async def test_A56_who_is_alone_waits_for_nobody() -> None:
    etcd = Etcd()
    async with packing(etcd) as packs:
        for number in range(3):
            await packs.add(new(f"p{number}"))[0]
    assert etcd.sizes == [1, 1, 1]


async def test_A56_full_packs_wait_for_none() -> None:
    etcd = Etcd()
    async with packing(etcd) as packs:
        etcd.may_answer.clear()
        futures = packs.add(new(*(f"p{number}" for number in range(3 * MOST_TOGETHER))))
        await etcd.wait_asked(3)
        etcd.may_answer.set()
        found = await outcomes(futures)
    assert etcd.sizes == [MOST_TOGETHER] * 3
    assert len(set(found)) == 3 * MOST_TOGETHER


async def test_A56_pack_is_closed_by_its_bytes() -> None:
    etcd = Etcd()
    async with packing(etcd) as packs:
        large = [Write(f"/registry/pods/{number}", bytes(200 << 10), 0) for number in range(5)]
        await outcomes(packs.add(large))
    assert etcd.sizes == [2, 2, 1]


async def test_A56_refused_ones_hold_up_the_others_by_one_transaction() -> None:
    etcd = Etcd()
    async with packing(etcd) as packs:
        there, stale = await outcomes(packs.add(new("there", "stale")))
        assert isinstance(stale, int)
        writes = [*new("a", "there", "b"), Write("/registry/pods/stale", b"", stale - BASE), *new("c")]
        found = await outcomes(packs.add(writes))
    assert isinstance(there, int)
    assert [type(outcome) for outcome in found] == [int, KeyExists, int, RevisionMismatch, int]
    assert etcd.sizes == [2, 5, 3]
    mismatch = found[3]
    assert isinstance(mismatch, RevisionMismatch)
    assert mismatch.current is not None
    assert mismatch.current.key == "/registry/pods/stale"


async def test_A56_second_write_of_a_key_waits_for_the_next_pack() -> None:
    etcd = Etcd()
    async with packing(etcd) as packs:
        found = await outcomes(packs.add(new("x", "x", "y")))
    assert [type(outcome) for outcome in found] == [int, KeyExists, int]
    assert etcd.sizes == [2, 1]


async def test_A56_deletions_share_a_pack_which_tells_their_places() -> None:
    etcd = Etcd()
    told = f"/registry/{DELETIONS}".encode()
    async with packing(etcd) as packs:
        there = await outcomes(packs.add(new("a", "b", "c")))
        assert told not in etcd.keys
        gone = [
            Write(f"/registry/pods/{name}", None, at)
            for name, at in zip("abc", there, strict=True)
            if isinstance(at, int)
        ]
        writes = [gone[0], *new("d"), gone[2], Write("/registry/pods/absent", None, BASE)]
        found = await outcomes(packs.add(writes))
        assert found[:3] == [3 * BASE, 3 * BASE + 1, 3 * BASE + 2]
        assert isinstance(found[3], KeyMissing)
        assert [write.removed and (write.removed.value, write.removed.mod_revision) for write in writes] == [
            (b"a", 3 * BASE),
            None,
            (b"c", 3 * BASE + 2),
            None,
        ]
        value, place = revisions.opened(etcd.values[told])
        assert (read_deletions(value), place) == ({"/registry/pods/a": 0, "/registry/pods/c": 2}, 3)
        await packs.add([gone[1]])[0]
    assert etcd.keys[told] == 3, "a deletion alone tells of nothing"
    assert etcd.sizes == [3, 5, 4, 1]


async def test_A56_full_pack_with_deletions_has_room_to_tell_of_them() -> None:
    etcd = Etcd()
    async with packing(etcd) as packs:
        there = await outcomes(packs.add(new(*(f"p{number}" for number in range(MOST_TOGETHER)))))
        gone = [Write(f"/registry/pods/p{n}", None, at) for n, at in enumerate(there) if isinstance(at, int)]
        await outcomes(packs.add(gone))
    assert etcd.sizes == [MOST_TOGETHER, MOST_TOGETHER, 1]


async def test_A56_puts_before_a_deletion_fill_a_pack_and_no_more() -> None:
    etcd = Etcd()
    async with packing(etcd) as packs:
        (there,) = await outcomes(packs.add(new("there")))
        assert isinstance(there, int)
        puts = new(*(f"p{number}" for number in range(MOST_TOGETHER)))
        await outcomes(packs.add([*puts, Write("/registry/pods/there", None, there)]))
    assert max(etcd.sizes) == MOST_TOGETHER
    assert sum(etcd.sizes) == 1 + MOST_TOGETHER + 1


async def test_write_whose_caller_has_left_is_not_sent() -> None:
    etcd = Etcd()
    async with packing(etcd) as packs:
        gone, there = packs.add(new("gone", "there"))
        gone.cancel()
        await there
    assert list(etcd.keys) == [b"/registry/pods/there"]


@pytest.mark.parametrize("fault", [OutcomeUnknown("no answer"), StoreUnavailable("away")], ids=["unknown", "away"])
async def test_each_writer_is_told_what_became_of_its_pack(fault: StorageError) -> None:
    etcd = Etcd()
    etcd.fault = lambda _: fault
    async with packing(etcd) as packs:
        found = await outcomes(packs.add(new("a", "b", "c")))
        assert [type(outcome) for outcome in found] == [type(fault)] * 3
        assert len({id(outcome) for outcome in found}) == 3
        assert etcd.sizes == [3], "it was sent again"
        etcd.fault = lambda _: None
        assert all(isinstance(outcome, int) for outcome in await outcomes(packs.add(new("a", "b"))))


async def test_only_the_write_at_fault_is_refused() -> None:
    etcd = Etcd()
    etcd.fault = lambda request: (
        StorageError("refused") if any(one.request_put.key.endswith(b"bad") for one in request.success) else None
    )
    async with packing(etcd) as packs:
        found = await outcomes(packs.add(new("a", "b", "bad", "c")))
    assert [isinstance(outcome, int) for outcome in found] == [True, True, False, True]


async def test_pack_that_etcd_does_not_answer_holds_up_nobody_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packs_module, "_PATIENCE_S", 0.001)
    etcd = Etcd()
    async with packing(etcd) as packs:
        etcd.may_answer.clear()
        futures = packs.add(new("first"))
        await etcd.wait_asked(1)
        futures += packs.add(new("second"))
        await etcd.wait_asked(2)
        etcd.may_answer.set()
        await outcomes(futures)
    assert etcd.sizes == [1, 1]


async def test_closing_tells_those_who_wait() -> None:
    etcd = Etcd()
    async with packing(etcd) as packs:
        etcd.may_answer.clear()
        first = packs.add(new("first"))
        await etcd.wait_asked(1)
        waiting = packs.add(new("second"))
        packs.close()
        assert [type(outcome) for outcome in await outcomes(waiting)] == [StoreClosed]
        etcd.may_answer.set()
        assert [type(outcome) for outcome in await outcomes(first)] == [int]
