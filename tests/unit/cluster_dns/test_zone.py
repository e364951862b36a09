"""Names and their records, after the specification of DNS for Kubernetes."""

from __future__ import annotations

import pytest

from tiphys.api.core.v1.service_pb2 import Service
from tiphys.api.discovery.v1.discovery_pb2 import EndpointSlice
from tiphys_cluster_dns.zone import Record, Zone, service_names


def service(name: str = "web", *, cluster_ip: str = "10.96.0.9", **spec: object) -> Service:
    found = Service()
    found.metadata.name, found.metadata.namespace = name, "shop"
    found.spec.clusterIP = cluster_ip
    if cluster_ip not in ("", "None"):
        found.spec.clusterIPs.append(cluster_ip)
    found.spec.ports.add(name="http", port=80, protocol="TCP")
    for key, value in spec.items():
        setattr(found.spec, key, value)
    return found


def endpoint_slice(*addresses: str, hostname: str = "", ready: bool = True) -> EndpointSlice:
    found = EndpointSlice()
    found.ports.add(name="http", port=8080, protocol="TCP")
    for address in addresses:
        found.endpoints.add(addresses=[address], hostname=hostname).conditions.ready = ready
    return found


def zone(*entries: tuple[Service, list[EndpointSlice]]) -> Zone:
    found = Zone("cluster.local")
    for one, slices in entries:
        key = f"{one.metadata.namespace}/{one.metadata.name}"
        found.set_service(key, service_names(one, slices, found.domain))
    return found


def test_a_service_is_its_cluster_address() -> None:
    found = zone((service(), []))
    assert found.lookup("web.shop.svc.cluster.local", "A") == (Record("A", "10.96.0.9"),)


def test_a_name_without_that_type_is_empty_and_no_name_is_none() -> None:
    found = zone((service(), []))
    assert found.lookup("web.shop.svc.cluster.local", "AAAA") == ()
    assert found.lookup("nobody.shop.svc.cluster.local", "A") is None


@pytest.mark.parametrize("name", ["shop.svc.cluster.local", "svc.cluster.local", "_tcp.web.shop.svc.cluster.local"])
def test_names_in_between_exist_and_are_empty(name: str) -> None:
    assert zone((service(), [])).lookup(name, "A") == ()


def test_a_named_port_is_an_srv_record() -> None:
    found = zone((service(), []))
    wanted = (Record("SRV", "0 100 80 web.shop.svc.cluster.local."),)
    assert found.lookup("_http._tcp.web.shop.svc.cluster.local", "SRV") == wanted


def test_a_cluster_address_leads_back_to_its_name() -> None:
    found = zone((service(), []))
    wanted = (Record("PTR", "web.shop.svc.cluster.local."),)
    assert found.lookup("9.0.96.10.in-addr.arpa", "PTR") == wanted
    assert found.is_inside("9.0.96.10.in-addr.arpa")
    assert not found.is_inside("1.1.1.1.in-addr.arpa")


def test_G10_a_headless_service_is_its_ready_pods() -> None:
    slices = [endpoint_slice("10.1.0.2", "10.1.0.3"), endpoint_slice("10.1.0.4", ready=False)]
    found = zone((service(cluster_ip="None"), slices))
    records = found.lookup("web.shop.svc.cluster.local", "A") or ()
    assert {r.value for r in records} == {"10.1.0.2", "10.1.0.3"}
    assert found.lookup("10-1-0-2.web.shop.svc.cluster.local", "A") == (Record("A", "10.1.0.2"),)
    assert len(found.lookup("_http._tcp.web.shop.svc.cluster.local", "SRV") or ()) == 2


def test_unready_pods_are_there_when_the_service_publishes_them() -> None:
    one = service(cluster_ip="None", publishNotReadyAddresses=True)
    found = zone((one, [endpoint_slice("10.1.0.4", ready=False)]))
    assert found.lookup("web.shop.svc.cluster.local", "A") == (Record("A", "10.1.0.4"),)


def test_a_pod_with_hostname_has_a_name_of_its_own() -> None:
    found = zone((service(cluster_ip="None"), [endpoint_slice("10.1.0.2", hostname="web-0")]))
    assert found.lookup("web-0.web.shop.svc.cluster.local", "A") == (Record("A", "10.1.0.2"),)
    wanted = (Record("SRV", "0 100 8080 web-0.web.shop.svc.cluster.local."),)
    assert found.lookup("_http._tcp.web.shop.svc.cluster.local", "SRV") == wanted


def test_a_headless_service_without_pods_exists() -> None:
    assert zone((service(cluster_ip="None"), [])).lookup("web.shop.svc.cluster.local", "A") == ()


def test_G13_an_external_name_is_a_cname_for_every_type() -> None:
    one = service(cluster_ip="", type="ExternalName", externalName="example.com")
    wanted = (Record("CNAME", "example.com."),)
    assert zone((one, [])).lookup("web.shop.svc.cluster.local", "A") == wanted


@pytest.mark.parametrize(
    ("label", "wanted"),
    [("10-1-0-2", Record("A", "10.1.0.2")), ("fd00--2", Record("AAAA", "fd00::2")), ("no-address", None)],
)
def test_pod_names_are_addresses(label: str, wanted: Record | None) -> None:
    found = zone().lookup(f"{label}.shop.pod.cluster.local", wanted.kind if wanted else "A")
    assert found == ((wanted,) if wanted else None)


def test_the_version_of_the_schema_is_told() -> None:
    assert zone().lookup("dns-version.cluster.local", "TXT") == (Record("TXT", '"1.1.0"'),)


def test_a_removed_service_takes_only_its_own_names_along() -> None:
    found = zone((service("a"), []), (service("b", cluster_ip="10.96.0.10"), []))
    found.set_service("shop/a", {})
    assert found.lookup("a.shop.svc.cluster.local", "A") is None
    assert found.lookup("shop.svc.cluster.local", "A") == ()
    found.set_service("shop/b", {})
    assert found.lookup("shop.svc.cluster.local", "A") is None
