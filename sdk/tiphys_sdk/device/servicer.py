"""The contract v1beta1 on top of a DevicePlugin."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence

import grpc
import grpc.aio

from tiphys.thirdparty.deviceplugin.v1beta1 import api_pb2, api_pb2_grpc
from tiphys_component.rpc import ErrorReply, Servicer
from tiphys_sdk.device.plugin import Device, DevicePlugin, Grant, Refusal


class UnknownDevice(Exception):
    """The plugin has no such device."""


class DeviceList:
    """The newest list of devices, for every stream that wants it."""

    def __init__(self) -> None:
        self.current: tuple[Device, ...] | None = None
        self._changed = asyncio.Event()

    def set(self, devices: Sequence[Device]) -> None:
        """This is the list from now on. Raises ValueError if an id is in it twice."""
        ids = [device.id for device in devices]
        twice = sorted({one for one in ids if ids.count(one) > 1})
        if twice:
            raise ValueError(f"device ids must be unique, these are not: {', '.join(twice)}")
        if self.current != tuple(devices):
            self.current = tuple(devices)
            self.wake()

    def wake(self) -> None:
        """Has every stream look whether it is to end."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def follow(self, is_over: Callable[[], bool]) -> AsyncIterator[tuple[Device, ...]]:
        """The newest list, as soon as there is one, and again at each change until it is over."""
        while not is_over():
            changed, current = self._changed, self.current
            if current is not None:
                yield current
            await changed.wait()


class DevicePluginServicer(api_pb2_grpc.DevicePluginServicer):
    """Serves v1beta1.DevicePlugin. on_streams hears how many ListAndWatch streams are open."""

    def __init__(
        self, plugin: DevicePlugin, devices: DeviceList, on_streams: Callable[[int], None] = lambda count: None
    ) -> None:
        self._plugin = plugin
        self._devices = devices
        self._on_streams = on_streams
        self._streams = 0
        self._ended = False

    def end(self) -> None:
        """Ends every stream, so that the server can stop at once."""
        self._ended = True
        self._devices.wake()

    async def GetDevicePluginOptions(
        self,
        request: api_pb2.Empty,
        context: grpc.aio.ServicerContext[api_pb2.Empty, api_pb2.DevicePluginOptions],
    ) -> api_pb2.DevicePluginOptions:
        """How the plugin wants to be used."""
        return plugin_options(self._plugin)

    async def ListAndWatch(
        self,
        request: api_pb2.Empty,
        context: grpc.aio.ServicerContext[api_pb2.Empty, api_pb2.ListAndWatchResponse],
    ) -> AsyncIterator[api_pb2.ListAndWatchResponse]:
        """All devices, again at each change."""
        self._count(1)
        try:
            async for devices in self._devices.follow(lambda: self._ended):
                yield list_response(devices)
        finally:
            self._count(-1)

    async def GetPreferredAllocation(
        self,
        request: api_pb2.PreferredAllocationRequest,
        context: grpc.aio.ServicerContext[api_pb2.PreferredAllocationRequest, api_pb2.PreferredAllocationResponse],
    ) -> api_pb2.PreferredAllocationResponse:
        """Which devices fit best."""
        answer = api_pb2.PreferredAllocationResponse()
        for one in request.container_requests:
            self._check([*one.available_deviceIDs, *one.must_include_deviceIDs])
            chosen = await self._plugin.prefer(
                tuple(one.available_deviceIDs), tuple(one.must_include_deviceIDs), one.allocation_size
            )
            answer.container_responses.add(deviceIDs=chosen)
        return answer

    async def Allocate(
        self,
        request: api_pb2.AllocateRequest,
        context: grpc.aio.ServicerContext[api_pb2.AllocateRequest, api_pb2.AllocateResponse],
    ) -> api_pb2.AllocateResponse:
        """Gives devices to containers."""
        answer = api_pb2.AllocateResponse()
        for one in request.container_requests:
            self._check(one.devices_ids)
            answer.container_responses.append(allocate_response(await self._plugin.allocate(tuple(one.devices_ids))))
        return answer

    async def PreStartContainer(
        self,
        request: api_pb2.PreStartContainerRequest,
        context: grpc.aio.ServicerContext[api_pb2.PreStartContainerRequest, api_pb2.PreStartContainerResponse],
    ) -> api_pb2.PreStartContainerResponse:
        """A container is about to start."""
        self._check(request.devices_ids)
        await self._plugin.pre_start(tuple(request.devices_ids))
        return api_pb2.PreStartContainerResponse()

    def _check(self, ids: Sequence[str]) -> None:
        known = {device.id for device in self._devices.current or ()}
        unknown = [one for one in ids if one not in known]
        if unknown:
            raise UnknownDevice(f"{self._plugin.resource} has no device {', '.join(unknown)}")

    def _count(self, change: int) -> None:
        self._streams += change
        self._on_streams(self._streams)


def plugin_options(plugin: DevicePlugin) -> api_pb2.DevicePluginOptions:
    """The calls that the plugin's class brings itself."""
    kind = type(plugin)
    return api_pb2.DevicePluginOptions(
        pre_start_required=kind.pre_start is not DevicePlugin.pre_start,
        get_preferred_allocation_available=kind.prefer is not DevicePlugin.prefer,
    )


def list_response(devices: Sequence[Device]) -> api_pb2.ListAndWatchResponse:
    """The list as the kubelet reads it."""
    answer = api_pb2.ListAndWatchResponse()
    for device in devices:
        told = answer.devices.add(ID=device.id, health="Healthy" if device.healthy else "Unhealthy")
        for node in device.numa_nodes:
            told.topology.nodes.add(ID=node)
    return answer


def allocate_response(grant: Grant) -> api_pb2.ContainerAllocateResponse:
    """The grant as the kubelet reads it."""
    answer = api_pb2.ContainerAllocateResponse(envs=grant.env, annotations=grant.annotations)
    for node in grant.nodes:
        answer.devices.add(
            host_path=node.host_path,
            container_path=node.container_path or node.host_path,
            permissions=node.permissions,
        )
    for mount in grant.mounts:
        answer.mounts.add(
            host_path=mount.host_path,
            container_path=mount.container_path or mount.host_path,
            read_only=mount.read_only,
        )
    for name in grant.cdi_devices:
        answer.cdi_devices.add(name=name)
    return answer


def device_service(servicer: DevicePluginServicer) -> Servicer:
    """What a server registers."""
    name = api_pb2.DESCRIPTOR.services_by_name["DevicePlugin"].full_name
    return Servicer((name,), lambda server: api_pb2_grpc.add_DevicePluginServicer_to_server(servicer, server))


def error_reply(err: Exception) -> ErrorReply | None:
    """The one place where a plugin's errors get their status."""
    if isinstance(err, UnknownDevice):
        return (grpc.StatusCode.INVALID_ARGUMENT, str(err), ())
    if isinstance(err, Refusal):
        return (grpc.StatusCode.FAILED_PRECONDITION, str(err), ())
    return None
