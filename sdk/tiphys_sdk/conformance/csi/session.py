"""What all steps share: the driver's calls, what it offers, and what must be cleaned up however a step ends."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc.aio

from tiphys.thirdparty.csi.v1 import csi_pb2, csi_pb2_grpc
from tiphys_sdk.conformance.bench import Bench

ControllerRpc = csi_pb2.ControllerServiceCapability.RPC
NodeRpc = csi_pb2.NodeServiceCapability.RPC
_Mode = csi_pb2.VolumeCapability.AccessMode

UNKNOWN_ID = "no-such-thing"


@dataclass(slots=True)
class Session:
    """One run against one driver. folder is where volumes are staged and published; the driver must see it too."""

    bench: Bench
    identity: Any
    controller: Any
    node: Any
    folder: Path
    size_bytes: int
    parameters: Mapping[str, str]
    call_limit_s: float
    has_controller: bool = False
    has_topology: bool = False
    offered: frozenset[int] = frozenset()
    node_offered: frozenset[int] = frozenset()
    node_id: str = ""
    run_id: str = field(default_factory=lambda: uuid.uuid4().hex[:12])
    # Ids of what was made, to be deleted at the end.
    volumes: list[str] = field(default_factory=list)
    snapshots: list[str] = field(default_factory=list)

    def can(self, kind: int) -> bool:
        """Whether the controller service offers this."""
        return kind in self.offered

    def node_can(self, kind: int) -> bool:
        """Whether the node service offers this."""
        return kind in self.node_offered

    def require(self, kind: ControllerRpc.Type.ValueType) -> None:
        """Skips the open step unless the controller offers this."""
        if not self.can(kind):
            self.bench.skip(f"the driver does not offer {ControllerRpc.Type.Name(kind)}")

    def require_node(self, kind: NodeRpc.Type.ValueType) -> None:
        """Skips the open step unless the node offers this."""
        if not self.node_can(kind):
            self.bench.skip(f"the driver does not offer {NodeRpc.Type.Name(kind)}")

    def name(self, purpose: str) -> str:
        """A name that no other run uses."""
        return f"bench-{self.run_id}-{purpose}"

    def request(self, purpose: str, *, size_bytes: int = 0) -> csi_pb2.CreateVolumeRequest:
        """A request for a volume."""
        made = csi_pb2.CreateVolumeRequest(
            name=self.name(purpose), volume_capabilities=[capability()], parameters=self.parameters
        )
        made.capacity_range.required_bytes = size_bytes or self.size_bytes
        return made

    async def call(self, service: Any, name: str, request: Any) -> Any:
        """The answer to one call. Raises AioRpcError."""
        return await getattr(service, name)(request, timeout=self.call_limit_s)

    async def create(self, request: csi_pb2.CreateVolumeRequest) -> csi_pb2.Volume:
        """The volume for a request, remembered for the end."""
        reply = await self.call(self.controller, "CreateVolume", request)
        volume: csi_pb2.Volume = reply.volume
        if volume.volume_id and volume.volume_id not in self.volumes:
            self.volumes.append(volume.volume_id)
        return volume

    async def delete(self, volume_id: str) -> None:
        """Delete a volume."""
        await self.call(self.controller, "DeleteVolume", csi_pb2.DeleteVolumeRequest(volume_id=volume_id))
        if volume_id in self.volumes:
            self.volumes.remove(volume_id)


def capability(
    mode: _Mode.Mode.ValueType = _Mode.SINGLE_NODE_WRITER,
) -> csi_pb2.VolumeCapability:
    """Use as a mounted file system."""
    made = csi_pb2.VolumeCapability()
    made.mount.SetInParent()
    made.access_mode.mode = mode
    return made


def stubs(opened: grpc.aio.Channel) -> tuple[Any, Any, Any]:
    """The three services on a channel."""
    return csi_pb2_grpc.IdentityStub(opened), csi_pb2_grpc.ControllerStub(opened), csi_pb2_grpc.NodeStub(opened)
