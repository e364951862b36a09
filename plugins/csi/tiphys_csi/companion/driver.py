"""A CSI driver as its companion sees it: what it said of itself, and its calls, each with a deadline."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio

from tiphys.thirdparty.csi.v1 import csi_pb2, csi_pb2_grpc
from tiphys_component.rpc import channel, unix_address

ControllerRpc = csi_pb2.ControllerServiceCapability.RPC
NodeRpc = csi_pb2.NodeServiceCapability.RPC
_Service = csi_pb2.PluginCapability.Service

# After these the driver may still be at work, or have done it: only the same call again tells.
# Source: external-provisioner pkg/controller, isFinalError.
_UNKNOWN_OUTCOME = frozenset(
    (
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.INTERNAL,
    )
)


class Setback(Exception):
    """Something that is expected to go wrong, is told to users, and tried again; no fault of this program."""


class DriverError(Setback):
    """A call that failed, or was not answered in time."""

    def __init__(self, call: str, code: grpc.StatusCode, message: str) -> None:
        super().__init__(f"{call}: {code.name}: {message}")
        self.code = code

    @property
    def is_final(self) -> bool:
        """Whether the driver refused, so that nothing was made; otherwise the call must be made again to know."""
        return self.code not in _UNKNOWN_OUTCOME


@dataclass(frozen=True, slots=True, kw_only=True)
class DriverFacts:
    """What a driver said of itself. segments are its topology here; node_id is its name for this node."""

    name: str
    has_topology: bool = False
    controller: frozenset[int] = frozenset()
    node: frozenset[int] = frozenset()
    node_id: str = ""
    segments: tuple[tuple[str, str], ...] = ()

    def can(self, kind: int) -> bool:
        """Whether the controller service offers this."""
        return kind in self.controller


class Driver:
    """A driver on its socket. Every method but close() raises DriverError."""

    def __init__(self, endpoint: str, facts: DriverFacts, opened: grpc.aio.Channel, timeout_s: float) -> None:
        self.endpoint = endpoint
        self.facts = facts
        self._channel = opened
        self._controller: Any = csi_pb2_grpc.ControllerStub(opened)
        self._timeout_s = timeout_s

    @property
    def name(self) -> str:
        """The driver's name."""
        return self.facts.name

    async def create_volume(self, request: csi_pb2.CreateVolumeRequest) -> csi_pb2.Volume:
        """The volume of the request's name."""
        reply: csi_pb2.CreateVolumeResponse = await self._call("CreateVolume", request)
        if not reply.volume.volume_id:
            raise DriverError("CreateVolume", grpc.StatusCode.INTERNAL, "the driver answered without a volume_id")
        return reply.volume

    async def delete_volume(self, volume_id: str, secrets: Mapping[str, str]) -> None:
        """Succeeds where it is gone."""
        await self._call("DeleteVolume", csi_pb2.DeleteVolumeRequest(volume_id=volume_id, secrets=secrets))

    async def publish(self, request: csi_pb2.ControllerPublishVolumeRequest) -> Mapping[str, str]:
        """What is to be handed on when the volume is staged."""
        reply: csi_pb2.ControllerPublishVolumeResponse = await self._call("ControllerPublishVolume", request)
        return dict(reply.publish_context)

    async def unpublish(self, request: csi_pb2.ControllerUnpublishVolumeRequest) -> None:
        """Succeeds where the volume is not attached; a volume that is gone is not."""
        try:
            await self._call("ControllerUnpublishVolume", request)
        except DriverError as err:
            if err.code is not grpc.StatusCode.NOT_FOUND:
                raise

    async def expand(self, request: csi_pb2.ControllerExpandVolumeRequest) -> csi_pb2.ControllerExpandVolumeResponse:
        """The new size, and whether the node has a part in it."""
        reply: csi_pb2.ControllerExpandVolumeResponse = await self._call("ControllerExpandVolume", request)
        return reply

    async def close(self) -> None:
        """Give up all calls."""
        await self._channel.close(None)

    async def _call(self, name: str, request: Any) -> Any:
        try:
            return await getattr(self._controller, name)(request, timeout=self._timeout_s)
        except grpc.aio.AioRpcError as err:
            raise DriverError(name, err.code(), err.details() or "") from err
        except grpc.aio.UsageError as err:
            # Closed since we took it from the list: the driver went.
            raise DriverError(name, grpc.StatusCode.UNAVAILABLE, "the driver is gone") from err
        except asyncio.CancelledError as err:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            # The call was, by the channel that closed under it; not we.
            raise DriverError(name, grpc.StatusCode.CANCELLED, "the driver went during the call") from err


async def connect(path: str, timeout_s: float) -> Driver:
    """Ask a driver who it is. Raises DriverError, also for one that says it is not ready."""
    opened = channel(unix_address(path))
    try:
        facts = await _ask(opened, timeout_s)
    except grpc.aio.AioRpcError as err:
        await opened.close(None)
        raise DriverError("identity", err.code(), err.details() or "") from err
    except BaseException:
        await opened.close(None)
        raise
    return Driver(path, facts, opened, timeout_s)


async def _ask(opened: grpc.aio.Channel, timeout_s: float) -> DriverFacts:
    identity: Any = csi_pb2_grpc.IdentityStub(opened)
    ready: csi_pb2.ProbeResponse = await identity.Probe(csi_pb2.ProbeRequest(), timeout=timeout_s)
    if ready.HasField("ready") and not ready.ready.value:
        raise DriverError("Probe", grpc.StatusCode.UNAVAILABLE, "the driver is not ready")
    info = await identity.GetPluginInfo(csi_pb2.GetPluginInfoRequest(), timeout=timeout_s)
    if not info.name:
        raise DriverError("GetPluginInfo", grpc.StatusCode.INTERNAL, "the driver has no name")
    reply = await identity.GetPluginCapabilities(csi_pb2.GetPluginCapabilitiesRequest(), timeout=timeout_s)
    services = {one.service.type for one in reply.capabilities if one.WhichOneof("type") == "service"}
    offered: frozenset[int] = frozenset()
    if _Service.CONTROLLER_SERVICE in services:
        controller: Any = csi_pb2_grpc.ControllerStub(opened)
        found = await controller.ControllerGetCapabilities(
            csi_pb2.ControllerGetCapabilitiesRequest(), timeout=timeout_s
        )
        offered = frozenset(one.rpc.type for one in found.capabilities)
    node: Any = csi_pb2_grpc.NodeStub(opened)
    node_offered, node_id, segments = await _ask_node(node, timeout_s)
    return DriverFacts(
        name=info.name,
        has_topology=_Service.VOLUME_ACCESSIBILITY_CONSTRAINTS in services,
        controller=offered,
        node=node_offered,
        node_id=node_id,
        segments=segments,
    )


async def _ask_node(node: Any, timeout_s: float) -> tuple[frozenset[int], str, tuple[tuple[str, str], ...]]:
    """What the node service offers, and where the node is; nothing where the driver has no such service here."""
    try:
        found = await node.NodeGetCapabilities(csi_pb2.NodeGetCapabilitiesRequest(), timeout=timeout_s)
        about = await node.NodeGetInfo(csi_pb2.NodeGetInfoRequest(), timeout=timeout_s)
    except grpc.aio.AioRpcError as err:
        if err.code() is grpc.StatusCode.UNIMPLEMENTED:
            return frozenset(), "", ()
        raise
    segments = tuple(sorted(about.accessible_topology.segments.items()))
    return frozenset(one.rpc.type for one in found.capabilities), about.node_id, segments
