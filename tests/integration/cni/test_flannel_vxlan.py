"""VXLAN between real namespaces: every entry, what restores it, and what outlives what."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.support.flannel import FlannelCluster, FlannelNode, wait_until
from tests.support.lan import Pod, seen_vni
from tiphys_cni.flannel import subnet

pytestmark = pytest.mark.netns

# What the project promises of any change.
_WITHIN_S = 2.0


@dataclass
class Pair:
    """Two nodes with a pod each; on different segments, so that a router is between them."""

    cluster: FlannelCluster
    first: FlannelNode
    second: FlannelNode
    near: Pod
    far: Pod

    def reaches(self) -> bool:
        return self.near.can_ping(self.far.address, timeout_s=0.5)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with FlannelCluster(tmp_path_factory.mktemp("fl"), "vxlan") as cluster:
        first, near = cluster.running()
        second, far = cluster.running(segment=2)
        found = Pair(cluster, first, second, near, far)
        for node in (first, second):
            node.wait_lease()
        wait_until(found.reaches, timeout_s=5, what="the first packet")
        yield found


def test_F12_vxlan_programs_device_forwarding_neighbour_and_route(pair: Pair) -> None:
    first, second = pair.first, pair.second
    device = first.space.ip("-d", "link", "show", "flannel.1")
    assert "vxlan id 1 local 198.18.1.11 dev eth0" in device
    assert "dstport 8472 nolearning" in device
    assert "mtu 1450" in device
    assert "10.244.1.0/32" in first.space.ip("-4", "addr", "show", "flannel.1")
    mac = second.space.link("flannel.1")["address"]
    assert f"{mac} dst 198.18.2.12 self permanent" in first.space.run("bridge", "fdb", "show", "dev", "flannel.1")
    assert f"10.244.2.0 lladdr {mac} PERMANENT" in first.space.ip("neigh", "show", "dev", "flannel.1")
    assert "10.244.2.0/24 via 10.244.2.0" in first.space.ip("route", "show", "dev", "flannel.1")
    assert pair.near.can_ping(pair.far.address, size=1422)
    assert not pair.near.can_ping(pair.far.address, size=1423)
    assert seen_vni(pair.cluster.lan.switch, pair.reaches) == "1"
    env = subnet.read(first.subnet_file)
    assert (str(env.network), str(env.subnet), env.mtu) == ("10.244.0.0/16", "10.244.1.1/24", 1450)


def test_F15_lease_is_announced_in_upstream_annotations(pair: Pair) -> None:
    notes = pair.first.stored().metadata.annotations
    mac = pair.first.space.link("flannel.1")["address"]
    prefix = "flannel.alpha.coreos.com/"
    assert {key: notes[prefix + key] for key in ("backend-type", "public-ip", "kube-subnet-manager")} == {
        "backend-type": "vxlan",
        "public-ip": "198.18.1.11",
        "kube-subnet-manager": "true",
    }
    assert notes[prefix + "backend-data"] == f'{{"VNI":1,"VtepMAC":"{mac}"}}'


_DAMAGE = {
    "route": "ip route del 10.244.2.0/24",
    "route replaced": "ip route replace unreachable 10.244.2.0/24",
    "neighbour": "ip neigh del 10.244.2.0 dev flannel.1",
    "neighbour replaced": "ip neigh replace 10.244.2.0 lladdr 02:00:00:00:00:01 dev flannel.1 nud permanent",
    "forwarding entry": "bridge fdb del {mac} dev flannel.1 dst 198.18.2.12 self",
    "device down": "ip link set flannel.1 down",
    "device": "ip link del flannel.1",
    "device with other parameters": "ip link set flannel.1 mtu 1300 address 02:00:00:00:00:02",
    "address": "ip addr flush dev flannel.1",
}


@pytest.mark.parametrize("damage", _DAMAGE.values(), ids=_DAMAGE.keys())
def test_F12_what_is_deleted_by_hand_is_restored(pair: Pair, damage: str) -> None:
    mac = pair.second.space.link("flannel.1")["address"]
    pair.first.space.run("sh", "-c", damage.format(mac=mac))
    wait_until(pair.reaches, timeout_s=_WITHIN_S, what=damage)
    assert "10.244.1.0/32" in pair.first.space.ip("-4", "addr", "show", "flannel.1")


@pytest.mark.parametrize("name", ["route", "neighbour", "forwarding entry"])
def test_F12_each_entry_matters(pair: Pair, name: str) -> None:
    mac = pair.second.space.link("flannel.1")["address"]
    pair.first.stop()
    try:
        assert pair.reaches()
        pair.first.space.run("sh", "-c", _DAMAGE[name].format(mac=mac))
        assert not pair.reaches()
    finally:
        pair.first.start()
    wait_until(pair.reaches, timeout_s=20, what="the service's start")


def test_restart_keeps_traffic_flowing_and_removes_who_vanished(pair: Pair) -> None:
    third = pair.cluster.node()
    third.register()
    third.start()
    third.wait_lease()
    wait_until(lambda: third.subnet in pair.first.space.ip("route"), timeout_s=_WITHIN_S, what="a node that joined")
    pair.first.stop()
    index = pair.first.space.link("flannel.1")["ifindex"]
    third.stop()
    third.unregister()
    assert third.subnet in pair.first.space.ip("route")
    pair.first.start()
    while not pair.first.is_ready():
        assert pair.reaches()
    wait_until(lambda: third.subnet not in pair.first.space.ip("route"), timeout_s=_WITHIN_S, what="the stale route")
    assert "198.18.1.13" not in pair.first.space.run("bridge", "fdb", "show", "dev", "flannel.1")
    assert "10.244.3.0" not in pair.first.space.ip("neigh")
    assert pair.first.space.link("flannel.1")["ifindex"] == index


def test_node_that_was_cut_off_keeps_its_lease_and_works_again(pair: Pair) -> None:
    before = dict(pair.second.stored().metadata.annotations)
    pair.second.space.set_plugged(False)
    try:
        assert not pair.reaches()
        assert dict(pair.second.stored().metadata.annotations) == before
    finally:
        pair.second.space.set_plugged(True)
    wait_until(pair.reaches, timeout_s=_WITHIN_S, what="the node's return")


def test_deleted_node_is_forgotten_and_registered_again_it_is_back(pair: Pair) -> None:
    pair.second.unregister()
    wait_until(
        lambda: pair.second.subnet not in pair.first.space.ip("route"), timeout_s=_WITHIN_S, what="a deleted node"
    )
    pair.second.register()
    wait_until(pair.reaches, timeout_s=_WITHIN_S, what="a node that came back")


def test_entries_are_restored_while_the_api_server_is_away(pair: Pair) -> None:
    pair.cluster.api.set_reachable(False)
    try:
        pair.first.space.run("ip", "link", "del", "flannel.1")
        wait_until(pair.reaches, timeout_s=_WITHIN_S, what="the device")
    finally:
        pair.cluster.api.set_reachable(True)


def test_grpc_face_tells_of_leases_and_back_end(pair: Pair) -> None:
    leases = pair.first.call("ListLeases")["leases"]
    assert [(lease["node"], lease["subnet"], lease["publicIp"]) for lease in leases] == [
        ("b", "10.244.2.0/24", "198.18.2.12")
    ]
    told = pair.first.call("GetBackend")
    assert (told["type"], told["network"], told["mtu"]) == ("vxlan", "10.244.0.0/16", 1450)
    assert told["lease"]["subnet"] == "10.244.1.0/24"
    assert pair.first.call("Sync") == {}
    assert 'flannel_leases{state="used"} 1.0' in pair.first.http("/metrics")
