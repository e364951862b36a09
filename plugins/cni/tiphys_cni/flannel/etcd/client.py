"""The few calls to etcd that leases need: read a prefix, compare and swap a key, keep a lease alive, watch."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

import grpc

from tiphys.thirdparty.etcd import kv_pb2, rpc_pb2, rpc_pb2_grpc

_TIMEOUT_S = 5.0
_OPTIONS = (
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.max_reconnect_backoff_ms", 1_000),
)


class EtcdUnavailable(OSError):
    """etcd can't be reached, or refuses; the message names the member and what it said."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A key as it stands. created and changed are revisions; lease is 0 for a life without end."""

    key: str
    value: bytes
    created: int
    changed: int
    lease: int


@dataclass(frozen=True, slots=True)
class Change:
    """What became of a key at a revision; entry is None where it went."""

    key: str
    revision: int
    entry: Entry | None


class EtcdClient:
    """One member is used until it fails, then the next."""

    def __init__(self, endpoints: Sequence[str], credentials: grpc.ChannelCredentials | None = None) -> None:
        self._endpoints = tuple(endpoint.rpartition("//")[2] for endpoint in endpoints)
        self._channels = [
            grpc.aio.insecure_channel(endpoint, options=_OPTIONS)
            if credentials is None
            else grpc.aio.secure_channel(endpoint, credentials, options=_OPTIONS)
            for endpoint in self._endpoints
        ]
        self._at = 0

    async def close(self) -> None:
        """Closes the channels."""
        for channel in self._channels:
            await channel.close(None)

    async def read(self, prefix: str) -> tuple[list[Entry], int]:
        """All keys under a prefix, which ends in a slash, and the revision they are of. Raises EtcdUnavailable."""
        request = rpc_pb2.RangeRequest(key=prefix.encode(), range_end=_behind(prefix))
        try:
            answer = await rpc_pb2_grpc.KVStub(self._channel).Range(request, timeout=_TIMEOUT_S)
        except grpc.aio.AioRpcError as err:
            raise self._failed(err) from err
        return [_entry(kv) for kv in answer.kvs], answer.header.revision

    async def swap(self, key: str, value: bytes, *, changed: int, lease: int) -> int:
        """Writes a key that is as it was at a change, 0 for a key that is not there; its revision, 0 if it is not so.

        Raises EtcdUnavailable: then it may have been written or not.
        """
        put = rpc_pb2.PutRequest(key=key.encode(), value=value, lease=lease)
        request = rpc_pb2.TxnRequest(success=[rpc_pb2.RequestOp(request_put=put)])
        request.compare.add(
            key=key.encode(),
            target=rpc_pb2.Compare.MOD,
            result=rpc_pb2.Compare.EQUAL,
            mod_revision=changed,
        )
        try:
            answer = await rpc_pb2_grpc.KVStub(self._channel).Txn(request, timeout=_TIMEOUT_S)
        except grpc.aio.AioRpcError as err:
            raise self._failed(err) from err
        return answer.header.revision if answer.succeeded else 0

    async def grant(self, ttl_s: int) -> int:
        """A lease of its own. Raises EtcdUnavailable."""
        request = rpc_pb2.LeaseGrantRequest(TTL=ttl_s)
        try:
            return (await rpc_pb2_grpc.LeaseStub(self._channel).LeaseGrant(request, timeout=_TIMEOUT_S)).ID
        except grpc.aio.AioRpcError as err:
            raise self._failed(err) from err

    async def keep_alive(self, lease: int) -> bool:
        """Lets a lease begin anew; False where it is over. Raises EtcdUnavailable."""
        requests = iter((rpc_pb2.LeaseKeepAliveRequest(ID=lease),))
        call = rpc_pb2_grpc.LeaseStub(self._channel).LeaseKeepAlive(requests, timeout=_TIMEOUT_S)
        try:
            async for answer in call:
                return bool(answer.TTL > 0)
        except grpc.aio.AioRpcError as err:
            raise self._failed(err) from err
        return False

    async def watch(self, prefix: str, revision: int) -> AsyncIterator[list[Change]]:
        """Changes under a prefix from a revision on. Raises EtcdUnavailable when it breaks."""
        create = rpc_pb2.WatchCreateRequest(key=prefix.encode(), range_end=_behind(prefix), start_revision=revision)
        # The stream stays open for as long as requests may come; grpc-stubs knows only of an iterator of them.
        stream = rpc_pb2_grpc.WatchStub(self._channel).Watch()  # type: ignore[call-arg]
        try:
            await stream.write(rpc_pb2.WatchRequest(create_request=create))
            async for answer in stream:
                if answer.canceled:
                    raise EtcdUnavailable(f"etcd at {self._endpoint} ended the watch: {answer.cancel_reason}")
                yield [_change(event) for event in answer.events]
            raise EtcdUnavailable(f"etcd at {self._endpoint} ended the watch")
        except grpc.aio.AioRpcError as err:
            raise self._failed(err) from err
        finally:
            stream.cancel()

    @property
    def _channel(self) -> grpc.aio.Channel:
        return self._channels[self._at]

    @property
    def _endpoint(self) -> str:
        return self._endpoints[self._at]

    def _failed(self, err: grpc.aio.AioRpcError) -> EtcdUnavailable:
        told = EtcdUnavailable(f"etcd at {self._endpoint}: {err.code().name}: {err.details()}")
        self._at = (self._at + 1) % len(self._channels)
        return told


def _behind(prefix: str) -> bytes:
    raw = prefix.encode()
    return raw[:-1] + bytes((raw[-1] + 1,))


def _entry(kv: kv_pb2.KeyValue) -> Entry:
    return Entry(kv.key.decode(), kv.value, kv.create_revision, kv.mod_revision, kv.lease)


def _change(event: kv_pb2.Event) -> Change:
    entry = None if event.type == kv_pb2.Event.DELETE else _entry(event.kv)
    return Change(event.kv.key.decode(), event.kv.mod_revision, entry)
