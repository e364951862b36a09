"""The API server to be measured, as a process of its own over the store that is asked for."""

from __future__ import annotations

import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

from tests.bench.process import cpu_s, environment
from tests.support.apiserver import Pki, shared_pki
from tests.support.etcd import EtcdMember

STORES = ("sqlite", "etcd")
# With 100,000 pods to read, on a machine with other work.
_START_TIMEOUT_S = 180.0


@dataclass(frozen=True, slots=True)
class RunningApiServer:
    """A server that is ready; store_pid is 0 where the store is in the server's process."""

    pid: int
    store_pid: int
    port: int
    grpc_port: int
    tls: ssl.SSLContext
    ready_after_s: float
    ready_after_cpu_s: float

    def pids(self) -> tuple[int, ...]:
        """The processes whose time counts."""
        return (self.pid, self.store_pid) if self.store_pid else (self.pid,)


@dataclass(frozen=True, slots=True)
class Starting:
    """What a server that is about to start is given: its store, and where it writes its log."""

    store: str
    flags: tuple[str, ...]
    store_pid: int
    pki: Pki
    tls: ssl.SSLContext
    log: Path


@contextmanager
def starting(store: str, fill: Callable[[Path], None] | None = None) -> Iterator[Starting]:
    """A fresh store, gone at the end of the block. fill writes into the file of SQLite."""
    pki = shared_pki()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="tiphys-bench-")))
        store_pid, flags = 0, (f"--store-file={folder / 'tiphys.db'}",)
        if fill is not None:
            fill(folder / "tiphys.db")
        if store == "etcd":
            member = EtcdMember(folder)
            stack.callback(member.kill)
            member.start()
            store_pid, flags = member.pid, (f"--etcd-servers=http://{member.endpoint}",)
        tls = ssl.create_default_context(cafile=str(pki.folder / "ca.crt"))
        tls.load_cert_chain(pki.folder / "admin.crt", pki.folder / "admin.key")
        yield Starting(store, flags, store_pid, pki, tls, folder / "log")


@contextmanager
def running_api_server(
    store: str, fill: Callable[[Path], None] | None = None, *more: str
) -> Iterator[RunningApiServer]:
    """A fresh server, gone at the end of the block. fill writes into the file of its SQLite before it starts.

    more are further flags.
    """
    with ExitStack() as stack:
        wanted = stack.enter_context(starting(store, fill))
        log = stack.enter_context(wanted.log.open("wb"))
        port, grpc_port = free_port(), free_port()
        flags = (*wanted.flags, *flags_of(wanted.pki, port, grpc_port), *more)
        began = perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-m", "tiphys_apiserver", f"--store={store}", *flags],
            stdout=log,
            stderr=log,
            env=environment(),
        )
        stack.callback(stop, process)
        wait_ready(lambda: process.poll() is None, port, wanted.tls, wanted.log)
        ready_after_s = perf_counter() - began
        cpu = cpu_s(process.pid)
        yield RunningApiServer(process.pid, wanted.store_pid, port, grpc_port, wanted.tls, ready_after_s, cpu)


def flags_of(pki: Pki, port: int, grpc_port: int) -> list[str]:
    """What every measured server is started with."""
    folder = pki.folder
    return [
        "--bind-address=127.0.0.1",
        f"--secure-port={port}",
        f"--grpc-port={grpc_port}",
        f"--tls-cert-file={folder / 'server.crt'}",
        f"--tls-private-key-file={folder / 'server.key'}",
        f"--client-ca-file={folder / 'ca.crt'}",
        f"--service-account-key-file={folder / 'sa.pub'}",
        f"--service-account-signing-key-file={folder / 'sa.key'}",
        f"--kubelet-client-certificate={folder / 'admin.crt'}",
        f"--kubelet-client-key={folder / 'admin.key'}",
    ]


def wait_ready(is_alive: Callable[[], bool], port: int, tls: ssl.SSLContext, log: Path) -> None:
    """Return once /readyz says so. Raises RuntimeError where the server ended, TimeoutError."""
    end = perf_counter() + _START_TIMEOUT_S
    while perf_counter() < end:
        if not is_alive():
            raise RuntimeError(f"the API server ended: {log.read_text()[-3000:]}")
        if _is_ready(port, tls):
            return
    raise TimeoutError(f"the API server was not ready in {_START_TIMEOUT_S:g} s: {log.read_text()[-3000:]}")


def _is_ready(port: int, tls: ssl.SSLContext) -> bool:
    """Whether /readyz says so; asks a process outside for patience where nobody listens."""
    try:
        with (
            socket.create_connection(("127.0.0.1", port), timeout=5) as plain,
            tls.wrap_socket(plain, server_hostname="127.0.0.1") as connection,
        ):
            connection.sendall(b"GET /readyz HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")
            answer = connection.recv(64)
    except OSError:
        # Not listening yet.
        answer = b""
    if b" 200 " in answer:
        return True
    subprocess.run(["sleep", "0.01"], check=True)
    return False


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a process, by force where it does not end by itself."""
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(timeout=15)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def free_port() -> int:
    """A port that is free now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port
