"""Leases that can't be had or believed: what is said of them, and that all heals by itself."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.support.flannel import FlannelCluster, FlannelNode, wait_until
from tiphys.api.core.v1.event_pb2 import Event
from tiphys.api.core.v1.node_pb2 import Node

pytestmark = pytest.mark.netns

_WITHIN_S = 2.0


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[FlannelCluster]:
    with FlannelCluster(tmp_path, "vxlan") as found:
        yield found


def _wait_line(node: FlannelNode, text: str) -> None:
    wait_until(lambda: text in node.log(), timeout_s=20, what=f"log of {node.name} to say {text!r}")


def test_F15_lease_is_taken_once_the_api_server_and_then_the_range_are_there(cluster: FlannelCluster) -> None:
    node = cluster.node()
    cluster.api.set_reachable(False)
    node.start()
    wait_until(lambda: node.http("/livez") == "ok", timeout_s=20, what="the service")
    assert not node.is_ready()
    cluster.api.set_reachable(True)
    _wait_line(node, "node a is not registered yet")
    node.register("")
    _wait_line(node, "node a has no spec.podCIDR yet")
    assert "node a has no spec.podCIDR yet" in node.http("/readyz")
    assert not node.subnet_file.exists()
    patch = {"spec": {"podCIDR": node.subnet, "podCIDRs": [node.subnet]}}
    cluster.api.run(cluster.api.client.patch(Node, node.name, "", patch))
    wait_until(node.is_ready, timeout_s=_WITHIN_S, what="the lease")
    assert node.subnet_file.exists()


def test_F15_of_two_nodes_with_one_subnet_the_younger_is_refused_until_corrected(cluster: FlannelCluster) -> None:
    (first, near), (second, far) = cluster.running(), cluster.running()
    third = cluster.node()
    third.register(second.subnet)
    third.start()
    message = f"node c: spec.podCIDR {second.subnet} overlaps {second.subnet} of node b"
    for node in (first, third):
        _wait_line(node, message)
    assert message in third.http("/readyz")
    assert not third.subnet_file.exists()
    assert near.can_ping(far.address)
    assert "flannel.alpha.coreos.com/public-ip" not in third.stored().metadata.annotations
    wait_until(lambda: message in _events(cluster), timeout_s=5, what="the event")
    third.unregister()
    third.register()
    wait_until(third.is_ready, timeout_s=_WITHIN_S, what="the corrected lease")
    _wait_line(first, "lease no longer refused")
    wait_until(lambda: third.subnet in first.space.ip("route"), timeout_s=_WITHIN_S, what="the route to it")


def _events(cluster: FlannelCluster) -> list[str]:
    found = cluster.api.run(cluster.api.client.list(Event, field_selector="reason=LeaseRefused"))
    return [event.message for event in found.items if event.involvedObject.kind == "Node"]


def test_F16_range_outside_of_the_network_is_refused(cluster: FlannelCluster) -> None:
    node = cluster.node()
    node.register("10.99.1.0/24")
    node.start()
    _wait_line(node, "node a: spec.podCIDR 10.99.1.0/24 is not inside the network 10.244.0.0/16")
    assert not node.subnet_file.exists()
    node.stop()
    node.start("--pod-cidr=10.99.0.0/16")
    node.wait_lease()
    assert "FLANNEL_NETWORK=10.99.0.0/16\nFLANNEL_SUBNET=10.99.1.1/24\n" in node.subnet_file.read_text()


def test_annotations_taken_away_are_written_again(cluster: FlannelCluster) -> None:
    node, _ = cluster.running()
    node.wait_lease()
    key = "flannel.alpha.coreos.com/backend-data"
    before = node.stored().metadata.annotations[key]
    patch = {"metadata": {"annotations": {key: None}}}
    cluster.api.run(cluster.api.client.patch(Node, node.name, "", patch))
    wait_until(lambda: node.stored().metadata.annotations.get(key) == before, timeout_s=_WITHIN_S, what=key)


def test_node_registered_anew_with_another_range_moves_there(cluster: FlannelCluster) -> None:
    (first, _), (second, _) = cluster.running(), cluster.running()
    first.wait_lease()
    second.wait_lease()
    second.unregister()
    second.register("10.244.7.0/24")
    wait_until(lambda: "10.244.7.0/24" in first.space.ip("route"), timeout_s=_WITHIN_S, what="the new range")
    assert "10.244.2.0/24" not in first.space.ip("route")
    assert "FLANNEL_SUBNET=10.244.7.1/24" in second.subnet_file.read_text()
    assert "10.244.7.0/32" in second.space.ip("-4", "addr", "show", "flannel.1")


def test_device_of_other_parameters_is_made_anew(cluster: FlannelCluster) -> None:
    node = cluster.node()
    node.space.ip("link", "add", "flannel.1", "type", "vxlan", "id", "1", "dstport", "4789", "dev", "eth0")
    node.register()
    node.start()
    node.wait_lease()
    device = node.space.ip("-d", "link", "show", "flannel.1")
    assert "dstport 8472 nolearning" in device


def test_other_device_with_the_same_vni_is_named_as_the_reason(cluster: FlannelCluster) -> None:
    node = cluster.node()
    node.space.ip("link", "add", "other", "type", "vxlan", "id", "1", "dstport", "8472", "dev", "eth0")
    node.register()
    node.start()
    _wait_line(node, "another device of this node has VNI 1 on port 8472")
    node.space.ip("link", "del", "other")
    node.wait_lease()


def test_direct_routing_uses_plain_routes_on_the_link_and_vxlan_across_the_router(cluster: FlannelCluster) -> None:
    nodes = [cluster.node(), cluster.node(), cluster.node(segment=2)]
    pods = [node.space.pod(node.subnet) for node in nodes]
    for node in nodes:
        node.register()
        node.start("--direct-routing")
    for node in nodes:
        node.wait_lease()
    for pod in pods[1:]:
        wait_until(partial(pods[0].can_ping, pod.address), timeout_s=5, what=pod.name)
    routes = nodes[0].space.ip("route")
    assert f"10.244.2.0/24 via {nodes[1].space.address} dev eth0" in routes
    assert "10.244.3.0/24 via 10.244.3.0 dev flannel.1" in routes


def test_wrong_flags_are_refused_with_the_flag_named(cluster: FlannelCluster) -> None:
    node = cluster.node()
    node.start("--pod-cidr=10.244.0.1/16")
    assert node.wait_end() == 2
    assert "--pod-cidr: 10.244.0.1/16 has host bits set" in node.log()
