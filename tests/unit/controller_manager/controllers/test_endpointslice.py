"""EndpointSlices and Endpoints: who is in them, how they are cut, and how little a change touches."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.controller_manager.controllers.test_replicaset import view
from tests.unit.controller_manager.harness import House, house
from tiphys.api.core.v1 import endpoints_pb2, node_pb2, pod_pb2, service_pb2
from tiphys.api.discovery.v1 import discovery_pb2
from tiphys_apimachinery.meta import get_controller_of
from tiphys_controller_manager.controllers.endpoints.plan import endpoints_of
from tiphys_controller_manager.controllers.endpointslice.plan import plan_slices
from tiphys_controller_manager.pods import NamedPort, PodView

EndpointSlice = discovery_pb2.EndpointSlice
BOTH = ("endpointslice-controller", "endpoints-controller")


def service(*ports: Any, name: str = "web", **spec: Any) -> service_pb2.Service:
    made = service_pb2.Service()
    made.metadata.name, made.metadata.namespace, made.metadata.uid = name, "default", "service-uid"
    made.spec.selector["app"] = "web"
    made.spec.clusterIP = "10.96.0.9"
    for number, target in ports or ((80, 8080),):
        port = made.spec.ports.add(name=f"p{number}", port=number, protocol="TCP")
        if isinstance(target, int):
            port.targetPort.intVal = target
        else:
            port.targetPort.type, port.targetPort.strVal = 1, target
    for key, value in spec.items():
        if key == "ipFamilies":
            made.spec.ipFamilies.extend(value)
        else:
            setattr(made.spec, key, value)
    return made


def backend(number: int, **facts: Any) -> PodView:
    return view(f"pod-{number}", **{"ips": (f"10.0.{number // 250}.{number % 250}",), **facts})


def planned(
    target: service_pb2.Service, pods: list[PodView], existing: list[EndpointSlice] | None = None, limit: int = 100
) -> Any:
    return plan_slices(target, pods, {"n1": "zone-a"}, existing or [], limit=limit)


def stored(slices: list[EndpointSlice]) -> list[EndpointSlice]:
    """Slices as the server would hand them back."""
    for number, item in enumerate(slices):
        item.metadata.name = item.metadata.name or f"s{number}"
    return slices


@pytest.mark.parametrize(
    ("facts", "spec", "conditions"),
    [
        pytest.param({}, {}, (True, True, False), id="ready"),
        pytest.param({"ready_since": None}, {}, (False, False, False), id="not ready"),
        pytest.param({"is_deleting": True}, {}, (False, True, True), id="ends, still serving"),
        pytest.param({"is_deleting": True, "ready_since": None}, {}, (False, False, True), id="ends"),
        pytest.param(
            {"ready_since": None}, {"publishNotReadyAddresses": True}, (True, False, False), id="published anyway"
        ),
    ],
)
def test_conditions(facts: dict[str, Any], spec: dict[str, Any], conditions: tuple[bool, bool, bool]) -> None:
    (item,) = planned(service(**spec), [backend(1, **facts)]).create
    found = item.endpoints[0].conditions
    assert (found.ready, found.serving, found.terminating) == conditions


@pytest.mark.parametrize(
    "facts", [pytest.param({"phase": "Failed"}, id="finished"), pytest.param({"ips": ()}, id="without address")]
)
def test_who_is_left_out(facts: dict[str, Any]) -> None:
    (item,) = planned(service(), [backend(1, **facts)]).create
    assert not item.endpoints


def test_an_endpoint_names_its_pod_node_and_zone() -> None:
    (item,) = planned(service(), [backend(1, hostname="db-0", subdomain="web")]).create
    (endpoint,) = item.endpoints
    assert (endpoint.targetRef.kind, endpoint.targetRef.name, endpoint.targetRef.uid) == ("Pod", "pod-1", "pod-1")
    assert (endpoint.nodeName, endpoint.zone, endpoint.hostname) == ("n1", "zone-a", "db-0")
    assert list(endpoint.addresses) == ["10.0.0.1"]


def test_a_slice_says_whose_it_is() -> None:
    target = service(clusterIP="None")
    target.metadata.labels["team"] = "a"
    (item,) = planned(target, [backend(1)]).create
    assert dict(item.metadata.labels) == {
        "team": "a",
        "kubernetes.io/service-name": "web",
        "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
        "service.kubernetes.io/headless": "",
    }
    owner = get_controller_of(item)
    assert owner is not None
    assert (owner.kind, owner.uid, item.metadata.generateName) == ("Service", "service-uid", "web-")
    assert item.addressType == "IPv4"


def test_named_ports_part_pods_into_slices() -> None:
    old = backend(1, ports=(NamedPort("http", "TCP", 8080),))
    new = backend(2, ports=(NamedPort("http", "TCP", 9090),))
    udp = backend(3, ports=(NamedPort("http", "UDP", 7070),))
    made = planned(service((80, "http")), [old, new, udp]).create
    found = {tuple(port.port for port in item.ports): [e.targetRef.name for e in item.endpoints] for item in made}
    assert found == {(8080,): ["pod-1"], (9090,): ["pod-2"], (): ["pod-3"]}


def test_dual_stack_has_slices_of_each_family() -> None:
    pod = backend(1, ips=("10.0.0.1", "fd00::1"))
    made = planned(service(ipFamilies=["IPv4", "IPv6"]), [pod]).create
    assert {item.addressType: list(item.endpoints[0].addresses) for item in made} == {
        "IPv4": ["10.0.0.1"],
        "IPv6": ["fd00::1"],
    }


def test_no_slice_holds_more_than_the_limit() -> None:
    made = planned(service(), [backend(i) for i in range(250)]).create
    assert sorted(len(item.endpoints) for item in made) == [50, 100, 100]


def test_what_is_right_is_left_alone() -> None:
    pods = [backend(i) for i in range(150)]
    existing = stored(planned(service(), pods).create)
    plan = planned(service(), pods, existing)
    assert (plan.create, plan.update, plan.delete) == ([], [], [])


def test_G15_one_changed_pod_touches_one_slice() -> None:
    pods = [backend(i) for i in range(5000)]
    existing = stored(planned(service(), pods).create)
    pods[1234] = backend(1234, ready_since=None)
    plan = planned(service(), pods, existing)
    assert (len(plan.create), len(plan.update), len(plan.delete)) == (0, 1, 0)


def test_a_replaced_pod_takes_the_place_of_the_old_one() -> None:
    pods = [backend(i) for i in range(150)]
    existing = stored(planned(service(), pods).create)
    plan = planned(service(), [*pods[1:], backend(900)], existing)
    assert (len(plan.create), len(plan.update), len(plan.delete)) == (0, 1, 0)


def test_one_more_pod_goes_where_there_is_room() -> None:
    pods = [backend(i) for i in range(150)]
    existing = stored(planned(service(), pods).create)
    plan = planned(service(), [*pods, backend(900)], existing)
    assert (len(plan.create), len(plan.update), len(plan.delete)) == (0, 1, 0)
    assert len(plan.update[0].endpoints) == 51


def test_a_service_without_pods_has_one_empty_slice() -> None:
    plan = planned(service(), [])
    assert [len(item.endpoints) for item in plan.create] == [0]
    again = planned(service(), [], stored(plan.create))
    assert (again.create, again.update, again.delete) == ([], [], [])


def test_the_empty_slice_goes_when_pods_come() -> None:
    existing = stored(planned(service(), []).create)
    plan = planned(service(), [backend(1)], existing)
    assert (len(plan.create), len(plan.delete)) == (1, 1)


def test_a_slice_of_a_family_no_longer_wanted_goes() -> None:
    pod = backend(1, ips=("10.0.0.1", "fd00::1"))
    existing = stored(planned(service(ipFamilies=["IPv4", "IPv6"]), [pod]).create)
    plan = planned(service(ipFamilies=["IPv4"]), [pod], existing)
    assert [item.addressType for item in plan.delete] == ["IPv6"]


def test_endpoints_part_ready_and_not_ready() -> None:
    made = endpoints_of(service(), [backend(1), backend(2, ready_since=None), backend(3, is_deleting=True)])
    (subset,) = made.subsets
    assert [item.ip for item in subset.addresses] == ["10.0.0.1"]
    assert [item.ip for item in subset.notReadyAddresses] == ["10.0.0.2"]
    assert [(port.name, port.port) for port in subset.ports] == [("p80", 8080)]


def test_endpoints_group_ports_that_share_all_addresses() -> None:
    both = backend(1, ports=(NamedPort("a", "TCP", 1), NamedPort("b", "TCP", 2)))
    only = backend(2, ports=(NamedPort("a", "TCP", 1),))
    made = endpoints_of(service((80, "a"), (81, "b")), [both, only])
    found = {tuple(port.port for port in item.ports): [a.ip for a in item.addresses] for item in made.subsets}
    assert found == {(1,): ["10.0.0.1", "10.0.0.2"], (2,): ["10.0.0.1"]}


def test_endpoints_are_truncated_ready_ones_first() -> None:
    pods = [backend(i, ready_since=None if i < 100 else 1.0) for i in range(1050)]
    made = endpoints_of(service(), pods)
    (subset,) = made.subsets
    assert (len(subset.addresses), len(subset.notReadyAddresses)) == (950, 50)
    assert made.metadata.annotations["endpoints.kubernetes.io/over-capacity"] == "truncated"


def pod(name: str, ip: str = "10.0.0.1", app: str = "web") -> pod_pb2.Pod:
    made = pod_pb2.Pod()
    made.metadata.name, made.metadata.namespace = name, "default"
    made.metadata.labels["app"] = app
    made.spec.nodeName = "n1"
    made.status.phase = "Running"
    made.status.podIP = ip
    made.status.podIPs.add(ip=ip)
    made.status.conditions.add(type="Ready", status="True").lastTransitionTime.seconds = 1
    return made


async def ready(h: House) -> list[str]:
    slices = await h.all(EndpointSlice, "default")
    return sorted(e.addresses[0] for item in slices for e in item.endpoints if e.conditions.ready)


async def test_B28_slices_and_endpoints_follow_readiness_at_once() -> None:
    async with house(*BOTH) as h:
        h.client.seed(pod("a", "10.0.0.1"), pod("b", "10.0.0.2"), pod("c", "10.0.0.3", app="other"))
        target = service()
        target.metadata.ClearField("uid")
        await h.client.create(target)
        await h.settle()
        assert await ready(h) == ["10.0.0.1", "10.0.0.2"]
        unready = h.client.stored(pod_pb2.Pod, "a", "default")
        unready.status.conditions[0].status = "False"
        await h.client.update_status(unready)
        # Whoever waited for a time, be it as short as a second, would find the clock standing still.
        await h.settle()
        assert h.clock.monotonic() == 0
        assert await ready(h) == ["10.0.0.2"]
        subset = h.client.stored(endpoints_pb2.Endpoints, "web", "default").subsets[0]
        assert ([a.ip for a in subset.addresses], [a.ip for a in subset.notReadyAddresses]) == (
            ["10.0.0.2"],
            ["10.0.0.1"],
        )


async def test_a_service_without_selector_is_left_to_its_owner() -> None:
    async with house(*BOTH) as h:
        target = service()
        target.spec.selector.clear()
        target.metadata.ClearField("uid")
        await h.client.create(target)
        await h.settle()
        assert await h.all(EndpointSlice) == []
        assert await h.all(endpoints_pb2.Endpoints) == []


async def test_a_slice_that_somebody_deletes_or_edits_is_put_right() -> None:
    async with house("endpointslice-controller") as h:
        h.client.seed(pod("a"))
        target = service()
        target.metadata.ClearField("uid")
        await h.client.create(target)
        await h.settle()
        (item,) = await h.all(EndpointSlice)
        del item.endpoints[:]
        await h.client.update(item)
        await h.settle()
        assert await ready(h) == ["10.0.0.1"]
        await h.client.delete(EndpointSlice, item.metadata.name, "default")
        await h.settle()
        assert await ready(h) == ["10.0.0.1"]


async def test_a_zone_learned_late_reaches_the_endpoints() -> None:
    async with house("endpointslice-controller") as h:
        h.client.seed(pod("a"))
        target = service()
        target.metadata.ClearField("uid")
        await h.client.create(target)
        await h.settle()
        node = node_pb2.Node()
        node.metadata.name = "n1"
        node.metadata.labels["topology.kubernetes.io/zone"] = "zone-b"
        await h.client.create(node)
        await h.settle()
        (item,) = await h.all(EndpointSlice)
        assert item.endpoints[0].zone == "zone-b"


async def test_endpoints_go_with_their_service() -> None:
    async with house("endpoints-controller") as h:
        target = service()
        target.metadata.ClearField("uid")
        await h.client.create(target)
        await h.settle()
        assert len(await h.all(endpoints_pb2.Endpoints)) == 1
        await h.client.delete(service_pb2.Service, "web", "default")
        await h.settle()
        assert await h.all(endpoints_pb2.Endpoints) == []
