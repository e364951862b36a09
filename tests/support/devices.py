"""A device plugin to play with, and the kubelet's side of the contract without the rest of a kubelet."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys_component.clock import Clock, SystemClock
from tiphys_kubelet.resources.manager import DeviceManager
from tiphys_kubelet.resources.registration import RegistrationServer
from tiphys_sdk.device.plugin import Device, DeviceNode, DevicePlugin, Grant
from tiphys_sdk.device.serve import DeviceServer

RESOURCE = "example.com/gpu"


@contextmanager
def short_folder() -> Iterator[Path]:
    """A folder whose path leaves room for a socket's name."""
    path = Path(tempfile.mkdtemp(prefix="dv"))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


class ToyPlugin(DevicePlugin):
    """Devices that a test sets."""

    def __init__(self, ids: Sequence[str] = ("0", "1", "2", "3"), resource: str = RESOURCE) -> None:
        self.resource = resource
        self.list = [Device(one) for one in ids]
        self.allocated: list[tuple[str, ...]] = []
        self._changed = asyncio.Event()

    def set(self, *devices: Device) -> None:
        """The devices from now on."""
        self.list = list(devices)
        self._changed.set()

    async def devices(self) -> AsyncIterator[Sequence[Device]]:
        while True:
            self._changed.clear()
            yield tuple(self.list)
            await self._changed.wait()

    async def allocate(self, ids: Sequence[str]) -> Grant:
        self.allocated.append(tuple(ids))
        return Grant(env={"GPUS": ",".join(ids)}, nodes=[DeviceNode("/dev/null", f"/dev/gpu{one}") for one in ids])


@dataclass(slots=True)
class DeviceSide:
    """A device manager at work, with what it told."""

    manager: DeviceManager
    reports: list[tuple[str, str]] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def until(self, holds: Callable[[], bool], *, timeout_s: float = 5.0) -> None:
        """Waits until it holds; looks again whenever devices changed."""
        async with asyncio.timeout(timeout_s):
            while not holds():
                self.changed.clear()
                await self.changed.wait()

    async def until_counts(self, capacity: int, allocatable: int, resource: str = RESOURCE) -> None:
        """Waits until a resource is counted so."""
        await self.until(lambda: self.manager.counts().get(resource) == (capacity, allocatable))


@asynccontextmanager
async def running(*runs: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    """Runs services until the context is left."""
    tasks = [asyncio.ensure_future(run()) for run in runs]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        for task in tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task


@asynccontextmanager
async def device_side(folder: Path, clock: Clock | None = None) -> AsyncIterator[DeviceSide]:
    """The kubelet's side over a folder, until the context is left."""
    reports: list[tuple[str, str]] = []
    changed = asyncio.Event()
    manager = DeviceManager(
        folder,
        clock or SystemClock(),
        on_counts=changed.set,
        on_resource=lambda resource: changed.set(),
        report=lambda reason, message: reports.append((reason, message)),
    )
    async with running(manager.run, RegistrationServer(manager).run):
        yield DeviceSide(manager, reports, changed)


@asynccontextmanager
async def serving(plugin: DevicePlugin, folder: Path) -> AsyncIterator[DeviceServer]:
    """A plugin served by the SDK, until the context is left."""
    server = DeviceServer(plugin, folder, SystemClock())
    async with running(server.run):
        yield server


def gpu_pod(uid: str, count: int = 1, *, init: Sequence[int] = (), resource: str = RESOURCE) -> Pod:
    """A pod of one container that asks for devices, and of init containers that do."""
    pod = Pod()
    pod.metadata.uid = pod.metadata.name = uid
    pod.metadata.namespace = "default"
    for number, amount in enumerate(init):
        pod.spec.initContainers.add(name=f"init-{number}").resources.limits[resource].string = str(amount)
    pod.spec.containers.add(name="app").resources.limits[resource].string = str(count)
    return pod
