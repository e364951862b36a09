"""The service podresources v1: tells monitoring agents which pod holds which devices."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import grpc
import grpc.aio

from tiphys.api.core.v1.container_pb2 import Container
from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys.thirdparty.podresources.v1 import api_pb2, api_pb2_grpc
from tiphys_component.rpc import ErrorReply, Servicer
from tiphys_kubelet.pod_spec import ContainerKind, kind_of_init
from tiphys_kubelet.resources.allocation import Slot, Stock
from tiphys_kubelet.resources.manager import DeviceManager
from tiphys_kubelet.resources.sockets import serve_socket

_ENDED = ("Succeeded", "Failed")


class UnknownPod(Exception):
    """The node has no such pod."""


class PodResourcesServicer(api_pb2_grpc.PodResourcesListerServicer):
    """Serves v1.PodResourcesLister."""

    def __init__(self, manager: DeviceManager, pods: Callable[[], Sequence[Pod]]) -> None:
        self._manager = manager
        self._pods = pods

    async def List(
        self,
        request: api_pb2.ListPodResourcesRequest,
        context: grpc.aio.ServicerContext[api_pb2.ListPodResourcesRequest, api_pb2.ListPodResourcesResponse],
    ) -> api_pb2.ListPodResourcesResponse:
        """Every pod that has not ended."""
        pods = (pod for pod in self._pods() if pod.status.phase not in _ENDED)
        return api_pb2.ListPodResourcesResponse(pod_resources=[self._resources(pod) for pod in pods])

    async def GetAllocatableResources(
        self,
        request: api_pb2.AllocatableResourcesRequest,
        context: grpc.aio.ServicerContext[api_pb2.AllocatableResourcesRequest, api_pb2.AllocatableResourcesResponse],
    ) -> api_pb2.AllocatableResourcesResponse:
        """Every healthy device."""
        answer = api_pb2.AllocatableResourcesResponse()
        for name, stock in sorted(self._manager.stocks().items()):
            answer.devices.extend(_devices(name, sorted(stock.healthy), stock))
        return answer

    async def Get(
        self,
        request: api_pb2.GetPodResourcesRequest,
        context: grpc.aio.ServicerContext[api_pb2.GetPodResourcesRequest, api_pb2.GetPodResourcesResponse],
    ) -> api_pb2.GetPodResourcesResponse:
        """One pod."""
        wanted = (request.pod_namespace, request.pod_name)
        for pod in self._pods():
            if (pod.metadata.namespace, pod.metadata.name) == wanted:
                return api_pb2.GetPodResourcesResponse(pod_resources=self._resources(pod))
        raise UnknownPod(f"pod {request.pod_name} in namespace {request.pod_namespace} not found")

    def _resources(self, pod: Pod) -> api_pb2.PodResources:
        told = api_pb2.PodResources(name=pod.metadata.name, namespace=pod.metadata.namespace)
        for container in _lasting(pod):
            own = told.containers.add(name=container.name)
            for slot, held in sorted(self._manager.holdings().items()):
                if slot == Slot(pod.metadata.uid, container.name, slot.resource):
                    stock = self._manager.stocks().get(slot.resource, Stock())
                    own.devices.extend(_devices(slot.resource, held.devices, stock))
        return told


def _lasting(pod: Pod) -> list[Container]:
    """The containers that hold what they have: plain init containers have handed it on."""
    sidecars = [c for c in pod.spec.initContainers if kind_of_init(c) is ContainerKind.SIDECAR]
    return [*sidecars, *pod.spec.containers]


def _devices(resource: str, ids: Sequence[str], stock: Stock) -> list[api_pb2.ContainerDevices]:
    """One entry a device, as Kubernetes gives them, with its NUMA nodes where it has some."""
    found = []
    for device in ids:
        entry = api_pb2.ContainerDevices(resource_name=resource, device_ids=[device])
        state = stock.devices.get(device)
        for node in state.numa_nodes if state is not None else ():
            entry.topology.nodes.add(ID=node)
        found.append(entry)
    return found


class PodResourcesServer:
    """Serves pod-resources/kubelet.sock; `run` for ever."""

    def __init__(self, folder: Path, manager: DeviceManager, pods: Callable[[], Sequence[Pod]]) -> None:
        self._folder = folder
        self._servicer = PodResourcesServicer(manager, pods)

    async def run(self) -> None:
        """Works until cancelled. Raises StartupError if the socket can't be had."""
        name = api_pb2.DESCRIPTOR.services_by_name["PodResourcesLister"].full_name
        service = Servicer(
            (name,), lambda server: api_pb2_grpc.add_PodResourcesListerServicer_to_server(self._servicer, server)
        )
        await serve_socket(self._folder / "kubelet.sock", service, _reply)


def _reply(err: Exception) -> ErrorReply | None:
    if isinstance(err, UnknownPod):
        return (grpc.StatusCode.NOT_FOUND, str(err), ())
    return None
