"""Claims in real pods, mounted by our hostpath driver: data stays, mounts go, whoever is killed in between."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from tests.integration.kubelet.conftest import end_pods
from tests.support.containerd import ContainerdNode
from tests.support.csi_driver import FakeNodeService
from tests.support.kubelet import RunningKubelet, is_running, make_pod, running_kubelet, wait_until
from tests.support.promptness import PROMPTLY_S
from tests.unit.kubelet.volumes.csi_world import DRIVER, CsiWorld, Told, claiming_pod, seed_claim
from tiphys.api.core.v1.node_pb2 import Node
from tiphys.api.core.v1.persistent_volume_claim_pb2 import PersistentVolumeClaim
from tiphys.api.core.v1.persistent_volume_pb2 import PersistentVolume
from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys.api.storage.v1.storage_pb2 import CSIDriver, CSINode
from tiphys.thirdparty.csi.v1 import csi_pb2, csi_pb2_grpc
from tiphys_client.fake import FakeClient
from tiphys_component import rpc
from tiphys_component.clock import SystemClock
from tiphys_csi.hostpath.main import make_driver
from tiphys_csi.hostpath.options import Options as DriverOptions
from tiphys_csi.hostpath.rules import DRIVER_NAME
from tiphys_kubelet.volumes.csi import CsiPlugin
from tiphys_kubelet.volumes.mounts import mounts_below, unmount
from tiphys_sdk.csi.server import DriverServer

pytestmark = pytest.mark.containerd


@pytest.fixture
def short_root() -> Iterator[Path]:
    """A short directory, for sockets and mounts; whatever is mounted below it ends with it."""
    with tempfile.TemporaryDirectory(prefix="klt") as folder:
        try:
            yield Path(folder)
        finally:
            for point in mounts_below(Path(folder)):
                unmount(point)


@asynccontextmanager
async def hostpath(root: Path, registry: Path | None = None) -> AsyncIterator[str]:
    """Our driver at work; its endpoint's path."""
    socket = root / "csi.sock"
    registration = f"{registry}/hostpath-reg.sock" if registry is not None else ""
    options = DriverOptions(
        endpoint=f"unix://{socket}", registration_socket=registration, node_id="node-1", state_dir=root / "state"
    )
    driver = await asyncio.to_thread(make_driver, options)
    task = asyncio.create_task(DriverServer(driver, options.endpoint, registration).run())
    try:
        await wait_until(socket.exists)
        yield str(socket)
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        socket.unlink(missing_ok=True)


async def make_volume(endpoint: str, name: str) -> str:
    """A volume of the driver; its id."""
    request = csi_pb2.CreateVolumeRequest(name=name)
    request.capacity_range.required_bytes = 1 << 20
    capability = request.volume_capabilities.add()
    capability.mount.SetInParent()
    capability.access_mode.mode = csi_pb2.VolumeCapability.AccessMode.SINGLE_NODE_WRITER
    channel = rpc.channel(rpc.unix_address(endpoint))
    try:
        return (await csi_pb2_grpc.ControllerStub(channel).CreateVolume(request, timeout=10)).volume.volume_id
    finally:
        await channel.close(None)


def seed_volume(client: FakeClient, handle: str) -> None:
    """The claim data, bound to the driver's volume."""
    spec = CSIDriver()
    spec.metadata.name, spec.spec.attachRequired = DRIVER_NAME, False
    claim, volume = PersistentVolumeClaim(), PersistentVolume()
    claim.metadata.name, claim.metadata.namespace, claim.metadata.uid = "data", "default", "uid-data"
    claim.spec.volumeName, claim.status.phase = "pv-data", "Bound"
    volume.metadata.name = "pv-data"
    volume.spec.accessModes.append("ReadWriteOnce")
    reference = volume.spec.claimRef
    reference.name, reference.namespace, reference.uid = "data", "default", "uid-data"
    source = volume.spec.persistentVolumeSource.csi
    source.driver, source.volumeHandle = DRIVER_NAME, handle
    client.seed(spec, claim, volume)


def writing_pod(name: str) -> Pod:
    """A pod that adds its name to a file in the claim, and runs on."""
    pod = make_pod(name, "sh", "-c", f"echo {name} >> /data/log; trap 'exit 0' TERM; sleep 1000 & wait")
    pod.spec.volumes.add(name="data").volumeSource.persistentVolumeClaim.claimName = "data"
    pod.spec.containers[0].volumeMounts.add(name="data", mountPath="/data")
    return pod


def written(root: Path) -> list[str]:
    """What pods have written into the volume."""
    found = list((root / "state").rglob("log"))
    return found[0].read_text().split() if found else []


@pytest.fixture
async def claiming(
    containerd: ContainerdNode, root: Path, short_root: Path
) -> AsyncIterator[tuple[RunningKubelet, str]]:
    """A kubelet whose driver has registered, and the endpoint of the driver."""
    registry = short_root / "kubelet" / "plugins_registry"
    registry.mkdir(parents=True)
    try:
        async with running_kubelet(containerd, short_root) as running, hostpath(short_root, registry) as endpoint:
            await wait_until(lambda: DRIVER_NAME in list(running.kubelet.csi.drivers))
            seed_volume(running.client, await make_volume(endpoint, "data"))
            yield running, endpoint
    finally:
        await end_pods(containerd)


