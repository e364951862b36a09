"""A CSI driver's node service in memory, on a real socket: fails, hangs and forgets as it is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from tiphys.thirdparty.csi.v1 import csi_pb2, csi_pb2_grpc

Rpc = csi_pb2.NodeServiceCapability.RPC
ALL = (Rpc.STAGE_UNSTAGE_VOLUME, Rpc.EXPAND_VOLUME, Rpc.GET_VOLUME_STATS)


@dataclass(slots=True)
class FakeNodeService(csi_pb2_grpc.NodeServicer):
    """Keeps what is staged and published, by volume and path; a published path is a directory, as if mounted.

    `fail` maps a method's name to the error it answers with, `hang` names methods that never answer after they have
    done their work.
    """

    node_id: str = "node-1"
    segments: dict[str, str] = field(default_factory=dict)
    max_volumes: int = 0
    can: tuple[Rpc.Type.ValueType, ...] = ALL
    staged: set[tuple[str, str]] = field(default_factory=set)
    published: set[tuple[str, str]] = field(default_factory=set)
    fail: dict[str, tuple[grpc.StatusCode, str]] = field(default_factory=dict)
    hang: set[str] = field(default_factory=set)
    calls: list[tuple[str, Any]] = field(default_factory=list)

    def called(self, method: str) -> list[Any]:
        """The requests of a method, in order."""
        return [request for name, request in self.calls if name == method]

    def names(self) -> list[str]:
        """The methods called that change something, in order."""
        return [name for name, _ in self.calls if not name.startswith("NodeGet")]

    def reboot(self) -> None:
        """All mounts are gone; directories stay, as on a disk."""
        self.staged.clear()
        self.published.clear()

    async def NodeGetInfo(self, request: Any, context: Any) -> csi_pb2.NodeGetInfoResponse:
        """Who the node is."""
        await self._call("NodeGetInfo", request, context)
        reply = csi_pb2.NodeGetInfoResponse(node_id=self.node_id, max_volumes_per_node=self.max_volumes)
        reply.accessible_topology.segments.update(self.segments)
        return reply

    async def NodeGetCapabilities(self, request: Any, context: Any) -> csi_pb2.NodeGetCapabilitiesResponse:
        """What it can."""
        await self._call("NodeGetCapabilities", request, context)
        reply = csi_pb2.NodeGetCapabilitiesResponse()
        for kind in self.can:
            reply.capabilities.add().rpc.type = kind
        return reply

    async def NodeStageVolume(self, request: Any, context: Any) -> csi_pb2.NodeStageVolumeResponse:
        """Demands the directory, as the specification has it made."""
        await self._fail("NodeStageVolume", request, context)
        if not await asyncio.to_thread(Path(request.staging_target_path).is_dir):
            await context.abort(grpc.StatusCode.INTERNAL, "staging path does not exist")
        self.staged.add((request.volume_id, request.staging_target_path))
        await self._hang("NodeStageVolume")
        return csi_pb2.NodeStageVolumeResponse()

    async def NodeUnstageVolume(self, request: Any, context: Any) -> csi_pb2.NodeUnstageVolumeResponse:
        """Refuses while the volume is published."""
        await self._fail("NodeUnstageVolume", request, context)
        if any(volume == request.volume_id for volume, _ in self.published):
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "volume is still published")
        self.staged.discard((request.volume_id, request.staging_target_path))
        await self._hang("NodeUnstageVolume")
        return csi_pb2.NodeUnstageVolumeResponse()

    async def NodePublishVolume(self, request: Any, context: Any) -> csi_pb2.NodePublishVolumeResponse:
        """Demands the parent directory, and a staged volume where it stages."""
        await self._fail("NodePublishVolume", request, context)
        key = (request.volume_id, request.staging_target_path)
        if request.staging_target_path and key not in self.staged:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "volume is not staged")
        await asyncio.to_thread(Path(request.target_path).mkdir, exist_ok=True)
        self.published.add((request.volume_id, request.target_path))
        await self._hang("NodePublishVolume")
        return csi_pb2.NodePublishVolumeResponse()

    async def NodeUnpublishVolume(self, request: Any, context: Any) -> csi_pb2.NodeUnpublishVolumeResponse:
        """Removes the path."""
        await self._fail("NodeUnpublishVolume", request, context)
        if await asyncio.to_thread(Path(request.target_path).is_dir):
            await asyncio.to_thread(Path(request.target_path).rmdir)
        self.published.discard((request.volume_id, request.target_path))
        await self._hang("NodeUnpublishVolume")
        return csi_pb2.NodeUnpublishVolumeResponse()

    async def NodeExpandVolume(self, request: Any, context: Any) -> csi_pb2.NodeExpandVolumeResponse:
        """Grows it."""
        await self._call("NodeExpandVolume", request, context)
        return csi_pb2.NodeExpandVolumeResponse(capacity_bytes=request.capacity_range.required_bytes)

    async def NodeGetVolumeStats(self, request: Any, context: Any) -> csi_pb2.NodeGetVolumeStatsResponse:
        """Half full."""
        await self._call("NodeGetVolumeStats", request, context)
        reply = csi_pb2.NodeGetVolumeStatsResponse()
        reply.usage.add(unit=csi_pb2.VolumeUsage.BYTES, total=100, used=50, available=50)
        reply.usage.add(unit=csi_pb2.VolumeUsage.INODES, total=10, used=1, available=9)
        return reply

    async def _call(self, method: str, request: Any, context: Any) -> None:
        await self._fail(method, request, context)
        await self._hang(method)

    async def _fail(self, method: str, request: Any, context: Any) -> None:
        self.calls.append((method, request))
        if method in self.fail:
            await context.abort(*self.fail[method])

    async def _hang(self, method: str) -> None:
        if method in self.hang:
            await asyncio.Event().wait()


@asynccontextmanager
async def csi_socket(path: Path, service: FakeNodeService) -> AsyncIterator[FakeNodeService]:
    """Serves the driver at the path."""
    server = grpc.aio.server()
    csi_pb2_grpc.add_NodeServicer_to_server(service, server)
    server.add_insecure_port(f"unix:{path}")
    await server.start()
    try:
        yield service
    finally:
        await server.stop(0)
