"""The driver's mounts in a real kernel, and its process killed."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import grpc
import grpc.aio
import pytest

from tiphys.thirdparty.csi.v1 import csi_pb2, csi_pb2_grpc
from tiphys_component.inotify import FolderWatch
from tiphys_component.rpc import channel
from tiphys_csi.hostpath.mounts import is_mount_point, unmount_all

pytestmark = pytest.mark.netns


def capability(*, block: bool = False) -> csi_pb2.VolumeCapability:
    made = csi_pb2.VolumeCapability()
    made.block.SetInParent() if block else made.mount.SetInParent()
    made.access_mode.mode = csi_pb2.VolumeCapability.AccessMode.SINGLE_NODE_WRITER
    return made


class Process:
    """The driver as a process of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.child: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        before = self._socket()
        words = [
            "--endpoint",
            f"unix://{self.folder}/csi.sock",
            "--node-id",
            "n1",
            "--state-dir",
            str(self.folder / "s"),
        ]
        self.child = subprocess.Popen([sys.executable, "-m", "tiphys_csi.hostpath.main", *words])
        with FolderWatch(self.folder) as watch:
            async with asyncio.timeout(20):
                while self._socket() in ((0, 0), before):
                    await watch.wait()

    def kill(self) -> None:
        if self.child is not None:
            self.child.kill()
            self.child.wait(10)

    def _socket(self) -> tuple[int, int]:
        """Tells one socket from the next; the number alone is given again at once."""
        try:
            found = os.stat(self.folder / "csi.sock")
        except FileNotFoundError:
            return (0, 0)
        return (found.st_ino, found.st_ctime_ns)


@pytest.fixture
def process() -> Iterator[Process]:
    with TemporaryDirectory(prefix="tcsi", dir="/tmp") as name:
        made = Process(Path(name))
        try:
            yield made
        finally:
            made.kill()
            for point in ("pod", "stage"):
                unmount_all(Path(name) / point)


def _stage(folder: Path, volume_id: str, *, block: bool = False) -> csi_pb2.NodeStageVolumeRequest:
    return csi_pb2.NodeStageVolumeRequest(
        volume_id=volume_id, staging_target_path=str(folder / "stage"), volume_capability=capability(block=block)
    )


def _publish(folder: Path, volume_id: str, *, block: bool = False) -> csi_pb2.NodePublishVolumeRequest:
    return csi_pb2.NodePublishVolumeRequest(
        volume_id=volume_id,
        staging_target_path=str(folder / "stage"),
        target_path=str(folder / "pod"),
        volume_capability=capability(block=block),
    )


async def test_driver_killed_while_a_volume_is_in_use_goes_on_where_it_was(process: Process) -> None:
    folder = process.folder
    await process.start()
    async with channel(f"unix:{folder}/csi.sock") as opened:
        controller: Any = csi_pb2_grpc.ControllerStub(opened)
        node: Any = csi_pb2_grpc.NodeStub(opened)
        request = csi_pb2.CreateVolumeRequest(name="a", volume_capabilities=[capability()])
        volume_id = (await controller.CreateVolume(request)).volume.volume_id
        await node.NodeStageVolume(_stage(folder, volume_id))
        await node.NodePublishVolume(_publish(folder, volume_id))
    (folder / "pod" / "file").write_text("kept")
    process.kill()
    await process.start()
    async with channel(f"unix:{folder}/csi.sock") as opened:
        controller = csi_pb2_grpc.ControllerStub(opened)
        node = csi_pb2_grpc.NodeStub(opened)
        await node.NodeStageVolume(_stage(folder, volume_id))
        await node.NodePublishVolume(_publish(folder, volume_id))
        assert (folder / "pod" / "file").read_text() == "kept"
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await controller.DeleteVolume(csi_pb2.DeleteVolumeRequest(volume_id=volume_id))
        assert raised.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        await node.NodeUnpublishVolume(
            csi_pb2.NodeUnpublishVolumeRequest(volume_id=volume_id, target_path=str(folder / "pod"))
        )
        await node.NodeUnstageVolume(
            csi_pb2.NodeUnstageVolumeRequest(volume_id=volume_id, staging_target_path=str(folder / "stage"))
        )
        assert not (folder / "pod").exists()  # one look
        assert not is_mount_point(folder / "stage")
        await controller.DeleteVolume(csi_pb2.DeleteVolumeRequest(volume_id=volume_id))


