"""Serves a DRA driver: its slices, its socket, and its registration with the kubelet."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final

import grpc.aio

from tiphys.api.resource.v1.resource_pb2 import ResourceClaim
from tiphys.thirdparty.dra.v1 import api_pb2, api_pb2_grpc
from tiphys_apimachinery.errors import APIError
from tiphys_client.client import Client
from tiphys_component.app import start_loop
from tiphys_component.clock import Clock, SystemClock
from tiphys_component.log import get_logger
from tiphys_component.proc import to_thread
from tiphys_component.rpc import Server, Servicer
from tiphys_sdk.dra.driver import ClaimRef, DraDriver, Refusal, devices_for
from tiphys_sdk.dra.slices import SlicePublisher
from tiphys_sdk.registration import PluginInfo, RegistrationServer
from tiphys_sdk.sockets import claim, socket_path

KUBELET_DIR: Final = Path("/var/lib/kubelet")
# Source: k8s.io/kubelet pkg/apis/dra/v1: the service as kubelets look for it among a plugin's versions.
VERSION: Final = "v1.DRAPlugin"


async def serve(driver: DraDriver, node: str, client: Client, *, kubelet_dir: Path = KUBELET_DIR) -> None:
    """Serves the driver until cancelled. Raises StartupError where a socket can't be had."""
    await DraServer(driver, node, client, SystemClock(), kubelet_dir=kubelet_dir).run()


class DraServicer(api_pb2_grpc.DRAPluginServicer):
    """Answers the kubelet; claims are read from the API, since the kubelet names them only."""

    def __init__(self, driver: DraDriver, client: Client) -> None:
        self._driver, self._client = driver, client
        self._lock = asyncio.Lock()
        self._log = get_logger("dra", driver=driver.name)

    async def NodePrepareResources(
        self,
        request: api_pb2.NodePrepareResourcesRequest,
        context: grpc.aio.ServicerContext[api_pb2.NodePrepareResourcesRequest, api_pb2.NodePrepareResourcesResponse],
    ) -> api_pb2.NodePrepareResourcesResponse:
        """One answer a claim: a fault of one is not the others'."""
        answer = api_pb2.NodePrepareResourcesResponse()
        for named in request.claims:
            one = answer.claims[named.uid]
            try:
                await self._prepare(named, one)
            except (Refusal, APIError, OSError) as err:
                del one.devices[:]
                one.error = str(err)
                self._log.warning("claim not prepared", claim=f"{named.namespace}/{named.name}", err=one.error)
        return answer

    async def NodeUnprepareResources(
        self,
        request: api_pb2.NodeUnprepareResourcesRequest,
        context: grpc.aio.ServicerContext[
            api_pb2.NodeUnprepareResourcesRequest, api_pb2.NodeUnprepareResourcesResponse
        ],
    ) -> api_pb2.NodeUnprepareResourcesResponse:
        """One answer a claim."""
        answer = api_pb2.NodeUnprepareResourcesResponse()
        for named in request.claims:
            one = answer.claims[named.uid]
            try:
                async with self._lock:
                    await self._driver.unprepare(ClaimRef(named.namespace, named.name, named.uid))
            except (Refusal, OSError) as err:
                one.error = str(err)
        return answer

    async def _prepare(self, named: api_pb2.Claim, answer: api_pb2.NodePrepareResourceResponse) -> None:
        """Raises Refusal, APIError and OSError."""
        stored = await self._client.get(ResourceClaim, named.name, named.namespace)
        if stored.metadata.uid != named.uid:
            raise Refusal(f"claim {named.name} is another one by now: {stored.metadata.uid}")
        if not stored.status.HasField("allocation"):
            raise Refusal(f"claim {named.name} is not allocated")
        async with self._lock:
            prepared = await self._driver.prepare(stored, devices_for(stored, self._driver.name))
        for one in prepared:
            answer.devices.add(
                request_names=[one.given.request],
                pool_name=one.given.pool,
                device_name=one.given.device,
                cdi_device_ids=one.cdi_ids,
            )


class DraServer:
    """One driver on one node: sockets in the kubelet's folder, slices in the API."""

    def __init__(
        self, driver: DraDriver, node: str, client: Client, clock: Clock, *, kubelet_dir: Path = KUBELET_DIR
    ) -> None:
        self._driver = driver
        self._servicer = DraServicer(driver, client)
        self.publisher = SlicePublisher(driver, node, client, clock)
        self.socket = socket_path(str(kubelet_dir / "plugins" / driver.name / "dra.sock"))
        self._registration = socket_path(str(kubelet_dir / "plugins_registry" / f"{driver.name}-reg.sock"))

    async def run(self) -> None:
        """Serves until cancelled. Raises StartupError where a socket can't be had."""
        name = api_pb2.DESCRIPTOR.services_by_name["DRAPlugin"].full_name
        service = Servicer((name,), lambda server: api_pb2_grpc.add_DRAPluginServicer_to_server(self._servicer, server))
        address = await to_thread(claim, self.socket)
        async with asyncio.TaskGroup() as group:
            start_loop(group, self.publisher.run(), "resource slices")
            # gRPC removes the socket when it stops.
            async with Server(address, None, (service,), flag="--kubelet-dir", grace_s=1.0):
                info = PluginInfo("DRAPlugin", self._driver.name, str(self.socket), (VERSION,))
                start_loop(group, RegistrationServer(self._registration, info).run(), "registration")
                await asyncio.get_running_loop().create_future()
