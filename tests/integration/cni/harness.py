"""A node of network namespaces, with the installed executables of one kind."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tiphys_cni.install import install

KINDS = ["compiled", "script", "standalone"]
SERVICE = (
    "import asyncio, pathlib, sys; from tiphys_cni.listener import Listener;"
    "asyncio.run(Listener(pathlib.Path(sys.argv[1])).run())"
)
_numbers = itertools.count()


def sh(*command: str, check: bool = True) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert not check or done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


@dataclass
class Node:
    """A network namespace with the executables of one kind, and containers that are namespaces too."""

    name: str
    folder: Path
    containers: list[str]

    def container(self) -> str:
        name = f"{self.name}c{len(self.containers)}"
        sh("ip", "netns", "add", name)
        self.containers.append(name)
        return name

    def call(self, verb: str, plugin: str, container: str, conf: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        environment = {
            "PATH": os.environ["PATH"],
            "CNI_COMMAND": verb,
            "CNI_CONTAINERID": container,
            "CNI_NETNS": f"/run/netns/{container}",
            "CNI_IFNAME": "lo" if plugin == "loopback" else "eth0",
            "CNI_PATH": str(self.folder / "bin"),
        }
        done = subprocess.run(
            ["nsenter", f"--net=/run/netns/{self.name}", str(self.folder / "bin" / plugin)],
            input=json.dumps(conf).encode(),
            env=environment,
            capture_output=True,
            timeout=30,
            check=False,
        )
        return done.returncode, json.loads(done.stdout) if done.stdout else {}

    def conf(self, **extra: Any) -> dict[str, Any]:
        ipam = {
            "type": "host-local",
            "dataDir": str(self.folder / "data"),
            "ranges": [[{"subnet": "10.77.0.0/24"}]],
        }
        base = {"cniVersion": "1.0.0", "name": "test", "type": "bridge", "isDefaultGateway": True, "ipMasq": True}
        return {**base, "ipam": ipam, **extra}


@contextmanager
def open_node(kind: str, folder: Path) -> Iterator[Node]:
    """A node whose launchers are of that kind; with its resident service, except standalone."""
    name = f"cnit{os.getpid() % 10000}x{next(_numbers)}"
    found = Node(name, folder, [])
    socket = folder / "cni.sock"
    sh("ip", "netns", "add", name)
    install(folder / "bin", str(socket), compiler="cc" if kind == "compiled" else None)
    service = None
    try:
        if kind != "standalone":
            service = subprocess.Popen(
                ["nsenter", f"--net=/run/netns/{name}", sys.executable, "-c", SERVICE, str(socket)],
                stderr=subprocess.DEVNULL,
            )
            deadline = time.monotonic() + 20
            while not socket.exists():
                assert time.monotonic() < deadline, "the service did not come up"
                assert service.poll() is None
                sh("sleep", "0.05")
        yield found
    finally:
        if service is not None:
            service.send_signal(signal.SIGKILL)
            service.wait()
        for container in found.containers:
            sh("ip", "netns", "del", container)
        sh("ip", "netns", "del", name)
