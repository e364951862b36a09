"""host-gw: a plain route to each node's subnet, with the node as the next hop. Nothing is wrapped, so nothing is lost.

It needs all nodes on one link: a router between them knows nothing of the pods' subnets. A node behind one is refused
by itself, and the others work.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from ipaddress import IPv4Network
from typing import Any

from tiphys_cni.flannel.backend.interface import Applied, BackendError, Opened, Settings
from tiphys_cni.flannel.backend.underlay import Underlay, find_underlay
from tiphys_cni.flannel.kernel import KernelSocket
from tiphys_cni.flannel.lease import Announcement, Lease
from tiphys_cni.flannel.plan import Entries, Route, plan


class HostGw:
    """The back end. It has no device of its own."""

    name = "host-gw"
    overlay = ""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._underlay: Underlay | None = None

    @property
    def devices(self) -> frozenset[str]:
        """What it runs over."""
        return frozenset({self._underlay.name} if self._underlay else ())

    async def open(self, subnet: IPv4Network, announced: Mapping[str, Any]) -> Opened:
        """Finds the device. Raises BackendError or OSError."""
        self._underlay = await asyncio.to_thread(self._find)
        return Opened(self._settings.mtu or self._underlay.mtu)

    def _find(self) -> Underlay:
        with KernelSocket() as kernel:
            return find_underlay(kernel, self._settings)

    def announce(self) -> Announcement:
        """The node's address. Raises BackendError before open."""
        return Announcement(self.name, self._opened().address)

    async def apply(self, leases: Sequence[Lease]) -> Applied:
        """Ensures the routes of exactly these leases. Raises OSError."""
        underlay = self._opened()
        return await asyncio.to_thread(_apply, leases, underlay)

    async def close(self) -> None:
        """Nothing is held."""

    def _opened(self) -> Underlay:
        if self._underlay is None:
            raise BackendError("the back end is not open")
        return self._underlay


def wanted_routes(leases: Sequence[Lease], underlay: Underlay) -> tuple[dict[Route, str], dict[str, str]]:
    """The routes that leases need, with the node of each, and why some can't be used, by node. Pure."""
    routes: dict[Route, str] = {}
    refused: dict[str, str] = {}
    for lease in leases:
        if lease.backend != HostGw.name:
            refused[lease.node] = f"node {lease.node} speaks {lease.backend or 'nothing'}, this node host-gw"
        elif not underlay.on_link(lease.public_ip):
            refused[lease.node] = (
                f"node {lease.node}: {lease.public_ip} is not on the link of {underlay.name} "
                f"({', '.join(map(str, underlay.networks))}), and host-gw can't cross a router"
            )
        else:
            routes[Route(lease.subnet, underlay.index, lease.public_ip)] = lease.node
    return routes, refused


def _apply(leases: Sequence[Lease], underlay: Underlay) -> Applied:
    wanted, refused = wanted_routes(leases, underlay)
    with KernelSocket() as kernel:
        changes = plan(Entries(kernel.routes()), Entries(frozenset(wanted)))
        failed = kernel.commit(changes)
    # The kernel judges the next hop by its own routes, and may know better than the addresses do.
    by_kernel = {
        wanted[route]: f"node {wanted[route]}: route to {route.destination} by {route.gateway} refused: {err.strerror}"
        for route, err in failed
    }
    return Applied(len(changes) - len(failed), {**refused, **by_kernel})
