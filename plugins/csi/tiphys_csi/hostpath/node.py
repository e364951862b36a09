"""The node service: a volume's folder is shown at the paths that the kubelet names."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from tiphys.thirdparty.csi.v1 import csi_pb2
from tiphys_csi.hostpath import loop_devices, mounts, rules
from tiphys_csi.hostpath.state import Store, Volume
from tiphys_sdk.csi.node import Node, Rpc
from tiphys_sdk.csi.status import already_exists, failed_precondition, internal, invalid_argument, not_found

_Unit = csi_pb2.VolumeUsage


class HostPathNode(Node):
    """Mounts on one node. What is mounted is read from the kernel, never remembered."""

    also_offers = (Rpc.SINGLE_NODE_MULTI_WRITER,)

    def __init__(self, store: Store, node_id: str, *, needs_attach: bool, max_volumes: int) -> None:
        self._store = store
        self._node_id = node_id
        self._needs_attach = needs_attach
        self._max_volumes = max_volumes

    async def NodeGetInfo(self, request: csi_pb2.NodeGetInfoRequest) -> csi_pb2.NodeGetInfoResponse:
        """The node's id, and its topology: volumes stay where they are made."""
        reply = csi_pb2.NodeGetInfoResponse(node_id=self._node_id, max_volumes_per_node=self._max_volumes)
        reply.accessible_topology.segments[rules.TOPOLOGY_KEY] = self._node_id
        return reply

    async def NodeStageVolume(self, request: csi_pb2.NodeStageVolumeRequest) -> csi_pb2.NodeStageVolumeResponse:
        """The volume at the staging path; of a block volume only its device."""
        volume = await self._usable(request.volume_id, request.volume_capability)
        if volume.kind == "block":
            await loop_devices.ensure(self._store.data(volume))
        else:
            await asyncio.to_thread(_ensure_bound, self._store.data(volume), Path(request.staging_target_path))
        return csi_pb2.NodeStageVolumeResponse()

    async def NodeUnstageVolume(self, request: csi_pb2.NodeUnstageVolumeRequest) -> csi_pb2.NodeUnstageVolumeResponse:
        """Nothing at the staging path; the folder stays, it is the caller's."""
        await asyncio.to_thread(mounts.unmount_all, Path(request.staging_target_path))
        volume = await asyncio.to_thread(self._store.volume, request.volume_id)
        if volume is not None and volume.kind == "block":
            await loop_devices.detach(self._store.data(volume))
        return csi_pb2.NodeUnstageVolumeResponse()

    async def NodePublishVolume(self, request: csi_pb2.NodePublishVolumeRequest) -> csi_pb2.NodePublishVolumeResponse:
        """The staged volume at the target path, which is made: a folder, or a file for a block volume."""
        if not request.staging_target_path:
            raise invalid_argument("staging_target_path", "is required")
        volume = await self._usable(request.volume_id, request.volume_capability)
        target = Path(request.target_path)
        if volume.kind == "block":
            devices = await loop_devices.devices_of(self._store.data(volume))
            if not devices:
                raise failed_precondition(f"volume {volume.id} is not staged")
            await asyncio.to_thread(_publish, devices[0], target, readonly=request.readonly)
            return csi_pb2.NodePublishVolumeResponse()
        staged, data = Path(request.staging_target_path), self._store.data(volume)
        if not await asyncio.to_thread(mounts.is_same, staged, data):
            raise failed_precondition(f"volume {volume.id} is not staged at {staged}")
        await asyncio.to_thread(_publish, staged, target, readonly=request.readonly)
        return csi_pb2.NodePublishVolumeResponse()

    async def NodeUnpublishVolume(
        self, request: csi_pb2.NodeUnpublishVolumeRequest
    ) -> csi_pb2.NodeUnpublishVolumeResponse:
        """Nothing at the target path any more, nor the path; also for a volume that is lost."""
        await asyncio.to_thread(_unpublish, Path(request.target_path))
        return csi_pb2.NodeUnpublishVolumeResponse()

    async def NodeGetVolumeStats(
        self, request: csi_pb2.NodeGetVolumeStatsRequest
    ) -> csi_pb2.NodeGetVolumeStatsResponse:
        """What is used of the volume; NOT_FOUND where it is not at that path."""
        volume = await self._volume(request.volume_id)
        path, data = Path(request.volume_path), self._store.data(volume)
        reply = csi_pb2.NodeGetVolumeStatsResponse()
        if volume.kind == "block":
            if not await asyncio.to_thread(path.exists):
                raise not_found("path", request.volume_path)
            reply.usage.add(unit=_Unit.BYTES, total=volume.capacity_bytes)
            return reply
        if not await asyncio.to_thread(mounts.is_same, path, data):
            raise not_found(f"volume {volume.id} at path", request.volume_path)
        used, files, disk = await asyncio.to_thread(_usage, data)
        left = max(0, min(volume.capacity_bytes - used, disk.f_bavail * disk.f_frsize))
        reply.usage.add(unit=_Unit.BYTES, total=volume.capacity_bytes, used=used, available=left)
        reply.usage.add(unit=_Unit.INODES, total=disk.f_files, used=files, available=disk.f_favail)
        return reply

    async def NodeExpandVolume(self, request: csi_pb2.NodeExpandVolumeRequest) -> csi_pb2.NodeExpandVolumeResponse:
        """The size that the controller gave it, told to its loop device where it has one."""
        volume = await self._volume(request.volume_id)
        if not await asyncio.to_thread(Path(request.volume_path).exists):
            raise not_found("path", request.volume_path)
        if volume.kind == "block":
            for device in await loop_devices.devices_of(self._store.data(volume)):
                await loop_devices.grow(device)
        return csi_pb2.NodeExpandVolumeResponse(capacity_bytes=volume.capacity_bytes)

    async def _usable(self, volume_id: str, capability: csi_pb2.VolumeCapability) -> Volume:
        volume = await self._volume(volume_id)
        if rules.kind_of([capability]) != volume.kind:
            raise invalid_argument("volume_capability", f"volume {volume_id} is a {volume.kind} volume")
        if self._needs_attach and self._node_id not in volume.attached:
            raise failed_precondition(f"volume {volume_id} is not attached to node {self._node_id}")
        return volume

    async def _volume(self, volume_id: str) -> Volume:
        volume = await asyncio.to_thread(self._store.volume, volume_id)
        if volume is None:
            raise not_found("volume", volume_id)
        return volume


