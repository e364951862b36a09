"""Figures of a whole cluster: `tiphys up`, a pod, claims, devices, three nodes. Run: python -m tests.bench.cluster

A cluster of its own name, with its ports shifted, on this machine; it is taken off at the end. Needs root, containerd
and the images that `make up` leaves on the machine; what is missing is made at the first start, which does not count.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import ssl
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

import orjson
import uvloop

from tests.bench import claims, devices
from tests.bench.figures import Figure, median, print_figures, print_heading, skipped
from tests.bench.process import environment
from tests.bench.rest_client import Client, request, watch_object
from tiphys_cluster.ports import Ports

_UP = "`tiphys up` (second time) to a Running container"
_POD = "one pod, create to Running seen by a watcher"
_THREE = "`tiphys up --nodes 3` (second time) to all nodes Ready"
_PODS_PATH = "/api/v1/namespaces/default/pods"
_FIRST_UP_TIMEOUT_S = 300.0
_RUNNING_TIMEOUT_S = 60.0
_PODS = 10
_SETTLE_S = 1.0
_PORT_OFFSET = 21000
_NODE = "node-1"


@dataclass(frozen=True, slots=True)
class BenchCluster:
    """A cluster that this run may start and stop."""

    name: str
    home: Path
    nodes: int = 1

    def tiphys(self, *arguments: str, timeout_s: float = 120.0) -> None:
        """One verb of the command. Raises RuntimeError with what it said."""
        command = [str(Path(sys.executable).with_name("tiphys")), *arguments, f"--name={self.name}"]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=timeout_s, check=False, env=environment()
        )
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}: exit code {done.returncode}: {done.stdout}{done.stderr}")

    def up(self, *, timeout_s: float = 120.0) -> None:
        """Start it."""
        wish = (f"--home={self.home}", f"--port-offset={_PORT_OFFSET}", f"--nodes={self.nodes}")
        self.tiphys("up", *wish, timeout_s=timeout_s)

    def down(self, *arguments: str) -> None:
        """Stop it."""
        self.tiphys("down", f"--home={self.home}", *arguments)

    def client(self) -> Client:
        """As its administrator."""
        pki = self.home / "pki"
        tls = ssl.create_default_context(cafile=str(pki / "ca.crt"))
        tls.load_cert_chain(pki / "admin.crt", pki / "admin.key")
        return Client(Ports(_PORT_OFFSET).apiserver, tls)


def measure_cluster() -> list[Figure]:
    """All figures; skipped ones where something is missing."""
    missing = _missing()
    if missing:
        return skipped_figures(missing)
    return [*_measure_one_node(), measure_three_nodes()]


def measure_three_nodes() -> Figure:
    """How soon three nodes are Ready."""
    with ExitStack() as stack:
        home = Path(stack.enter_context(TemporaryDirectory(prefix="tiphys-bench-")))
        cluster = BenchCluster(f"bench{os.getpid()}-3", home / "home", nodes=3)
        stack.callback(cluster.down, "--delete")
        cluster.up(timeout_s=_FIRST_UP_TIMEOUT_S)
        cluster.down()
        began = perf_counter()
        cluster.up()
        return Figure(_THREE, perf_counter() - began, "s", 8, "each with containerd, kubelet, kube-proxy and flannel")


def _measure_one_node() -> list[Figure]:
    with ExitStack() as stack:
        home = Path(stack.enter_context(TemporaryDirectory(prefix="tiphys-bench-")))
        cluster = BenchCluster(f"bench{os.getpid()}", home / "home")
        stack.callback(cluster.down, "--delete")
        cluster.up(timeout_s=_FIRST_UP_TIMEOUT_S)
        uvloop.run(_pod_times(cluster, 1))
        cluster.down()
        began = perf_counter()
        cluster.up()
        up_s = perf_counter() - began
        first_s, *times_s = uvloop.run(_pod_times(cluster, 1 + _PODS))
        of_claims = uvloop.run(_claim_figures(cluster))
        of_devices = uvloop.run(_device_figures(cluster))
        note = f"{up_s:.1f} s of it until the node is Ready, as the command waits"
        spread = f"best {min(times_s):.2f}, worst {max(times_s):.2f}; busybox, image present, {_PODS} one by one"
        return [
            Figure(_UP, up_s + first_s, "s", 4, note),
            Figure(_POD, median(times_s), "s", 0.4, spread),
            *of_claims,
            *of_devices,
        ]


def skipped_figures(why: str) -> list[Figure]:
    """All of them, not measured."""
    of_claims = [skipped(name, why, "s", claims.MOST_S) for name in (claims.IMMEDIATE, claims.WITH_POD)]
    of_devices = skipped(devices.ALLOCATABLE, why, "s", devices.MOST_S)
    of_nodes = skipped(_THREE, why, "s", 8)
    return [skipped(_UP, why, "s", 4), skipped(_POD, why, "s", 0.4), *of_claims, of_devices, of_nodes]


def _missing() -> str:
    if os.geteuid() != 0:
        return "needs root"
    absent = [name for name in ("containerd", "runc", "ip", "nft") if shutil.which(name) is None]
    return f"not installed: {', '.join(absent)}" if absent else ""


async def _claim_figures(cluster: BenchCluster) -> list[Figure]:
    async with cluster.client().connected(1) as client:
        return await claims.measure_claims(client)


async def _device_figures(cluster: BenchCluster) -> list[Figure]:
    root = cluster.home / "nodes" / _NODE / "kubelet"
    async with cluster.client().connected(1) as client:
        return await devices.measure_devices(client, _NODE, root)


async def _pod_times(cluster: BenchCluster, pods: int) -> list[float]:
    """Seconds of each pod, one after the other; each is deleted before the next."""
    async with cluster.client().connected(1) as client:
        return [await _pod_time(client, f"bench-{number}") for number in range(pods)]


async def _pod_time(client: Client, name: str) -> float:
    running, gone = asyncio.Event(), asyncio.Event()
    watches = [
        await watch_object(client, _PODS_PATH, name, b'"phase":"Running"', running),
        await watch_object(client, _PODS_PATH, name, _DELETED, gone),
    ]
    container = {"name": "box", "image": "busybox", "imagePullPolicy": "IfNotPresent", "command": ["sleep", "3600"]}
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {"containers": [container], "terminationGracePeriodSeconds": 0},
    }
    try:
        began = perf_counter()
        await client.call(request("POST", _PODS_PATH, orjson.dumps(pod)), status=201)
        await asyncio.wait_for(running.wait(), _RUNNING_TIMEOUT_S)
        took_s = perf_counter() - began
        await client.call(request("DELETE", f"{_PODS_PATH}/{name}"))
        await asyncio.wait_for(gone.wait(), _RUNNING_TIMEOUT_S)
        # What removing it still costs the runtime is not the next one's.
        await asyncio.sleep(_SETTLE_S)
        return took_s
    finally:
        for watch in watches:
            watch.close()


_DELETED = b'{"type":"DELETED"'


if __name__ == "__main__":
    print_heading()
    print_figures(measure_cluster())
