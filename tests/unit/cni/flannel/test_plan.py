"""What changes in the kernel, as pure values."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from typing import Any

import pytest

from tiphys_cni.flannel.backend.host_gw import wanted_routes
from tiphys_cni.flannel.backend.interface import Settings
from tiphys_cni.flannel.backend.underlay import Underlay
from tiphys_cni.flannel.backend.vxlan import wanted_entries
from tiphys_cni.flannel.lease import Lease
from tiphys_cni.flannel.plan import Changes, Entries, Forward, Neighbour, Route, plan

NETWORK = IPv4Network("10.244.0.0/16")
UNDERLAY = Underlay("eth0", 2, 1500, IPv4Address("192.0.2.1"), (IPv4Network("192.0.2.0/24"),))
MAC, OTHER_MAC = "02:00:00:00:00:02", "02:00:00:00:00:03"
DEVICE = 7


def lease(name: str = "b", *, part: int = 2, ip: str = "192.0.2.2", backend: str = "vxlan", **data: Any) -> Lease:
    return Lease(name, IPv4Network(f"10.244.{part}.0/24"), IPv4Address(ip), backend, data)


def entries(mac: str = MAC, *, remote: str = "192.0.2.2", part: int = 2) -> Entries:
    base = IPv4Address(f"10.244.{part}.0")
    return Entries(
        frozenset({Route(IPv4Network(f"10.244.{part}.0/24"), DEVICE, base, onlink=True)}),
        frozenset({Neighbour(DEVICE, base, mac)}),
        frozenset({Forward(DEVICE, mac, IPv4Address(remote))}),
    )


def test_nothing_is_done_where_all_is_as_wanted() -> None:
    assert len(plan(entries(), entries())) == 0


def test_who_came_is_written_and_who_went_is_removed() -> None:
    assert plan(Entries(), entries()) == Changes(entries(), Entries())
    assert plan(entries(), Entries()) == Changes(Entries(), entries())


def test_neighbour_that_changed_is_written_over_and_never_removed() -> None:
    changes = plan(entries(MAC), entries(OTHER_MAC))
    assert changes.write.neighbours == entries(OTHER_MAC).neighbours
    assert not changes.remove.neighbours
    assert not changes.write.routes
    assert not changes.remove.routes
    # The forwarding table is by address, and the old one leads nowhere any more.
    assert changes.remove.forwards == entries(MAC).forwards


def test_route_that_changed_is_written_over_and_never_removed() -> None:
    destination = IPv4Network("10.244.2.0/24")
    old, new = Route(destination, 2, IPv4Address("192.0.2.2")), Route(destination, 2, IPv4Address("192.0.2.9"))
    changes = plan(Entries(frozenset({old})), Entries(frozenset({new})))
    assert changes == Changes(Entries(frozenset({new})), Entries())


def test_second_way_of_one_address_is_removed_by_itself() -> None:
    surplus = Forward(DEVICE, MAC, IPv4Address("192.0.2.99"))
    current = Entries(entries().routes, entries().neighbours, entries().forwards | {surplus})
    assert plan(current, entries()) == Changes(Entries(), Entries(forwards=frozenset({surplus})))


def test_vxlan_needs_route_neighbour_and_forwarding_entry_for_each_node() -> None:
    wanted, refused = wanted_entries([lease(VNI=1, VtepMAC=MAC)], Settings(NETWORK), UNDERLAY, DEVICE)
    assert (wanted, refused) == (entries(), {})


def test_vxlan_routes_directly_on_the_link_where_it_may() -> None:
    settings = Settings(NETWORK, direct_routing=True)
    leases = [lease(VtepMAC=MAC), lease("c", part=3, ip="198.51.100.3", VtepMAC=OTHER_MAC)]
    wanted, _ = wanted_entries(leases, settings, UNDERLAY, DEVICE)
    direct = Route(IPv4Network("10.244.2.0/24"), UNDERLAY.index, IPv4Address("192.0.2.2"))
    assert wanted.routes == entries(part=3).routes | {direct}
    assert wanted.forwards == {Forward(DEVICE, OTHER_MAC, IPv4Address("198.51.100.3"))}


@pytest.mark.parametrize(
    ("found", "why"),
    [
        (lease(backend="host-gw"), "node b speaks host-gw, this node vxlan"),
        (lease(backend=""), "node b speaks nothing, this node vxlan"),
        (lease(VNI=7, VtepMAC=MAC), "node b has VNI 7, this node 1"),
        (lease(VNI=1), "node b: VtepMAC '' is no hardware address"),
        (lease(VNI=1, VtepMAC="02:00:00:00:zz:02"), "node b: VtepMAC '02:00:00:00:zz:02' is no hardware address"),
    ],
    ids=["other back end", "no back end", "other VNI", "no address", "bad address"],
)
def test_lease_that_vxlan_can_not_use_is_refused_by_itself(found: Lease, why: str) -> None:
    good = lease("c", part=3, VtepMAC=OTHER_MAC)
    wanted, refused = wanted_entries([found, good], Settings(NETWORK), UNDERLAY, DEVICE)
    assert refused == {"b": why}
    assert wanted == entries(OTHER_MAC, part=3)


def test_two_nodes_with_one_hardware_address_are_named() -> None:
    leases = [lease(VtepMAC=MAC), lease("c", part=3, VtepMAC=MAC)]
    wanted, refused = wanted_entries(leases, Settings(NETWORK), UNDERLAY, DEVICE)
    assert refused == {"c": f"node c: VtepMAC {MAC} is that of node b"}
    assert wanted == entries()


def test_host_gw_refuses_a_hop_off_the_link() -> None:
    leases = [lease(backend="host-gw"), lease("c", part=3, ip="198.51.100.3", backend="host-gw")]
    routes, refused = wanted_routes(leases, UNDERLAY)
    assert routes == {Route(IPv4Network("10.244.2.0/24"), 2, IPv4Address("192.0.2.2")): "b"}
    assert refused["c"].startswith("node c: 198.51.100.3 is not on the link of eth0 (192.0.2.0/24)")
