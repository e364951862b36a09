"""A real API server and the whole controller manager under its own identity, and a hand that plays kubelet."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.apiserver import RunningServer, running_server
from tiphys.api.core.v1 import pod_pb2
from tiphys_apimachinery.errors import Conflict, NotFound
from tiphys_apimachinery.meta import is_being_deleted, to_time
from tiphys_client.client import Client
from tiphys_client.kubeconfig import ClientConfig
from tiphys_client.transport import GrpcTransport
from tiphys_component.clock import SystemClock
from tiphys_component.tls import CertificateAuthority
from tiphys_controller_manager.main import ControllerManager
from tiphys_controller_manager.options import Options

USER = "system:kube-controller-manager"
_PATIENCE_S = 60.0


@dataclass(slots=True)
class Cluster:
    """The server, an administrator's client, and the manager."""

    server: RunningServer
    client: Client
    manager: ControllerManager

    async def until(self, what: Callable[[], Any]) -> Any:
        """Ask again until the answer is true; returns it."""
        async with asyncio.timeout(_PATIENCE_S):
            while True:
                answer = await what()
                if answer:
                    return answer
                await asyncio.sleep(0.02)

    async def run_pods(self, namespace: str = "default") -> None:
        """Do a kubelet's work once: new pods run and are ready, deleted ones go."""
        for number, pod in enumerate((await self.client.list(pod_pb2.Pod, namespace)).items):
            # Controllers are at work meanwhile: a pod may be gone, or another version by now.
            with suppress(NotFound, Conflict):
                await self._run_pod(pod, f"10.244.0.{number + 10}")

    async def _run_pod(self, pod: pod_pb2.Pod, ip: str) -> None:
        if is_being_deleted(pod):
            await self.client.delete(pod_pb2.Pod, pod.metadata.name, pod.metadata.namespace, grace_period_s=0)
        elif pod.status.phase == "Pending":
            pod.status.phase = "Running"
            pod.status.podIP = ip
            pod.status.podIPs.add(ip=ip)
            ready = pod.status.conditions.add(type="Ready", status="True")
            ready.lastTransitionTime.CopyFrom(to_time(SystemClock().now()))
            await self.client.update_status(pod)


def config_of(server: RunningServer, user: str) -> ClientConfig:
    """How a user reaches the server."""
    folder = server.pki.folder
    return ClientConfig(
        server_url=f"https://127.0.0.1:{server.api.secure_port}",
        grpc_address=f"127.0.0.1:{server.api.grpc_port}",
        ca_pem=(folder / "ca.crt").read_bytes(),
        cert_pem=(folder / f"{user}.crt").read_bytes(),
        key_pem=(folder / f"{user}.key").read_bytes(),
    )


def issue(server: RunningServer, user: str) -> None:
    """A client certificate for a user, beside the others."""
    folder: Path = server.pki.folder
    if not (folder / f"{user}.crt").exists():
        authority = CertificateAuthority.load(folder / "ca.crt", folder / "ca.key")
        authority.issue(user, client=True).write(folder / f"{user}.crt", folder / f"{user}.key")


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    """A server and a manager that leads."""
    async with running_server() as server, cluster_of(server) as running:
        yield running


@asynccontextmanager
async def cluster_of(
    server: RunningServer,
    *,
    controllers: tuple[str, ...] = ("*",),
    signs: bool = False,
    ports: tuple[int, int] = (0, 0),
    **flags: Any,
) -> AsyncIterator[Cluster]:
    """A manager that leads on a server; with signs it has the authority's key. ports are of HTTP and of gRPC."""
    issue(server, USER)
    folder = server.pki.folder
    options = Options(
        kubeconfig=Path("unused"),
        secure_port=ports[0],
        grpc_port=ports[1],
        controllers=controllers,
        cluster_cidr=("10.244.0.0/16",),
        service_cluster_ip_range=("10.96.0.0/12",),
        cluster_signing_cert_file=folder / "ca.crt" if signs else None,
        cluster_signing_key_file=folder / "ca.key" if signs else None,
        **flags,
    )
    manager = ControllerManager(options, config=config_of(server, USER))
    client = Client(GrpcTransport(config_of(server, "admin")))
    task = asyncio.create_task(manager.run(), name="controller manager")
    try:
        yield Cluster(server, client, manager)
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        await client.close()
