"""Where device plugins register: a service on kubelet.sock beside their own sockets, and the plugin watcher's handler.

Plugins watch for kubelet.sock to be made anew: that is how they learn that the kubelet restarted.
"""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Sequence
from pathlib import Path

import grpc
import grpc.aio

from tiphys.thirdparty.deviceplugin.v1beta1 import api_pb2, api_pb2_grpc
from tiphys_component.log import get_logger
from tiphys_component.proc import to_thread
from tiphys_component.rpc import ErrorReply, Servicer
from tiphys_kubelet.plugin_watcher import PluginError
from tiphys_kubelet.resources.manager import DeviceManager, PluginRefused, check_resource
from tiphys_kubelet.resources.sockets import serve_socket

VERSION = "v1beta1"
SOCKET_NAME = "kubelet.sock"
_PROBE_TIMEOUT_S = 0.2


class RegistrationServicer(api_pb2_grpc.RegistrationServicer):
    """Serves v1beta1.Registration."""

    def __init__(self, manager: DeviceManager) -> None:
        self._manager = manager

    async def Register(
        self,
        request: api_pb2.RegisterRequest,
        context: grpc.aio.ServicerContext[api_pb2.RegisterRequest, api_pb2.Empty],
    ) -> api_pb2.Empty:
        """A plugin makes itself known. It must be serving by now: it is called back before the answer."""
        if request.version != VERSION:
            raise PluginRefused(
                f'requested API version "{request.version}" is not supported by kubelet. '
                f'Supported version is "{VERSION}"'
            )
        if request.endpoint in ("", ".", "..", SOCKET_NAME) or "/" in request.endpoint:
            raise PluginRefused(f'the endpoint "{request.endpoint}" is no name of a socket beside {SOCKET_NAME}')
        await self._manager.register(request.resource_name, str(self._manager.folder / request.endpoint))
        return api_pb2.Empty()


class RegistrationServer:
    """Serves kubelet.sock; `run` for ever. Sockets that dead plugins left are removed at the start."""

    def __init__(self, manager: DeviceManager) -> None:
        self._manager = manager
        self._log = get_logger("kubelet.devices")

    async def run(self) -> None:
        """Works until cancelled. Raises StartupError if the socket can't be had."""
        folder = self._manager.folder
        await self._manager.wait_loaded()
        removed = await to_thread(remove_dead_sockets, folder)
        if removed:
            self._log.info("stale sockets removed", folder=str(folder), sockets=removed)
        name = api_pb2.DESCRIPTOR.services_by_name["Registration"].full_name
        service = Servicer(
            (name,),
            lambda server: api_pb2_grpc.add_RegistrationServicer_to_server(RegistrationServicer(self._manager), server),
        )
        await serve_socket(folder / SOCKET_NAME, service, _reply)


class DevicePluginHandler:
    """Takes plugins of type DevicePlugin from the plugin watcher; their name is the resource."""

    def __init__(self, manager: DeviceManager) -> None:
        self._manager = manager

    async def validate(self, name: str, endpoint: str, versions: Sequence[str]) -> None:
        """Raises PluginError for a name or versions that can't be served."""
        if VERSION not in versions:
            raise PluginError(f'the versions {list(versions)} are not supported. Supported version is "{VERSION}"')
        try:
            check_resource(name)
        except PluginRefused as err:
            raise PluginError(str(err)) from err

    async def register(self, name: str, endpoint: str, versions: Sequence[str]) -> None:
        """Takes the plugin up. Raises PluginError."""
        try:
            await self._manager.register(name, endpoint)
        except PluginRefused as err:
            raise PluginError(str(err)) from err

    async def deregister(self, name: str) -> None:
        """The plugin is gone."""
        await self._manager.deregister(name)


def remove_dead_sockets(folder: Path) -> list[str]:
    """Removes the sockets of the folder on which nobody listens; returns their names. Blocks."""
    removed = []
    for entry in list(os.scandir(folder)):
        if _is_socket(entry) and not _is_listening(entry.path):
            Path(entry.path).unlink(missing_ok=True)
            removed.append(entry.name)
    return sorted(removed)


def _is_socket(entry: os.DirEntry[str]) -> bool:
    try:
        return stat.S_ISSOCK(entry.stat(follow_symlinks=False).st_mode)
    except FileNotFoundError:
        # Its plugin took it away meanwhile.
        return False


def _is_listening(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(_PROBE_TIMEOUT_S)
        try:
            probe.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:
            return True
    return True


def _reply(err: Exception) -> ErrorReply | None:
    if isinstance(err, PluginRefused):
        return (grpc.StatusCode.INVALID_ARGUMENT, str(err), ())
    return None
