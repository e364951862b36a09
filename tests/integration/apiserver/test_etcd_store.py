"""What only the etcd store has: one stream for all watches, progress, leases, members that go away."""

from __future__ import annotations

import asyncio
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import grpc
import pytest

from tests.support.etcd import EtcdMember
from tests.support.pod_cache import key, pod_value, running_cacher, take, told
from tests.support.promptness import PROMPTLY_S
from tiphys.thirdparty.etcd import rpc_pb2, rpc_pb2_grpc
from tiphys_apiserver.storage.etcd import revisions
from tiphys_apiserver.storage.etcd.connection import EtcdOptions, range_end
from tiphys_apiserver.storage.etcd.store import EtcdStore, has_trusted_progress, open_etcd
from tiphys_apiserver.storage.interface import Compacted, EventType, OutcomeUnknown, StorageError, StoreUnavailable
from tiphys_apiserver.storage.selection import Selection
from tiphys_component.clock import SystemClock

pytestmark = pytest.mark.etcd
POD = "/registry/pods/a/x"


@pytest.fixture
def member(tmp_path: Path) -> Iterator[EtcdMember]:
    member = EtcdMember(tmp_path)
    member.start()
    yield member
    member.kill()


@asynccontextmanager
async def opened(*endpoints: str) -> AsyncIterator[EtcdStore]:
    async with open_etcd(EtcdOptions(endpoints), SystemClock()) as store:
        yield store


@asynccontextmanager
async def raw_kv(member: EtcdMember) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(member.endpoint) as channel:
        yield channel


@pytest.mark.parametrize("trusted", [True, False], ids=["etcd-is-asked", "a-key-is-touched"])
async def test_watch_reaches_a_revision_made_outside_the_root(member: EtcdMember, trusted: bool) -> None:
    async with opened(member.endpoint) as store, raw_kv(member) as channel:
        store._trusts_progress = trusted
        async with store.watch("/registry/pods/", after_revision=await store.revision()) as watch:
            reading = asyncio.ensure_future(watch.__anext__())
            await store.create(POD, b"one")
            assert len(await reading) == 1
            reading = asyncio.ensure_future(watch.__anext__())
            await rpc_pb2_grpc.KVStub(channel).Put(rpc_pb2.PutRequest(key=b"/elsewhere", value=b"x"))
            newest = await store.revision()
            async with asyncio.timeout(10):
                await watch.wait_revision(newest)
            assert watch.revision >= newest
            reading.cancel()


async def test_A15_list_sees_what_another_server_wrote(member: EtcdMember) -> None:
    async with (
        opened(member.endpoint) as mine,
        opened(member.endpoint) as theirs,
        running_cacher(mine, SystemClock()) as cacher,
    ):
        for number in range(30):
            revision = await theirs.create(key(f"p{number}"), pod_value(f"p{number}"))
            found = await cacher.list(Selection())
            assert len(found.items) == number + 1
            assert found.revision >= revision


async def test_A9_etcd_has_one_watcher_however_many_watches_there_are(member: EtcdMember) -> None:
    async with opened(member.endpoint) as store, AsyncExitStack() as stack:
        cachers = [await stack.enter_async_context(running_cacher(store, SystemClock())) for _ in range(5)]
        streams = [await cacher.stream(Selection()) for cacher in cachers for _ in range(10)]
        revision = await store.create(key("one"), pod_value("one"))
        for stream in streams:
            assert told(await take(stream, 1)) == [("ADDED", "one", revision)]
        assert watchers_of(member) == 1


def watchers_of(member: EtcdMember) -> int:
    with urllib.request.urlopen(f"http://{member.endpoint}/metrics") as answer:
        lines = answer.read().decode().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("etcd_debugging_mvcc_watcher_total")))


