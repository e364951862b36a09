"""A node's CNI service by launchers and gRPC, and the kubelet's look for what is left over."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.integration.cni.harness import Node, sh
from tests.integration.cni.test_portmap import elements, mapping
from tiphys.thirdparty.cri.v1 import api_pb2 as cri
from tiphys_component.clock import FakeClock
from tiphys_cri.fake import FakeImages, FakeRuntime
from tiphys_kubelet.network_garbage import GRACE_S, NetworkGarbage

pytestmark = pytest.mark.netns


@contextmanager
def service(folder: Path) -> Iterator[Node]:
    """A node with the service as `tiphys up` starts it."""
    name = f"cnis{os.getpid() % 10000}"
    node = Node(name, folder, [])
    sh("ip", "netns", "add", name)
    command = [sys.executable, "-m", "tiphys_cni", f"--socket={folder}/cni.sock", f"--grpc-socket={folder}/grpc.sock"]
    command += [f"--bin-dir={folder}/bin", f"--conf-dir={folder}/net.d", f"--data-dir={folder}/data"]
    command += ["--network=bridge", "--pod-cidr=10.77.0.0/24"]
    process = subprocess.Popen(["nsenter", f"--net=/run/netns/{name}", *command], stderr=subprocess.DEVNULL)
    try:
        for path in ("cni.sock", "grpc.sock", "net.d/10-tiphys.conflist", "bin/portmap"):
            while not (folder / path).exists():
                assert process.poll() is None
                sh("sleep", "0.05")
        yield node
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        for container in node.containers:
            sh("ip", "netns", "del", container)
        sh("ip", "netns", "del", name)


def attach(node: Node, host_port: int) -> str:
    """A container on the node's own network, as a runtime attaches it; its id."""
    network = json.loads((node.folder / "net.d/10-tiphys.conflist").read_text())
    container, result = node.container(), None
    for plugin in network["plugins"]:
        conf = {**plugin, "cniVersion": network["cniVersion"], "name": network["name"]}
        if plugin.get("capabilities"):
            conf["runtimeConfig"] = {"portMappings": [mapping(host_port)]}
        code, result = node.call("ADD", plugin["type"], container, conf | ({"prevResult": result} if result else {}))
        assert code == 0, result
    return container


async def test_what_the_runtime_lost_is_freed_by_the_kubelet_and_nothing_else(tmp_path: Path) -> None:
    clock = FakeClock()
    runtime = FakeRuntime(clock, images=FakeImages())
    metadata = cri.PodSandboxMetadata(name="kept", namespace="default", uid="u", attempt=0)
    known = await runtime.run_pod_sandbox(cri.PodSandboxConfig(metadata=metadata))
    with service(tmp_path) as node:
        await asyncio.to_thread(attach, node, 8081)
        await asyncio.to_thread(attach, node, 8082)
        # The runtime knows one of the two by the name that its network has.
        lost = node.containers[0]
        kept = node.containers[1]
        runtime._sandboxes[kept] = runtime._sandboxes.pop(known)
        garbage = NetworkGarbage(tmp_path / "grpc.sock", runtime, clock, _relisted)
        async with asyncio.timeout(20), asyncio.TaskGroup() as group:
            work = group.create_task(garbage.collect())
            while clock.pending == 0:  # noqa: ASYNC110 - the calls go through a real process
                await asyncio.sleep(0.01)
            clock.advance(GRACE_S)
        freed = work.result()
        left = {path.name: path.read_text().split()[0] for path in (tmp_path / "data").rglob("10.*")}
        host_ends = sh("ip", "-n", node.name, "link").count("master cni0")
        owners = set(elements(node))

    assert freed == 1
    assert lost not in left.values()
    assert list(left.values()) == [kept]
    assert (host_ends, owners) == (1, {f"tiphys/{kept} eth0"})


async def _relisted() -> None:
    """The runtime's picture is complete."""
