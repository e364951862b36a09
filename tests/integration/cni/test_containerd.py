"""CNI plugins under a plain containerd, without the rest of Tiphys: the reference ones, and ours in their place."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.integration.cni.harness import SERVICE, sh
from tests.integration.cni.test_portmap import CLIENT, ask
from tests.support.containerd import CNI_DIR, ContainerdNode, containerd_node, missing
from tiphys.thirdparty.cri.v1 import api_pb2 as cri
from tiphys_cni.install import install
from tiphys_cri.endpoint import channel
from tiphys_cri.image import GrpcImageService
from tiphys_cri.runtime import GrpcRuntimeService

pytestmark = pytest.mark.containerd

PORTMAP: dict[str, object] = {"type": "portmap", "capabilities": {"portMappings": True}}
_HOST_PORT = 18080


@contextmanager
def resident_service(node: ContainerdNode, socket: Path) -> Iterator[None]:
    command = ["nsenter", f"--net=/run/netns/{node.netns}", sys.executable, "-c", SERVICE, str(socket)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as service:
        try:
            while not socket.exists():
                assert service.poll() is None
                sh("sleep", "0.05")
            yield
        finally:
            service.send_signal(signal.SIGKILL)


async def run_pod(runtime: GrpcRuntimeService, images: GrpcImageService, logs: Path) -> str:
    """A pod that answers each connection on port 80 with its own name; its sandbox's id."""
    metadata = cri.PodSandboxMetadata(name="web", namespace="default", uid="u1", attempt=0)
    config = cri.PodSandboxConfig(metadata=metadata, hostname="web", log_directory=str(logs))
    config.port_mappings.add(host_port=_HOST_PORT, container_port=80, protocol=cri.TCP)
    config.linux.SetInParent()
    sandbox = await runtime.run_pod_sandbox(config)
    image = await images.image_status("busybox")
    assert image is not None
    container = cri.ContainerConfig(
        metadata=cri.ContainerMetadata(name="web"),
        image=cri.ImageSpec(image=image.id),
        command=["sh", "-c", "while true; do nc -l -p 80 -e echo web; done"],
        log_path="web.log",
    )
    container.linux.SetInParent()
    await runtime.start_container(await runtime.create_container(sandbox, container, config))
    return sandbox


async def answer(netns: str, host: str) -> str:
    """What the host port says, once the pod listens; nc serves one caller at a time."""
    said = ""
    for _ in range(50):
        said = await asyncio.to_thread(_ask, netns, host)
        if said == "web":
            break
        await asyncio.sleep(0.1)
    return said


@pytest.mark.parametrize("plugins", ["reference", "ours", "ours with the service"])
async def test_F3_pod_with_a_host_port_is_reached_on_the_node(tmp_path: Path, plugins: str) -> None:
    reason = missing()
    if reason:
        pytest.skip(reason)
    socket, folder = tmp_path / "cni.sock", CNI_DIR
    if plugins != "reference":
        folder = tmp_path / "bin"
        await asyncio.to_thread(install, folder, str(socket))
    async with (
        containerd_node("cni", cni_bin=folder, more_plugins=(PORTMAP,)) as node,
        channel(node.endpoint) as dialled,
    ):
        runtime, images = GrpcRuntimeService(dialled), GrpcImageService(dialled)
        with resident_service(node, socket) if plugins == "ours with the service" else _nothing():
            sandbox = await run_pod(runtime, images, tmp_path)
            address = sh("ip", "-4", "-n", node.netns, "-o", "address", "show", "dev", f"{node.name}n"[:15])
            node_ip = address.split(" inet ")[1].split("/")[0]
            own = await answer(node.netns, node_ip), await answer(node.netns, "127.0.0.1")
            outside = await answer("", node_ip)
            reserved = [p.name for p in (node.root / "cni/ipam").rglob("10.*")]
            for _ in range(2):
                await runtime.stop_pod_sandbox(sandbox)
            left = [p.name for p in (node.root / "cni/ipam").rglob("10.*")]
            after = await asyncio.to_thread(_ask, node.netns, node_ip)

    assert (own, outside) == (("web", "web"), "web")
    assert (len(reserved), left) == (1, [])
    assert after == "ConnectionRefusedError"


def _ask(netns: str, host: str) -> str:
    """What the host port says to a caller in the namespace, in this one where none is named."""
    if netns:
        return ask(netns, "tcp", host, _HOST_PORT)
    return sh(sys.executable, "-c", CLIENT, "tcp", host, str(_HOST_PORT)).strip()


@contextmanager
def _nothing() -> Iterator[None]:
    yield
