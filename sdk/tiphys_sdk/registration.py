"""How a plugin makes itself known to the kubelet: by a socket in plugins_registry on which the kubelet asks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import grpc
import grpc.aio

from tiphys.thirdparty.pluginregistration.v1 import api_pb2, api_pb2_grpc
from tiphys_component.log import get_logger
from tiphys_component.rpc import Server, Servicer
from tiphys_sdk.sockets import claim

SERVICE = "pluginregistration.Registration"


@dataclass(frozen=True, slots=True)
class PluginInfo:
    """What the kubelet is told of a plugin. endpoint is the path of its own socket."""

    type: Literal["CSIPlugin", "DevicePlugin", "DRAPlugin"]
    name: str
    endpoint: str
    versions: tuple[str, ...]


class RegistrationServicer(api_pb2_grpc.RegistrationServicer):
    """Answers the kubelet. on_status hears whether the plugin was taken, and why not."""

    def __init__(self, info: PluginInfo, on_status: Callable[[bool, str], None] | None = None) -> None:
        self._info = info
        self._on_status = on_status
        self._log = get_logger("registration", plugin=info.name)

    async def GetInfo(
        self,
        request: api_pb2.InfoRequest,
        context: grpc.aio.ServicerContext[api_pb2.InfoRequest, api_pb2.PluginInfo],
    ) -> api_pb2.PluginInfo:
        """Who the plugin is."""
        info = self._info
        return api_pb2.PluginInfo(
            type=info.type, name=info.name, endpoint=info.endpoint, supported_versions=info.versions
        )

    async def NotifyRegistrationStatus(
        self,
        request: api_pb2.RegistrationStatus,
        context: grpc.aio.ServicerContext[api_pb2.RegistrationStatus, api_pb2.RegistrationStatusResponse],
    ) -> api_pb2.RegistrationStatusResponse:
        """The kubelet took the plugin, or says why not. The plugin stays: the kubelet asks again when it restarts."""
        if request.plugin_registered:
            self._log.info("registered")
        else:
            self._log.error("the kubelet refused this plugin", err=request.error)
        if self._on_status is not None:
            self._on_status(request.plugin_registered, request.error)
        return api_pb2.RegistrationStatusResponse()


class RegistrationServer:
    """Serves the registration socket; the plugin's own socket should be served before."""

    def __init__(self, path: Path, info: PluginInfo, on_status: Callable[[bool, str], None] | None = None) -> None:
        self._path = path
        self._servicer = RegistrationServicer(info, on_status)

    async def run(self) -> None:
        """Serves until cancelled; the socket is gone then. Raises StartupError where it can't be had."""
        servicer = Servicer(
            (SERVICE,), lambda server: api_pb2_grpc.add_RegistrationServicer_to_server(self._servicer, server)
        )
        # gRPC removes the socket when it stops.
        await Server(claim(self._path), None, (servicer,), flag="--registration-socket", grace_s=0.5).run()
