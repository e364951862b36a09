"""One registered device plugin as the kubelet calls it. Every call has a time limit; the stream of devices has none."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Sequence
from typing import TypeVar

import grpc
import grpc.aio

from tiphys.thirdparty.deviceplugin.v1beta1 import api_pb2, api_pb2_grpc
from tiphys_component import rpc
from tiphys_kubelet.resources.allocation import Choice, DeviceState

DIAL_TIMEOUT_S = 5.0
PREFER_TIMEOUT_S = 5.0
# Source: the documented limit of PreStartContainer; Allocate has none there, but nobody waits for ever here.
ALLOCATE_TIMEOUT_S = 30.0
PRE_START_TIMEOUT_S = 30.0
HEALTHY = "Healthy"
_GO_CODES = {"CANCELLED": "Canceled", "OK": "OK"}
T = TypeVar("T")


class PluginFailure(Exception):
    """A plugin answered with an error, or not at all; `is_gone` says that nobody answers on its socket any more."""

    def __init__(self, message: str, *, is_gone: bool) -> None:
        super().__init__(message)
        self.is_gone = is_gone


class PluginEndpoint:
    """A plugin behind its socket. Use after `dial`; `close` may be repeated."""

    def __init__(self, resource: str, path: str) -> None:
        self.resource = resource
        self.path = path
        self.options = api_pb2.DevicePluginOptions()
        self._channel = rpc.channel(rpc.unix_address(path))
        self._stub: api_pb2_grpc.DevicePluginAsyncStub = api_pb2_grpc.DevicePluginStub(self._channel)

    async def dial(self) -> None:
        """Connects and asks how the plugin wants to be used. Raises PluginFailure."""
        self.options = await _answer(self._stub.GetDevicePluginOptions(api_pb2.Empty(), timeout=DIAL_TIMEOUT_S))

    async def devices(self) -> AsyncIterator[tuple[DeviceState, ...]]:
        """Each list of devices, until the plugin ends. Raises PluginFailure."""
        try:
            async for answer in self._stub.ListAndWatch(api_pb2.Empty()):
                yield tuple(
                    DeviceState(d.ID, d.health == HEALTHY, tuple(node.ID for node in d.topology.nodes))
                    for d in answer.devices
                )
        except grpc.aio.AioRpcError as err:
            raise _failure(err) from err

    async def preferred(self, choice: Choice) -> Sequence[str]:
        """The devices that the plugin would give; nothing where it has no opinion. Raises PluginFailure."""
        if not self.options.get_preferred_allocation_available:
            return ()
        request = api_pb2.PreferredAllocationRequest()
        request.container_requests.add(
            available_deviceIDs=choice.available,
            must_include_deviceIDs=choice.must_include,
            allocation_size=choice.size,
        )
        answer = await _answer(self._stub.GetPreferredAllocation(request, timeout=PREFER_TIMEOUT_S))
        return tuple(answer.container_responses[0].deviceIDs) if answer.container_responses else ()

    async def allocate(self, devices: Sequence[str]) -> bytes:
        """What a container needs to use the devices, a ContainerAllocateResponse. Raises PluginFailure."""
        request = api_pb2.AllocateRequest()
        request.container_requests.add(devices_ids=devices)
        answer = await _answer(self._stub.Allocate(request, timeout=ALLOCATE_TIMEOUT_S))
        if not answer.container_responses:
            raise PluginFailure(f"no containers return in allocation response {answer}".strip(), is_gone=False)
        return answer.container_responses[0].SerializeToString()

    async def pre_start(self, devices: Sequence[str]) -> None:
        """Tells the plugin that a container with these devices is about to start. Raises PluginFailure."""
        if not self.options.pre_start_required:
            return
        request = api_pb2.PreStartContainerRequest(devices_ids=devices)
        await _answer(self._stub.PreStartContainer(request, timeout=PRE_START_TIMEOUT_S))

    async def close(self) -> None:
        """Ends the stream and every call."""
        await self._channel.close(None)


async def _answer(call: Awaitable[T]) -> T:
    """The answer of a call. Raises PluginFailure."""
    try:
        return await call
    except grpc.aio.AioRpcError as err:
        raise _failure(err) from err
    except asyncio.CancelledError as err:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        # Not we were cancelled but the call, with the connection of a plugin that is gone.
        raise PluginFailure("rpc error: code = Canceled desc = the plugin went away", is_gone=True) from err


def _failure(err: grpc.aio.AioRpcError) -> PluginFailure:
    """In the words in which Go tells an error of gRPC."""
    name = err.code().name
    code = _GO_CODES.get(name, "".join(word.capitalize() for word in name.split("_")))
    gone = err.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
    return PluginFailure(f"rpc error: code = {code} desc = {err.details()}", is_gone=gone)