def csi_mounts(root: Path) -> list[Path]:
    """What is mounted of CSI volumes."""
    return [point for point in mounts_below(root) if "csi" in str(point)]


async def test_E26_our_driver_is_in_the_csi_node_within_two_seconds(
    containerd: ContainerdNode, short_root: Path
) -> None:
    registry = short_root / "kubelet" / "plugins_registry"
    registry.mkdir(parents=True)
    async with running_kubelet(containerd, short_root) as running:
        await wait_until(lambda: running.client.find_stored(CSINode, "node-1") is not None)
        began = time.monotonic()
        async with hostpath(short_root, registry):

            def drivers() -> list[str]:
                return [driver.name for driver in running.client.stored(CSINode, "node-1").spec.drivers]

            await wait_until(lambda: drivers() == [DRIVER_NAME])
            assert time.monotonic() - began < PROMPTLY_S


async def until_written(name: str, root: Path) -> None:
    await wait_until(lambda: name in written(root))


async def until_published(plugin: CsiPlugin) -> None:
    await wait_until(lambda: len(plugin.published()) == 1)


async def test_data_stays_when_the_pod_is_deleted_and_started_again(
    claiming: tuple[RunningKubelet, str], short_root: Path
) -> None:
    kubelet, _ = claiming
    for name in ("one", "two"):
        await kubelet.create(writing_pod(name))
        await kubelet.until(name, is_running)
        await until_written(name, short_root)
        await kubelet.client.delete(Pod, name, "default")
        await kubelet.until_gone(name)
        # The pod goes after its volume: nothing of it is mounted any more.
        assert csi_mounts(short_root) == []
    assert written(short_root) == ["one", "two"]


async def test_pod_deleted_while_the_kubelet_is_dead_leaves_no_mount(
    containerd: ContainerdNode, short_root: Path
) -> None:
    registry = short_root / "kubelet" / "plugins_registry"
    registry.mkdir(parents=True)
    try:
        async with hostpath(short_root, registry) as endpoint:
            async with running_kubelet(containerd, short_root) as first:
                seed_volume(first.client, await make_volume(endpoint, "data"))
                await first.create(writing_pod("lost"))
                await first.until("lost", is_running)
                await wait_until(lambda: written(short_root) == ["lost"])
                client = first.client
            assert csi_mounts(short_root) != []
            pod = client.stored(Pod, "lost", "default")
            await client.delete(Pod, "lost", "default", grace_period_s=0, preconditions_uid=pod.metadata.uid)
            async with running_kubelet(containerd, short_root, client=client):
                await wait_until(lambda: csi_mounts(short_root) == [])
        assert written(short_root) == ["lost"]
    finally:
        await end_pods(containerd)


async def test_running_pod_survives_a_restart_of_kubelet_and_driver(
    containerd: ContainerdNode, short_root: Path
) -> None:
    registry = short_root / "kubelet" / "plugins_registry"
    registry.mkdir(parents=True)
    client: FakeClient | None = None
    try:
        for life in range(3):
            async with (
                hostpath(short_root, registry) as endpoint,
                running_kubelet(containerd, short_root, client=client) as running,
            ):
                if client is None:
                    client = running.client
                    seed_volume(client, await make_volume(endpoint, "data"))
                    await running.create(writing_pod("steady"))
                pod = await running.until("steady", is_running)
                assert pod.status.containerStatuses[0].restartCount == 0
                # A later life takes the volume up too, so that it grows and its figures are told.
                plugin = running.kubelet.csi.plugin
                await until_published(plugin)
                if life == 2:
                    await client.delete(Pod, "steady", "default")
                    await running.until_gone("steady")
        assert csi_mounts(short_root) == []
        assert written(short_root) == ["steady"]
    finally:
        await end_pods(containerd)


async def test_fifty_reboots_leak_neither_mounts_nor_directories(short_root: Path) -> None:
    client = FakeClient(SystemClock())
    node, spec = Node(), CSIDriver()
    node.metadata.name, spec.metadata.name, spec.spec.attachRequired = "node-1", DRIVER, False
    client.seed(node, spec)
    world = CsiWorld(short_root, FakeNodeService(), client, Told())
    async with hostpath(short_root) as endpoint:
        _, volume = seed_claim(world)
        volume.spec.persistentVolumeSource.csi.volumeHandle = await make_volume(endpoint, "data")
        client.seed(volume)
        for number in range(50):
            uid = f"uid-{number}"
            await world.start()
            mounted = await world.ensure(claiming_pod(uid=uid))
            with (mounted["v-data"].host_path / "log").open("a") as log:
                log.write(f"{number}\n")
            await world.stop()
            # A reboot takes mounts, and leaves directories.
            for point in mounts_below(short_root):
                unmount(point)
            await world.start()
            if number % 2:
                await world.ensure(claiming_pod(uid=uid))
            await world.manager.tear_down(uid)
            await world.stop()
            assert world.left() == []
            assert mounts_below(short_root) == []
    assert written(short_root) == [str(number) for number in range(50)]