def _ensure_bound(source: Path, target: Path) -> None:
    """Source at target, as the only mount there. Raises CsiError, OSError."""
    if not source.exists():
        raise not_found("data", str(source))
    if source.is_dir():
        target.mkdir(parents=True, exist_ok=True)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.touch()
    if mounts.is_mount_point(target):
        if mounts.is_same(source, target):
            return
        # What is there is of a volume that was lost, or none of ours; the caller named the path for this one.
        raise internal(f"something else is mounted on {target}")
    mounts.bind(source, target)


def _publish(source: Path, target: Path, *, readonly: bool) -> None:
    _ensure_bound(source, target)
    if target.is_dir():
        found = mounts.is_readonly(target)
        if found and not readonly:
            raise already_exists("mount", str(target), "read-only")
    if readonly:
        # Also where the mount is there: a driver that was killed between the two steps left it writable.
        mounts.make_readonly(target)


def _unpublish(target: Path) -> None:
    mounts.unmount_all(target)
    try:
        if target.is_dir():
            # Never with its content: after a mount that failed to go that would be the user's data.
            target.rmdir()
        else:
            target.unlink()
    except FileNotFoundError:
        return


def _usage(folder: Path) -> tuple[int, int, os.statvfs_result]:
    """Bytes and files in use, and the numbers of the file system below."""
    used, files = 0, 1
    for parent, folders, names in os.walk(folder):
        for name in (*folders, *names):
            try:
                used += os.lstat(os.path.join(parent, name)).st_blocks * 512
            except FileNotFoundError:
                continue
            files += 1
    return used, files, os.statvfs(folder)