async def test_watch_from_before_the_stream_began_hears_of_all_since(member: EtcdMember) -> None:
    async with opened(member.endpoint) as store:
        first = await store.create(POD, b"0")
        second = await store.update(POD, b"1", expected_revision=first)
        async with store.watch("/registry/", after_revision=second) as new:
            third = await store.update(POD, b"2", expected_revision=second)
            assert [event.mod_revision for event in await new.__anext__()] == [third]
            async with asyncio.timeout(10), store.watch("/registry/", after_revision=first) as old:
                heard: list[int] = []
                while len(heard) < 2:
                    heard += [event.mod_revision for event in await old.__anext__()]
            assert heard == [second, third]


async def test_A56_watch_amid_a_compacted_pack_hears_of_its_deletions(member: EtcdMember) -> None:
    async with opened(member.endpoint) as store, raw_kv(member) as channel:
        made = [await store.create(f"{POD}{number}", b"old") for number in range(3)]
        async with asyncio.TaskGroup() as group:
            first = group.create_task(store.delete(f"{POD}0", expected_revision=made[0]))
            second = group.create_task(store.delete(f"{POD}1", expected_revision=made[1]))
            third = group.create_task(store.update(f"{POD}2", b"new", expected_revision=made[2]))
        at = first.result().mod_revision
        assert [at, at + 1, at + 2] == [at, second.result().mod_revision, third.result()], "they were not one pack"
        assert await store.get(f"{POD}1", revision=at) is not None
        # By another's hand: a compaction of ours spares what is needed to tell a state amid a pack.
        await rpc_pb2_grpc.KVStub(channel).Compact(rpc_pb2.CompactionRequest(revision=revisions.in_etcd(at)))
        with pytest.raises(Compacted):
            await store.get(f"{POD}1", revision=at)
        async with asyncio.timeout(PROMPTLY_S), store.watch("/registry/pods/", after_revision=at) as watch:
            heard = [(event.type, event.key, event.mod_revision) for event in await watch.__anext__()]
            assert heard == [(EventType.DELETE, f"{POD}1", at + 1), (EventType.PUT, f"{POD}2", at + 2)]
        async with asyncio.timeout(PROMPTLY_S), store.watch("/registry/pods/", after_revision=at + 1) as watch:
            assert [event.value for event in await watch.__anext__()] == [b"new"]


async def test_A56_sixteen_writers_cost_etcd_few_transactions(member: EtcdMember) -> None:
    async with opened(member.endpoint) as store:
        before = transactions_of(member)

        async def write(name: str) -> None:
            revision = await store.create(f"{POD}{name}", b"0")
            for number in range(9):
                revision = await store.update(f"{POD}{name}", b"%d" % number, expected_revision=revision)
            await store.delete(f"{POD}{name}", expected_revision=revision)

        async with asyncio.TaskGroup() as group:
            for number in range(16):
                group.create_task(write(str(number)))
        # All at the same pace would be 11; one for each write would be 176.
        assert transactions_of(member) - before <= 44


def transactions_of(member: EtcdMember) -> int:
    with urllib.request.urlopen(f"http://{member.endpoint}/metrics") as answer:
        lines = answer.read().decode().splitlines()
    counted = 'grpc_server_started_total{grpc_method="Txn",'
    return sum(int(float(line.split()[-1])) for line in lines if line.startswith(counted))


async def lease_of(channel: grpc.aio.Channel, name: str) -> int:
    answer = await rpc_pb2_grpc.KVStub(channel).Range(rpc_pb2.RangeRequest(key=name.encode()))
    lease: int = answer.kvs[0].lease
    return lease


async def test_keys_of_one_life_share_a_lease(member: EtcdMember) -> None:
    async with opened(member.endpoint) as store, raw_kv(member) as channel:
        async with asyncio.TaskGroup() as group:
            for number in range(10):
                group.create_task(store.create(f"/registry/events/a/{number}", b"e", ttl_s=3600))
        await store.create("/registry/events/a/other", b"e", ttl_s=600)
        leases = {await lease_of(channel, f"/registry/events/a/{number}") for number in range(10)}
        assert len(leases) == 1
        assert await lease_of(channel, "/registry/events/a/other") not in leases


