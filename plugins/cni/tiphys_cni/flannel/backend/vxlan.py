"""VXLAN: frames between nodes in UDP, by the kernel alone.

Each node has one device, flannel.VNI, whose address is the first of its subnet. For each other node there are three
entries: a route to its subnet by way of its device's address, said to be on the link; who has that address; and to
which node frames for that hardware address go. Nothing is learned and nothing asked for, so no broadcast crosses.
The kernel needs all three: without any one of them every packet to that node is lost.

Source: flannel pkg/backend/vxlan/vxlan.go, which tells how its three designs before this one fared.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from ipaddress import IPv4Interface, IPv4Network
from typing import Any

from tiphys_cni.flannel.backend.interface import Applied, BackendError, Opened, Settings
from tiphys_cni.flannel.backend.underlay import Underlay, find_underlay
from tiphys_cni.flannel.kernel import KernelSocket, VxlanDevice
from tiphys_cni.flannel.lease import Announcement, Lease
from tiphys_cni.flannel.plan import Entries, Forward, Neighbour, Route, plan

DEFAULT_PORT = 8472
# The outer headers: Ethernet 14, IPv4 20, UDP 8, VXLAN 8.
_OVERHEAD = 50
_MAC_LENGTH = 17


class Vxlan:
    """The back end. Its device's hardware address stays for life, so that other nodes need not learn another."""

    name = "vxlan"

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.overlay = f"flannel.{settings.vni}"
        self._underlay: Underlay | None = None
        self._device: VxlanDevice | None = None

    @property
    def devices(self) -> frozenset[str]:
        """The VXLAN device, and what it runs over."""
        return frozenset({self.overlay, *([self._underlay.name] if self._underlay else ())})

    async def open(self, subnet: IPv4Network, announced: Mapping[str, Any]) -> Opened:
        """Ensures the device and its address. Raises BackendError or OSError."""
        return await asyncio.to_thread(self._open, subnet, announced)

    def _open(self, subnet: IPv4Network, announced: Mapping[str, Any]) -> Opened:
        with KernelSocket() as kernel:
            underlay = find_underlay(kernel, self._settings)
            mtu = self._settings.mtu or underlay.mtu - _OVERHEAD
            wanted = VxlanDevice(
                name=self.overlay,
                vni=self._settings.vni,
                underlay=underlay.index,
                local=underlay.address,
                port=self._settings.port or DEFAULT_PORT,
                learning=False,
                mac=self._device.mac if self._device else _announced_mac(announced),
                mtu=mtu,
            )
            self._device, changes = _ensure_device(kernel, wanted)
            self._underlay = underlay
            changes += kernel.ensure_only_address(self._device.index, IPv4Interface((subnet.network_address, 32)))
        return Opened(mtu, changes)

    def announce(self) -> Announcement:
        """The node's address and its device's. Raises BackendError before open."""
        underlay, device = self._opened()
        return Announcement(self.name, underlay.address, {"VNI": self._settings.vni, "VtepMAC": device.mac})

    async def apply(self, leases: Sequence[Lease]) -> Applied:
        """Ensures the entries of exactly these leases. Raises OSError."""
        underlay, device = self._opened()
        return await asyncio.to_thread(self._apply, leases, underlay, device.index)

    def _apply(self, leases: Sequence[Lease], underlay: Underlay, index: int) -> Applied:
        wanted, refused = wanted_entries(leases, self._settings, underlay, index)
        with KernelSocket() as kernel:
            current = Entries(kernel.routes(), kernel.neighbours(index), kernel.forwards(index))
            changes = plan(current, wanted)
            failed = kernel.commit(changes)
        if failed:
            # The device went away in between, or DirectRouting lost its link: the next look starts anew.
            raise failed[0][1]
        return Applied(len(changes), refused)

    async def close(self) -> None:
        """Nothing is held."""

    def _opened(self) -> tuple[Underlay, VxlanDevice]:
        if self._underlay is None or self._device is None:
            raise BackendError("the back end is not open")
        return self._underlay, self._device


def wanted_entries(
    leases: Sequence[Lease], settings: Settings, underlay: Underlay, index: int
) -> tuple[Entries, dict[str, str]]:
    """The entries that leases need on the device of that index, and why some can't be used, by node. Pure."""
    routes, neighbours, forwards = set(), set(), set()
    refused: dict[str, str] = {}
    by_mac: dict[str, str] = {}
    for lease in leases:
        if lease.backend != Vxlan.name:
            refused[lease.node] = f"node {lease.node} speaks {lease.backend or 'nothing'}, this node vxlan"
            continue
        if settings.direct_routing and underlay.on_link(lease.public_ip):
            routes.add(Route(lease.subnet, underlay.index, lease.public_ip))
            continue
        if lease.data.get("VNI", settings.vni) != settings.vni:
            refused[lease.node] = f"node {lease.node} has VNI {lease.data['VNI']}, this node {settings.vni}"
            continue
        mac = lease.vtep_mac
        if not _is_mac(mac):
            refused[lease.node] = f"node {lease.node}: VtepMAC {mac!r} is no hardware address"
            continue
        other = by_mac.setdefault(mac, lease.node)
        if other != lease.node:
            refused[lease.node] = f"node {lease.node}: VtepMAC {mac} is that of node {other}"
            continue
        gateway = lease.subnet.network_address
        routes.add(Route(lease.subnet, index, gateway, onlink=True))
        neighbours.add(Neighbour(index, gateway, mac))
        forwards.add(Forward(index, mac, lease.public_ip))
    return Entries(frozenset(routes), frozenset(neighbours), frozenset(forwards)), refused


def _ensure_device(kernel: KernelSocket, wanted: VxlanDevice) -> tuple[VxlanDevice, int]:
    """The device as wanted; one that fits is kept, with its hardware address where none is asked for."""
    found = kernel.vxlan(wanted.name)
    if found is not None and found.fits(wanted):
        mac = wanted.mac or found.mac
        if found.mtu == wanted.mtu and found.mac == mac and found.is_up:
            return found, 0
        kernel.set_link(found.index, mtu=wanted.mtu, mac=mac)
        return replace(found, mtu=wanted.mtu, mac=mac, is_up=True), 1
    # Also what has the name and is no VXLAN device at all.
    kernel.delete_link(wanted.name)
    try:
        kernel.create_vxlan(replace(wanted, mac=wanted.mac or (found.mac if found else new_mac())))
    except FileExistsError as err:
        # The name is free, so the kernel means the VXLAN itself.
        message = f"another device of this node has VNI {wanted.vni} on port {wanted.port}: remove it, or choose --vni"
        raise BackendError(message) from err
    made = kernel.vxlan(wanted.name)
    if made is None:
        raise BackendError(f"device {wanted.name} vanished while it was made")
    return made, 1


def _announced_mac(announced: Mapping[str, Any]) -> str:
    mac = str(announced.get("VtepMAC", "")).lower()
    return mac if _is_mac(mac) else ""


def _is_mac(text: str) -> bool:
    return len(text) == _MAC_LENGTH and all(len(part) == 2 for part in text.split(":")) and _is_hex(text)


def _is_hex(text: str) -> bool:
    return all(letter in "0123456789abcdef:" for letter in text)


def new_mac() -> str:
    """A hardware address that nobody was given: locally administered, for one station."""
    octets = bytearray(os.urandom(6))
    octets[0] = octets[0] & 0xFE | 0x02
    return octets.hex(":")
