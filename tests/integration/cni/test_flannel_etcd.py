"""Leases in a real etcd: many nodes at once, restarts, and what people do by hand."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from tests.support.etcd import EtcdMember
from tests.support.flannel import wait_until
from tests.support.lan import Lan, LanNode
from tiphys_cni.flannel.etcd import records
from tiphys_cni.flannel.etcd.client import EtcdClient
from tiphys_cni.flannel.etcd.subnet_manager import EtcdSubnetManager, Place
from tiphys_cni.flannel.lease import Announcement
from tiphys_cni.flannel.subnet import read
from tiphys_component.clock import SystemClock

pytestmark = pytest.mark.etcd
NETWORK = IPv4Network("10.5.0.0/20")  # sixteen, of which upstream leaves out the first
_PREFIX = "/coreos.com/network"


@pytest.fixture
def etcd(tmp_path: Path) -> Iterator[EtcdMember]:
    member = EtcdMember(tmp_path)
    member.start()
    try:
        yield member
    finally:
        member.kill()


def address(number: int) -> IPv4Address:
    return IPv4Address("192.0.2.0") + number


@asynccontextmanager
async def nodes(
    etcd: EtcdMember, numbers: Sequence[int], previous: IPv4Network | None = None
) -> AsyncIterator[list[EtcdSubnetManager]]:
    """Nodes with these numbers that follow the leases, each over a channel of its own."""
    clients = [EtcdClient([f"http://{etcd.endpoint}"]) for _ in numbers]
    made = [
        EtcdSubnetManager(client, Place(NETWORK, address(number), "vxlan", previous), SystemClock())
        for client, number in zip(clients, numbers, strict=True)
    ]
    tasks = [asyncio.create_task(one.run()) for one in made]
    try:
        for one in made:
            await asyncio.wait_for(one.wait_synced(), 10)
        yield made
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        for client in clients:
            await client.close()


async def own(one: EtcdSubnetManager) -> IPv4Network | None:
    return (await one.survey()).own


async def test_F15_no_two_nodes_get_one_subnet_however_they_race(etcd: EtcdMember) -> None:
    async with nodes(etcd, range(1, 13)) as made, asyncio.TaskGroup() as group:
        taken = [group.create_task(own(one)) for one in made]
    subnets = [task.result() for task in taken]

    assert None not in subnets
    assert len(set(subnets)) == 12
    assert all(subnet is not None and subnet.subnet_of(NETWORK) and subnet.prefixlen == 24 for subnet in subnets)


async def test_F15_two_nodes_that_want_the_same_subnet_get_two(etcd: EtcdMember) -> None:
    wanted = IPv4Network("10.5.7.0/24")
    for first in range(1, 30, 2):
        async with nodes(etcd, (first, first + 1), previous=wanted) as (one, other), asyncio.TaskGroup() as group:
            both = [group.create_task(own(one)), group.create_task(own(other))]
        subnets = {task.result() for task in both}
        assert len(subnets) == 2
        assert wanted in subnets
        client = EtcdClient([etcd.endpoint])
        for subnet in subnets:
            assert subnet is not None
            await delete(client, etcd, subnet)
        await client.close()


async def delete(client: EtcdClient, etcd: EtcdMember, subnet: IPv4Network) -> None:
    key = records.subnet_key(_PREFIX, subnet)
    command = ("etcdctl", f"--endpoints={etcd.endpoint}", "del", key)
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.DEVNULL)
    assert await process.wait() == 0


async def test_F15_leases_are_announced_to_the_others_and_found_again(etcd: EtcdMember) -> None:
    told = Announcement("vxlan", address(1), {"VNI": 1, "VtepMAC": "02:00:00:00:00:01"})
    async with nodes(etcd, (1, 2)) as (one, other):
        found = await one.survey()
        assert (await other.survey()).peers == ()
        woken = asyncio.Event()
        other.on_change(woken.set)
        assert await one.announce(found, told)
        assert not await one.announce(await one.survey(), told)
        await asyncio.wait_for(until_peer(other, woken), 10)
        peer = (await other.survey()).peers[0]
        assert (peer.subnet, peer.public_ip, peer.vtep_mac) == (found.own, address(1), "02:00:00:00:00:01")
    async with nodes(etcd, (1,)) as (again,):
        survey = await again.survey()
        assert survey.own == found.own
        assert dict(survey.announced) == told.annotations()


async def until_peer(one: EtcdSubnetManager, woken: asyncio.Event) -> None:
    while not (await one.survey()).peers:
        await woken.wait()
        woken.clear()


async def test_F15_a_lease_deleted_by_hand_is_taken_again_at_once(etcd: EtcdMember) -> None:
    async with nodes(etcd, (1,)) as (one,):
        first = await own(one)
        assert first is not None
        woken = asyncio.Event()
        one.on_change(woken.set)
        client = EtcdClient([etcd.endpoint])
        woken.clear()
        await delete(client, etcd, first)
        await asyncio.wait_for(woken.wait(), 10)
        assert await own(one) == first
        entries, _ = await client.read(f"{_PREFIX}/subnets/")
        await client.close()
    assert [entry.key for entry in entries] == [records.subnet_key(_PREFIX, first)]


async def test_F15_exhausted_network_says_so_and_heals(etcd: EtcdMember) -> None:
    async with nodes(etcd, range(1, 17)) as made:
        surveys = [await one.survey() for one in made]
        assert [survey.own is None for survey in surveys] == [False] * 15 + [True]
        assert surveys[-1].problem == "no subnet of length 24 is free in 10.5.0.0/20"
        client, gone = EtcdClient([etcd.endpoint]), surveys[0].own
        assert gone is not None
        woken = asyncio.Event()
        made[-1].on_change(woken.set)
        await delete(client, etcd, gone)
        await asyncio.wait_for(woken.wait(), 10)
        await client.close()
        assert await own(made[-1]) == gone


async def test_etcd_that_is_away_is_waited_for(etcd: EtcdMember) -> None:
    async with nodes(etcd, (1,)) as (one,):
        first = await own(one)
        woken = asyncio.Event()
        one.on_change(woken.set)
        etcd.kill()
        assert await own(one) == first
        etcd.start()
        await asyncio.wait_for(woken.wait(), 20)
        assert await own(one) == first


@pytest.mark.netns
def test_F15_services_over_etcd_alone_carry_packets_between_their_pods(tmp_path: Path) -> None:
    with Lan("fe") as lan, ExitStack() as processes:
        near, far = lan.node("a", 11), lan.node("b", 12)
        url = f"http://{near.address}:2379"
        serve = ("etcd", f"--data-dir={tmp_path / 'data'}", f"--listen-client-urls={url}")
        run_in(near, processes, tmp_path / "etcd.log", *serve, f"--advertise-client-urls={url}")
        subnets = []
        for node in (near, far):
            file = tmp_path / f"{node.name}.env"
            flannel = (sys.executable, "-m", "tiphys_cni.flannel.main", "--subnet-manager=etcd", "--iface=eth0")
            flags = (f"--etcd-endpoints={url}", f"--node-ip={node.address}", f"--subnet-file={file}")
            run_in(node, processes, tmp_path / f"{node.name}.log", *flannel, *flags, f"--node-name={node.name}")
            wait_until(file.exists, timeout_s=20, what=f"the subnet of {node.name}")
            subnets.append(str(read(file).subnet.network))
        assert len(set(subnets)) == 2
        one, other = near.pod(subnets[0]), far.pod(subnets[1])
        wait_until(lambda: one.can_ping(other.address), timeout_s=10, what="the way between the pods")


def run_in(node: LanNode, processes: ExitStack, log: Path, *command: str) -> None:
    """Runs a command in a node until the stack ends."""
    with log.open("wb") as output:
        process = processes.enter_context(subprocess.Popen(node.enter(*command), stdout=output, stderr=output))
    processes.callback(process.kill)
