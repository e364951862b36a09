"""How soon the API server is ready: as a process of its own, and forked by the zygote that `tiphys up` uses."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

from tests.bench.api_server import Starting, flags_of, free_port, running_api_server, starting, stop, wait_ready
from tests.bench.figures import Figure, print_figures
from tests.bench.process import cpu_s, environment
from tiphys_cluster.child import ChildSpec

_ROUNDS = 3
_MODULE = "tiphys_apiserver.main"
# The zygote's own loop, without the cgroup and the name that `up` gives it.
_ZYGOTE = """
import os, sys
from pathlib import Path
from tiphys_cluster.zygote import Zygote, lock_records
from tiphys_component.clock import SystemClock
from tiphys_component.log import configure, get_logger
configure()
place = Path(sys.argv[1])
Zygote(place / "socket", place / "records", lock=lock_records(place / "records"), clock=SystemClock(),
       log=get_logger("zygote")).run(lambda: print("ready", flush=True))
"""


def measure_start(store: str) -> list[Figure]:
    """Both ways over one store; modules are compiled before, as by any start but the very first."""
    figures = [_cold(store), _forked(store)]
    print_figures(figures)
    return figures


def _cold(store: str) -> Figure:
    times: list[tuple[float, float]] = []
    for _ in range(1 + _ROUNDS):
        with running_api_server(store) as server:
            times.append((server.ready_after_s, server.ready_after_cpu_s))
    del times[0]
    wall_s, cpu = sorted(times)[_ROUNDS // 2]
    return Figure(f"{store}: start of the process to ready, cold", wall_s, "s", 0.9, f"{cpu:.2f} s of CPU")


def _forked(store: str) -> Figure:
    times: list[tuple[float, float]] = []
    with _zygote() as zygote:
        zygote.call(op="import", modules=[_MODULE])
        for number in range(_ROUNDS):
            with starting(store) as wanted:
                times.append(_start_forked(zygote, wanted, f"kube-apiserver-{number}"))
    wall_s, cpu = sorted(times)[_ROUNDS // 2]
    return Figure(f"{store}: start to ready, forked", wall_s, "s", 0.4, f"{cpu:.2f} s of CPU")


def _start_forked(zygote: _Control, wanted: Starting, name: str) -> tuple[float, float]:
    """Seconds from asking the zygote to /readyz, and the CPU of the fork."""
    port = free_port()
    argv = (f"--store={wanted.store}", *wanted.flags, *flags_of(wanted.pki, port, free_port()))
    child = ChildSpec(name, argv, module=_MODULE, log=str(wanted.log))
    began = perf_counter()
    pid = zygote.call(op="start", child=child.to_dict())["pid"]
    wait_ready(lambda: Path(f"/proc/{pid}").exists(), port, wanted.tls, wanted.log)
    took = perf_counter() - began, cpu_s(pid)
    zygote.call(op="stop", name=name)
    while any(one["name"] == name for one in zygote.call(op="list")["children"]):
        subprocess.run(["sleep", "0.05"], check=True)
    return took


class _Control:
    """The zygote's line protocol, without a loop."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(60)
        self._socket.connect(str(path))
        self._lines = self._socket.makefile("rb")

    def call(self, **request: Any) -> dict[str, Any]:
        """The answer. Raises RuntimeError for a refusal."""
        self._socket.sendall(json.dumps(request).encode() + b"\n")
        answer: dict[str, Any] = json.loads(self._lines.readline())
        if not answer["ok"]:
            raise RuntimeError(f"the zygote refused {request['op']}: {answer['error']}")
        return answer

    def close(self) -> None:
        """Hang up."""
        self._lines.close()
        self._socket.close()


@contextmanager
def _zygote() -> Iterator[_Control]:
    with ExitStack() as stack:
        folder = stack.enter_context(TemporaryDirectory(prefix="tiphys-bench-"))
        process = subprocess.Popen(
            [sys.executable, "-c", _ZYGOTE, folder],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment(),
        )
        stack.callback(stop, process)
        assert process.stdout is not None
        stack.callback(process.stdout.close)
        process.stdout.readline()
        control = _Control(Path(folder) / "socket")
        stack.callback(control.close)
        yield control
