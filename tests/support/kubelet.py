"""A whole kubelet against a fake API server and a real containerd."""

from __future__ import annotations

import asyncio
import contextlib
import random
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.containerd import ContainerdNode
from tiphys.api.core.v1.event_pb2 import Event
from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys_apimachinery.fields import FieldSelector
from tiphys_apimachinery.labels import Selector
from tiphys_client.fake import FakeClient
from tiphys_client.fake_store import Selection
from tiphys_component.certificates import CertificateAuthority
from tiphys_component.clock import SystemClock
from tiphys_cri.endpoint import channel
from tiphys_cri.image import GrpcImageService
from tiphys_cri.interface import RuntimeService
from tiphys_cri.runtime import GrpcRuntimeService
from tiphys_kubelet.kubelet import Kubelet, Outside, prepare_directories
from tiphys_kubelet.options import Options

NODE = "node-1"
IMAGE = "busybox"


@dataclass(frozen=True, slots=True)
class Pki:
    """Files of a cluster's authority, the kubelet's serving certificate, and the API server's own."""

    ca: Path
    cert: Path
    key: Path
    client_cert: Path
    client_key: Path


def make_pki(root: Path) -> Pki:
    """Makes them."""
    root.mkdir(parents=True, exist_ok=True)
    authority = CertificateAuthority.create("test-ca")
    pki = Pki(root / "ca.crt", root / "kubelet.crt", root / "kubelet.key", root / "client.crt", root / "client.key")
    pki.ca.write_bytes(authority.cert_pem)
    authority.issue(f"system:node:{NODE}", sans=["127.0.0.1", "localhost"], server=True).write(pki.cert, pki.key)
    client = authority.issue("kube-apiserver-kubelet-client", organizations=["system:masters"], client=True)
    client.write(pki.client_cert, pki.client_key)
    return pki


@dataclass(slots=True)
class RunningKubelet:
    """A kubelet at work, with what a test asks it."""

    kubelet: Kubelet
    client: FakeClient
    pki: Pki

    @property
    def runtime(self) -> RuntimeService:
        """The runtime itself, to act on behind the kubelet's back."""
        return self.kubelet.parts.runtime

    async def create(self, pod: Pod) -> Pod:
        """Creates a pod that is bound to the node."""
        made = await self.client.create(pod)
        pod.metadata.uid = made.metadata.uid
        return made

    async def get(self, name: str) -> Pod | None:
        """The pod as the API has it; None when it is gone."""
        return self.client.find_stored(Pod, name, "default")

    async def until(self, name: str, holds: Callable[[Pod], bool], *, timeout_s: float = 10.0) -> Pod:
        """Waits until the stored pod is as wanted."""
        pod: Pod | None = None
        for _ in range(int(timeout_s / 0.01)):
            pod = await self.get(name)
            if pod is not None and holds(pod):
                return pod
            await asyncio.sleep(0.01)
        raise AssertionError(f"pod {name} did not become as wanted:\n{pod}\n{self.reasons(name)}")

    async def until_gone(self, name: str, *, timeout_s: float = 10.0) -> None:
        """Waits until the API has no such pod."""
        for _ in range(int(timeout_s / 0.01)):
            if await self.get(name) is None:
                return
            await asyncio.sleep(0.01)
        raise AssertionError(f"pod {name} is still there:\n{await self.get(name)}")

    def reasons(self, name: str) -> list[str]:
        """The events of a pod as `Reason: message`."""
        selection = Selection(Event, "default", Selector.parse(""), FieldSelector.parse(""))
        events = [Event.FromString(raw) for _, raw in self.client.server.store.select(selection)]
        events = [event for event in events if event.involvedObject.name == name]
        return [f"{e.reason}: {e.message}" for e in events]


@asynccontextmanager
async def running_kubelet(
    node: ContainerdNode, root: Path, *, client: FakeClient | None = None, **flags: Any
) -> AsyncIterator[RunningKubelet]:
    """Runs a kubelet until the context is left; its pods stay, as after a kill."""
    # Uids of its own: the runtime outlives the fake server, and its pods are known by uid.
    client = client or FakeClient(SystemClock(), rng=random.SystemRandom())
    pki = await asyncio.to_thread(make_pki, root / "pki")
    options = Options(
        kubeconfig=Path("none"),
        hostname_override=NODE,
        node_ip=("127.0.0.1",),
        address="127.0.0.1",
        port=0,
        grpc_port=0,
        root_dir=root / "kubelet",
        pod_log_dir=root / "logs",
        cgroup_root=f"/{node.name}",
        cluster_dns=("10.96.0.10",),
        tls_cert_file=pki.cert,
        tls_private_key_file=pki.key,
        client_ca_file=pki.ca,
        **flags,
    )
    await prepare_directories(options)
    async with channel(node.endpoint) as dialled:
        outside = Outside(client, GrpcRuntimeService(dialled), GrpcImageService(dialled), client_clock())
        kubelet = Kubelet(options, outside)
        # A fixture's set-up and end run in different tasks, which a TaskGroup does not allow.
        task = asyncio.create_task(kubelet.run(), name="kubelet")
        try:
            yield RunningKubelet(kubelet, client, pki)
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


def client_clock() -> SystemClock:
    """The clock of real runs."""
    return SystemClock()


def make_pod(name: str, *command: str, **spec: Any) -> Pod:
    """A pod of one busybox container, bound to the node."""
    pod = Pod()
    pod.metadata.name, pod.metadata.namespace = name, "default"
    pod.metadata.uid = str(uuid.uuid4())
    pod.spec.nodeName = NODE
    pod.spec.restartPolicy = spec.get("restart", "Always")
    pod.spec.terminationGracePeriodSeconds = spec.get("grace", 2)
    add_container(pod, "app", *command)
    return pod


def add_container(pod: Pod, name: str, *command: str) -> Any:
    """Adds a busybox container."""
    container = pod.spec.containers.add(name=name, image=IMAGE, imagePullPolicy="IfNotPresent")
    container.command.extend(command or ("sh", "-c", "trap 'exit 0' TERM; sleep 1000 & wait"))
    return container


def is_running(pod: Pod) -> bool:
    """The phase says so."""
    return pod.status.phase == "Running"


def is_ready(pod: Pod) -> bool:
    """The condition says so."""
    return any(c.type == "Ready" and c.status == "True" for c in pod.status.conditions)


def waiting_reason(pod: Pod) -> str:
    """Why the first container waits; empty when it does not."""
    return next((s.state.waiting.reason for s in pod.status.containerStatuses), "")


async def wait_until(holds: Callable[[], bool], *, timeout_s: float = 10.0) -> None:
    """Waits until something real has happened."""
    for _ in range(int(timeout_s / 0.02)):
        if holds():
            return
        await asyncio.sleep(0.02)
    raise AssertionError(f"it did not happen within {timeout_s} s")
