"""The runtime in memory behind a real CRI socket, whole or with one fault."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc

from tiphys.thirdparty.cri.v1 import api_pb2 as cri
from tiphys.thirdparty.cri.v1 import api_pb2_grpc as cri_grpc
from tiphys_component.clock import SystemClock
from tiphys_cri.errors import CRIError, CRINotFound
from tiphys_cri.fake import FakeImages, FakeRuntime

Context = grpc.aio.ServicerContext


class Served(cri_grpc.RuntimeServiceServicer, cri_grpc.ImageServiceServicer):
    """Answers from a FakeRuntime; what it does not have is UNIMPLEMENTED."""

    def __init__(self) -> None:
        self.images = FakeImages()
        self.images.add("busybox")
        self.runtime = FakeRuntime(SystemClock(), images=self.images)

    async def Version(self, request: Any, context: Any) -> Any:
        return await self.runtime.version()

    async def Status(self, request: Any, context: Any) -> Any:
        return cri.StatusResponse(status=await self.runtime.status())

    async def RunPodSandbox(self, request: Any, context: Any) -> Any:
        return cri.RunPodSandboxResponse(pod_sandbox_id=await self.runtime.run_pod_sandbox(request.config))

    async def StopPodSandbox(self, request: Any, context: Any) -> Any:
        await self.runtime.stop_pod_sandbox(request.pod_sandbox_id)
        return cri.StopPodSandboxResponse()

    async def RemovePodSandbox(self, request: Any, context: Any) -> Any:
        await self.runtime.remove_pod_sandbox(request.pod_sandbox_id)
        return cri.RemovePodSandboxResponse()

    async def PodSandboxStatus(self, request: Any, context: Any) -> Any:
        return cri.PodSandboxStatusResponse(status=await self.runtime.pod_sandbox_status(request.pod_sandbox_id))

    async def ListPodSandbox(self, request: Any, context: Any) -> Any:
        found = await self.runtime.list_pod_sandboxes(dict(request.filter.label_selector))
        return cri.ListPodSandboxResponse(items=[one for one in found if request.filter.id in ("", one.id)])

    async def CreateContainer(self, request: Any, context: Any) -> Any:
        made = await self.runtime.create_container(request.pod_sandbox_id, request.config, request.sandbox_config)
        return cri.CreateContainerResponse(container_id=made)

    async def StartContainer(self, request: Any, context: Any) -> Any:
        await self.runtime.start_container(request.container_id)
        return cri.StartContainerResponse()

    async def StopContainer(self, request: Any, context: Any) -> Any:
        await self.runtime.stop_container(request.container_id, request.timeout)
        return cri.StopContainerResponse()

    async def RemoveContainer(self, request: Any, context: Any) -> Any:
        await self.runtime.remove_container(request.container_id)
        return cri.RemoveContainerResponse()

    async def ListContainers(self, request: Any, context: Any) -> Any:
        found = await self.runtime.list_containers(dict(request.filter.label_selector))
        kept = [one for one in found if request.filter.pod_sandbox_id in ("", one.pod_sandbox_id)]
        return cri.ListContainersResponse(containers=kept)

    async def ContainerStatus(self, request: Any, context: Any) -> Any:
        return cri.ContainerStatusResponse(status=await self.runtime.container_status(request.container_id))

    async def UpdateContainerResources(self, request: Any, context: Any) -> Any:
        await self.runtime.update_container_resources(request.container_id, request.linux)
        return cri.UpdateContainerResourcesResponse()

    async def ExecSync(self, request: Any, context: Any) -> Any:
        said = await self.runtime.exec_sync(request.container_id, request.cmd, timeout_s=request.timeout)
        return cri.ExecSyncResponse(stdout=said.stdout, stderr=said.stderr, exit_code=said.exit_code)

    async def ListImages(self, request: Any, context: Any) -> Any:
        return cri.ListImagesResponse(images=await self.images.list_images())

    async def ImageStatus(self, request: Any, context: Any) -> Any:
        return cri.ImageStatusResponse(image=await self.images.image_status(request.image.image))

    async def ImageFsInfo(self, request: Any, context: Any) -> Any:
        return cri.ImageFsInfoResponse(image_filesystems=await self.images.image_fs_info())


class WithoutNetwork(Served):
    async def Status(self, request: Any, context: Any) -> Any:
        conditions = [cri.RuntimeCondition(type="RuntimeReady", status=True)]
        return cri.StatusResponse(status=cri.RuntimeStatus(conditions=conditions))


class SecondStopFails(Served):
    async def StopPodSandbox(self, request: Any, context: Any) -> Any:
        status = await self.runtime.pod_sandbox_status(request.pod_sandbox_id)
        if status.state == cri.SANDBOX_NOTREADY:
            raise CRIError("sandbox is not running")
        return await super().StopPodSandbox(request, context)


class ForgetsLabels(Served):
    async def RunPodSandbox(self, request: Any, context: Any) -> Any:
        request.config.labels.clear()
        return await super().RunPodSandbox(request, context)


class IgnoresFilters(Served):
    async def ListContainers(self, request: Any, context: Any) -> Any:
        other = cri.Container(id="other", pod_sandbox_id="other")
        return cri.ListContainersResponse(containers=[*await self.runtime.list_containers(), other])


class UnknownIsInternal(Served):
    async def ContainerStatus(self, request: Any, context: Any) -> Any:
        try:
            return await super().ContainerStatus(request, context)
        except CRINotFound as err:
            raise CRIError(str(err)) from err


class NeverStops(Served):
    async def StopContainer(self, request: Any, context: Any) -> Any:
        return cri.StopContainerResponse()


class LosesOutput(Served):
    async def ExecSync(self, request: Any, context: Any) -> Any:
        said = await super().ExecSync(request, context)
        return cri.ExecSyncResponse(exit_code=said.exit_code)


class AbsentImageIsAnError(Served):
    async def ImageStatus(self, request: Any, context: Any) -> Any:
        if await self.images.image_status(request.image.image) is None:
            raise CRINotFound("no such image")
        return await super().ImageStatus(request, context)


class _Errors(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]  # the stubs alone have arguments
    """Tells our errors by their status."""

    async def intercept_service(self, continuation: Any, details: Any) -> Any:
        handler = await continuation(details)

        async def call(request: Any, context: Any) -> Any:
            try:
                return await handler.unary_unary(request, context)
            except CRINotFound as err:
                await context.abort(grpc.StatusCode.NOT_FOUND, str(err))
            except CRIError as err:
                await context.abort(grpc.StatusCode.UNKNOWN, str(err))

        return grpc.unary_unary_rpc_method_handler(call, handler.request_deserializer, handler.response_serializer)


@asynccontextmanager
async def serving(servicer: Served, folder: Path) -> AsyncIterator[str]:
    """The endpoint while it listens."""
    server = grpc.aio.server(interceptors=(_Errors(),))
    cri_grpc.add_RuntimeServiceServicer_to_server(servicer, server)
    cri_grpc.add_ImageServiceServicer_to_server(servicer, server)
    server.add_insecure_port(f"unix:{folder}/cri.sock")
    await server.start()
    try:
        yield f"unix://{folder}/cri.sock"
    finally:
        await server.stop(0)
