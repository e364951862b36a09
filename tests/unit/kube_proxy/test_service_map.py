"""From Services and EndpointSlices to what the data plane must do."""

from __future__ import annotations

import pytest

from tiphys.api.core.v1.service_pb2 import Service
from tiphys.api.discovery.v1.discovery_pb2 import EndpointSlice
from tiphys_kube_proxy.service_map import Endpoint, ServicePort, service_ports


def service(**spec: object) -> Service:
    found = Service()
    found.metadata.name, found.metadata.namespace = "web", "default"
    found.spec.clusterIP = "10.96.0.9"
    found.spec.clusterIPs.append("10.96.0.9")
    port = found.spec.ports.add(name="http", port=80, nodePort=int(str(spec.pop("node_port", 0))))
    port.protocol = "TCP"
    for key, value in spec.items():
        setattr(found.spec, key, value)
    return found


def endpoint_slice(*entries: tuple[str, str], port: int = 8080) -> EndpointSlice:
    """Entries are (address, state); the second address is on node-b, all others on node-a."""
    found = EndpointSlice()
    found.ports.add(name="http", port=port)
    for index, (address, state) in enumerate(entries):
        entry = found.endpoints.add(addresses=[address], nodeName="node-b" if index == 1 else "node-a")
        entry.conditions.ready = state == "ready"
        entry.conditions.serving = state in ("ready", "serving")
        entry.conditions.terminating = state in ("serving", "terminating")
    return found


def one(service: Service, *slices: EndpointSlice) -> ServicePort:
    found = service_ports([service], {"default/web": slices}, node="node-a")
    assert len(found) == 1
    return found[0]


def test_G2_only_ready_endpoints_serve() -> None:
    found = one(service(), endpoint_slice(("10.1.0.2", "ready"), ("10.1.0.3", "not ready")))
    assert found.endpoints.cluster == (Endpoint("10.1.0.2", 8080, is_local=True),)


def test_terminating_endpoints_serve_when_no_other_does() -> None:
    found = one(service(), endpoint_slice(("10.1.0.2", "serving"), ("10.1.0.3", "terminating")))
    assert [e.address for e in found.endpoints.cluster] == ["10.1.0.2"]


def test_unready_endpoints_serve_when_the_service_publishes_them() -> None:
    found = one(service(publishNotReadyAddresses=True), endpoint_slice(("10.1.0.2", "not ready")))
    assert len(found.endpoints.cluster) == 1


def test_local_endpoints_are_those_of_this_node() -> None:
    found = one(service(), endpoint_slice(("10.1.0.2", "ready"), ("10.1.0.3", "ready")))
    assert [e.address for e in found.endpoints.local] == ["10.1.0.2"]


def test_an_address_in_two_slices_counts_once() -> None:
    found = one(service(), endpoint_slice(("10.1.0.2", "ready")), endpoint_slice(("10.1.0.2", "ready")))
    assert len(found.endpoints.cluster) == 1


@pytest.mark.parametrize(
    "change",
    [{"clusterIP": "None"}, {"clusterIP": ""}, {"type": "ExternalName"}],
    ids=["headless", "not allocated", "external name"],
)
def test_services_without_an_address_are_not_served(change: dict[str, str]) -> None:
    assert service_ports([service(**change)], {}, node="node-a") == []


def test_services_of_another_proxy_are_left_alone() -> None:
    found = service()
    found.metadata.labels["service.kubernetes.io/service-proxy-name"] = "other"
    assert service_ports([found], {}, node="node-a") == []


def test_G14_affinity_lasts_three_hours_unless_said_otherwise() -> None:
    sticky = service(sessionAffinity="ClientIP")
    assert one(sticky).affinity_s == 10800
    sticky.spec.sessionAffinityConfig.clientIP.timeoutSeconds = 5
    assert one(sticky).affinity_s == 5
