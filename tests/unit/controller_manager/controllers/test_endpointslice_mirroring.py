"""Endpoints that users write, and the slices that stand for them."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.controller_manager.harness import House, house
from tiphys.api.core.v1 import endpoints_pb2, service_pb2
from tiphys.api.discovery.v1 import discovery_pb2
from tiphys_controller_manager.controllers.endpointslice.plan import MANAGED_BY
from tiphys_controller_manager.controllers.endpointslice_mirroring.plan import (
    MANAGER,
    SKIP_LABEL,
    is_mirrored,
    plan_mirror,
)

CONTROLLER = "endpointslice-mirroring-controller"
Endpoints = endpoints_pb2.Endpoints
Service = service_pb2.Service
EndpointSlice = discovery_pb2.EndpointSlice


def endpoints(*ips: str, unready: tuple[str, ...] = (), port: int = 80, **labels: str) -> Endpoints:
    made = Endpoints()
    made.metadata.name, made.metadata.namespace = "db", "default"
    made.metadata.labels.update(labels)
    subset = made.subsets.add()
    for ip in ips:
        subset.addresses.add(ip=ip)
    for ip in unready:
        subset.notReadyAddresses.add(ip=ip)
    subset.ports.add(name="sql", port=port)
    return made


def service(**selector: str) -> Service:
    made = Service()
    made.metadata.name, made.metadata.namespace = "db", "default"
    made.spec.selector.update(selector)
    return made


def skipped() -> Endpoints:
    made = endpoints()
    made.metadata.labels[SKIP_LABEL] = "true"
    return made


def locked() -> Endpoints:
    made = endpoints("10.0.0.1")
    made.metadata.annotations["control-plane.alpha.kubernetes.io/leader"] = "{}"
    return made


@pytest.mark.parametrize(
    ("written", "of", "mirrored"),
    [
        pytest.param(endpoints(), service(), True, id="written by hand"),
        pytest.param(endpoints(), service(app="db"), False, id="a selector makes them"),
        pytest.param(endpoints(), None, False, id="no service"),
        pytest.param(skipped(), service(), False, id="told to skip"),
        pytest.param(locked(), service(), False, id="a lock"),
    ],
)
def test_B28_which_endpoints_are_mirrored(written: Endpoints, of: Service | None, mirrored: bool) -> None:
    assert is_mirrored(written, of) is mirrored


def mirror(written: Endpoints, *existing: EndpointSlice, subset: int = 1000, most: int = 1000) -> Any:
    return plan_mirror(written, existing, most_in_subset=subset, most_in_slice=most)


def addresses(item: EndpointSlice) -> list[tuple[str, bool]]:
    return [(endpoint.addresses[0], endpoint.conditions.ready) for endpoint in item.endpoints]


def test_B28_a_slice_for_each_family_and_set_of_ports() -> None:
    written = endpoints("10.0.0.1", "fd00::1", "nonsense", unready=("10.0.0.2",), app="db")
    other = written.subsets.add()
    other.addresses.add(ip="10.0.0.3", nodeName="n1", hostname="h")
    other.ports.add(name="admin", port=81)
    written.metadata.annotations["kubectl.kubernetes.io/last-applied-configuration"] = "{}"
    written.metadata.annotations["note"] = "kept"
    made = mirror(written).create
    assert [(item.addressType, item.ports[0].port, addresses(item)) for item in made] == [
        ("IPv4", 80, [("10.0.0.1", True), ("10.0.0.2", False)]),
        ("IPv6", 80, [("fd00::1", True)]),
        ("IPv4", 81, [("10.0.0.3", True)]),
    ]
    assert dict(made[0].metadata.labels) == {"app": "db", "kubernetes.io/service-name": "db", MANAGED_BY: MANAGER}
    assert dict(made[0].metadata.annotations) == {"note": "kept"}
    assert [owner.kind for owner in made[0].metadata.ownerReferences] == ["Endpoints"]
    assert (made[2].endpoints[0].nodeName, made[2].endpoints[0].hostname) == ("n1", "h")


def test_B28_what_is_right_stays_and_what_changed_is_written_over() -> None:
    (made,) = mirror(endpoints("10.0.0.1")).create
    same = mirror(endpoints("10.0.0.1"), made)
    assert (same.create, same.update, same.delete) == ([], [], [])
    changed = mirror(endpoints("10.0.0.2"), made)
    assert (changed.create, changed.delete) == ([], [])
    assert addresses(changed.update[0]) == [("10.0.0.2", True)]
    moved = mirror(endpoints("10.0.0.1", port=81), made)
    assert (len(moved.create), moved.update, moved.delete) == (1, [], [made])


def test_B28_an_address_that_is_also_ready_is_ready_and_too_many_are_left_out() -> None:
    written = endpoints("10.0.0.1", unready=("10.0.0.1",))
    assert addresses(mirror(written).create[0]) == [("10.0.0.1", True)]
    many = endpoints(*(f"10.0.0.{number}" for number in range(1, 8)))
    assert [len(item.endpoints) for item in mirror(many, subset=5, most=3).create] == [3, 2]


async def slices(h: House) -> list[list[tuple[str, bool]]]:
    await h.settle()
    return [addresses(item) for item in await h.all(EndpointSlice, "default")]


async def test_B28_slices_follow_their_endpoints_and_go_with_them() -> None:
    async with house(CONTROLLER) as h:
        await h.client.create(endpoints("10.0.0.1"))
        assert await slices(h) == []
        await h.client.create(service())
        assert await slices(h) == [[("10.0.0.1", True)]]
        stored = h.client.stored(Endpoints, "db", "default")
        stored.subsets[0].addresses.add(ip="10.0.0.2")
        await h.client.update(stored)
        assert await slices(h) == [[("10.0.0.1", True), ("10.0.0.2", True)]]
        edited = (await h.all(EndpointSlice, "default"))[0]
        del edited.endpoints[:]
        await h.client.update(edited)
        assert await slices(h) == [[("10.0.0.1", True), ("10.0.0.2", True)]]
        await h.client.delete(Endpoints, "db", "default")
        assert await slices(h) == []


async def test_B28_a_service_that_gets_a_selector_is_left_to_the_other_controller() -> None:
    async with house(CONTROLLER) as h:
        await h.client.create(endpoints("10.0.0.1"))
        await h.client.create(service())
        assert len(await slices(h)) == 1
        foreign = EndpointSlice()
        foreign.metadata.name, foreign.metadata.namespace = "own", "default"
        foreign.metadata.labels.update({"kubernetes.io/service-name": "db", MANAGED_BY: "somebody"})
        await h.client.create(foreign)
        stored = h.client.stored(Service, "db", "default")
        stored.spec.selector["app"] = "db"
        await h.client.update(stored)
        assert await slices(h) == [[]]
