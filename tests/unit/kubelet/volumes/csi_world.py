"""A kubelet's CSI side with a driver in memory: claims, pods, and what a crash or a reboot leaves."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.csi_driver import FakeNodeService, csi_socket
from tests.unit.kubelet.builders import make_pod
from tiphys.api.core.v1.node_pb2 import Node
from tiphys.api.core.v1.persistent_volume_claim_pb2 import PersistentVolumeClaim
from tiphys.api.core.v1.persistent_volume_pb2 import PersistentVolume
from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys.api.storage.v1.storage_pb2 import CSIDriver, VolumeAttachment
from tiphys_client.fake import FakeClient
from tiphys_component.clock import SystemClock
from tiphys_kubelet.csi.assembly import CsiSupport
from tiphys_kubelet.objects import ObjectKey, Objects, Referenced, attachment_name, referenced_through
from tiphys_kubelet.volumes.manager import MountedVolumes, VolumeManager, VolumeSurroundings
from tiphys_kubelet.volumes.projected import Token
from tiphys_kubelet.volumes.registry import default_plugins

DRIVER = "a.driver"


@dataclass(slots=True)
class Told:
    """Keeps events as `reason: message`."""

    events: list[str] = field(default_factory=list)

    def event(self, regarding: Any, kind: str, reason: str, message: str, *, container: str = "") -> None:
        """Keeps it."""
        self.events.append(f"{reason}: {message}")


async def give_token(pod: Pod, audience: str, lifetime_s: int) -> Token:
    """A token that names what it is for."""
    now = SystemClock().now()
    return Token(f"token for {audience}", now, now)


@dataclass(slots=True)
class CsiWorld:
    """One node's volumes; `restart` is what a crash of the kubelet leaves."""

    root: Path
    driver: FakeNodeService
    client: FakeClient
    told: Told
    timeout_s: float = 5.0
    csi: CsiSupport = field(init=False)
    manager: VolumeManager = field(init=False)
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)

    async def start(self, *, registered: bool = True) -> None:
        """A new life of the kubelet."""
        clock = SystemClock()
        self.csi = CsiSupport(
            self.root,
            "node-1",
            client=self.client,
            clock=clock,
            events=self.told,
            request_token=give_token,
            on_driver=lambda: None,
            timeout_s=self.timeout_s,
        )
        plugins = default_plugins(clock, give_token, self.csi.plugin)
        self.manager = VolumeManager(self.root / "pods", plugins)
        self._tasks = [asyncio.create_task(loop.run()) for loop in self.csi.loops()]
        self.csi.in_use.node_seen(self.client.stored(Node, "node-1"))
        if registered:
            await self.register()

    async def register(self) -> None:
        """The driver registers."""
        await self.csi.drivers.register(DRIVER, str(self.root / "csi.sock"), ("1.0.0",))

    async def stop(self) -> None:
        """The kubelet is killed."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)  # noqa: TID251  # ends them, whatever they say

    async def restart(self) -> None:
        """Killed, and started again."""
        await self.stop()
        await self.start()

    def objects(self, pod: Pod) -> Objects:
        """What the pod refers to, as the API server has it."""
        found: dict[ObjectKey, Referenced] = {}
        for _ in range(4):
            for key in referenced_through(pod, found):
                stored = self.client.find_stored(key.kind, key.name, key.namespace)
                if stored is not None:
                    found[key] = stored
        return found

    async def ensure(self, pod: Pod) -> MountedVolumes:
        """Sets the pod's volumes up."""
        return await self.manager.ensure(pod, VolumeSurroundings(self.objects(pod)))

    def left(self) -> list[str]:
        """Everything below the pods' and the plugin's directories."""
        roots = (self.root / "pods", self.root / "plugins" / "kubernetes.io" / "csi" / DRIVER)
        return sorted(str(p.relative_to(self.root)) for root in roots if root.is_dir() for p in root.rglob("*"))

    def staging(self) -> list[Path]:
        """The directories of staged volumes."""
        return [path for path, _ in self.csi.plugin._shared.paths.staged()]


