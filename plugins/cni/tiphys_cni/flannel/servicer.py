"""The gRPC face of the flannel service."""

from __future__ import annotations

from typing import Any

from tiphys.flannel.v1 import flannel_pb2, flannel_pb2_grpc
from tiphys_cni.flannel.lease import Lease
from tiphys_cni.flannel.manager import Manager
from tiphys_component.rpc import Servicer


class FlannelServicer(flannel_pb2_grpc.FlannelServiceServicer):
    """Serves tiphys.flannel.v1.FlannelService."""

    def __init__(self, manager: Manager) -> None:
        self._manager = manager

    async def ListLeases(self, request: flannel_pb2.ListLeasesRequest, context: Any) -> flannel_pb2.ListLeasesResponse:
        """The other nodes' leases; also those that can't be read, by name and reason."""
        refused = dict(self._manager.refused)
        leases = [_message(peer, refused.pop(peer.node, "")) for peer in self._manager.survey.peers]
        leases += [flannel_pb2.Lease(node=name, refused=why) for name, why in refused.items()]
        return flannel_pb2.ListLeasesResponse(leases=sorted(leases, key=lambda found: found.node))

    async def GetBackend(self, request: flannel_pb2.GetBackendRequest, context: Any) -> flannel_pb2.GetBackendResponse:
        """The own lease and what carries the packets."""
        own = self._manager.own
        return flannel_pb2.GetBackendResponse(
            type=self._manager.backend.name,
            lease=_message(own, "") if own else None,
            network=str(self._manager.network),
            mtu=self._manager.mtu,
            problem=self._manager.survey.problem,
        )

    async def Sync(self, request: flannel_pb2.SyncRequest, context: Any) -> flannel_pb2.SyncResponse:
        """Compares everything now."""
        return flannel_pb2.SyncResponse(changes=await self._manager.sync())


def _message(lease: Lease, refused: str) -> flannel_pb2.Lease:
    return flannel_pb2.Lease(
        node=lease.node,
        subnet=str(lease.subnet),
        public_ip=str(lease.public_ip),
        backend_type=lease.backend,
        vtep_mac=lease.vtep_mac,
        refused=refused,
    )


def servicer(manager: Manager) -> Servicer:
    """What the server registers."""
    name = flannel_pb2.DESCRIPTOR.services_by_name["FlannelService"].full_name
    return Servicer(
        (name,),
        lambda server: flannel_pb2_grpc.add_FlannelServiceServicer_to_server(FlannelServicer(manager), server),
    )
