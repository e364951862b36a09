"""The node's sign of life: a Lease in kube-node-lease, renewed every ten seconds."""

from __future__ import annotations

from collections.abc import Callable

from tiphys.api.coordination.v1.coordination_pb2 import Lease
from tiphys.api.core.v1.node_pb2 import Node
from tiphys_apimachinery.errors import AlreadyExists, APIError, Conflict, NotFound
from tiphys_apimachinery.meta import micro_time_now
from tiphys_component.backoff import Backoff
from tiphys_component.clock import Clock
from tiphys_component.log import get_logger
from tiphys_kubelet.api import ApiClient

NAMESPACE = "kube-node-lease"
DURATION_S = 40
RENEW_S = 10.0


class NodeLease:
    """Renews the lease of a node; `run` for ever. `node` gives the node's object once it is registered."""

    def __init__(self, name: str, client: ApiClient, clock: Clock, node: Callable[[], Node | None]) -> None:
        self._name = name
        self._client = client
        self._clock = clock
        self._node = node
        self._lease: Lease | None = None
        self._log = get_logger("kubelet.lease", node=name)

    async def run(self) -> None:
        """Renews, and tries sooner after a failure."""
        backoff = Backoff(0.2, 7.0)
        while True:
            try:
                self._lease = await self._renew()
            except (NotFound, Conflict, AlreadyExists):
                # Somebody wrote or removed it: look again before the next try.
                self._lease = None
                await self._clock.sleep(backoff.next())
            except APIError as err:
                self._log.warning("lease can't be renewed", err=err.message)
                await self._clock.sleep(backoff.next())
            else:
                backoff.reset()
                await self._clock.sleep(RENEW_S)

    async def _renew(self) -> Lease:
        lease = self._lease
        if lease is None:
            try:
                lease = await self._client.get(Lease, self._name, NAMESPACE)
            except NotFound:
                return await self._client.create(self._filled(Lease()))
        return await self._client.update(self._filled(lease))

    def _filled(self, lease: Lease) -> Lease:
        lease.metadata.name, lease.metadata.namespace = self._name, NAMESPACE
        lease.spec.holderIdentity = self._name
        lease.spec.leaseDurationSeconds = DURATION_S
        lease.spec.renewTime.CopyFrom(micro_time_now(self._clock))
        node = self._node()
        # With its node as owner the lease goes when the node's object goes.
        if node is not None and not lease.metadata.ownerReferences:
            lease.metadata.ownerReferences.add(
                apiVersion="v1", kind="Node", name=node.metadata.name, uid=node.metadata.uid
            )
        return lease
