"""Where leases are kept: the contract, and the one that keeps them at the Nodes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from ipaddress import IPv4Network
from typing import Protocol

from tiphys.api.core.v1.node_pb2 import Node
from tiphys_client.client import Client
from tiphys_client.informer import Informer
from tiphys_client.recorder import EventRecorder
from tiphys_cni.flannel import lease
from tiphys_cni.flannel.lease import Announcement, Claim, Survey

_ANNOTATIONS = (lease.BACKEND_TYPE, lease.BACKEND_DATA, lease.PUBLIC_IP, lease.KUBE_SUBNET_MANAGER)


class SubnetManager(Protocol):
    """Keeps the leases of all nodes. One task calls it, one call at a time."""

    def on_change(self, wake: Callable[[], None]) -> None:
        """Has wake called after any lease changed, from the loop."""
        ...

    async def wait_synced(self) -> None:
        """Returns when all leases are known."""
        ...

    async def survey(self) -> Survey:
        """What can be believed now; takes a subnet for this node where that is its to take. Raises OSError."""
        ...

    async def announce(self, found: Survey, told: Announcement) -> bool:
        """Tells the others the way to this node; whether that had to be written. Raises OSError, APIError."""
        ...

    def warn(self, message: str) -> None:
        """Shows people that a lease can't be used; the log has it already."""
        ...


class KubeSubnetManager:
    """Leases as the Nodes' ranges and annotations; the informer is run by the caller."""

    def __init__(
        self, client: Client, nodes: Informer[Node, Claim], events: EventRecorder, *, node: str, network: IPv4Network
    ) -> None:
        self._client = client
        self._nodes = nodes
        self._events = events
        self._node = node
        self._network = network

    def on_change(self, wake: Callable[[], None]) -> None:
        """See SubnetManager."""

        def updated(old: Node, new: Node) -> None:
            # A node's status changes often and says nothing of leases.
            notes = (old.metadata.annotations, new.metadata.annotations)
            if old.spec != new.spec or any(notes[0].get(key) != notes[1].get(key) for key in _ANNOTATIONS):
                wake()

        self._nodes.add_handler(lambda _: wake(), updated, lambda _: wake())

    async def wait_synced(self) -> None:
        """See SubnetManager."""
        await self._nodes.wait_synced()

    async def survey(self) -> Survey:
        """See SubnetManager: subnets are the node IPAM controller's to give."""
        read = map(self._nodes.projection, self._nodes.keys())
        claims = [claim for claim in read if claim is not None]
        return await asyncio.to_thread(lease.survey, claims, self._node, self._network)

    async def announce(self, found: Survey, told: Announcement) -> bool:
        """See SubnetManager."""
        wanted = told.annotations()
        if all(found.announced.get(key) == value for key, value in wanted.items()):
            return False
        await self._client.patch(Node, self._node, "", {"metadata": {"annotations": wanted}})
        return True

    def warn(self, message: str) -> None:
        """See SubnetManager: an Event at the Node."""
        node = self._nodes.get(self._node)
        if node is not None:
            self._events.event(node, "Warning", "LeaseRefused", message)