async def test_volume_whose_state_was_lost_is_taken_off_the_node(process: Process) -> None:
    folder = process.folder
    await process.start()
    async with channel(f"unix:{folder}/csi.sock") as opened:
        controller: Any = csi_pb2_grpc.ControllerStub(opened)
        node: Any = csi_pb2_grpc.NodeStub(opened)
        request = csi_pb2.CreateVolumeRequest(name="a", volume_capabilities=[capability()])
        volume_id = (await controller.CreateVolume(request)).volume.volume_id
        await node.NodeStageVolume(_stage(folder, volume_id))
        await node.NodePublishVolume(_publish(folder, volume_id))
        (folder / "s" / "volumes").rename(folder / "s" / "lost")
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await node.NodePublishVolume(_publish(folder, volume_id))
        assert raised.value.code() is grpc.StatusCode.NOT_FOUND
        await node.NodeUnpublishVolume(
            csi_pb2.NodeUnpublishVolumeRequest(volume_id=volume_id, target_path=str(folder / "pod"))
        )
        await node.NodeUnstageVolume(
            csi_pb2.NodeUnstageVolumeRequest(volume_id=volume_id, staging_target_path=str(folder / "stage"))
        )
        assert not is_mount_point(folder / "stage")


async def test_block_volume_is_a_device_that_grows_and_leaves_none_behind(process: Process) -> None:
    folder = process.folder
    await process.start()
    async with channel(f"unix:{folder}/csi.sock") as opened:
        controller: Any = csi_pb2_grpc.ControllerStub(opened)
        node: Any = csi_pb2_grpc.NodeStub(opened)
        request = csi_pb2.CreateVolumeRequest(name="a", volume_capabilities=[capability(block=True)])
        request.capacity_range.required_bytes = 1 << 20
        volume_id = (await controller.CreateVolume(request)).volume.volume_id
        image = folder / "s" / "volumes" / volume_id / "disk.img"
        for _ in range(2):
            await node.NodeStageVolume(_stage(folder, volume_id, block=True))
            await node.NodePublishVolume(_publish(folder, volume_id, block=True))
        assert _size(folder / "pod") == 1 << 20
        grow = csi_pb2.ControllerExpandVolumeRequest(volume_id=volume_id)
        grow.capacity_range.required_bytes = 2 << 20
        await controller.ControllerExpandVolume(grow)
        await node.NodeExpandVolume(
            csi_pb2.NodeExpandVolumeRequest(volume_id=volume_id, volume_path=str(folder / "pod"))
        )
        assert _size(folder / "pod") == 2 << 20
        for _ in range(2):
            await node.NodeUnpublishVolume(
                csi_pb2.NodeUnpublishVolumeRequest(volume_id=volume_id, target_path=str(folder / "pod"))
            )
            await node.NodeUnstageVolume(
                csi_pb2.NodeUnstageVolumeRequest(volume_id=volume_id, staging_target_path=str(folder / "stage"))
            )
        done = subprocess.run(["losetup", "-j", str(image)], capture_output=True, check=True)
        assert done.stdout == b""
        await controller.DeleteVolume(csi_pb2.DeleteVolumeRequest(volume_id=volume_id))


def _size(device: Path) -> int:
    done = subprocess.run(["blockdev", "--getsize64", str(device)], capture_output=True, check=True)
    return int(done.stdout)
