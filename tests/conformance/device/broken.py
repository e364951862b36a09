"""Device plugins that are broken on purpose, each in one way, and the way in which a plugin is served to the kit."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from tiphys.thirdparty.deviceplugin.v1beta1 import api_pb2, api_pb2_grpc
from tiphys_component import rpc
from tiphys_component.inotify import FolderWatch

RESOURCE = "example.com/toy"
Context = grpc.aio.ServicerContext[Any, Any]


class SoundPlugin(api_pb2_grpc.DevicePluginServicer):
    """Written by hand against the contract, and nothing is wrong with it."""

    resource = RESOURCE
    version = "v1beta1"
    registers_again = True

    def __init__(self) -> None:
        self.ids = ["a", "b", "c"]

    async def GetDevicePluginOptions(self, request: api_pb2.Empty, context: Context) -> api_pb2.DevicePluginOptions:
        return api_pb2.DevicePluginOptions(pre_start_required=True, get_preferred_allocation_available=True)

    def list(self) -> api_pb2.ListAndWatchResponse:
        return api_pb2.ListAndWatchResponse(devices=[api_pb2.Device(ID=i, health="Healthy") for i in self.ids])

    async def ListAndWatch(
        self, request: api_pb2.Empty, context: Context
    ) -> AsyncIterator[api_pb2.ListAndWatchResponse]:
        yield self.list()
        await asyncio.Event().wait()

    def prefer(self, one: api_pb2.ContainerPreferredAllocationRequest) -> Sequence[str]:
        return [*one.must_include_deviceIDs, *one.available_deviceIDs][: one.allocation_size]

    async def GetPreferredAllocation(
        self, request: api_pb2.PreferredAllocationRequest, context: Context
    ) -> api_pb2.PreferredAllocationResponse:
        answer = api_pb2.PreferredAllocationResponse()
        for one in request.container_requests:
            answer.container_responses.add(deviceIDs=self.prefer(one))
        return answer

    def grant(self, ids: Sequence[str]) -> api_pb2.ContainerAllocateResponse:
        answer = api_pb2.ContainerAllocateResponse(envs={"TOYS": ",".join(ids)})
        answer.devices.add(host_path="/dev/null", container_path="/dev/toy", permissions="rw")
        return answer

    async def check(self, ids: Sequence[str], context: Context) -> None:
        if set(ids) - set(self.ids):
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such device")

    async def Allocate(self, request: api_pb2.AllocateRequest, context: Context) -> api_pb2.AllocateResponse:
        for one in request.container_requests:
            await self.check(one.devices_ids, context)
        answers = [self.grant(list(one.devices_ids)) for one in request.container_requests]
        return api_pb2.AllocateResponse(container_responses=answers)

    async def PreStartContainer(
        self, request: api_pb2.PreStartContainerRequest, context: Context
    ) -> api_pb2.PreStartContainerResponse:
        return api_pb2.PreStartContainerResponse()


class NeverRegisters(SoundPlugin):
    """Has the kubelet find it by itself."""

    version = ""


class WrongVersion(SoundPlugin):
    version = "v1alpha"


class WrongResource(SoundPlugin):
    resource = "toy"


class ForgetsRestartedKubelets(SoundPlugin):
    registers_again = False


class DuplicateIds(SoundPlugin):
    def __init__(self) -> None:
        super().__init__()
        self.ids = ["a", "b", "a"]


class EmptyForEver(SoundPlugin):
    def __init__(self) -> None:
        super().__init__()
        self.ids = []


class HangsInList(SoundPlugin):
    async def ListAndWatch(
        self, request: api_pb2.Empty, context: Context
    ) -> AsyncIterator[api_pb2.ListAndWatchResponse]:
        await asyncio.Event().wait()
        yield self.list()


class DiesInList(SoundPlugin):
    async def ListAndWatch(
        self, request: api_pb2.Empty, context: Context
    ) -> AsyncIterator[api_pb2.ListAndWatchResponse]:
        yield self.list()
        await context.abort(grpc.StatusCode.INTERNAL, "out of memory")


class ListsWithoutEnd(SoundPlugin):
    """Sends the same list again and again."""

    async def ListAndWatch(
        self, request: api_pb2.Empty, context: Context
    ) -> AsyncIterator[api_pb2.ListAndWatchResponse]:
        while True:
            yield self.list()


class OneStreamOnly(SoundPlugin):
    """The second stream gets nothing while the first lives, as after a kubelet that did not say good-bye."""

    def __init__(self) -> None:
        super().__init__()
        self.busy = asyncio.Lock()

    async def ListAndWatch(
        self, request: api_pb2.Empty, context: Context
    ) -> AsyncIterator[api_pb2.ListAndWatchResponse]:
        async with self.busy:
            yield self.list()
            await asyncio.Event().wait()


class StrangeHealth(SoundPlugin):
    def list(self) -> api_pb2.ListAndWatchResponse:
        told = super().list()
        told.devices[0].health = "healthy"
        return told


class AllocatesAnything(SoundPlugin):
    async def check(self, ids: Sequence[str], context: Context) -> None:
        """Every id is welcome."""


class OneAnswerForTwo(SoundPlugin):
    async def Allocate(self, request: api_pb2.AllocateRequest, context: Context) -> api_pb2.AllocateResponse:
        whole = await super().Allocate(request, context)
        return api_pb2.AllocateResponse(container_responses=whole.container_responses[:1])


class HangsInAllocate(SoundPlugin):
    async def Allocate(self, request: api_pb2.AllocateRequest, context: Context) -> api_pb2.AllocateResponse:
        await asyncio.Event().wait()
        raise AssertionError


class CountsAllocations(SoundPlugin):
    """Answers differently each time."""

    count = 0

    def grant(self, ids: Sequence[str]) -> api_pb2.ContainerAllocateResponse:
        self.count += 1
        answer = super().grant(ids)
        answer.envs["COUNT"] = str(self.count)
        return answer


class RelativePaths(SoundPlugin):
    def grant(self, ids: Sequence[str]) -> api_pb2.ContainerAllocateResponse:
        answer = super().grant(ids)
        answer.devices[0].host_path = "dev/null"
        return answer


class PrefersTooMany(SoundPlugin):
    def prefer(self, one: api_pb2.ContainerPreferredAllocationRequest) -> Sequence[str]:
        return one.available_deviceIDs


class PreStartsOnce(SoundPlugin):
    started = False

    async def PreStartContainer(
        self, request: api_pb2.PreStartContainerRequest, context: Context
    ) -> api_pb2.PreStartContainerResponse:
        if self.started:
            await context.abort(grpc.StatusCode.ALREADY_EXISTS, "was started")
        self.started = True
        return api_pb2.PreStartContainerResponse()


class LosesAllocated(SoundPlugin):
    """Tells only of devices that nobody has."""

    def grant(self, ids: Sequence[str]) -> api_pb2.ContainerAllocateResponse:
        if len(ids) == len(self.ids):
            self.lost = True
        return super().grant(ids)

    lost = False

    def list(self) -> api_pb2.ListAndWatchResponse:
        told = super().list()
        if self.lost:
            del told.devices[0]
        return told


@asynccontextmanager
async def served(plugin: SoundPlugin, folder: Path) -> AsyncIterator[str]:
    """Serves a plugin as its author would; gives its endpoint."""
    path = folder / "toy.sock"
    server = grpc.aio.server()
    api_pb2_grpc.add_DevicePluginServicer_to_server(plugin, server)
    server.add_insecure_port(rpc.unix_address(path))
    await server.start()
    task = asyncio.create_task(_register(plugin, folder, path.name))
    try:
        yield str(path)
    finally:
        task.cancel()
        await server.stop(None)


async def _register(plugin: SoundPlugin, folder: Path, endpoint: str) -> None:
    kubelet, known = folder / "kubelet.sock", 0
    with FolderWatch(folder) as watch:
        while plugin.version:
            made = kubelet.stat().st_mtime_ns if kubelet.exists() else 0
            if made and made != known and (plugin.registers_again or not known):
                known = made
                request = api_pb2.RegisterRequest(
                    version=plugin.version, endpoint=endpoint, resource_name=plugin.resource
                )
                async with rpc.channel(rpc.unix_address(kubelet)) as channel:
                    await api_pb2_grpc.RegistrationStub(channel).Register(request, timeout=5, wait_for_ready=True)
            await watch.wait()
