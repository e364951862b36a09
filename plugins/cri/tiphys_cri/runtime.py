"""RuntimeService over gRPC."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Mapping, Sequence
from typing import TypeVar

import grpc.aio

from tiphys.thirdparty.cri.v1 import api_pb2 as cri
from tiphys.thirdparty.cri.v1.api_pb2_grpc import RuntimeServiceStub
from tiphys_cri import events
from tiphys_cri.errors import CRINotFound, from_rpc_error
from tiphys_cri.interface import ExecResult, RuntimeEvent, StreamRequest

R = TypeVar("R")

CALL_TIMEOUT_S = 120.0
# Setting up the network of a sandbox may wait for others: as long as Kubernetes gives it.
SANDBOX_TIMEOUT_S = 240.0


async def answer(call: Awaitable[R], name: str) -> R:
    """The answer of a gRPC call, or the CRIError of what it raised."""
    try:
        return await call
    except grpc.aio.AioRpcError as err:
        raise from_rpc_error(err, name) from err


class GrpcRuntimeService:
    """Speaks CRI v1 on a channel of `endpoint.channel`; the channel is its owner's to close."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._channel = channel
        self._stub = RuntimeServiceStub(channel)

    async def version(self) -> cri.VersionResponse:
        """Name and version of the runtime."""
        return await answer(self._stub.Version(cri.VersionRequest(), timeout=10.0), "Version")

    async def status(self) -> cri.RuntimeStatus:
        """The runtime's conditions."""
        return (await answer(self._stub.Status(cri.StatusRequest(), timeout=CALL_TIMEOUT_S), "Status")).status

    async def run_pod_sandbox(self, config: cri.PodSandboxConfig, *, runtime_handler: str = "") -> str:
        """Creates and starts a sandbox."""
        request = cri.RunPodSandboxRequest(config=config, runtime_handler=runtime_handler)
        call = self._stub.RunPodSandbox(request, timeout=SANDBOX_TIMEOUT_S)
        return (await answer(call, "RunPodSandbox")).pod_sandbox_id

    async def stop_pod_sandbox(self, sandbox_id: str) -> None:
        """Stops a sandbox; one that is gone is stopped."""
        request = cri.StopPodSandboxRequest(pod_sandbox_id=sandbox_id)
        try:
            await answer(self._stub.StopPodSandbox(request, timeout=CALL_TIMEOUT_S), "StopPodSandbox")
        except CRINotFound:
            return

    async def remove_pod_sandbox(self, sandbox_id: str) -> None:
        """Removes a sandbox; one that is gone is removed."""
        request = cri.RemovePodSandboxRequest(pod_sandbox_id=sandbox_id)
        try:
            await answer(self._stub.RemovePodSandbox(request, timeout=CALL_TIMEOUT_S), "RemovePodSandbox")
        except CRINotFound:
            return

    async def pod_sandbox_status(self, sandbox_id: str) -> cri.PodSandboxStatus:
        """One sandbox with its addresses."""
        request = cri.PodSandboxStatusRequest(pod_sandbox_id=sandbox_id)
        call = self._stub.PodSandboxStatus(request, timeout=CALL_TIMEOUT_S)
        return (await answer(call, "PodSandboxStatus")).status

    async def list_pod_sandboxes(self, labels: Mapping[str, str] | None = None) -> Sequence[cri.PodSandbox]:
        """Sandboxes with all these labels."""
        request = cri.ListPodSandboxRequest(filter=cri.PodSandboxFilter(label_selector=labels or {}))
        return list((await answer(self._stub.ListPodSandbox(request, timeout=CALL_TIMEOUT_S), "ListPodSandbox")).items)

    async def create_container(
        self, sandbox_id: str, config: cri.ContainerConfig, sandbox_config: cri.PodSandboxConfig
    ) -> str:
        """Creates a container."""
        request = cri.CreateContainerRequest(pod_sandbox_id=sandbox_id, config=config, sandbox_config=sandbox_config)
        call = self._stub.CreateContainer(request, timeout=CALL_TIMEOUT_S)
        return (await answer(call, "CreateContainer")).container_id

    async def start_container(self, container_id: str) -> None:
        """Starts a container."""
        request = cri.StartContainerRequest(container_id=container_id)
        await answer(self._stub.StartContainer(request, timeout=CALL_TIMEOUT_S), "StartContainer")

    async def stop_container(self, container_id: str, timeout_s: int) -> None:
        """Stops a container; one that is gone is stopped."""
        request = cri.StopContainerRequest(container_id=container_id, timeout=timeout_s)
        try:
            await answer(self._stub.StopContainer(request, timeout=timeout_s + CALL_TIMEOUT_S), "StopContainer")
        except CRINotFound:
            return

    async def remove_container(self, container_id: str) -> None:
        """Removes a container; one that is gone is removed."""
        request = cri.RemoveContainerRequest(container_id=container_id)
        try:
            await answer(self._stub.RemoveContainer(request, timeout=CALL_TIMEOUT_S), "RemoveContainer")
        except CRINotFound:
            return

    async def list_containers(self, labels: Mapping[str, str] | None = None) -> Sequence[cri.Container]:
        """Containers with all these labels."""
        request = cri.ListContainersRequest(filter=cri.ContainerFilter(label_selector=labels or {}))
        call = self._stub.ListContainers(request, timeout=CALL_TIMEOUT_S)
        return list((await answer(call, "ListContainers")).containers)

    async def container_status(self, container_id: str) -> cri.ContainerStatus:
        """One container."""
        request = cri.ContainerStatusRequest(container_id=container_id)
        call = self._stub.ContainerStatus(request, timeout=CALL_TIMEOUT_S)
        return (await answer(call, "ContainerStatus")).status

    async def update_container_resources(self, container_id: str, resources: cri.LinuxContainerResources) -> None:
        """Changes what a container may use."""
        request = cri.UpdateContainerResourcesRequest(container_id=container_id, linux=resources)
        call = self._stub.UpdateContainerResources(request, timeout=CALL_TIMEOUT_S)
        await answer(call, "UpdateContainerResources")

    async def reopen_container_log(self, container_id: str) -> None:
        """Opens the log file anew."""
        request = cri.ReopenContainerLogRequest(container_id=container_id)
        await answer(self._stub.ReopenContainerLog(request, timeout=CALL_TIMEOUT_S), "ReopenContainerLog")

    async def exec_sync(self, container_id: str, command: Sequence[str], *, timeout_s: float) -> ExecResult:
        """Runs a command to its end."""
        # CRI counts whole seconds; the channel's own deadline comes later, so that the runtime's answer wins.
        whole_s = max(1, round(timeout_s))
        request = cri.ExecSyncRequest(container_id=container_id, cmd=list(command), timeout=whole_s)
        result = await answer(self._stub.ExecSync(request, timeout=whole_s + 5.0), "ExecSync")
        return ExecResult(result.exit_code, result.stdout, result.stderr)

    async def exec_url(self, container_id: str, command: Sequence[str], streams: StreamRequest) -> str:
        """A URL that serves a command's streams."""
        request = cri.ExecRequest(
            container_id=container_id,
            cmd=list(command),
            tty=streams.tty,
            stdin=streams.stdin,
            stdout=streams.stdout,
            stderr=streams.stderr,
        )
        return (await answer(self._stub.Exec(request, timeout=CALL_TIMEOUT_S), "Exec")).url

    async def attach_url(self, container_id: str, streams: StreamRequest) -> str:
        """A URL that serves the container's streams."""
        request = cri.AttachRequest(
            container_id=container_id,
            tty=streams.tty,
            stdin=streams.stdin,
            stdout=streams.stdout,
            stderr=streams.stderr,
        )
        return (await answer(self._stub.Attach(request, timeout=CALL_TIMEOUT_S), "Attach")).url

    async def port_forward_url(self, sandbox_id: str, ports: Sequence[int]) -> str:
        """A URL that serves connections to ports of the sandbox."""
        request = cri.PortForwardRequest(pod_sandbox_id=sandbox_id, port=list(ports))
        return (await answer(self._stub.PortForward(request, timeout=CALL_TIMEOUT_S), "PortForward")).url

    async def update_pod_cidr(self, pod_cidr: str) -> None:
        """Tells the runtime the node's pod range."""
        config = cri.RuntimeConfig(network_config=cri.NetworkConfig(pod_cidr=pod_cidr))
        request = cri.UpdateRuntimeConfigRequest(runtime_config=config)
        await answer(self._stub.UpdateRuntimeConfig(request, timeout=CALL_TIMEOUT_S), "UpdateRuntimeConfig")

    async def list_container_stats(self) -> Sequence[cri.ContainerStats]:
        """Use of the running containers."""
        call = self._stub.ListContainerStats(cri.ListContainerStatsRequest(), timeout=CALL_TIMEOUT_S)
        return list((await answer(call, "ListContainerStats")).stats)

    def events(self) -> AsyncGenerator[RuntimeEvent]:
        """CRI's event stream where the runtime has it, containerd's own where not."""
        return events.stream_events(self._channel)
