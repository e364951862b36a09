"""The CNI chain of a pod beside Go's: loopback, bridge with host-local and masquerade, portmap. Run: -m tests.bench.cni

A paired run, A B A B, in network namespaces of its own; needs root. Time on the wall counts here, because that is what
a pod waits for, and our work is done in a service that is there already: its CPU is told beside.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

from tests.bench.figures import Figure, median, print_figures, print_heading, skipped
from tests.bench.process import cpu_s
from tiphys_cni.install import install

GO_PLUGINS = Path("/usr/lib/cni")
_PODS = 40
_START_TIMEOUT_S = 20.0
_SERVICE = (
    "import asyncio, pathlib, sys; from tiphys_component import log; from tiphys_cni.listener import Listener;"
    "log.configure('info', 'text'); asyncio.run(Listener(pathlib.Path(sys.argv[1])).run())"
)
_NAME = "CNI chain of a pod, ADD"


@dataclass(frozen=True, slots=True)
class Chain:
    """One side: executables, and the node's namespace that they work in."""

    node: str
    binaries: Path
    data: Path
    subnet: str
    with_port: bool = False

    def configuration(self) -> dict[str, Any]:
        """Of the bridge, as both sides take it."""
        ipam = {"type": "host-local", "dataDir": str(self.data), "ranges": [[{"subnet": self.subnet}]]}
        base = {"cniVersion": "1.0.0", "name": "bench", "type": "bridge", "isDefaultGateway": True, "ipMasq": True}
        return {**base, "ipam": ipam}

    def portmap(self, **extra: Any) -> dict[str, Any]:
        """Of portmap, with one host port or none, as the runtime gives it."""
        ports = [{"hostPort": 18080, "containerPort": 80, "protocol": "tcp"}] if self.with_port else []
        runtime = {"runtimeConfig": {"portMappings": ports}}
        return {"cniVersion": "1.0.0", "name": "bench", "type": "portmap", **runtime, **extra}

    def call(self, verb: str, plugin: str, container: str, conf: dict[str, Any]) -> dict[str, Any]:
        """Call one executable as a runtime does, in the node's namespace; its result. Raises RuntimeError."""
        environment = {
            "PATH": os.environ["PATH"],
            "CNI_COMMAND": verb,
            "CNI_CONTAINERID": container,
            "CNI_NETNS": f"/run/netns/{container}",
            "CNI_IFNAME": "lo" if plugin == "loopback" else "eth0",
            "CNI_PATH": str(self.binaries),
        }
        command = ["nsenter", f"--net=/run/netns/{self.node}", str(self.binaries / plugin)]
        done = subprocess.run(
            command, input=json.dumps(conf).encode(), env=environment, capture_output=True, timeout=30, check=False
        )
        if done.returncode:
            raise RuntimeError(f"{plugin} {verb}: {done.stdout.decode()}{done.stderr.decode()}")
        found: dict[str, Any] = json.loads(done.stdout or b"{}")
        return found

    def add(self, container: str) -> float:
        """Seconds that the plugins take."""
        began = perf_counter()
        self.call("ADD", "loopback", container, {"cniVersion": "1.0.0", "name": "bench", "type": "loopback"})
        result = self.call("ADD", "bridge", container, self.configuration())
        self.call("ADD", "portmap", container, self.portmap(prevResult=result))
        return perf_counter() - began

    def delete(self, container: str) -> float:
        """Seconds that the plugins take."""
        began = perf_counter()
        self.call("DEL", "portmap", container, self.portmap())
        self.call("DEL", "bridge", container, self.configuration())
        self.call("DEL", "loopback", container, {"cniVersion": "1.0.0", "name": "bench", "type": "loopback"})
        return perf_counter() - began


def measure_cni() -> list[Figure]:
    """ADD of ours against Go's, without and with a host port, and DEL for information."""
    missing = _missing()
    if missing:
        return [skipped(_NAME, missing, "ms")]
    return [*_measure("", with_port=False), *_measure(", with a host port", with_port=True)]


def _measure(suffix: str, *, with_port: bool) -> list[Figure]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="tiphys-bench-")))
        theirs = Chain(_namespace(stack, "go"), GO_PLUGINS, folder / "go", "10.78.0.0/16", with_port)
        ours = Chain(_namespace(stack, "own"), folder / "bin", folder / "own", "10.79.0.0/16", with_port)
        socket = folder / "cni.sock"
        install(ours.binaries, str(socket))
        service = stack.enter_context(_service(ours.node, socket))
        # The first of each side makes the bridge and the rules: it is not what a pod waits for.
        _pair((theirs, ours), "w")
        before = cpu_s(service.pid)
        pairs = [_pair((theirs, ours), str(number)) for number in range(_PODS)]
        spent_ms = (cpu_s(service.pid) - before) / _PODS * 1e3
    adds = [median([pair[side][0] for pair in pairs]) * 1e3 for side in (0, 1)]
    deletes = [median([pair[side][1] for pair in pairs]) * 1e3 for side in (0, 1)]
    note = f"Go's plugins {adds[0]:.1f} ms, paired; CPU of the service {spent_ms:.1f} ms for ADD and DEL"
    return [
        Figure(_NAME + suffix, adds[1], "ms", adds[0], note),
        Figure(f"CNI chain of a pod, DEL{suffix}", deletes[1], "ms", note=f"Go's plugins {deletes[0]:.1f} ms"),
    ]


def _missing() -> str:
    if os.geteuid() != 0:
        return "needs root"
    wanted = [str(GO_PLUGINS / name) for name in ("loopback", "bridge", "host-local", "portmap")]
    absent = [name for name in [*wanted, "nsenter", "ip", "iptables"] if shutil.which(name) is None]
    return f"not installed: {', '.join(absent)}" if absent else ""


def _pair(sides: Sequence[Chain], suffix: str) -> list[tuple[float, float]]:
    """One pod on each side, one after the other; seconds of ADD and DEL."""
    found: list[tuple[float, float]] = []
    for side in sides:
        container = f"{side.node}{suffix}"
        _ip("netns", "add", container)
        try:
            found.append((side.add(container), side.delete(container)))
        finally:
            _ip("netns", "del", container)
    return found


def _namespace(stack: ExitStack, side: str) -> str:
    name = f"bench{os.getpid()}{side}"
    _ip("netns", "add", name)
    stack.callback(_ip, "netns", "del", name)
    return name


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, timeout=30)


@contextmanager
def _service(node: str, socket: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The resident service in the node's namespace."""
    command = ["nsenter", f"--net=/run/netns/{node}", sys.executable, "-c", _SERVICE, str(socket)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as service:
        try:
            end = perf_counter() + _START_TIMEOUT_S
            while not socket.exists():
                if service.poll() is not None or perf_counter() > end:
                    raise RuntimeError("the CNI service did not come up")
                subprocess.run(["sleep", "0.05"], check=True)
            yield service
        finally:
            service.send_signal(signal.SIGKILL)
            service.wait()


if __name__ == "__main__":
    print_heading()
    print_figures(measure_cni())