async def test_lease_that_etcd_has_ended_is_replaced(member: EtcdMember) -> None:
    async with opened(member.endpoint) as store, raw_kv(member) as channel:
        await store.create("/registry/events/a/x", b"e", ttl_s=3600)
        lease = await lease_of(channel, "/registry/events/a/x")
        await rpc_pb2_grpc.LeaseStub(channel).LeaseRevoke(rpc_pb2.LeaseRevokeRequest(ID=lease))
        await store.create("/registry/events/a/y", b"e", ttl_s=3600)
        assert await lease_of(channel, "/registry/events/a/y") not in (0, lease)


async def test_value_is_stored_as_it_is_under_kubernetes_key(member: EtcdMember) -> None:
    value = pod_value("x")
    async with opened(member.endpoint) as store, raw_kv(member) as channel:
        await store.create(POD, value)
        answer = await rpc_pb2_grpc.KVStub(channel).Range(rpc_pb2.RangeRequest(key=POD.encode()))
        assert answer.kvs[0].value == value


async def test_absent_etcd_is_told_with_its_address(member: EtcdMember) -> None:
    member.kill()
    with pytest.raises(StoreUnavailable, match=f"etcd at {member.endpoint} can't be reached"):
        async with opened(member.endpoint):
            pass


async def test_store_heals_when_etcd_comes_back(member: EtcdMember) -> None:
    async with opened(member.endpoint) as store, running_cacher(store, SystemClock()) as cacher:
        await store.create(key("before"), pod_value("before"))
        member.kill()
        with pytest.raises((OutcomeUnknown, StoreUnavailable)):
            await store.create(key("lost"), pod_value("lost"))
        with pytest.raises(StoreUnavailable, match="is it running"):
            await attempt_until_known(store)
        member.start()
        async with asyncio.timeout(15):
            revision = await create_patiently(store, "after")
            await cacher.wait_applied(revision)
        names = {cached.name for cached in (await cacher.list(Selection())).items}
        assert {"before", "after"} <= names


async def attempt_until_known(store: EtcdStore) -> None:
    """Write until the connection knows that etcd is away; then nothing is sent and nothing is in doubt."""
    for number in range(50):
        try:
            await store.create(key(f"lost{number}"), b"")
        except OutcomeUnknown:
            await asyncio.sleep(0.02)


async def create_patiently(store: EtcdStore, name: str) -> int:
    while True:
        try:
            return await store.create(key(name), pod_value(name))
        except (OutcomeUnknown, StoreUnavailable):
            await asyncio.sleep(0.05)


async def test_next_member_is_used_when_one_does_not_answer(member: EtcdMember) -> None:
    async with opened("127.0.0.1:1", member.endpoint) as store:
        revision = await store.create(POD, b"one")
        assert (await store.list("/registry/")).items[0].mod_revision == revision


async def test_value_too_large_is_refused_with_etcds_reason(member: EtcdMember) -> None:
    async with opened(member.endpoint) as store:
        with pytest.raises(StorageError, match="too large"):
            await store.create(POD, bytes(2_000_000))
        assert await store.get(POD) is None


async def test_error_of_the_caller_leaves_unwrapped(member: EtcdMember) -> None:
    with pytest.raises(LookupError, match="mine"):
        async with opened(member.endpoint) as store, store.watch("/registry/", after_revision=1):
            raise LookupError("mine")


@pytest.mark.parametrize(
    ("version", "trusted"),
    [
        ("3.4.23", False),
        ("3.4.31", True),
        ("3.5.12", False),
        ("3.5.13", True),
        ("3.5.16", True),
        ("3.6.0-rc.1", True),
        ("4.0.0", True),
        ("", False),
    ],
)
def test_progress_is_trusted_from_the_versions_that_mended_it(version: str, trusted: bool) -> None:
    assert has_trusted_progress(version) is trusted


def test_range_ends_right_behind_the_prefix() -> None:
    assert range_end("/registry/") == b"/registry0"
