"""A real API server with its controller manager, and nodes that are a hostpath driver and a companion each."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from tests.integration.controller_manager.conftest import USER, config_of, issue
from tests.support.apiserver import RunningServer, running_server
from tiphys.api.core.v1 import node_pb2, persistent_volume_claim_pb2, persistent_volume_pb2
from tiphys.api.storage.v1 import storage_pb2
from tiphys_apimachinery.errors import NotFound
from tiphys_client.client import Client
from tiphys_client.transport import GrpcTransport
from tiphys_component.app import StartupError
from tiphys_component.clock import SystemClock
from tiphys_component.metrics import Registry
from tiphys_controller_manager.main import ControllerManager
from tiphys_controller_manager.options import Options as ManagerOptions
from tiphys_csi.companion.main import Companion
from tiphys_csi.companion.options import Options as CompanionOptions
from tiphys_csi.hostpath import manifests
from tiphys_csi.hostpath.main import make_driver
from tiphys_csi.hostpath.options import Options as DriverOptions
from tiphys_sdk.csi.driver import Driver
from tiphys_sdk.csi.server import DriverServer

COMPANION_USER = "system:tiphys:csi-companion"
Claim = persistent_volume_claim_pb2.PersistentVolumeClaim
PersistentVolume = persistent_volume_pb2.PersistentVolume
# Nothing is measured by it: a machine that does much else at the time is slow, not wrong.
_PATIENCE_S = 60.0


@dataclass(slots=True)
class Node:
    """A node's driver and companion; each is started, killed and started again alone.

    With is_process the driver is a process of its own, and killed as such: of one in this process, the threads in the
    middle of a call would go on, beside those of the next one.
    """

    name: str
    folder: Path
    server: RunningServer
    attach: bool = False
    is_process: bool = False
    change: Callable[[Driver], Driver] = lambda driver: driver
    companion: Companion | None = None
    _tasks: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    _child: subprocess.Popen[bytes] | None = None

    @property
    def state(self) -> Path:
        return self.folder / "state"

    def driver_options(self) -> DriverOptions:
        registry = self.folder / "reg"
        return DriverOptions(
            endpoint=f"unix://{self.folder}/csi.sock",
            registration_socket=f"{registry}/hostpath-reg.sock",
            node_id=self.name,
            state_dir=self.state,
            attach=self.attach,
        )

    def start_driver(self) -> None:
        if self.is_process:
            self._start_process()
            return

        async def serve() -> None:
            options = self.driver_options()
            driver = self.change(make_driver(options))
            while True:
                with suppress(StartupError):
                    await DriverServer(driver, options.endpoint, options.registration_socket).run()
                await asyncio.sleep(0.02)

        self._tasks["driver"] = asyncio.create_task(serve(), name=f"driver {self.name}")

    def _start_process(self) -> None:
        options = self.driver_options()
        words = {
            "--endpoint": options.endpoint,
            "--registration-socket": options.registration_socket,
            "--node-id": options.node_id,
            "--state-dir": str(options.state_dir),
        }
        flags = [f"{flag}={value}" for flag, value in words.items()]
        self._child = subprocess.Popen([sys.executable, "-m", "tiphys_csi.hostpath.main", *flags])

    def start_companion(self, timeout_s: float = 5.0) -> None:
        async def serve() -> None:
            client = Client(GrpcTransport(config_of(self.server, COMPANION_USER)), field_manager="csi-companion")
            options = CompanionOptions(
                kubeconfig=Path("unused"),
                node_name=self.name,
                plugins_registry=self.folder / "reg",
                timeout_s=timeout_s,
                retry_start_s=0.05,
                retry_max_s=0.2,
            )
            try:
                self.companion = Companion(options, client, clock=SystemClock(), registry=Registry())
                await self.companion.run()
            finally:
                await client.close()

        self._tasks["companion"] = asyncio.create_task(serve(), name=f"companion {self.name}")

    async def kill(self, part: str) -> None:
        """End a part where it stands."""
        if part == "driver" and self._child is not None:
            self._child.kill()
            await asyncio.to_thread(self._child.wait)
            self._child = None
            return
        task = self._tasks.pop(part, None)
        if task is not None:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    def volumes(self) -> list[str]:
        """Names of the folders that the driver has, unfinished ones too."""
        folder = self.state / "volumes"
        return sorted(entry.name for entry in folder.iterdir()) if folder.exists() else []


@dataclass(slots=True)
class Storage:
    """The cluster as far as storage goes."""

    server: RunningServer
    client: Client
    root: Path
    nodes: list[Node] = field(default_factory=list)

    async def add_node(self, name: str) -> None:
        """The Node object, as its kubelet would make it."""
        made = node_pb2.Node()
        made.metadata.name = name
        await self.client.create(made)

    def node(
        self,
        name: str,
        *,
        attach: bool = False,
        is_process: bool = False,
        change: Callable[[Driver], Driver] = lambda d: d,
    ) -> Node:
        node = Node(name, self.root / name, self.server, attach, is_process, change)
        (node.folder / "reg").mkdir(parents=True)
        self.nodes.append(node)
        return node

    async def add_class(self, name: str = "fast", *, mode: str = "Immediate", **parameters: str) -> None:
        made = manifests.storage_class(name, default=False)
        made.volumeBindingMode = mode
        made.parameters.update(parameters)
        await self.client.create(made)

    async def add_claim(self, name: str, storage_class: str = "fast", size: str = "1Gi", **annotations: str) -> Claim:
        claim = Claim()
        claim.metadata.name, claim.metadata.namespace = name, "default"
        claim.metadata.annotations.update({key.replace("__", "/"): value for key, value in annotations.items()})
        claim.spec.accessModes.append("ReadWriteOnce")
        claim.spec.storageClassName = storage_class
        claim.spec.resources.requests["storage"].string = size
        return await self.client.create(claim)

    async def claim(self, name: str) -> Claim | None:
        try:
            return await self.client.get(Claim, name, "default")
        except NotFound:
            return None

    async def volumes(self) -> list[PersistentVolume]:
        return (await self.client.list(PersistentVolume)).items

    async def bound(self, name: str) -> PersistentVolume:
        """The volume of a claim, once they are bound."""

        async def ask() -> Claim | None:
            claim = await self.claim(name)
            return claim if claim is not None and claim.status.phase == "Bound" else None

        claim = await self.until(ask)
        return await self.client.get(PersistentVolume, claim.spec.volumeName)

    async def attachment(self, volume: str, node: str) -> storage_pb2.VolumeAttachment:
        made = storage_pb2.VolumeAttachment()
        made.metadata.name = f"csi-{volume}"
        made.spec.attacher, made.spec.nodeName = "hostpath.csi.tiphys.dev", node
        made.spec.source.persistentVolumeName = volume
        return await self.client.create(made)

    async def events(self, name: str) -> list[str]:
        """Reasons of the events about an object."""
        from tiphys.api.core.v1.event_pb2 import Event

        items = (await self.client.list(Event)).items
        return [item.reason for item in items if item.involvedObject.name == name]

    async def until(self, what: Callable[[], Awaitable[Any]], patience_s: float = _PATIENCE_S) -> Any:
        """Ask again until the answer is true; returns it."""
        async with asyncio.timeout(patience_s):
            while True:
                answer = await what()
                if answer:
                    return answer
                await asyncio.sleep(0.01)


@pytest.fixture
async def storage() -> AsyncIterator[Storage]:
    with TemporaryDirectory(prefix="tcsi", dir="/tmp") as folder:
        async with running_server() as server:
            issue(server, USER)
            issue(server, COMPANION_USER)
            manager = ControllerManager(
                ManagerOptions(
                    kubeconfig=Path("unused"),
                    secure_port=0,
                    grpc_port=0,
                    cluster_cidr=("10.244.0.0/16",),
                    # Attachments are made by these tests: the controller would take off what no pod needs.
                    controllers=("*", "-attachdetach"),
                    service_cluster_ip_range=("10.96.0.0/12",),
                ),
                config=config_of(server, USER),
            )
            client = Client(GrpcTransport(config_of(server, "admin")))
            task = asyncio.create_task(manager.run(), name="controller manager")
            made = Storage(server, client, Path(folder))
            try:
                yield made
            finally:
                for node in made.nodes:
                    await node.kill("companion")
                    await node.kill("driver")
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
                await client.close()
