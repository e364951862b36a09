"""Steps on a volume's way to a node: attached, staged, published, used, grown, and all the way back."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import grpc.aio

from tiphys.thirdparty.csi.v1 import csi_pb2
from tiphys_sdk.conformance.bench import Failure, expect
from tiphys_sdk.conformance.csi.controller import refused
from tiphys_sdk.conformance.csi.session import UNKNOWN_ID, ControllerRpc, NodeRpc, Session, capability

_INVALID, _NOT_FOUND = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND
_TEXT = b"kept"


@dataclass(slots=True)
class Journey:
    """One volume on one node. Every call may be made at any time; a path that is not staged is empty."""

    session: Session
    volume: csi_pb2.Volume
    staging: Path
    target: Path
    context: dict[str, str] = field(default_factory=dict)

    @property
    def stages(self) -> bool:
        """Whether the driver stages volumes."""
        return self.session.node_can(NodeRpc.STAGE_UNSTAGE_VOLUME)

    async def attach(self) -> None:
        """Attach where the driver attaches; what it gives is handed on."""
        if self.session.can(ControllerRpc.PUBLISH_UNPUBLISH_VOLUME):
            request = csi_pb2.ControllerPublishVolumeRequest(
                volume_id=self.volume.volume_id,
                node_id=self.session.node_id,
                volume_capability=capability(),
                volume_context=self.volume.volume_context,
            )
            reply = await self.session.call(self.session.controller, "ControllerPublishVolume", request)
            self.context = dict(reply.publish_context)

    async def detach(self) -> None:
        """Take attach() back."""
        if self.session.can(ControllerRpc.PUBLISH_UNPUBLISH_VOLUME):
            request = csi_pb2.ControllerUnpublishVolumeRequest(
                volume_id=self.volume.volume_id, node_id=self.session.node_id
            )
            await self.session.call(self.session.controller, "ControllerUnpublishVolume", request)

    async def stage(self) -> None:
        """Stage where the driver stages."""
        if self.stages:
            await asyncio.to_thread(self.staging.mkdir, parents=True, exist_ok=True)
            request = csi_pb2.NodeStageVolumeRequest(
                volume_id=self.volume.volume_id,
                publish_context=self.context,
                staging_target_path=str(self.staging),
                volume_capability=capability(),
                volume_context=self.volume.volume_context,
            )
            await self.session.call(self.session.node, "NodeStageVolume", request)

    async def unstage(self) -> None:
        """Take stage() back."""
        if self.stages:
            request = csi_pb2.NodeUnstageVolumeRequest(
                volume_id=self.volume.volume_id, staging_target_path=str(self.staging)
            )
            await self.session.call(self.session.node, "NodeUnstageVolume", request)

    def publish_request(self, *, readonly: bool = False) -> csi_pb2.NodePublishVolumeRequest:
        """What publishes the volume at the target."""
        return csi_pb2.NodePublishVolumeRequest(
            volume_id=self.volume.volume_id,
            publish_context=self.context,
            staging_target_path=str(self.staging) if self.stages else "",
            target_path=str(self.target),
            volume_capability=capability(),
            readonly=readonly,
            volume_context=self.volume.volume_context,
        )

    async def publish(self, *, readonly: bool = False) -> None:
        """Publish at the target."""
        await asyncio.to_thread(self.target.parent.mkdir, parents=True, exist_ok=True)
        request = self.publish_request(readonly=readonly)
        await self.session.call(self.session.node, "NodePublishVolume", request)

    async def unpublish(self) -> None:
        """Take publish() back."""
        request = csi_pb2.NodeUnpublishVolumeRequest(volume_id=self.volume.volume_id, target_path=str(self.target))
        await self.session.call(self.session.node, "NodeUnpublishVolume", request)

    async def home(self) -> None:
        """All the way back, whatever was reached."""
        await self.unpublish()
        await self.unstage()
        await self.detach()


async def node_steps(session: Session) -> None:
    """All of them. Without a controller only the checks of bad input are made."""
    await _bad_input(session)
    await _attach_checks(session)
    await _journey(session)
    await _readonly(session)
    await _unknown(session)


def _journey_of(session: Session, volume: csi_pb2.Volume, purpose: str) -> Journey:
    return Journey(session, volume, session.folder / purpose / "stage", session.folder / purpose / "pods" / "target")


async def _bad_input(session: Session) -> None:
    path, node = str(session.folder / "x"), session.node
    async with session.bench.step("publish: missing fields", "without id, path or capability: INVALID_ARGUMENT"):
        for request in (
            csi_pb2.NodePublishVolumeRequest(target_path=path, volume_capability=capability()),
            csi_pb2.NodePublishVolumeRequest(volume_id=UNKNOWN_ID, volume_capability=capability()),
            csi_pb2.NodePublishVolumeRequest(volume_id=UNKNOWN_ID, target_path=path),
        ):
            await refused(session, node, "NodePublishVolume", request, _INVALID)
        for undo in (
            csi_pb2.NodeUnpublishVolumeRequest(target_path=path),
            csi_pb2.NodeUnpublishVolumeRequest(volume_id=UNKNOWN_ID),
        ):
            await refused(session, node, "NodeUnpublishVolume", undo, _INVALID)
    async with session.bench.step("stage: missing fields", "without id, path or capability: INVALID_ARGUMENT"):
        session.require_node(NodeRpc.STAGE_UNSTAGE_VOLUME)
        for staged in (
            csi_pb2.NodeStageVolumeRequest(staging_target_path=path, volume_capability=capability()),
            csi_pb2.NodeStageVolumeRequest(volume_id=UNKNOWN_ID, volume_capability=capability()),
            csi_pb2.NodeStageVolumeRequest(volume_id=UNKNOWN_ID, staging_target_path=path),
        ):
            await refused(session, node, "NodeStageVolume", staged, _INVALID)


async def _attach_checks(session: Session) -> None:
    name = "ControllerPublishVolume"

    def request(volume_id: str, node_id: str) -> csi_pb2.ControllerPublishVolumeRequest:
        return csi_pb2.ControllerPublishVolumeRequest(
            volume_id=volume_id, node_id=node_id, volume_capability=capability()
        )

    async with session.bench.step("attach: missing fields", "without volume, node or use: INVALID_ARGUMENT"):
        session.require(ControllerRpc.PUBLISH_UNPUBLISH_VOLUME)
        await refused(session, session.controller, name, request("", session.node_id), _INVALID)
        await refused(session, session.controller, name, request(UNKNOWN_ID, ""), _INVALID)
    async with session.bench.step("attach: unknown volume or node", "what is not there: NOT_FOUND"):
        session.require(ControllerRpc.PUBLISH_UNPUBLISH_VOLUME)
        volume = await session.create(session.request("attached"))
        await refused(session, session.controller, name, request(UNKNOWN_ID, session.node_id), _NOT_FOUND)
        await refused(session, session.controller, name, request(volume.volume_id, UNKNOWN_ID), _NOT_FOUND)


async def _unknown(session: Session) -> None:
    path = session.folder / "unknown"
    async with session.bench.step("node: unknown volume", "staging or publishing what is not there: NOT_FOUND"):
        if session.node_can(NodeRpc.STAGE_UNSTAGE_VOLUME):
            await asyncio.to_thread(path.mkdir, parents=True, exist_ok=True)
            request = csi_pb2.NodeStageVolumeRequest(
                volume_id=UNKNOWN_ID, staging_target_path=str(path), volume_capability=capability()
            )
            await refused(session, session.node, "NodeStageVolume", request, _NOT_FOUND)
        publish = csi_pb2.NodePublishVolumeRequest(
            volume_id=UNKNOWN_ID,
            staging_target_path=str(path),
            target_path=str(path / "target"),
            volume_capability=capability(),
        )
        await refused(session, session.node, "NodePublishVolume", publish, _NOT_FOUND)
    async with session.bench.step("stats: unknown volume", "NodeGetVolumeStats of what is not there: NOT_FOUND"):
        session.require_node(NodeRpc.GET_VOLUME_STATS)
        stats = csi_pb2.NodeGetVolumeStatsRequest(volume_id=UNKNOWN_ID, volume_path=str(path))
        await refused(session, session.node, "NodeGetVolumeStats", stats, _NOT_FOUND)


async def _journey(session: Session) -> None:
    bench = session.bench
    trips: list[Journey] = []
    async with bench.step("attach: twice", "ControllerPublishVolume may be repeated"):
        session.require(ControllerRpc.CREATE_DELETE_VOLUME)
        trips.append(_journey_of(session, await session.create(session.request("travelling")), "trip"))
        if not session.can(ControllerRpc.PUBLISH_UNPUBLISH_VOLUME):
            bench.skip("the driver does not attach")
        await trips[0].attach()
        first = trips[0].context
        await trips[0].attach()
        expect(first == trips[0].context, "two calls gave two contexts")
    async with bench.step("stage: twice", "NodeStageVolume may be repeated"):
        session.require_node(NodeRpc.STAGE_UNSTAGE_VOLUME)
        trip = _started(session, trips)
        await trip.stage()
        await trip.stage()
    async with bench.step("publish: twice", "NodePublishVolume may be repeated; what is written there is there"):
        trip = _started(session, trips)
        await trip.publish()
        await trip.publish()
        await asyncio.to_thread((trip.target / "file").write_bytes, _TEXT)
    async with bench.step("stats", "NodeGetVolumeStats tells the use in bytes; NOT_FOUND at another path"):
        session.require_node(NodeRpc.GET_VOLUME_STATS)
        await _stats(session, _started(session, trips))
    async with bench.step("expand on node", "NodeExpandVolume after ControllerExpandVolume may be repeated"):
        session.require_node(NodeRpc.EXPAND_VOLUME)
        await _expand(session, _started(session, trips))
    async with bench.step("unpublish: twice", "NodeUnpublishVolume removes the target, and may be repeated"):
        trip = _started(session, trips)
        await trip.unpublish()
        expect(not await asyncio.to_thread(os.path.lexists, trip.target), f"{trip.target} is still there")
        await trip.unpublish()
    async with bench.step("publish: data is kept", "what was written is there when it is published again"):
        trip = _started(session, trips)
        await trip.publish()
        found = await asyncio.to_thread(_read, trip.target / "file")
        expect(found == _TEXT, f"the file has {found!r}")
        await trip.unpublish()
    async with bench.step("unstage: twice", "NodeUnstageVolume leaves no mount, and may be repeated"):
        session.require_node(NodeRpc.STAGE_UNSTAGE_VOLUME)
        trip = _started(session, trips)
        await trip.unstage()
        await trip.unstage()
        left = await asyncio.to_thread(mounts_below, trip.staging)
        expect(not left, f"still mounted: {left}")
    async with bench.step("detach: twice", "ControllerUnpublishVolume may be repeated"):
        session.require(ControllerRpc.PUBLISH_UNPUBLISH_VOLUME)
        trip = _started(session, trips)
        await trip.detach()
        await trip.detach()
    for trip in trips:
        await settle(session, trip.home())


def _started(session: Session, trips: list[Journey]) -> Journey:
    if not trips:
        session.bench.skip("no volume could be made")
    return trips[0]


async def _stats(session: Session, trip: Journey) -> None:
    request = csi_pb2.NodeGetVolumeStatsRequest(
        volume_id=trip.volume.volume_id, volume_path=str(trip.target), staging_target_path=str(trip.staging)
    )
    reply = await session.call(session.node, "NodeGetVolumeStats", request)
    in_bytes = [usage for usage in reply.usage if usage.unit == csi_pb2.VolumeUsage.BYTES]
    expect(in_bytes, "the use in bytes is missing")
    expect(in_bytes[0].total > 0, f"the total is {in_bytes[0].total}")
    elsewhere = csi_pb2.NodeGetVolumeStatsRequest(
        volume_id=trip.volume.volume_id, volume_path=str(session.folder / "nowhere")
    )
    await refused(session, session.node, "NodeGetVolumeStats", elsewhere, _NOT_FOUND)


async def _expand(session: Session, trip: Journey) -> None:
    wanted = max(trip.volume.capacity_bytes, session.size_bytes) * 2
    if session.can(ControllerRpc.EXPAND_VOLUME):
        grow = csi_pb2.ControllerExpandVolumeRequest(volume_id=trip.volume.volume_id, volume_capability=capability())
        grow.capacity_range.required_bytes = wanted
        await session.call(session.controller, "ControllerExpandVolume", grow)
    request = csi_pb2.NodeExpandVolumeRequest(
        volume_id=trip.volume.volume_id,
        volume_path=str(trip.target),
        staging_target_path=str(trip.staging) if trip.stages else "",
        volume_capability=capability(),
    )
    request.capacity_range.required_bytes = wanted
    for _ in range(2):
        reply = await session.call(session.node, "NodeExpandVolume", request)
        expect(
            reply.capacity_bytes in (0, max(reply.capacity_bytes, wanted)),
            f"{wanted} bytes were asked for, {reply.capacity_bytes} came",
        )


async def _readonly(session: Session) -> None:
    async with session.bench.step("publish: read-only", "a volume published read-only can't be written"):
        session.require(ControllerRpc.CREATE_DELETE_VOLUME)
        trip = _journey_of(session, await session.create(session.request("readonly")), "readonly")
        try:
            await trip.attach()
            await trip.stage()
            await trip.publish(readonly=True)
            await trip.publish(readonly=True)
            if await asyncio.to_thread(_can_write, trip.target):
                raise Failure(f"{trip.target} can be written")
        finally:
            await settle(session, trip.home())


async def settle(session: Session, undo: Awaitable[object]) -> None:
    """Take something back after the steps; a driver that fails in it has failed a step before."""
    try:
        await undo
    except grpc.aio.AioRpcError as err:
        session.bench.record("cleanup", "", err)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


def _can_write(folder: Path) -> bool:
    try:
        (folder / "written").write_bytes(b"x")
    except OSError:
        return False
    return True


def mounts_below(folder: Path) -> list[str]:
    """Mount points at or below the folder."""
    prefix = os.path.realpath(folder)
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as lines:
        points = [line.split(" ", 5)[4] for line in lines]
    return [point for point in points if point == prefix or point.startswith(prefix + "/")]
