"""The kernel's side of an overlay: VXLAN devices, forwarding entries, neighbours and routes, by hand-made netlink.

Everything here blocks for a request or a dump: call it in a thread. Source of numbers: linux/if_link.h,
linux/neighbour.h, linux/rtnetlink.h.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

from tiphys_cni.flannel.plan import Changes, Forward, Neighbour, Route
from tiphys_cni.netlink import IFF_UP, RTM_GETADDR, RTM_GETROUTE, RouteSocket, attribute, attributes

ROUTE_PROTOCOL = 241
"""Marks routes as ours, so that those of a life before are known; a number that no routing daemon uses."""

_RTM_NEWLINK, _RTM_GETLINK, _RTM_SETLINK, _RTM_DELADDR, _RTM_NEWROUTE, _RTM_DELROUTE = 16, 18, 19, 21, 24, 25
_RTM_NEWNEIGH, _RTM_DELNEIGH, _RTM_GETNEIGH = 28, 29, 30
_ACK, _DUMP, _EXCL, _CREATE, _REPLACE = 0x4, 0x300, 0x200, 0x400, 0x100
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_LINKINFO = 1, 3, 4, 18
_INFO_KIND, _INFO_DATA = 1, 2
_VXLAN_ID, _VXLAN_LINK, _VXLAN_LOCAL, _VXLAN_LEARNING, _VXLAN_PORT = 1, 3, 4, 7, 15
_NDA_DST, _NDA_LLADDR = 1, 2
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_PRIORITY, _RTA_TABLE = 1, 4, 5, 6, 15
_IFA_LOCAL = 2
_NUD_PERMANENT, _NTF_SELF = 0x80, 0x02
_RT_TABLE_MAIN, _RT_SCOPE_LINK, _RT_SCOPE_UNIVERSE, _RTN_UNICAST, _RTNH_F_ONLINK = 254, 253, 0, 1, 4
_AF_BRIDGE = 7

_LINK = struct.Struct("=BxHiII")
_ADDR = struct.Struct("=BBBBi")
_ROUTE = struct.Struct("=BBBBBBBBI")
_NEIGHBOUR = struct.Struct("=BxxxiHBB")


@dataclass(frozen=True, slots=True)
class VxlanDevice:
    """A VXLAN device as it is, or as it shall be; index is 0 in the latter. underlay is an index."""

    name: str
    vni: int
    underlay: int
    local: IPv4Address
    port: int
    learning: bool
    mac: str
    mtu: int
    is_up: bool = True
    index: int = 0

    def fits(self, wanted: VxlanDevice) -> bool:
        """Whether it can stay; address, MTU and state can be changed on a device, the rest can't."""
        mine = (self.vni, self.underlay, self.local, self.port, self.learning)
        return mine == (wanted.vni, wanted.underlay, wanted.local, wanted.port, wanted.learning)


