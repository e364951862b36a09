"""UDP: packets to other nodes go through this process, for machines where the kernel can do nothing else.

The kernel routes the whole network into flannel0, a TUN device; each packet read there is sent to the node whose subnet
it is for, in one datagram, and what comes from nodes is written back. Six crossings between kernel and process for one
exchange, so it is by far the slowest: a way to try things out, as upstream says too.

Source: flannel pkg/backend/udp.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import Any

from tiphys_cni.flannel.backend.interface import Applied, BackendError, Opened, Settings
from tiphys_cni.flannel.backend.tun import open_tun
from tiphys_cni.flannel.backend.underlay import Underlay, find_underlay
from tiphys_cni.flannel.kernel import KernelSocket
from tiphys_cni.flannel.lease import Announcement, Lease
from tiphys_cni.flannel.plan import Entries, Route, plan
from tiphys_component.log import get_logger

DEFAULT_PORT = 8285
# The outer headers: IPv4 20, UDP 8.
_OVERHEAD = 28
# So many packets in one turn of the loop, each some 10 µs: others wait less than a millisecond.
_BATCH = 64
_PACKET_BYTES = 65536
_SOCKET_BUFFER_BYTES = 4 << 20
# Source: linux/in.h. Path MTU discovery would set the bit that forbids fragments on the outer packet.
_IP_MTU_DISCOVER, _IP_PMTUDISC_DONT = 10, 0

_log = get_logger("flannel.udp")


class SubnetMap:
    """Which node an address belongs to: a table for each length of prefix, as a rule one. Longest first."""

    def __init__(self, subnets: Mapping[IPv4Network, tuple[str, int]] | None = None) -> None:
        by_length: dict[int, dict[int, tuple[str, int]]] = {}
        for subnet, target in (subnets or {}).items():
            shift = 32 - subnet.prefixlen
            by_length.setdefault(shift, {})[int(subnet.network_address) >> shift] = target
        self._tables = sorted(by_length.items())

    def find(self, address: int) -> tuple[str, int] | None:
        """Where packets for an address go; None for an address of no node."""
        for shift, table in self._tables:
            target = table.get(address >> shift)
            if target is not None:
                return target
        return None


class Forwarder:
    """Carries packets between a TUN device and a UDP socket, both not blocking, in the loop. One buffer, no copies."""

    def __init__(self, tun: int, port: int, address: IPv4Address) -> None:
        self._tun = tun
        self._buffer = memoryview(bytearray(_PACKET_BYTES))
        self._buffers = [self._buffer]
        self.subnets = SubnetMap()
        self.dropped = 0
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            self._socket.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _IP_PMTUDISC_DONT)
            for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
                self._socket.setsockopt(socket.SOL_SOCKET, option, _SOCKET_BUFFER_BYTES)
            self._socket.bind((str(address), port))
        except BaseException:
            self._socket.close()
            raise
        loop = asyncio.get_running_loop()
        loop.add_reader(self._tun, self._read_tun)
        loop.add_reader(self._socket.fileno(), self._read_socket)

    @property
    def is_open(self) -> bool:
        """False after the device was deleted."""
        return self._tun >= 0

    def close(self) -> None:
        """Ends both ends; may be repeated."""
        if self._tun >= 0:
            loop = asyncio.get_running_loop()
            loop.remove_reader(self._tun)
            loop.remove_reader(self._socket.fileno())
            self._socket.close()
            os.close(self._tun)
            self._tun = -1

    def _read_tun(self) -> None:
        tun, view, buffers, find, send = self._tun, self._buffer, self._buffers, self.subnets.find, self._socket.sendto
        for _ in range(_BATCH):
            try:
                size = os.readv(tun, buffers)
            except BlockingIOError:
                return
            except OSError as err:
                # The device is gone; the manager hears of that, too, and opens anew.
                _log.warning("device lost", err=str(err))
                self.close()
                return
            target = find(int.from_bytes(view[16:20], "big")) if size >= 20 else None
            if target is None:
                self.dropped += 1
                continue
            try:
                send(view[:size], target)
            except OSError:
                # As on any wire: the socket's buffer is full, or the node can't be reached at the moment.
                self.dropped += 1

    def _read_socket(self) -> None:
        tun, view, receive = self._tun, self._buffer, self._socket.recv_into
        for _ in range(_BATCH):
            try:
                size = receive(view)
            except BlockingIOError:
                return
            except OSError:
                # An error that the network reported about a packet sent before.
                self.dropped += 1
                continue
            try:
                os.write(tun, view[:size])
            except OSError:
                # No packet, or the device is down.
                self.dropped += 1


@dataclass(frozen=True, slots=True)
class _Open:
    underlay: Underlay
    index: int
    forwarder: Forwarder


class Udp:
    """The back end. Its device stays when the process ends, so that routes do; packets wait for the next life."""

    name = "udp"
    overlay = "flannel0"

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._port = settings.port or DEFAULT_PORT
        self._open: _Open | None = None

    @property
    def devices(self) -> frozenset[str]:
        """The TUN device, and what it runs over."""
        return frozenset({self.overlay, *([self._open.underlay.name] if self._open else ())})

    async def open(self, subnet: IPv4Network, announced: Mapping[str, Any]) -> Opened:
        """Ensures device, address and socket. Raises BackendError or OSError."""
        underlay, index = await asyncio.to_thread(self._find)
        known, changes = self._open, 0
        if (
            known is None
            or not known.forwarder.is_open
            or (known.index, known.underlay.address)
            != (
                index,
                underlay.address,
            )
        ):
            await self.close()
            forwarder = Forwarder(open_tun(self.overlay), self._port, underlay.address)
            self._open = _Open(underlay, socket.if_nametoindex(self.overlay), forwarder)
            changes = 1
        else:
            self._open = _Open(underlay, index, known.forwarder)
        mtu = self._settings.mtu or underlay.mtu - _OVERHEAD
        return Opened(mtu, changes + await asyncio.to_thread(self._set_up, subnet, mtu, self._open.index))

    def _find(self) -> tuple[Underlay, int]:
        with KernelSocket() as kernel:
            link = kernel.link(self.overlay)
            return find_underlay(kernel, self._settings), link.index if link else 0

    def _set_up(self, subnet: IPv4Network, mtu: int, index: int) -> int:
        with KernelSocket() as kernel:
            link = kernel.link(self.overlay)
            changes = 0
            if link is None or link.mtu != mtu or not link.is_up:
                kernel.set_link(index, mtu=mtu)
                changes = 1
            return changes + kernel.ensure_only_address(index, IPv4Interface((subnet.network_address, 32)))

    def announce(self) -> Announcement:
        """The node's address. Raises BackendError before open."""
        return Announcement(self.name, self._opened().underlay.address)

    async def apply(self, leases: Sequence[Lease]) -> Applied:
        """Sends packets for exactly these leases. Raises OSError."""
        opened = self._opened()
        refused = {
            lease.node: f"node {lease.node} speaks {lease.backend or 'nothing'}, this node udp"
            for lease in leases
            if lease.backend != self.name
        }
        opened.forwarder.subnets = SubnetMap(
            {lease.subnet: (str(lease.public_ip), self._port) for lease in leases if lease.node not in refused}
        )
        wanted = Entries(frozenset({Route(self._settings.network, opened.index)}))
        return Applied(await asyncio.to_thread(_apply, wanted), refused)

    async def close(self) -> None:
        """Frees device and socket."""
        if self._open is not None:
            self._open.forwarder.close()

    def _opened(self) -> _Open:
        if self._open is None:
            raise BackendError("the back end is not open")
        return self._open


def _apply(wanted: Entries) -> int:
    with KernelSocket() as kernel:
        changes = plan(Entries(kernel.routes()), wanted)
        failed = kernel.commit(changes)
    if failed:
        raise failed[0][1]
    return len(changes)
