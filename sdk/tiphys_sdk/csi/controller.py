"""The controller service as an author writes it: override the calls that the driver offers.

Requests come checked (fields that the contract requires are there) and one at a time for each volume. Raise an error of
tiphys_sdk.csi.status; a call may be repeated at any time and must then give the same answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Final

from tiphys.thirdparty.csi.v1 import csi_pb2
from tiphys_sdk.csi.status import unimplemented

Rpc = csi_pb2.ControllerServiceCapability.RPC

# Offered when every call beside it is overridden.
OFFERED_BY: Final[Mapping[Rpc.Type.ValueType, tuple[str, ...]]] = {
    Rpc.CREATE_DELETE_VOLUME: ("CreateVolume", "DeleteVolume"),
    Rpc.PUBLISH_UNPUBLISH_VOLUME: ("ControllerPublishVolume", "ControllerUnpublishVolume"),
    Rpc.LIST_VOLUMES: ("ListVolumes",),
    Rpc.GET_CAPACITY: ("GetCapacity",),
    Rpc.CREATE_DELETE_SNAPSHOT: ("CreateSnapshot", "DeleteSnapshot"),
    Rpc.LIST_SNAPSHOTS: ("ListSnapshots",),
    Rpc.GET_SNAPSHOT: ("GetSnapshot",),
    Rpc.EXPAND_VOLUME: ("ControllerExpandVolume",),
    Rpc.GET_VOLUME: ("ControllerGetVolume",),
    Rpc.MODIFY_VOLUME: ("ControllerModifyVolume",),
}


class Controller:
    """Override what the driver can do; its capabilities follow from that.

    also_offers are the capabilities that are no call of their own, such as CLONE_VOLUME.
    """

    also_offers: ClassVar[tuple[Rpc.Type.ValueType, ...]] = ()

    async def CreateVolume(self, request: csi_pb2.CreateVolumeRequest) -> csi_pb2.CreateVolumeResponse:
        """Makes a volume; asked again with the same name it gives the same volume."""
        raise unimplemented("CreateVolume")

    async def DeleteVolume(self, request: csi_pb2.DeleteVolumeRequest) -> csi_pb2.DeleteVolumeResponse:
        """Deletes a volume; may be asked again."""
        raise unimplemented("DeleteVolume")

    async def ControllerPublishVolume(
        self, request: csi_pb2.ControllerPublishVolumeRequest
    ) -> csi_pb2.ControllerPublishVolumeResponse:
        """Attaches a volume to a node; may be asked again."""
        raise unimplemented("ControllerPublishVolume")

    async def ControllerUnpublishVolume(
        self, request: csi_pb2.ControllerUnpublishVolumeRequest
    ) -> csi_pb2.ControllerUnpublishVolumeResponse:
        """Detaches a volume from a node; may be asked again."""
        raise unimplemented("ControllerUnpublishVolume")

    async def ValidateVolumeCapabilities(
        self, request: csi_pb2.ValidateVolumeCapabilitiesRequest
    ) -> csi_pb2.ValidateVolumeCapabilitiesResponse:
        """Asks whether a volume can be used in some ways."""
        raise unimplemented("ValidateVolumeCapabilities")

    async def ListVolumes(self, request: csi_pb2.ListVolumesRequest) -> csi_pb2.ListVolumesResponse:
        """Asks for volumes."""
        raise unimplemented("ListVolumes")

    async def GetCapacity(self, request: csi_pb2.GetCapacityRequest) -> csi_pb2.GetCapacityResponse:
        """Asks how much room is left."""
        raise unimplemented("GetCapacity")

    async def CreateSnapshot(self, request: csi_pb2.CreateSnapshotRequest) -> csi_pb2.CreateSnapshotResponse:
        """Makes a snapshot; asked again with the same name it gives the same snapshot."""
        raise unimplemented("CreateSnapshot")

    async def DeleteSnapshot(self, request: csi_pb2.DeleteSnapshotRequest) -> csi_pb2.DeleteSnapshotResponse:
        """Deletes a snapshot; may be asked again."""
        raise unimplemented("DeleteSnapshot")

    async def ListSnapshots(self, request: csi_pb2.ListSnapshotsRequest) -> csi_pb2.ListSnapshotsResponse:
        """Asks for snapshots."""
        raise unimplemented("ListSnapshots")

    async def GetSnapshot(self, request: csi_pb2.GetSnapshotRequest) -> csi_pb2.GetSnapshotResponse:
        """Asks for one snapshot."""
        raise unimplemented("GetSnapshot")

    async def ControllerExpandVolume(
        self, request: csi_pb2.ControllerExpandVolumeRequest
    ) -> csi_pb2.ControllerExpandVolumeResponse:
        """Makes a volume larger."""
        raise unimplemented("ControllerExpandVolume")

    async def ControllerGetVolume(
        self, request: csi_pb2.ControllerGetVolumeRequest
    ) -> csi_pb2.ControllerGetVolumeResponse:
        """Asks for one volume."""
        raise unimplemented("ControllerGetVolume")

    async def ControllerModifyVolume(
        self, request: csi_pb2.ControllerModifyVolumeRequest
    ) -> csi_pb2.ControllerModifyVolumeResponse:
        """Changes settings of a volume."""
        raise unimplemented("ControllerModifyVolume")
