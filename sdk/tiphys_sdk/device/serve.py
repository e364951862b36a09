"""Serves a device plugin: its socket, its registration with the kubelet, and both again whenever one of them is lost.

A kubelet that restarts makes its socket anew, and may remove ours; the folder is watched for both, so that a plugin is
back within milliseconds and nothing is asked for in between.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc.aio

from tiphys.thirdparty.deviceplugin.v1beta1 import api_pb2, api_pb2_grpc
from tiphys_component import rpc
from tiphys_component.app import leaves, start_loop
from tiphys_component.backoff import Backoff
from tiphys_component.clock import Clock, SystemClock
from tiphys_component.inotify import FolderWatch
from tiphys_component.log import get_logger
from tiphys_component.proc import to_thread
from tiphys_sdk.device.plugin import Device, DevicePlugin
from tiphys_sdk.device.servicer import DeviceList, DevicePluginServicer, device_service, error_reply, plugin_options
from tiphys_sdk.sockets import claim

KUBELET_DIR = Path("/var/lib/kubelet/device-plugins")
VERSION = "v1beta1"
REGISTER_TIMEOUT_S = 10.0
# A kubelet that let go of our stream while its socket stayed the same has lost us, and is told of us again.
UNHEARD_S = 1.0
_GRACE_S = 0.2
_RETRY_S = (0.05, 5.0)


@dataclass(frozen=True, slots=True)
class _Identity:
    """Tells a socket from a later one at the same path."""

    inode: int
    made_at_ns: int


async def serve(plugin: DevicePlugin, *, kubelet_dir: Path = KUBELET_DIR) -> None:
    """Serves the plugin until cancelled. Raises StartupError where its socket can't be had."""
    await DeviceServer(plugin, kubelet_dir, SystemClock()).run()


class DeviceServer:
    """One plugin behind one socket in the kubelet's folder."""

    def __init__(self, plugin: DevicePlugin, kubelet_dir: Path, clock: Clock) -> None:
        self._plugin = plugin
        self._folder = kubelet_dir
        self._clock = clock
        self._kubelet = kubelet_dir / "kubelet.sock"
        self.socket = kubelet_dir / f"{re.sub(r'[^A-Za-z0-9.-]', '-', plugin.resource)}.sock"
        self._devices = DeviceList()
        self._wake = asyncio.Event()
        self._streams = 0
        self._registered: _Identity | None = None
        self._unheard = clock.call_later(0, self._wake.set)
        self._log = get_logger("device-plugin", resource=plugin.resource)

    @property
    def resource(self) -> str:
        """The resource that the plugin offers."""
        return self._plugin.resource

    @property
    def devices(self) -> Sequence[Device]:
        """The newest list of devices."""
        return self._devices.current or ()

    @property
    def is_registered(self) -> bool:
        """The kubelet has taken the plugin, and reads its devices."""
        return self._registered is not None and self._streams > 0

    async def run(self) -> None:
        """Works until cancelled; the socket is gone then. Raises StartupError."""
        try:
            async with asyncio.TaskGroup() as group:
                start_loop(group, self._list(), "list of devices")
                start_loop(group, self._keep(), "registration")
        except BaseExceptionGroup as err:
            first = leaves(err)[0]
            raise first from err
        finally:
            self._unheard.cancel()

    async def _list(self) -> None:
        async for devices in self._plugin.devices():
            self._devices.set(devices)

    async def _keep(self) -> None:
        """Serves anew whenever the folder or the socket went away."""
        while True:
            await to_thread(self._folder.mkdir, parents=True, exist_ok=True)
            servicer = DevicePluginServicer(self._plugin, self._devices, self._streams_changed)
            address = await to_thread(claim, self.socket)
            server = rpc.Server(address, None, (device_service(servicer),), error_reply, grace_s=_GRACE_S)
            try:
                async with server:
                    try:
                        with FolderWatch(self._folder) as watch:
                            await self._follow(watch)
                    finally:
                        servicer.end()
            except FileNotFoundError as err:
                self._log.warning("socket is gone, serving anew", err=str(err))
            finally:
                self._registered = None
                self.socket.unlink(missing_ok=True)

    async def _follow(self, watch: FolderWatch) -> None:
        """Registers with each new kubelet. Raises FileNotFoundError when the plugin's own socket is gone."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._watch(watch), name="folder of sockets")
                await self._register_for_ever()
        except BaseExceptionGroup as err:
            first = leaves(err)[0]
            raise first from err

    async def _watch(self, watch: FolderWatch) -> None:
        while True:
            try:
                await watch.wait()
            except FileNotFoundError:
                # The socket went with its folder, which is found out at the next look.
                self._wake.set()
                return
            self._wake.set()

    async def _register_for_ever(self) -> None:
        backoff = Backoff(*_RETRY_S)
        own = identity(self.socket)
        while True:
            self._wake.clear()
            if own is None or identity(self.socket) != own:
                raise FileNotFoundError(f"{self.socket} was removed")
            kubelet = identity(self._kubelet)
            if kubelet is None or kubelet == self._registered:
                await self._wake.wait()
                continue
            try:
                await self._register()
            except grpc.aio.AioRpcError as err:
                self._log.warning("kubelet did not take the plugin, will retry", err=err.details())
                await self._pause(backoff.next())
                continue
            backoff.reset()
            self._registered = kubelet
            self._log.info("registered")

    async def _register(self) -> None:
        request = api_pb2.RegisterRequest(
            version=VERSION,
            endpoint=self.socket.name,
            resource_name=self._plugin.resource,
            options=plugin_options(self._plugin),
        )
        async with rpc.channel(rpc.unix_address(self._kubelet)) as channel:
            await api_pb2_grpc.RegistrationStub(channel).Register(request, timeout=REGISTER_TIMEOUT_S)

    async def _pause(self, seconds: float) -> None:
        timer = self._clock.call_later(seconds, self._wake.set)
        try:
            await self._wake.wait()
        finally:
            timer.cancel()

    def _streams_changed(self, count: int) -> None:
        ended = count < self._streams
        self._streams = count
        if ended and count == 0:
            self._unheard.cancel()
            self._unheard = self._clock.call_later(UNHEARD_S, self._look_again)

    def _look_again(self) -> None:
        if self._streams == 0:
            self._registered = None
            self._wake.set()


def identity(path: Path) -> _Identity | None:
    """Which socket lies there; None where there is none."""
    try:
        found = path.stat(follow_symlinks=False)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return _Identity(found.st_ino, found.st_mtime_ns)
