"""How fast controllers bring about what is asked for. Run: python -m tests.bench.controllers

A real API server on SQLite and the whole controller manager, each a process of its own with TLS between them.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import orjson
import uvloop
import yaml

from tests.bench.api_server import RunningApiServer, free_port, running_api_server, stop
from tests.bench.figures import Figure, print_figures, print_heading
from tests.bench.process import environment, spending
from tests.bench.rest_client import Client, WatchConnection, request
from tests.support.apiserver import shared_pki
from tiphys_client.kubeconfig import ClientConfig, document

REPLICAS = 5000
NAME = f"a Deployment of {REPLICAS:,} replicas: all pods created"
MOST_S = 5.0
_TIMEOUT_S = 120.0
_DEPLOYMENTS = "/apis/apps/v1/namespaces/default/deployments"
_PODS = "/api/v1/namespaces/default/pods"
_ACCOUNT = "/api/v1/namespaces/default/serviceaccounts/default"
_ADDED = b'{"type":"ADDED"'


def measure_controllers() -> list[Figure]:
    """The figure of a large Deployment."""
    with running_api_server("sqlite") as server, _running_manager(server) as pid:
        return uvloop.run(_measure(server, pid))


async def _measure(server: RunningApiServer, manager: int) -> list[Figure]:
    async with Client(server.port, server.tls).connected() as client:
        await _wait_for_account(client)
        done = asyncio.Event()
        seen = 0

        def count(found: int) -> None:
            nonlocal seen
            seen += found
            if seen >= REPLICAS:
                done.set()

        watch = await client.open(lambda: WatchConnection(count, _ADDED))
        assert isinstance(watch, WatchConnection)
        watch.start(request("GET", f"{_PODS}?watch=1"))
        with spending(server.pid, manager) as spent:
            began = perf_counter()
            await client.call(request("POST", _DEPLOYMENTS, orjson.dumps(_deployment())), status=201)
            await asyncio.wait_for(done.wait(), _TIMEOUT_S)
            took_s = perf_counter() - began
        watch.close()
    note = f"seen by a watcher; CPU of the API server {spent.cpu[0]:.2f} s, of the controllers {spent.cpu[1]:.2f} s"
    return [Figure(NAME, took_s, "s", MOST_S, note)]


async def _wait_for_account(client: Client) -> None:
    """No pod is admitted before: the first controllers are at work then."""
    async with asyncio.timeout(_TIMEOUT_S):
        while not await _is_there(client):  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.1)


async def _is_there(client: Client) -> bool:
    try:
        await client.call(request("GET", _ACCOUNT))
    except RuntimeError:
        return False
    return True


@contextmanager
def _running_manager(server: RunningApiServer) -> Iterator[int]:
    folder = shared_pki().folder
    with ExitStack() as stack:
        work = Path(stack.enter_context(TemporaryDirectory(prefix="tiphys-bench-")))
        config = ClientConfig(
            server_url=f"https://127.0.0.1:{server.port}",
            grpc_address=f"127.0.0.1:{server.grpc_port}",
            ca_pem=(folder / "ca.crt").read_bytes(),
            cert_pem=(folder / "admin.crt").read_bytes(),
            key_pem=(folder / "admin.key").read_bytes(),
        )
        (work / "config").write_text(yaml.safe_dump(document(config)))
        log = stack.enter_context((work / "log").open("wb"))
        ports = [f"--secure-port={free_port()}", f"--grpc-port={free_port()}", "--leader-elect=false"]
        command = [sys.executable, "-m", "tiphys_controller_manager", f"--kubeconfig={work / 'config'}", *ports]
        process = subprocess.Popen(
            [*command, "--cluster-cidr=10.244.0.0/16"], stdout=log, stderr=log, env=environment()
        )
        stack.callback(stop, process)
        yield process.pid


def _deployment() -> dict[str, Any]:
    labels = {"app": "large"}
    containers = [{"name": "main", "image": "registry.example/app:1", "ports": [{"containerPort": 8080}]}]
    template = {"metadata": {"labels": labels}, "spec": {"containers": containers}}
    spec = {"replicas": REPLICAS, "selector": {"matchLabels": labels}, "template": template}
    return {"metadata": {"name": "large"}, "spec": spec}


def main() -> int:
    """Measure and print."""
    print_heading()
    print_figures(measure_controllers())
    return 0


if __name__ == "__main__":
    sys.exit(main())
