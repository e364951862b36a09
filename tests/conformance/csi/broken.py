"""The hostpath driver, deliberately broken: each class in one way, which the kit must name."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from tiphys.thirdparty.csi.v1 import csi_pb2
from tiphys_component.clock import SystemClock
from tiphys_csi.hostpath.controller import AttachingController, HostPathController
from tiphys_csi.hostpath.mounts import is_mount_point
from tiphys_csi.hostpath.node import HostPathNode
from tiphys_csi.hostpath.rules import Limits
from tiphys_csi.hostpath.state import Store, id_for
from tiphys_sdk.csi.driver import Driver
from tiphys_sdk.csi.server import DriverServer
from tiphys_sdk.csi.status import CsiError, internal, not_found

NAME = "broken.example.com"
NODE = "n1"


def make(
    folder: Path, controller: type[HostPathController] = HostPathController, node: type[HostPathNode] = HostPathNode
) -> Driver:
    store = Store(folder)
    store.recover()
    needs_attach = issubclass(controller, AttachingController)
    return Driver(
        name=NAME,
        controller=controller(store, NODE, Limits(1 << 40, 0), SystemClock()),
        node=node(store, NODE, needs_attach=needs_attach, max_volumes=0),
        topology=True,
        expansion=csi_pb2.PluginCapability.VolumeExpansion.ONLINE,
    )


class Unchecked(DriverServer):
    """Lets every request through, and crashes where fields are missing, as drivers without an SDK do."""

    def _guarded(self, call: Callable[[Any], Awaitable[Any]]) -> Callable[[Any, Any], Awaitable[Any]]:
        async def serve(request: Any, _context: Any) -> Any:
            return await call(request)

        return serve


class ANewVolumeEachTime(HostPathController):
    async def CreateVolume(self, request: csi_pb2.CreateVolumeRequest) -> csi_pb2.CreateVolumeResponse:
        changed = csi_pb2.CreateVolumeRequest()
        changed.CopyFrom(request)
        changed.name = uuid.uuid4().hex
        return await super().CreateVolume(changed)


class AnySizeWillDo(HostPathController):
    async def CreateVolume(self, request: csi_pb2.CreateVolumeRequest) -> csi_pb2.CreateVolumeResponse:
        try:
            return await super().CreateVolume(request)
        except CsiError as err:
            if err.code.name != "ALREADY_EXISTS":
                raise
            known = await super().ControllerGetVolume(
                csi_pb2.ControllerGetVolumeRequest(volume_id=id_for(request.name))
            )
            return csi_pb2.CreateVolumeResponse(volume=known.volume)


class DeletesOnce(HostPathController):
    async def DeleteVolume(self, request: csi_pb2.DeleteVolumeRequest) -> csi_pb2.DeleteVolumeResponse:
        await self._volume(request.volume_id)
        return await super().DeleteVolume(request)


class OnePageForEver(HostPathController):
    async def ListVolumes(self, request: csi_pb2.ListVolumesRequest) -> csi_pb2.ListVolumesResponse:
        first = csi_pb2.ListVolumesRequest(max_entries=request.max_entries)
        reply = await super().ListVolumes(first)
        reply.next_token = "more"
        return reply


class Shrinks(HostPathController):
    async def ControllerExpandVolume(
        self, request: csi_pb2.ControllerExpandVolumeRequest
    ) -> csi_pb2.ControllerExpandVolumeResponse:
        reply = await super().ControllerExpandVolume(request)
        reply.capacity_bytes //= 4
        return reply


class SnapshotsOfAnyVolume(HostPathController):
    async def CreateSnapshot(self, request: csi_pb2.CreateSnapshotRequest) -> csi_pb2.CreateSnapshotResponse:
        known = self._store.snapshot(id_for(request.name))
        if known is not None:
            request.source_volume_id = known.source_volume_id
        return await super().CreateSnapshot(request)


class AttachesAnywhere(AttachingController):
    async def ControllerPublishVolume(
        self, request: csi_pb2.ControllerPublishVolumeRequest
    ) -> csi_pb2.ControllerPublishVolumeResponse:
        changed = csi_pb2.ControllerPublishVolumeRequest()
        changed.CopyFrom(request)
        changed.node_id = NODE
        return await super().ControllerPublishVolume(changed)


class InternalForUnknown(HostPathNode):
    async def NodeStageVolume(self, request: csi_pb2.NodeStageVolumeRequest) -> csi_pb2.NodeStageVolumeResponse:
        if self._store.volume(request.volume_id) is None:
            raise internal("no state for this volume")
        return await super().NodeStageVolume(request)


class LeavesTheTarget(HostPathNode):
    async def NodeUnpublishVolume(
        self, request: csi_pb2.NodeUnpublishVolumeRequest
    ) -> csi_pb2.NodeUnpublishVolumeResponse:
        await super().NodeUnpublishVolume(request)
        await asyncio.to_thread(Path(request.target_path).mkdir)
        return csi_pb2.NodeUnpublishVolumeResponse()


class AlwaysWritable(HostPathNode):
    async def NodePublishVolume(self, request: csi_pb2.NodePublishVolumeRequest) -> csi_pb2.NodePublishVolumeResponse:
        changed = csi_pb2.NodePublishVolumeRequest()
        changed.CopyFrom(request)
        changed.readonly = False
        return await super().NodePublishVolume(changed)


class UnstagesOnce(HostPathNode):
    async def NodeUnstageVolume(self, request: csi_pb2.NodeUnstageVolumeRequest) -> csi_pb2.NodeUnstageVolumeResponse:
        staged = Path(request.staging_target_path)
        if not is_mount_point(staged):
            raise not_found("mount", str(staged))
        return await super().NodeUnstageVolume(request)


class Nameless(HostPathNode):
    async def NodeGetInfo(self, request: csi_pb2.NodeGetInfoRequest) -> csi_pb2.NodeGetInfoResponse:
        return csi_pb2.NodeGetInfoResponse()
