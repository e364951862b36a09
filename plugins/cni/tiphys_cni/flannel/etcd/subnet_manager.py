"""Leases in etcd: each node takes a free subnet by compare and swap, and keeps it alive.

A node is known by its public address, by which it finds its lease again. Of two nodes that want one subnet etcd lets
one have it, and the other takes the next.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from tiphys_cni.flannel import lease
from tiphys_cni.flannel.etcd import records
from tiphys_cni.flannel.etcd.client import Change, Entry, EtcdClient, EtcdUnavailable
from tiphys_cni.flannel.lease import Announcement, Survey
from tiphys_component.app import start_loop
from tiphys_component.backoff import Backoff
from tiphys_component.clock import Clock
from tiphys_component.log import get_logger

# A node that is away for a day loses its subnet.
TTL_S = 24 * 3600
RENEW_S = 3600.0
_log = get_logger("flannel.etcd")


@dataclass(frozen=True, slots=True)
class Place:
    """Where leases are kept, and which is ours. previous is the subnet of a life before, taken again if it is free."""

    network: IPv4Network
    public_ip: IPv4Address
    backend: str
    previous: IPv4Network | None = None
    prefix: str = "/coreos.com/network"


class EtcdSubnetManager:
    """Follows all leases in `run`; survey takes one for this node."""

    def __init__(self, client: EtcdClient, place: Place, clock: Clock) -> None:
        self._client = client
        self._place = place
        self._clock = clock
        self._node = str(place.public_ip)
        self._wake: Callable[[], None] = lambda: None
        self._synced = asyncio.Event()
        self._entries: dict[str, Entry] = {}
        self._previous = place.previous

    async def run(self) -> None:
        """Follows the leases and keeps our own alive until cancelled."""
        async with asyncio.TaskGroup() as group:
            start_loop(group, self._follow(), "leases in etcd")
            start_loop(group, self._renew(), "renewal of the lease")

    def on_change(self, wake: Callable[[], None]) -> None:
        """See SubnetManager."""
        self._wake = wake

    async def wait_synced(self) -> None:
        """See SubnetManager."""
        await self._synced.wait()

    def warn(self, message: str) -> None:
        """See SubnetManager: there is nobody but the log's readers."""

    async def survey(self) -> Survey:
        """See SubnetManager. Raises EtcdUnavailable."""
        found = await asyncio.to_thread(self._judge, tuple(self._entries.values()))
        if found.own is None and not found.is_refused:
            try:
                await self._acquire()
            except ValueError as err:
                return Survey(None, str(err), {}, found.peers, found.refused)
            found = await asyncio.to_thread(self._judge, tuple(self._entries.values()))
        if found.own is not None:
            self._previous = found.own
        return found

    async def announce(self, found: Survey, told: Announcement) -> bool:
        """See SubnetManager. Raises EtcdUnavailable where the lease was changed by another meanwhile."""
        assert found.own is not None
        key, value = records.subnet_key(self._place.prefix, found.own), records.announced(told)
        entry = self._entries.get(key)
        if entry is None:
            raise EtcdUnavailable(f"the lease of {found.own} is gone")
        if entry.value == value:
            return False
        changed = await self._client.swap(key, value, changed=entry.changed, lease=entry.lease)
        if not changed:
            raise EtcdUnavailable(f"the lease of {found.own} was changed meanwhile")
        self._entries[key] = Entry(key, value, entry.created, changed, entry.lease)
        return True

    def _judge(self, entries: Sequence[Entry]) -> Survey:
        read = map(records.claim_of, entries)
        # The oldest of a node's leases counts, should it have left another behind.
        claims = {one.node: one for one in sorted((one for one in read if one), key=lambda one: one.age, reverse=True)}
        return lease.survey(claims.values(), self._node, self._place.network)

    async def _acquire(self) -> None:
        """Takes a subnet. Raises EtcdUnavailable, and ValueError where none can be had."""
        place = self._place
        length = await self._subnet_length()
        lease_id = await self._client.grant(TTL_S)
        start, value = random.randrange(2 ** (length - place.network.prefixlen)), records.reserved(place.public_ip)
        while True:
            taken = [subnet for key in self._entries if (subnet := records.parse_key(key)) is not None]
            free = records.free_subnets(place.network, length, taken, start=start)
            previous = self._previous
            if previous is not None and previous.prefixlen == length and not any(map(previous.overlaps, taken)):
                wanted: IPv4Network | None = previous if previous.subnet_of(place.network) else next(free, None)
            else:
                wanted = next(free, None)
            if wanted is None:
                raise ValueError(f"no subnet of length {length} is free in {place.network}")
            key = records.subnet_key(place.prefix, wanted)
            changed = await self._client.swap(key, value, changed=0, lease=lease_id)
            if changed:
                self._entries[key] = Entry(key, value, changed, changed, lease_id)
                _log.info("subnet taken", subnet=str(wanted))
                return
            # Another was faster: what it took may not have come by the watch yet.
            entries, _ = await self._client.read(f"{place.prefix}/subnets/")
            self._entries = {entry.key: entry for entry in entries}

    async def _subnet_length(self) -> int:
        place = self._place
        key = f"{place.prefix}/config"
        found, _ = await self._client.read(f"{place.prefix}/")
        for entry in found:
            if entry.key == key:
                return records.subnet_length(entry.value, place.network)
        await self._client.swap(key, records.configuration(place.network, place.backend), changed=0, lease=0)
        return await self._subnet_length()

    async def _follow(self) -> None:
        backoff, prefix = Backoff(base_s=0.1, cap_s=5.0), f"{self._place.prefix}/subnets/"
        while True:
            try:
                entries, revision = await self._client.read(prefix)
                self._entries = {entry.key: entry for entry in entries}
                self._synced.set()
                self._wake()
                async for changes in self._client.watch(prefix, revision + 1):
                    backoff.reset()
                    self._take(changes)
            except EtcdUnavailable as err:
                delay_s = backoff.next()
                _log.error("leases in etcd not followed", err=str(err), retry_after_s=delay_s)
                await self._clock.sleep(delay_s)

    def _take(self, changes: list[Change]) -> None:
        for change in changes:
            known = self._entries.get(change.key)
            # What we wrote ourselves is known before its event, and events before that come later.
            if known is not None and known.changed >= change.revision:
                continue
            if change.entry is None:
                self._entries.pop(change.key, None)
            else:
                self._entries[change.key] = change.entry
        if changes:
            self._wake()

    async def _renew(self) -> None:
        await self._synced.wait()
        while True:
            mine = [one for one in self._entries.values() if (c := records.claim_of(one)) and c.node == self._node]
            try:
                for entry in mine:
                    if entry.lease and not await self._client.keep_alive(entry.lease):
                        _log.error("lease is over", subnet=entry.key.rpartition("/")[2])
            except EtcdUnavailable as err:
                _log.error("lease not renewed", err=str(err))
            await self._clock.sleep(RENEW_S)