class KernelSocket(RouteSocket):
    """A netlink socket that also knows what an overlay needs. Not shared by threads."""

    def vxlan(self, name: str) -> VxlanDevice | None:
        """The device of that name; None where there is none, or one of another kind."""
        try:
            request = _LINK.pack(0, 0, 0, 0, 0) + attribute(_IFLA_IFNAME, name.encode() + b"\0")
            body = self.request(_RTM_GETLINK, 0, request)[0]
        except OSError as err:
            if err.errno == errno.ENODEV:
                return None
            raise
        _, _, index, flags, _ = _LINK.unpack_from(body)
        values = dict(attributes(body[_LINK.size :]))
        info = dict(attributes(values.get(_IFLA_LINKINFO, b"")))
        if info.get(_INFO_KIND, b"").rstrip(b"\0") != b"vxlan":
            return None
        data = dict(attributes(info.get(_INFO_DATA, b"")))
        return VxlanDevice(
            name=name,
            vni=_u32(data.get(_VXLAN_ID)),
            underlay=_u32(data.get(_VXLAN_LINK)),
            local=IPv4Address(data.get(_VXLAN_LOCAL, b"\0\0\0\0")),
            port=int.from_bytes(data.get(_VXLAN_PORT, b""), "big"),
            learning=data.get(_VXLAN_LEARNING, b"\0") != b"\0",
            mac=values.get(_IFLA_ADDRESS, b"").hex(":"),
            mtu=_u32(values.get(_IFLA_MTU)),
            is_up=bool(flags & IFF_UP),
            index=index,
        )

    def create_vxlan(self, wanted: VxlanDevice) -> None:
        """Makes the device, up. Raises FileExistsError."""
        data = attribute(_VXLAN_ID, struct.pack("=I", wanted.vni))
        data += attribute(_VXLAN_LINK, struct.pack("=I", wanted.underlay))
        data += attribute(_VXLAN_LOCAL, wanted.local.packed)
        data += attribute(_VXLAN_LEARNING, bytes([wanted.learning]))
        data += attribute(_VXLAN_PORT, wanted.port.to_bytes(2, "big"))
        info = attribute(_INFO_KIND, b"vxlan\0") + attribute(_INFO_DATA, data)
        attrs = attribute(_IFLA_IFNAME, wanted.name.encode() + b"\0") + attribute(_IFLA_ADDRESS, _mac(wanted.mac))
        attrs += attribute(_IFLA_MTU, struct.pack("=I", wanted.mtu)) + attribute(_IFLA_LINKINFO, info)
        self.request(_RTM_NEWLINK, _ACK | _CREATE | _EXCL, _LINK.pack(0, 0, 0, IFF_UP, IFF_UP) + attrs)

    def set_link(self, index: int, *, mtu: int, mac: str = "") -> None:
        """Sets the MTU, and the address where one is given, and brings the link up."""
        attrs = attribute(_IFLA_MTU, struct.pack("=I", mtu))
        if mac:
            attrs += attribute(_IFLA_ADDRESS, _mac(mac))
        self.request(_RTM_SETLINK, _ACK, _LINK.pack(0, 0, index, IFF_UP, IFF_UP) + attrs)

    def ensure_only_address(self, index: int, address: IPv4Interface) -> int:
        """Gives a device this IPv4 address and no other; returns how much was changed."""
        present = [found for owner, found in self.ipv4_addresses() if owner == index]
        for other in present:
            if other != address:
                body = _ADDR.pack(socket.AF_INET, other.network.prefixlen, 0, 0, index)
                self.request(_RTM_DELADDR, _ACK, body + attribute(_IFA_LOCAL, other.ip.packed))
        if address not in present:
            self.add_address(index, address)
        return sum(other != address for other in present) + (address not in present)

    def ipv4_addresses(self) -> list[tuple[int, IPv4Interface]]:
        """Every IPv4 address with its device's index, in the kernel's order: a device's first is its main one."""
        found = []
        for body in self.request(RTM_GETADDR, _DUMP, _ADDR.pack(socket.AF_INET, 0, 0, 0, 0)):
            _, prefix, _, _, index = _ADDR.unpack_from(body)
            packed = dict(attributes(body[_ADDR.size :])).get(_IFA_LOCAL)
            if packed is not None:
                found.append((index, IPv4Interface((packed, prefix))))
        return found

    def default_device(self) -> int:
        """Index of the device of the default route; 0 without one."""
        for body in self.request(RTM_GETROUTE, _DUMP, _ROUTE.pack(socket.AF_INET, 0, 0, 0, 0, 0, 0, 0, 0)):
            if body[1] == 0 and body[4] == _RT_TABLE_MAIN and body[7] == _RTN_UNICAST:
                return _u32(dict(attributes(body[_ROUTE.size :])).get(_RTA_OIF))
        return 0

    def routes(self) -> frozenset[Route]:
        """The routes of the main table that are ours."""
        found = set()
        for body in self.request(RTM_GETROUTE, _DUMP, _ROUTE.pack(socket.AF_INET, 0, 0, 0, 0, 0, 0, 0, 0)):
            _, prefix, _, _, table, protocol, _, _, flags = _ROUTE.unpack_from(body)
            if protocol != ROUTE_PROTOCOL or table != _RT_TABLE_MAIN:
                continue
            values = dict(attributes(body[_ROUTE.size :]))
            gateway = values.get(_RTA_GATEWAY)
            found.add(
                Route(
                    IPv4Network((values.get(_RTA_DST, b"\0\0\0\0"), prefix)),
                    _u32(values.get(_RTA_OIF)),
                    IPv4Address(gateway) if gateway else None,
                    bool(flags & _RTNH_F_ONLINK),
                )
            )
        return frozenset(found)

    def neighbours(self, index: int) -> frozenset[Neighbour]:
        """The permanent IPv4 neighbours on a device."""
        found = set()
        for body in self.request(_RTM_GETNEIGH, _DUMP, _NEIGHBOUR.pack(socket.AF_INET, 0, 0, 0, 0)):
            _, owner, state, _, _ = _NEIGHBOUR.unpack_from(body)
            values = dict(attributes(body[_NEIGHBOUR.size :]))
            if owner == index and state & _NUD_PERMANENT and _NDA_LLADDR in values:
                found.add(Neighbour(index, IPv4Address(values[_NDA_DST]), values[_NDA_LLADDR].hex(":")))
        return frozenset(found)

    def forwards(self, index: int) -> frozenset[Forward]:
        """The entries of a VXLAN device's own forwarding table."""
        found = set()
        for body in self.request(_RTM_GETNEIGH, _DUMP, _LINK.pack(_AF_BRIDGE, 0, index, 0, 0)):
            _, owner, _, flags, _ = _NEIGHBOUR.unpack_from(body)
            values = dict(attributes(body[_NEIGHBOUR.size :]))
            remote = values.get(_NDA_DST, b"")
            if owner == index and flags & _NTF_SELF and len(remote) == 4 and _NDA_LLADDR in values:
                found.add(Forward(index, values[_NDA_LLADDR].hex(":"), IPv4Address(remote)))
        return frozenset(found)

    def commit(self, changes: Changes) -> list[tuple[Route, OSError]]:
        """Makes the changes, writes first, so that there is always a way; returns the routes that were refused."""
        for forward in changes.write.forwards:
            self.request(_RTM_NEWNEIGH, _ACK | _CREATE | _REPLACE, _forward(forward))
        for neighbour in changes.write.neighbours:
            self.request(_RTM_NEWNEIGH, _ACK | _CREATE | _REPLACE, _neighbour(neighbour))
        failed: list[tuple[Route, OSError]] = []
        for route in sorted(changes.write.routes, key=lambda route: route.destination):
            try:
                self.request(_RTM_NEWROUTE, _ACK | _CREATE | _REPLACE, _route(route))
            except OSError as err:
                failed.append((route, err))
        for route in changes.remove.routes:
            _absent_is_well(self.request, _RTM_DELROUTE, _route(route))
        for neighbour in changes.remove.neighbours:
            _absent_is_well(self.request, _RTM_DELNEIGH, _neighbour(neighbour))
        for forward in changes.remove.forwards:
            _absent_is_well(self.request, _RTM_DELNEIGH, _forward(forward))
        return failed


