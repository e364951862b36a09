"""The device that a back end runs over."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

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
    links = {link.index: link for link in kernel.links()}
    addresses = kernel.ipv4_addresses()
    if settings.iface:
        index = next((link.index for link in links.values() if link.name == settings.iface), 0)
        if not index:
            raise BackendError(f"--iface: there is no device {settings.iface}")
    elif settings.node_ip is not None:
        index = next((owner for owner, found in addresses if found.ip == settings.node_ip), 0)
        if not index:
            raise BackendError(f"--node-ip: no device has the address {settings.node_ip}")
    else:
        index = kernel.default_device()
        if not index:
            raise BackendError("there is no default route: name the device with --iface")
    link = links[index]
    mine = [found for owner, found in addresses if owner == index]
    if settings.node_ip is not None:
        chosen = next((found.ip for found in mine if found.ip == settings.node_ip), None)
    else:
        chosen = mine[0].ip if mine else None
    if chosen is None:
        raise BackendError(f"device {link.name} does not have the address {settings.node_ip or 'of this node yet'}")
    return Underlay(link.name, index, link.mtu, chosen, tuple(found.network for found in mine))