@asynccontextmanager
async def csi_world(driver: FakeNodeService | None = None, *, timeout_s: float = 5.0) -> AsyncIterator[CsiWorld]:
    """A node whose driver is registered, which need not attach."""
    with tempfile.TemporaryDirectory(prefix="klt") as folder:
        client = FakeClient(SystemClock())
        node = Node()
        node.metadata.name = "node-1"
        spec = CSIDriver()
        spec.metadata.name = DRIVER
        spec.spec.attachRequired = False
        client.seed(node, spec)
        service = driver or FakeNodeService()
        world = CsiWorld(Path(folder), service, client, Told(), timeout_s)
        async with csi_socket(world.root / "csi.sock", service):
            await world.start()
            try:
                yield world
            finally:
                await world.stop()


def change_driver(world: CsiWorld, **spec: Any) -> None:
    """Sets fields of the CSIDriver."""
    stored = world.client.stored(CSIDriver, DRIVER)
    for name, value in spec.items():
        if isinstance(value, list):
            del getattr(stored.spec, name)[:]
            getattr(stored.spec, name).extend(value)
        else:
            setattr(stored.spec, name, value)
    world.client.seed(stored)


def seed_claim(world: CsiWorld, name: str = "data", **csi: Any) -> tuple[PersistentVolumeClaim, PersistentVolume]:
    """A claim that is bound to the volume pv-NAME."""
    claim, volume = PersistentVolumeClaim(), PersistentVolume()
    claim.metadata.name, claim.metadata.namespace, claim.metadata.uid = name, "default", f"uid-{name}"
    claim.spec.volumeName, claim.status.phase = f"pv-{name}", "Bound"
    claim.status.capacity["storage"].string = "1Gi"
    volume.metadata.name = f"pv-{name}"
    volume.spec.accessModes.append("ReadWriteOnce")
    volume.spec.capacity["storage"].string = "1Gi"
    reference = volume.spec.claimRef
    reference.name, reference.namespace, reference.uid = name, "default", claim.metadata.uid
    source = volume.spec.persistentVolumeSource.csi
    source.driver, source.volumeHandle = DRIVER, f"handle-{name}"
    for key, value in csi.items():
        setattr(source, key, value)
    world.client.seed(claim, volume)
    return claim, volume


def seed_attachment(world: CsiWorld, handle: str = "handle-data", *, attached: bool = True) -> VolumeAttachment:
    """The attachment of a volume to the node."""
    attachment = VolumeAttachment()
    attachment.metadata.name = attachment_name(handle, DRIVER, "node-1")
    attachment.spec.attacher, attachment.spec.nodeName = DRIVER, "node-1"
    attachment.status.attached = attached
    attachment.status.attachmentMetadata["device"] = "/dev/x"
    world.client.seed(attachment)
    return attachment


def claiming_pod(*claims: str, uid: str = "uid-1", read_only: bool = False) -> Pod:
    """A pod of these claims, on the node."""
    pod = make_pod()
    pod.metadata.uid, pod.spec.nodeName = uid, "node-1"
    for name in claims or ("data",):
        volume = pod.spec.volumes.add(name=f"v-{name}")
        volume.volumeSource.persistentVolumeClaim.claimName = name
        if read_only:
            volume.volumeSource.persistentVolumeClaim.readOnly = True
    return pod


def inline_pod(**attributes: str) -> Pod:
    """A pod with an inline volume."""
    pod = make_pod()
    pod.spec.nodeName, pod.spec.serviceAccountName = "node-1", "bot"
    source = pod.spec.volumes.add(name="scratch").volumeSource.csi
    source.driver = DRIVER
    source.volumeAttributes.update(attributes)
    return pod


def methods(world: CsiWorld) -> Sequence[str]:
    """What the driver was asked to change, in order, made short."""
    return [name.removeprefix("Node").removesuffix("Volume") for name in world.driver.names()]