def _absent_is_well(request: Callable[[int, int, bytes], list[bytes]], kind: int, body: bytes) -> None:
    try:
        request(kind, _ACK, body)
    except OSError as err:
        if err.errno not in (errno.ESRCH, errno.ENOENT, errno.ENODEV):
            raise


def _forward(entry: Forward) -> bytes:
    head = _NEIGHBOUR.pack(_AF_BRIDGE, entry.index, _NUD_PERMANENT, _NTF_SELF, 0)
    return head + attribute(_NDA_LLADDR, _mac(entry.mac)) + attribute(_NDA_DST, entry.remote.packed)


def _neighbour(entry: Neighbour) -> bytes:
    head = _NEIGHBOUR.pack(socket.AF_INET, entry.index, _NUD_PERMANENT, 0, 0)
    return head + attribute(_NDA_DST, entry.address.packed) + attribute(_NDA_LLADDR, _mac(entry.mac))


def _route(entry: Route) -> bytes:
    scope = _RT_SCOPE_UNIVERSE if entry.gateway else _RT_SCOPE_LINK
    flags = _RTNH_F_ONLINK if entry.onlink else 0
    prefix = entry.destination.prefixlen
    body = _ROUTE.pack(socket.AF_INET, prefix, 0, 0, _RT_TABLE_MAIN, ROUTE_PROTOCOL, scope, _RTN_UNICAST, flags)
    body += attribute(_RTA_DST, entry.destination.network_address.packed)
    if entry.gateway:
        body += attribute(_RTA_GATEWAY, entry.gateway.packed)
    return body + attribute(_RTA_OIF, struct.pack("=I", entry.index))


def _mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def _u32(packed: bytes | None) -> int:
    return int(struct.unpack("=I", packed)[0]) if packed and len(packed) == 4 else 0
