"""Leases from Nodes, as pure values."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tiphys.api.core.v1.node_pb2 import Node
from tiphys_cni.flannel import lease
from tiphys_cni.flannel.lease import Announcement, LeaseError, Survey, claim_of, parse_data, parse_lease, parse_subnet

NETWORK = IPv4Network("10.244.0.0/16")


def node(name: str, subnet: str = "", *, age: int = 0, **notes: str) -> Node:
    made = Node()
    made.metadata.name = name
    made.metadata.creationTimestamp.seconds = 1000 + age
    made.spec.podCIDR = subnet
    for key, value in notes.items():
        made.metadata.annotations["flannel.alpha.coreos.com/" + key.replace("_", "-")] = value
    return made


def peer(name: str, subnet: str, *, age: int = 0, **notes: str) -> Node:
    base = {"kube_subnet_manager": "true", "public_ip": "192.0.2.7", "backend_type": "vxlan", "backend_data": "null"}
    return node(name, subnet, age=age, **{**base, **notes})


def survey(nodes: Iterable[Node], own: str, network: IPv4Network) -> Survey:
    return lease.survey([claim_of(found) for found in nodes], own, network)


def test_F15_what_is_announced_is_read_back() -> None:
    told = Announcement("vxlan", IPv4Address("192.0.2.1"), {"VNI": 1, "VtepMAC": "02:AA:00:00:00:01"})
    made = node("a", "10.244.1.0/24")
    made.metadata.annotations.update(told.annotations())
    read = parse_lease(made, IPv4Network("10.244.1.0/24"))
    assert read is not None
    assert (read.backend, read.public_ip, read.vtep_mac) == ("vxlan", told.public_ip, "02:aa:00:00:00:01")
    assert told.annotations()["flannel.alpha.coreos.com/backend-data"] == '{"VNI":1,"VtepMAC":"02:AA:00:00:00:01"}'


def test_back_end_without_data_says_null_as_upstream_does() -> None:
    told = Announcement("host-gw", IPv4Address("192.0.2.1")).annotations()
    assert told["flannel.alpha.coreos.com/backend-data"] == "null"
    made = node("a", backend_data="null")
    assert parse_data(made) == {}


@pytest.mark.parametrize("data", ["{", "[1]", '"x"', "7"])
def test_data_that_is_no_object_is_refused_by_name(data: str) -> None:
    with pytest.raises(LeaseError, match=r"node a: annotation .*backend-data"):
        parse_data(node("a", backend_data=data))


@pytest.mark.parametrize(
    ("cidrs", "found"),
    [
        ((), None),
        (("10.244.1.0/24",), "10.244.1.0/24"),
        (("fd00::/64", "10.244.1.0/24"), "10.244.1.0/24"),
        (("fd00::/64",), None),
    ],
    ids=["none", "one", "two families", "IPv6 alone"],
)
def test_range_of_a_node(cidrs: tuple[str, ...], found: str | None) -> None:
    made = node("a", cidrs[0] if cidrs else "")
    made.spec.podCIDRs.extend(cidrs)
    assert parse_subnet(made) == (IPv4Network(found) if found else None)


@pytest.mark.parametrize("text", ["10.244.1.7/24", "rubbish", "10.244.1.0/40"])
def test_range_that_can_not_be_read_names_node_and_value(text: str) -> None:
    with pytest.raises(LeaseError, match=f"node a: spec.podCIDR '{text}'"):
        parse_subnet(node("a", text))


def test_nodes_that_have_announced_nothing_are_no_peers() -> None:
    found = survey([node("a", "10.244.1.0/24"), node("b", "10.244.2.0/24"), peer("c", "10.244.3.0/24")], "a", NETWORK)
    assert found.own == IPv4Network("10.244.1.0/24")
    assert [peer.node for peer in found.peers] == ["c"]
    assert found.refused == {}


@pytest.mark.parametrize(
    ("nodes", "problem"),
    [
        ([], "node a is not registered yet"),
        ([node("a")], "node a has no spec.podCIDR yet"),
        ([node("a", "10.9.0.0/24")], "node a: spec.podCIDR 10.9.0.0/24 is not inside the network 10.244.0.0/16"),
        (
            [node("a", "10.244.1.0/24", age=2), node("b", "10.244.1.0/24", age=1)],
            "node a: spec.podCIDR 10.244.1.0/24 overlaps 10.244.1.0/24 of node b",
        ),
        (
            [node("a", "10.244.1.0/25", age=2), node("b", "10.244.0.0/20", age=1)],
            "node a: spec.podCIDR 10.244.1.0/25 overlaps 10.244.0.0/20 of node b",
        ),
    ],
    ids=["unknown", "without range", "outside", "equal", "inside another's"],
)
def test_own_lease_that_can_not_be_had(nodes: list[Node], problem: str) -> None:
    found = survey(nodes, "a", NETWORK)
    assert (found.own, found.problem) == (None, problem)
    # A range that is still to come is no range that is refused.
    assert found.is_refused == ("10." in problem)


def test_younger_of_two_is_refused_whatever_the_order() -> None:
    nodes = [peer("c", "10.244.1.0/24", age=5), peer("b", "10.244.1.0/24", age=9), node("a", "10.244.9.0/24")]
    for order in (nodes, nodes[::-1]):
        found = survey(order, "a", NETWORK)
        assert [peer.node for peer in found.peers] == ["c"]
        assert found.refused == {"b": "node b: spec.podCIDR 10.244.1.0/24 overlaps 10.244.1.0/24 of node c"}


def test_peer_with_a_bad_address_is_refused_and_the_others_stand() -> None:
    nodes = [peer("b", "10.244.1.0/24", public_ip="nowhere"), peer("c", "10.244.2.0/24"), node("a", "10.244.9.0/24")]
    found = survey(nodes, "a", NETWORK)
    assert [peer.node for peer in found.peers] == ["c"]
    assert "public-ip 'nowhere' is no address" in found.refused["b"]


def _part(number: int, prefix: int) -> IPv4Network:
    return IPv4Network((int(NETWORK.network_address) + (number << 6) >> (32 - prefix) << (32 - prefix), prefix))


_SUBNETS = st.builds(_part, st.integers(0, 1023), st.integers(16, 28))


@settings(max_examples=60, deadline=None)
@given(st.lists(_SUBNETS, min_size=1, max_size=8))
def test_F15_standing_leases_never_overlap_and_each_refusal_has_a_cause(subnets: list[IPv4Network]) -> None:
    nodes = [peer(f"n{number}", str(subnet), age=number) for number, subnet in enumerate(subnets)]
    found = survey(nodes, "me", NETWORK)
    standing = [peer.subnet for peer in found.peers]
    for number, subnet in enumerate(standing):
        assert not any(subnet.overlaps(other) for other in standing[number + 1 :])
    for name in found.refused:
        mine = subnets[int(name[1:])]
        assert any(mine.overlaps(other) for other in standing)
    assert len(found.refused) + len(standing) == len(subnets)


def test_own_annotations_that_can_not_be_read_are_no_hindrance() -> None:
    found = survey([peer("a", "10.244.1.0/24", backend_data="{", public_ip="nowhere")], "a", NETWORK)
    assert (found.own, found.problem) == (IPv4Network("10.244.1.0/24"), "")
