"""The way to etcd: channels to its members, and what their errors mean for a caller."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import grpc

from tiphys.thirdparty.etcd import rpc_pb2_grpc
from tiphys_apiserver.storage.interface import OutcomeUnknown, StorageError, StoreFull, StoreUnavailable

T = TypeVar("T")

_OPTIONS: Sequence[tuple[str, int | str]] = (
    # A page of large objects and a batch of events are larger than gRPC's default of 4 MiB.
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.max_pings_without_data", 0),
    # A member that was restarted is found again within a second.
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
)
# The call never left, or etcd says itself that it did nothing.
_NOTHING_DONE = (
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.OUT_OF_RANGE,
    grpc.StatusCode.UNIMPLEMENTED,
)


@dataclass(frozen=True, slots=True)
class EtcdOptions:
    """Where etcd is. ``endpoints`` are host:port; without ``credentials`` the connection is plain."""

    endpoints: Sequence[str]
    credentials: grpc.ChannelCredentials | None = None
    call_timeout_s: float = 10.0
    # Only keys under it are watched; all of ours are.
    root: str = "/registry/"


@dataclass(frozen=True, slots=True)
class _Member:
    endpoint: str
    channel: grpc.aio.Channel
    kv: rpc_pb2_grpc.KVAsyncStub
    lease: rpc_pb2_grpc.LeaseAsyncStub
    watch: rpc_pb2_grpc.WatchAsyncStub
    maintenance: rpc_pb2_grpc.MaintenanceAsyncStub


class EtcdConnection:
    """Channels to all members, of which one is used until it fails."""

    def __init__(self, options: EtcdOptions) -> None:
        if not options.endpoints:
            raise ValueError("etcd needs at least one endpoint, as in 127.0.0.1:2379")
        self.options = options
        self._members = [_member(endpoint, options) for endpoint in options.endpoints]
        self._at = 0

    @property
    def member(self) -> _Member:
        """The member used now."""
        return self._members[self._at]

    @property
    def endpoint(self) -> str:
        """Address of the member used now."""
        return self.member.endpoint

    def fail_over(self, failed: _Member) -> None:
        """Use the next member, unless somebody has moved on already."""
        if self.member is failed:
            self._at = (self._at + 1) % len(self._members)

    async def read(self, call: Callable[[_Member], Awaitable[T]]) -> T:
        """Make a call that changes nothing; each member is tried once. OUT_OF_RANGE comes as AioRpcError."""
        last: StorageError | None = None
        for _ in self._members:
            member = self.member
            try:
                return await call(member)
            except grpc.aio.AioRpcError as err:
                if err.code() is grpc.StatusCode.OUT_OF_RANGE:
                    raise
                last = self._error(err, member)
                self.fail_over(member)
        assert last is not None
        raise last

    async def write(self, call: Callable[[_Member], Awaitable[T]]) -> T:
        """Make a call that changes something, once. OUT_OF_RANGE and NOT_FOUND come as AioRpcError.

        Raises OutcomeUnknown if it was sent and no answer came.
        """
        member = self._reachable()
        try:
            return await call(member)
        except grpc.aio.AioRpcError as err:
            if err.code() in (grpc.StatusCode.OUT_OF_RANGE, grpc.StatusCode.NOT_FOUND):
                raise
            self.fail_over(member)
            if err.code() in _NOTHING_DONE:
                raise self._error(err, member) from err
            raise OutcomeUnknown(
                f"etcd at {member.endpoint} did not answer a write ({err.details()}): it may have happened"
            ) from err

    def _reachable(self) -> _Member:
        """A member that is not known to be away, so that a write to it is not sent in vain."""
        for _ in self._members:
            member = self.member
            if member.channel.get_state(try_to_connect=True) is not grpc.ChannelConnectivity.TRANSIENT_FAILURE:
                return member
            self.fail_over(member)
        raise StoreUnavailable(f"etcd can't be reached at {', '.join(self.options.endpoints)}; is it running?")

    def _error(self, err: grpc.aio.AioRpcError, member: _Member) -> StorageError:
        code, said = err.code(), err.details()
        if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
            return StoreFull(
                f"etcd at {member.endpoint} takes no more ({said}); compact and defragment it, raise its quota, then"
                " disarm the alarm: etcdctl defrag; etcdctl alarm disarm"
            )
        if code in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED):
            return StoreUnavailable(f"etcd at {member.endpoint} refuses us ({said}); check the client certificate")
        if code is grpc.StatusCode.INVALID_ARGUMENT:
            return StorageError(f"etcd at {member.endpoint} refuses the request: {said}")
        return StoreUnavailable(f"etcd at {member.endpoint} can't be reached or has no leader ({code.name}: {said})")

    async def close(self) -> None:
        """Close all channels."""
        for member in self._members:
            await member.channel.close(None)


def _member(endpoint: str, options: EtcdOptions) -> _Member:
    if options.credentials is not None:
        channel = grpc.aio.secure_channel(endpoint, options.credentials, options=_OPTIONS)
    else:
        channel = grpc.aio.insecure_channel(endpoint, options=_OPTIONS)
    return _Member(
        endpoint,
        channel,
        rpc_pb2_grpc.KVStub(channel),
        rpc_pb2_grpc.LeaseStub(channel),
        rpc_pb2_grpc.WatchStub(channel),
        rpc_pb2_grpc.MaintenanceStub(channel),
    )


def range_end(prefix: str) -> bytes:
    """The first key behind all that begin with a prefix."""
    raw = bytearray(prefix.encode())
    while raw:
        if raw[-1] < 0xFF:
            raw[-1] += 1
            return bytes(raw)
        raw.pop()
    return b"\0"
