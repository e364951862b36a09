"""Hears what the kernel says of its devices, neighbours, forwarding entries and routes. No polling.

Only that something happened is passed on: whoever listens compares everything anyway, so that no message needs to be
understood, and none be missed for good. Source of numbers: linux/rtnetlink.h.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import struct
from collections.abc import Callable, Set

from tiphys_cni.netlink import attributes

_GROUP_LINK, _GROUP_NEIGH, _GROUP_IPV4_IFADDR, _GROUP_IPV4_ROUTE = 1, 3, 5, 7
_GROUPS = sum(1 << (group - 1) for group in (_GROUP_LINK, _GROUP_NEIGH, _GROUP_IPV4_IFADDR, _GROUP_IPV4_ROUTE))
_NEWLINK, _DELLINK, _NEWADDR, _DELADDR, _NEWROUTE, _DELROUTE, _NEWNEIGH, _DELNEIGH = 16, 17, 20, 21, 24, 25, 28, 29
_IFLA_IFNAME = 3
_RT_TABLE_MAIN = 254
_HEADER = struct.Struct("=IHHII")
_BUFFER_BYTES = 1 << 20
_DATAGRAM_BYTES = 65536
# So many messages in one turn of the loop.
_BATCH = 64


class Monitor:
    """Calls on_change whenever something may have happened to what is watched.

    devices and overlay name what counts at the moment: links and addresses of the devices, neighbours and forwarding
    entries of the overlay alone, as those of others change all the time; and every route of the main table.
    """

    def __init__(
        self, on_change: Callable[[], None], devices: Callable[[], Set[str]], overlay: Callable[[], str]
    ) -> None:
        self._on_change = on_change
        self._devices = devices
        self._overlay = overlay

    async def run(self) -> None:
        """Listens until cancelled. Raises OSError where the kernel offers no such socket."""
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, 0) as ear:
            ear.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
            ear.bind((0, _GROUPS))
            loop = asyncio.get_running_loop()
            loop.add_reader(ear.fileno(), self._read, ear)
            try:
                # What happened before the socket listened.
                self._on_change()
                await loop.create_future()
            finally:
                loop.remove_reader(ear.fileno())

    def _read(self, ear: socket.socket) -> None:
        heard = False
        for _ in range(_BATCH):
            try:
                data = ear.recv(_DATAGRAM_BYTES)
            except BlockingIOError:
                break
            except OSError as err:
                if err.errno != errno.ENOBUFS:
                    raise
                # More happened than the socket holds: anything may have changed.
                heard = True
                continue
            heard = heard or any(self.counts(kind, body) for kind, body in messages(data))
        if heard:
            self._on_change()

    def counts(self, kind: int, body: bytes) -> bool:
        """Whether a message tells of something that is watched."""
        if kind in (_NEWROUTE, _DELROUTE):
            return len(body) >= 12 and body[4] == _RT_TABLE_MAIN
        if kind in (_NEWLINK, _DELLINK):
            name = next((v for k, v in attributes(body[16:]) if k == _IFLA_IFNAME), b"")
            return name.rstrip(b"\0").decode(errors="replace") in self._devices()
        if kind in (_NEWADDR, _DELADDR):
            return _name(body) in {"", *self._devices()}
        return kind in (_NEWNEIGH, _DELNEIGH) and _name(body) in ("", self._overlay() or "-")


def messages(data: bytes) -> list[tuple[int, bytes]]:
    """The messages of a datagram, by kind."""
    found = []
    offset = 0
    while offset + _HEADER.size <= len(data):
        length, kind, _, _, _ = _HEADER.unpack_from(data, offset)
        if length < _HEADER.size:
            break
        found.append((kind, data[offset + _HEADER.size : offset + length]))
        offset += (length + 3) & ~3
    return found


def _name(body: bytes) -> str:
    """The device that an address or neighbour is of; empty where it is gone already."""
    try:
        return socket.if_indextoname(struct.unpack_from("=i", body, 4)[0])
    except OSError:
        return ""
