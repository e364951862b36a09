"""The device that a back end runs over."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

from tiphys_cni.flannel.backend.interface import BackendError, Settings
from tiphys_cni.flannel.kernel import KernelSocket


@dataclass(frozen=True, slots=True)
class Underlay:
    """A device with the node's address; networks are those on its link."""

    name: str
    index: int
    mtu: int
    address: IPv4Address
    networks: tuple[IPv4Network, ...]

    def on_link(self, address: IPv4Address) -> bool:
        """Whether an address is reached without a router."""
        return any(address in network for network in self.networks)


def find_underlay(kernel: KernelSocket, settings: Settings) -> Underlay:
    """The device by name, by address, or that of the default route. Blocks. Raises BackendError."""
    addresses = kernel.ipv4_addresses()
    name = settings.iface or _name_of(_index(kernel, settings, addresses))
    # By name, and not out of a list of all: a node has a device for each pod.
    link = kernel.link(name)
    if link is None:
        raise BackendError(f"--iface: there is no device {name}")
    mine = [found for owner, found in addresses if owner == link.index]
    chosen = next((found.ip for found in mine if settings.node_ip in (None, found.ip)), None)
    if chosen is None:
        raise BackendError(f"device {name} does not have the address {settings.node_ip or 'of this node'} yet")
    return Underlay(name, link.index, link.mtu, chosen, tuple(found.network for found in mine))


def _index(kernel: KernelSocket, settings: Settings, addresses: list[tuple[int, IPv4Interface]]) -> int:
    if settings.node_ip is not None:
        index = next((owner for owner, found in addresses if found.ip == settings.node_ip), 0)
        advice = f"--node-ip: no device has the address {settings.node_ip}"
    else:
        index = kernel.default_device()
        advice = "there is no default route: name the device with --iface"
    if not index:
        raise BackendError(advice)
    return index


def _name_of(index: int) -> str:
    try:
        return socket.if_indextoname(index)
    except OSError as err:
        raise BackendError("the device went away while it was looked at") from err
