"""Lives of keys. Keys written within one span of time share a lease, as a lease for each would cost etcd dear."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from tiphys.thirdparty.etcd import rpc_pb2
from tiphys_apiserver.storage.etcd.connection import EtcdConnection
from tiphys_component.clock import Clock

# Source: kubernetes/apiserver pkg/storage/etcd3/lease_manager.go: 60 s or 5 % of the life, 1,000 keys a lease. etcd
# makes the deletions at its end in one transaction, and so many have places of their own in it, see ``revisions``.
_SPAN_S = 60.0
_SPAN_SHARE = 0.05
_KEYS_A_LEASE = 1000


@dataclass(slots=True)
class _Bucket:
    lease: int
    until: float
    keys: int


class Leases:
    """Hands out leases by life; a key lives its time and at most one span more."""

    def __init__(self, connection: EtcdConnection, clock: Clock) -> None:
        self._connection = connection
        self._clock = clock
        self._buckets: dict[int, _Bucket] = {}
        # One lease is asked for at a time, and those who wait share it.
        self._asking = asyncio.Lock()

    async def lease(self, ttl_s: int) -> int:
        """The id of a lease that lasts at least ``ttl_s``; 0, which is none, for a life without end."""
        if not ttl_s:
            return 0
        lease = self._shared(ttl_s)
        if lease:
            return lease
        async with self._asking:
            lease = self._shared(ttl_s)
            if lease:
                return lease
            span = min(_SPAN_S, ttl_s * _SPAN_SHARE)
            request = rpc_pb2.LeaseGrantRequest(TTL=ttl_s + int(span))
            timeout = self._connection.options.call_timeout_s
            answer = await self._connection.write(lambda member: member.lease.LeaseGrant(request, timeout=timeout))
            self._buckets[ttl_s] = _Bucket(answer.ID, self._clock.monotonic() + span, 1)
            return answer.ID

    def _shared(self, ttl_s: int) -> int:
        bucket = self._buckets.get(ttl_s)
        if bucket is None or bucket.keys >= _KEYS_A_LEASE or self._clock.monotonic() >= bucket.until:
            return 0
        bucket.keys += 1
        return bucket.lease

    def forget(self, lease: int) -> None:
        """Hand a lease out no more, because etcd does not know it."""
        self._buckets = {ttl_s: bucket for ttl_s, bucket in self._buckets.items() if bucket.lease != lease}
