"""Gives each node its ranges of pod addresses, and takes them back when the node is deleted.

One worker decides, and a range is held in memory before it is written, so that no two nodes ever get the same.
"""

from __future__ import annotations

from collections.abc import Iterable

from tiphys.api.core.v1 import node_pb2
from tiphys_apimachinery.errors import APIError
from tiphys_client.controller import RequeueAfter
from tiphys_client.transport import is_retriable
from tiphys_component.app import StartupError
from tiphys_component.log import get_logger
from tiphys_controller_manager.controllers.node_ipam.allocator import Allocator, NothingLeft, pools
from tiphys_controller_manager.frame import Context, Watch, own_key

_FULL_S = 10.0


class NodeIpamController:
    """Keys are names of nodes. Must have one worker."""

    def __init__(self, context: Context) -> None:
        options = context.options
        self._client = context.client
        self._events = context.events
        self._nodes = context.informers.of(node_pb2.Node)
        # By name, the uid of the node whose range is stored, though the view may not show it yet.
        self._given: dict[str, str] = {}
        self._is_on = options.allocate_node_cidrs and bool(options.cluster_cidr)
        self._log = get_logger("node-ipam-controller")
        try:
            self._allocator = Allocator(
                pools(
                    options.cluster_cidr,
                    mask_ipv4=options.node_cidr_mask_size_ipv4,
                    mask_ipv6=options.node_cidr_mask_size_ipv6,
                ),
                options.service_cluster_ip_range,
            )
        except ValueError as err:
            raise StartupError(str(err), "check --cluster-cidr, --service-cluster-ip-range and the mask sizes") from err

    def watches(self) -> Iterable[Watch]:
        """Nodes."""
        return (Watch(node_pb2.Node, own_key),) if self._is_on else ()

    def first_keys(self) -> Iterable[str]:
        """None; but what nodes already have is taken before the first is given one."""
        for node in self._nodes.list():
            self._occupy(node)
        return ()

    async def reconcile(self, key: str) -> RequeueAfter | None:
        """Give a node its ranges. Raises errors of the API."""
        node = self._nodes.get(key)
        if node is None:
            self._given.pop(key, None)
            self._allocator.release(key)
            return None
        if node.spec.podCIDRs or node.spec.podCIDR:
            self._given.pop(key, None)
            self._occupy(node)
            return None
        if self._given.get(key) == node.metadata.uid:
            # The change that shows it queues the node again.
            return None
        try:
            ranges = self._allocator.allocate(key)
        except NothingLeft as err:
            message = f"Node {key} status is now: CIDRNotAvailable"
            self._events.event(node, "Normal", "CIDRNotAvailable", message)
            self._log.warning("no range for node", node=key, err=str(err))
            return RequeueAfter(_FULL_S)
        await self._write(node, ranges)
        return None

    async def _write(self, node: node_pb2.Node, ranges: tuple[str, ...]) -> None:
        key = node.metadata.name
        patch = {
            "metadata": {"uid": node.metadata.uid},
            "spec": {"podCIDR": ranges[0], "podCIDRs": list(ranges)},
        }
        try:
            await self._client.patch(node_pb2.Node, key, "", patch, type="strategic")
        except APIError as err:
            if is_retriable(err):
                # It may be stored: ask, rather than give the range to another.
                fresh = await self._client.get(node_pb2.Node, key)
                if fresh.spec.podCIDRs:
                    self._allocator.release(key)
                    self._occupy(fresh)
                    return
            self._allocator.release(key)
            raise
        self._given[key] = node.metadata.uid
        self._log.info("range given", node=key, ranges=ranges)

    def _occupy(self, node: node_pb2.Node) -> None:
        name = node.metadata.name
        ranges = [text for text in (*node.spec.podCIDRs, node.spec.podCIDR) if text]
        try:
            clashes = self._allocator.occupy(name, ranges)
        except ValueError as err:
            self._log.error("node has an unreadable range", node=name, err=str(err))
            return
        for text, holder in clashes.items():
            self._log.error("two nodes have one range", node=name, range=text, other=holder)
