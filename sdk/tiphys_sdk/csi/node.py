"""The node service as an author writes it: override the calls that the driver offers.

Requests come checked and one at a time for each volume. Every call may be repeated and must then give the same answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Final

from tiphys.thirdparty.csi.v1 import csi_pb2
from tiphys_sdk.csi.status import unimplemented

Rpc = csi_pb2.NodeServiceCapability.RPC

# Offered when every call beside it is overridden.
OFFERED_BY: Final[Mapping[Rpc.Type.ValueType, tuple[str, ...]]] = {
    Rpc.STAGE_UNSTAGE_VOLUME: ("NodeStageVolume", "NodeUnstageVolume"),
    Rpc.GET_VOLUME_STATS: ("NodeGetVolumeStats",),
    Rpc.EXPAND_VOLUME: ("NodeExpandVolume",),
}


class Node:
    """Override what the driver can do; NodePublishVolume, NodeUnpublishVolume and NodeGetInfo every driver has.

    also_offers are the capabilities that are no call of their own, such as VOLUME_MOUNT_GROUP.
    """

    also_offers: ClassVar[tuple[Rpc.Type.ValueType, ...]] = ()

    async def NodeStageVolume(self, request: csi_pb2.NodeStageVolumeRequest) -> csi_pb2.NodeStageVolumeResponse:
        """Mounts a volume on a node, once for all pods; may be asked again."""
        raise unimplemented("NodeStageVolume")

    async def NodeUnstageVolume(self, request: csi_pb2.NodeUnstageVolumeRequest) -> csi_pb2.NodeUnstageVolumeResponse:
        """Takes back NodeStageVolume; may be asked again."""
        raise unimplemented("NodeUnstageVolume")

    async def NodePublishVolume(self, request: csi_pb2.NodePublishVolumeRequest) -> csi_pb2.NodePublishVolumeResponse:
        """Mounts a volume for a pod; may be asked again."""
        raise unimplemented("NodePublishVolume")

    async def NodeUnpublishVolume(
        self, request: csi_pb2.NodeUnpublishVolumeRequest
    ) -> csi_pb2.NodeUnpublishVolumeResponse:
        """Takes back NodePublishVolume; may be asked again."""
        raise unimplemented("NodeUnpublishVolume")

    async def NodeGetVolumeStats(
        self, request: csi_pb2.NodeGetVolumeStatsRequest
    ) -> csi_pb2.NodeGetVolumeStatsResponse:
        """Asks what is used of a volume."""
        raise unimplemented("NodeGetVolumeStats")

    async def NodeExpandVolume(self, request: csi_pb2.NodeExpandVolumeRequest) -> csi_pb2.NodeExpandVolumeResponse:
        """Makes the file system of a larger volume larger."""
        raise unimplemented("NodeExpandVolume")

    async def NodeGetInfo(self, request: csi_pb2.NodeGetInfoRequest) -> csi_pb2.NodeGetInfoResponse:
        """Asks about the node."""
        raise unimplemented("NodeGetInfo")
