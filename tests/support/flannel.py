"""Nodes with the real flannel service, over a real API server that they reach by a unix socket from where they are."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from tests.support.apiserver import RunningServer, running_server
from tests.support.lan import Lan, LanNode, Pod
from tiphys.api.core.v1.node_pb2 import Node
from tiphys_client import kubeconfig
from tiphys_client.client import Client
from tiphys_client.kubeconfig import ClientConfig
from tiphys_client.transport import GrpcTransport

T = TypeVar("T")
_START_TIMEOUT_S = 30.0


def wait_until(check: Callable[[], bool], *, timeout_s: float, what: str) -> float:
    """Seconds until check holds; fails the test when it takes longer. Waits by a child, as tests never sleep."""
    began = time.monotonic()
    while not check():
        assert time.monotonic() - began < timeout_s, f"{what}: not within {timeout_s:g} s"
        subprocess.run(["sleep", "0.05"], check=True)
    return time.monotonic() - began


class ApiThread:
    """An API server on a loop of its own thread, behind a unix socket that can be cut."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.socket = folder / "api.sock"
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._stack = AsyncExitStack()
        self._server: RunningServer | None = None
        self._proxy: asyncio.Server | None = None
        self._carried: set[asyncio.StreamWriter] = set()
        self.client: Client

    def __enter__(self) -> Self:
        self._thread.start()
        self.run(self._start())
        return self

    def __exit__(self, kind: type[BaseException] | None, err: BaseException | None, tb: TracebackType | None) -> None:
        self.run(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run something on the server's loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(_START_TIMEOUT_S)

    async def _start(self) -> None:
        self._server = await self._stack.enter_async_context(running_server())
        self.client = Client(GrpcTransport(self._config("admin")))
        self._stack.push_async_callback(self.client.close)
        await self._connect()

    async def _stop(self) -> None:
        await self._cut()
        await self._stack.aclose()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        await asyncio.sleep(0)

    def _config(self, user: str) -> ClientConfig:
        assert self._server is not None
        files = self._server.pki.tls(user)
        assert files.ca is not None
        assert files.cert is not None
        assert files.key is not None
        return ClientConfig(
            f"https://127.0.0.1:{self._server.api.secure_port}",
            f"127.0.0.1:{self._server.api.grpc_port}",
            Path(files.ca).read_bytes(),
            Path(files.cert).read_bytes(),
            Path(files.key).read_bytes(),
        )

    def write_kubeconfig(self, user: str) -> Path:
        """A kubeconfig for processes in other network namespaces."""
        path = self._folder / f"{user.replace(':', '-')}.conf"
        kubeconfig.write(path, self._config(user))
        text = path.read_text()
        assert self._server is not None
        text = text.replace(f"127.0.0.1:{self._server.api.grpc_port}", f"unix:{self.socket}")
        path.write_text(text.replace("    server: ", "    tls-server-name: localhost\n    server: "))
        return path

    def set_reachable(self, reachable: bool) -> None:
        """Cuts the way of every node to the server, or opens it again."""
        self.run(self._connect() if reachable else self._cut())

    async def _connect(self) -> None:
        self._proxy = await asyncio.start_unix_server(self._carry, self.socket)

    async def _cut(self) -> None:
        if self._proxy is not None:
            self._proxy.close()
            self.socket.unlink(missing_ok=True)
            for writer in self._carried:
                writer.transport.abort()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert self._server is not None
        there, back = await asyncio.open_connection("127.0.0.1", self._server.api.grpc_port)
        self._carried |= {writer, back}
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(_pump(reader, back))
                group.create_task(_pump(there, writer))
        finally:
            self._carried -= {writer, back}


async def _pump(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    try:
        while data := await source.read(1 << 16):
            target.write(data)
            await target.drain()
    except ConnectionError:
        pass
    finally:
        target.close()


class FlannelNode:
    """A node of the lan, its Node, and its flannel service."""

    def __init__(self, cluster: FlannelCluster, name: str, space: LanNode, subnet: str) -> None:
        self._cluster = cluster
        self.name = name
        self.space = space
        self.subnet = subnet
        self.folder = cluster.folder / name
        self.folder.mkdir()
        self.subnet_file = self.folder / "subnet.env"
        self._process: subprocess.Popen[bytes] | None = None

    def register(self, subnet: str | None = None) -> None:
        """Makes the Node; an empty subnet leaves it without a range."""
        node = Node()
        node.metadata.name = self.name
        chosen = self.subnet if subnet is None else subnet
        if chosen:
            node.spec.podCIDR = chosen
            node.spec.podCIDRs.append(chosen)
        self._cluster.api.run(self._cluster.api.client.create(node))

    def unregister(self) -> None:
        self._cluster.api.run(self._cluster.api.client.delete(Node, self.name))

    def stored(self) -> Node:
        return self._cluster.api.run(self._cluster.api.client.get(Node, self.name))

    def start(self, *flags: str, backend: str | None = None) -> None:
        """Starts the service; does not wait for its lease."""
        command = self.space.enter(
            sys.executable,
            "-m",
            "tiphys_cni.flannel.main",
            f"--kubeconfig={self._cluster.kubeconfig}",
            f"--node-name={self.name}",
            f"--backend={backend or self._cluster.backend}",
            f"--subnet-file={self.subnet_file}",
            "--iface=eth0",
            *flags,
        )
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(number)
            process.wait(timeout=20)

    def wait_end(self) -> int:
        """The exit code of a service that ends by itself."""
        assert self._process is not None
        return self._process.wait(timeout=20)

    def log(self) -> str:
        return (self.folder / "log").read_text()

    def wait_lease(self) -> None:
        """Until the service is ready, which its own health says."""
        wait_until(lambda: self.is_ready(), timeout_s=_START_TIMEOUT_S, what=f"lease of {self.name}")

    def is_ready(self) -> bool:
        assert self._process is None or self._process.poll() is None, self.log()
        return self.http("/readyz") == "ok"

    def http(self, path: str) -> str:
        """What the service answers on its metrics port; what it says with an error too."""
        return self.space.run(sys.executable, "-S", "-c", _GET, f"http://127.0.0.1:10271{path}", check=False).strip()

    def call(self, method: str) -> dict[str, Any]:
        """What its gRPC face answers to an empty request."""
        found: dict[str, Any] = json.loads(self.space.run(sys.executable, "-c", _CALL, method))
        return found


_GET = """
import sys, urllib.error, urllib.request
try:
    print(urllib.request.urlopen(sys.argv[1], timeout=2).read().decode())
except urllib.error.HTTPError as err:
    print(err.read().decode())
"""
_CALL = """
import sys, grpc
from google.protobuf.json_format import MessageToJson
from tiphys.flannel.v1 import flannel_pb2, flannel_pb2_grpc
stub = flannel_pb2_grpc.FlannelServiceStub(grpc.insecure_channel("127.0.0.1:10270"))
print(MessageToJson(getattr(stub, sys.argv[1])(getattr(flannel_pb2, sys.argv[1] + "Request")(), timeout=5)))
"""


class FlannelCluster:
    """Nodes named a, b, c … with subnets 10.244.1.0/24 and on, all of one back end."""

    def __init__(self, folder: Path, backend: str) -> None:
        self.folder = folder
        self.backend = backend
        self.nodes: list[FlannelNode] = []
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with self._stack as undo:
            self.api = undo.enter_context(ApiThread(self.folder))
            self.kubeconfig = self.api.write_kubeconfig("system:flannel")
            self.lan = undo.enter_context(Lan("fl"))
            undo.callback(self._stop)
            self._stack = undo.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, err: BaseException | None, tb: TracebackType | None) -> None:
        self._stack.close()

    def _stop(self) -> None:
        for node in self.nodes:
            node.stop(signal.SIGKILL)

    def node(self, *, segment: int = 1) -> FlannelNode:
        """A node whose service is not started and whose Node is not made."""
        number = len(self.nodes) + 1
        name = "abcdefgh"[number - 1]
        space = self.lan.node(name, 10 + number, segment=segment)
        made = FlannelNode(self, name, space, f"10.244.{number}.0/24")
        self.nodes.append(made)
        return made

    def running(self, *, segment: int = 1) -> tuple[FlannelNode, Pod]:
        """A node that holds its lease, with one pod."""
        made = self.node(segment=segment)
        made.register()
        made.start()
        return made, made.space.pod(made.subnet)
