"""The loop of leases, with a back end that only notes what it is asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

from tiphys.api.core.v1.node_pb2 import Node
from tiphys_apimachinery.errors import ServiceUnavailable
from tiphys_client.fake import FakeClient
from tiphys_client.informer import Informer
from tiphys_client.recorder import EventRecorder
from tiphys_cni.flannel.backend.interface import Applied, Opened
from tiphys_cni.flannel.lease import Announcement, Lease, claim_of
from tiphys_cni.flannel.manager import Config, Manager
from tiphys_cni.flannel.subnet_manager import KubeSubnetManager
from tiphys_component.clock import FakeClock
from tiphys_component.metrics import Registry

NETWORK = IPv4Network("10.244.0.0/16")
# Most pieces of work that a round hands to the thread, one after another.
_STEPS = 8


@dataclass
class NotingBackend:
    """Says and does what the test wants."""

    calls: list[str] = field(default_factory=list)
    leases: list[str] = field(default_factory=list)
    errors: list[Exception] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    name = "vxlan"
    overlay = "flannel.1"
    devices = frozenset({"flannel.1"})

    async def open(self, subnet: IPv4Network, announced: Mapping[str, Any]) -> Opened:
        self.calls.append(f"open {subnet} {dict(announced)}")
        return Opened(1450)

    def announce(self) -> Announcement:
        return Announcement("vxlan", IPv4Address("192.0.2.1"), {"VNI": 1, "VtepMAC": "02:00:00:00:00:01"})

    async def apply(self, leases: Sequence[Lease]) -> Applied:
        self.calls.append("apply")
        if self.errors:
            raise self.errors.pop(0)
        self.leases = [lease.node for lease in leases]
        return Applied(0, self.refused)

    async def close(self) -> None:
        self.calls.append("close")


@dataclass
class Bench:
    """A manager that runs."""

    clock: FakeClock
    client: FakeClient
    backend: NotingBackend
    manager: Manager
    registry: Registry
    subnet_file: Path
    prepared: list[None]

    def annotations(self) -> dict[str, str]:
        stored = self.client.stored(Node, "a")
        return dict(stored.metadata.annotations)


def node(name: str, subnet: str = "", *, announced: bool = False) -> Node:
    made = Node()
    made.metadata.name = name
    made.metadata.creationTimestamp.seconds = 1000 + ord(name)
    made.spec.podCIDR = subnet
    if announced:
        made.metadata.annotations.update(Announcement("vxlan", IPv4Address("192.0.2.9")).annotations())
    return made


@asynccontextmanager
async def running(folder: Path, *nodes: Node, backend: NotingBackend | None = None) -> AsyncIterator[Bench]:
    clock, registry = FakeClock(), Registry()
    prepared: list[None] = []
    # One thread: what is handed to it is done in order, so that rest() knows when files are written.
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
    client = FakeClient(clock)
    client.seed(*nodes)
    informer = Informer(client, Node, clock=clock, projection=claim_of)
    events = EventRecorder(client, "flannel", clock=clock)

    async def prepare() -> None:
        prepared.append(None)

    # One thread takes what it is given in order: what was asked for before is done when a later question is answered.
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
    chosen = backend or NotingBackend()
    config = Config("a", NETWORK, folder / "subnet.env", ip_masq=True)
    leases = KubeSubnetManager(client, informer, events, node="a", network=NETWORK)
    manager = Manager(config, chosen, leases, prepare=prepare, clock=clock, registry=registry)
    bench = Bench(clock, client, chosen, manager, registry, config.subnet_file, prepared)
    tasks = [asyncio.create_task(work) for work in (informer.run(), manager.follow())]
    try:
        await rest(bench)
        yield bench
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def rest(bench: Bench, seconds: float = 0.05) -> None:
    """Lets the loop finish its rounds, whose files are written by the one thread, each after what was before it."""
    for _ in range(4):
        await bench.clock.run_for(seconds / 4)
        for _ in range(_STEPS):
            await asyncio.to_thread(int)


async def test_F15_lease_is_announced_and_written_and_peers_applied(tmp_path: Path) -> None:
    async with running(tmp_path, node("a", "10.244.1.0/24"), node("b", "10.244.2.0/24", announced=True)) as bench:
        assert bench.subnet_file.read_text().splitlines()[1] == "FLANNEL_SUBNET=10.244.1.1/24"
        assert bench.annotations()["flannel.alpha.coreos.com/public-ip"] == "192.0.2.1"
        assert bench.backend.leases == ["b"]
        assert bench.manager.own is not None
        assert len(bench.prepared) == 1
        assert bench.registry.value("flannel_leases", state="used") == 1


async def test_nothing_is_written_before_the_lease_is_announced(tmp_path: Path) -> None:
    async with running(tmp_path, node("a")) as bench:
        assert bench.manager.survey.problem == "node a has no spec.podCIDR yet"
        bench.client.server.fail("Patch", Node, ServiceUnavailable("away"), times=2)
        await bench.client.update(node("a", "10.244.1.0/24"))
        await rest(bench)
        assert not bench.subnet_file.exists()
        assert bench.manager.own is None
        await rest(bench, 1.0)
        assert bench.subnet_file.exists()
        assert bench.backend.calls[-1] == "apply"


async def test_node_that_is_held_applies_leases_while_it_can_not_announce(tmp_path: Path) -> None:
    async with running(tmp_path, node("a", "10.244.1.0/24")) as bench:
        await rest(bench)
        bench.client.server.fail("Patch", Node, ServiceUnavailable("away"), times=99)
        stored = bench.client.stored(Node, "a")
        stored.metadata.annotations.clear()
        bench.client.seed(stored)
        await bench.client.create(node("b", "10.244.2.0/24", announced=True))
        await rest(bench)
        assert bench.backend.leases == ["b"]


async def test_round_that_failed_is_repeated(tmp_path: Path) -> None:
    backend = NotingBackend(errors=[OSError(19, "no such device"), OSError(19, "no such device")])
    async with running(tmp_path, node("a", "10.244.1.0/24"), backend=backend) as bench:
        await rest(bench, 1.0)
        assert bench.backend.calls.count("apply") >= 3
        assert bench.registry.value("flannel_syncs_total", result="failed") == 2
        assert bench.manager.mtu == 1450


async def test_device_gets_back_what_was_announced_before(tmp_path: Path) -> None:
    mine = node("a", "10.244.1.0/24")
    mine.metadata.annotations.update(
        Announcement("vxlan", IPv4Address("192.0.2.1"), {"VNI": 1, "VtepMAC": "02:00:00:00:00:77"}).annotations()
    )
    async with running(tmp_path, mine) as bench:
        assert bench.backend.calls[0] == "open 10.244.1.0/24 {'VNI': 1, 'VtepMAC': '02:00:00:00:00:77'}"


async def test_status_of_a_node_wakes_nobody(tmp_path: Path) -> None:
    async with running(tmp_path, node("a", "10.244.1.0/24"), node("b", "10.244.2.0/24", announced=True)) as bench:
        await rest(bench)
        before = len(bench.backend.calls)
        other = bench.client.stored(Node, "b")
        other.status.phase = "Running"
        await bench.client.update_status(other)
        await rest(bench)
        assert len(bench.backend.calls) == before
        await bench.client.delete(Node, "b")
        await rest(bench)
        assert bench.backend.leases == []


async def test_refused_lease_is_counted_and_told_until_it_is_well(tmp_path: Path) -> None:
    backend = NotingBackend(refused={"b": "node b speaks udp, this node vxlan"})
    nodes = (node("a", "10.244.1.0/24"), node("b", "10.244.2.0/24", announced=True))
    async with running(tmp_path, *nodes, backend=backend) as bench:
        assert bench.manager.refused == {"b": "node b speaks udp, this node vxlan"}
        assert bench.registry.value("flannel_leases", state="refused") == 1
        bench.backend.refused = {}
        await bench.manager.sync()
        assert bench.manager.refused == {}
        assert bench.registry.value("flannel_leases", state="used") == 1
