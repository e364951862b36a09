"""Services: addresses, ports, types."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.unit.apiserver.fake_objects import FakeObjects, environment, info_of, read
from tiphys.api.core.v1.service_pb2 import Service
from tiphys_apimachinery.errors import Invalid
from tiphys_apiserver.registry.core.service import ServiceStrategy
from tiphys_apiserver.registry.strategy import WriteContext
from tiphys_component.clock import FakeClock

CONTEXT = WriteContext(FakeClock().now(), namespace="web")
PORT = "ports: [{port: 80}]"


def make_strategy(*services: Any, cidr: str = "10.0.0.0/24") -> ServiceStrategy:
    made = environment(FakeObjects(*services))
    return ServiceStrategy(info_of(Service), replace(made, service_cluster_ip_range=cidr))


def service(spec: str, name: str = "s") -> Any:
    return read(Service, f"{{metadata: {{name: {name}, namespace: web}}, spec: {spec}}}")


async def create(strategy: ServiceStrategy, spec: str, *, stored: bool = True) -> Any:
    obj = service(spec)
    strategy.apply_defaults(obj)
    strategy.prepare_for_create(CONTEXT, obj)
    errors = strategy.validate(CONTEXT, obj)
    if errors:
        raise Invalid.of("Service", "s", errors)
    finish = await strategy.begin_create(CONTEXT, obj)
    assert finish is not None
    await finish(stored)
    return obj


async def update(strategy: ServiceStrategy, old: Any, spec: str, *, stored: bool = True) -> Any:
    new = service(spec)
    strategy.apply_defaults(new)
    strategy.prepare_for_update(CONTEXT, new, old)
    errors = strategy.validate_update(CONTEXT, new, old)
    if errors:
        raise Invalid.of("Service", "s", errors)
    finish = await strategy.begin_update(CONTEXT, new, old)
    assert finish is not None
    await finish(stored)
    return new


async def test_G1_service_gets_an_address_of_the_range_and_defaults() -> None:
    spec = (await create(make_strategy(), f"{{{PORT}}}")).spec
    assert spec.clusterIP.startswith("10.0.0.")
    assert list(spec.clusterIPs) == [spec.clusterIP]
    assert (spec.type, spec.sessionAffinity, spec.ipFamilyPolicy) == ("ClusterIP", "None", "SingleStack")
    assert (list(spec.ipFamilies), spec.internalTrafficPolicy) == (["IPv4"], "Cluster")
    assert (spec.ports[0].targetPort.intVal, spec.ports[0].protocol) == (80, "TCP")


async def test_G10_headless_service_has_no_address() -> None:
    spec = (await create(make_strategy(), f"{{clusterIP: None, {PORT}}}")).spec
    assert (spec.clusterIP, list(spec.clusterIPs)) == ("None", ["None"])


async def test_address_asked_for_is_given_once() -> None:
    strategy = make_strategy()
    await create(strategy, f"{{clusterIP: 10.0.0.9, {PORT}}}")
    with pytest.raises(Invalid, match=r"failed to allocate IP 10\.0\.0\.9: provided IP is already allocated"):
        await create(strategy, f"{{clusterIP: 10.0.0.9, {PORT}}}")


@pytest.mark.parametrize("address", ["10.1.0.1", "10.0.0.0", "10.0.0.255"])
async def test_address_outside_the_range_is_refused(address: str) -> None:
    with pytest.raises(Invalid, match="is not in the valid range"):
        await create(make_strategy(), f"{{clusterIP: {address}, {PORT}}}")


async def test_no_address_is_given_twice_until_the_range_is_full() -> None:
    strategy = make_strategy(cidr="10.0.0.0/28")
    given = {(await create(strategy, f"{{{PORT}}}")).spec.clusterIP for _ in range(14)}
    assert len(given) == 14
    with pytest.raises(Invalid, match="range is full"):
        await create(strategy, f"{{{PORT}}}")


async def test_refused_write_leaks_nothing() -> None:
    strategy = make_strategy(cidr="10.0.0.0/30")
    for _ in range(5):
        await create(strategy, f"{{type: NodePort, {PORT}}}", stored=False)
    first = await create(strategy, f"{{clusterIP: 10.0.0.1, {PORT}}}")
    assert first.spec.clusterIP == "10.0.0.1"


async def test_port_that_is_taken_gives_the_address_back() -> None:
    strategy = make_strategy()
    await create(strategy, "{type: NodePort, clusterIP: 10.0.0.1, ports: [{port: 80, nodePort: 30080}]}")
    with pytest.raises(Invalid, match="provided port is already allocated"):
        await create(strategy, "{type: NodePort, clusterIP: 10.0.0.2, ports: [{port: 80, nodePort: 30080}]}")
    await create(strategy, f"{{clusterIP: 10.0.0.2, {PORT}}}")


async def test_deleted_service_gives_back_what_it_held() -> None:
    strategy = make_strategy()
    text = "{type: NodePort, clusterIP: 10.0.0.1, ports: [{port: 80, nodePort: 30080}]}"
    await strategy.after_delete(CONTEXT, await create(strategy, text))
    await create(strategy, text)


async def test_start_counts_stored_services() -> None:
    stored = await create(
        make_strategy(), "{type: NodePort, clusterIP: 10.0.0.1, ports: [{port: 80, nodePort: 30080}]}"
    )
    strategy = make_strategy(stored)
    await strategy.start()
    with pytest.raises(Invalid, match="already allocated"):
        await create(strategy, f"{{clusterIP: 10.0.0.1, {PORT}}}")


async def test_G11_node_port_comes_from_the_dynamic_band() -> None:
    obj = await create(make_strategy(), f"{{type: NodePort, {PORT}}}")
    assert 30086 <= obj.spec.ports[0].nodePort <= 32767
    assert obj.spec.externalTrafficPolicy == "Cluster"


async def test_G11_one_number_serves_two_protocols_of_one_service() -> None:
    ports = "[{name: a, port: 53, nodePort: 30053}, {name: b, port: 53, protocol: UDP, nodePort: 30053}]"
    obj = await create(make_strategy(), f"{{type: NodePort, ports: {ports}}}")
    assert [port.nodePort for port in obj.spec.ports] == [30053, 30053]


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        pytest.param("{}", "spec.ports: Required value", id="no ports"),
        pytest.param(
            "{ports: [{port: 0}]}",
            r"spec.ports\[0\].port: Invalid value: 0: must be between 1 and 65535, inclusive",
            id="port 0",
        ),
        pytest.param("{ports: [{port: 1}, {port: 2}]}", r"spec.ports\[0\].name: Required value", id="names"),
        pytest.param(
            "{ports: [{name: a, port: 1}, {name: b, port: 1}]}", r"spec.ports\[1\]: Duplicate value", id="same port"
        ),
        pytest.param(
            "{ports: [{port: 1, nodePort: 30000}]}",
            "nodePort: Forbidden: may not be used when `type` is",
            id="node port",
        ),
        pytest.param("{type: ExternalName}", "spec.externalName: Required value", id="no external name"),
        pytest.param(
            "{type: NodePort, clusterIP: None, ports: [{port: 1}]}", "may not be set to 'None'", id="headless"
        ),
        pytest.param("{clusterIP: 10.x, ports: [{port: 1}]}", "must be a valid IP", id="no address"),
        pytest.param(
            "{ipFamilyPolicy: RequireDualStack, ports: [{port: 1}]}", "not configured for dual-stack", id="dual stack"
        ),
        pytest.param("{ipFamilies: [IPv6], ports: [{port: 1}]}", "not configured on this cluster", id="family"),
        pytest.param(
            "{externalTrafficPolicy: Local, ports: [{port: 1}]}", "externally-accessible services", id="traffic policy"
        ),
        pytest.param("{type: NodePort, ports: [{port: 1, nodePort: 99}]}", "The range of valid ports is", id="range"),
    ],
)
async def test_bad_services_are_told_what_is_wrong(spec: str, text: str) -> None:
    with pytest.raises(Invalid, match=text):
        await create(make_strategy(), spec)


async def test_update_by_manifest_keeps_address_and_node_ports() -> None:
    strategy = make_strategy()
    old = await create(strategy, f"{{type: NodePort, {PORT}}}")
    new = await update(strategy, old, "{type: NodePort, ports: [{name: a, port: 80}, {name: b, port: 81}]}")
    assert new.spec.clusterIP == old.spec.clusterIP
    assert new.spec.ports[0].nodePort == old.spec.ports[0].nodePort
    assert new.spec.ports[1].nodePort not in (0, old.spec.ports[0].nodePort)


async def test_address_may_not_change() -> None:
    strategy = make_strategy()
    old = await create(strategy, f"{{clusterIP: 10.0.0.1, {PORT}}}")
    with pytest.raises(Invalid, match="may not change once set"):
        await update(strategy, old, f"{{clusterIP: 10.0.0.2, {PORT}}}")


async def test_change_of_type_gives_ports_and_address_back() -> None:
    strategy = make_strategy()
    old = await create(strategy, "{type: NodePort, clusterIP: 10.0.0.1, ports: [{port: 80, nodePort: 30080}]}")
    plain = await update(strategy, old, f"{{{PORT}}}")
    assert (plain.spec.ports[0].nodePort, plain.spec.externalTrafficPolicy) == (0, "")
    name = await update(strategy, plain, "{type: ExternalName, externalName: example.com}")
    assert (name.spec.clusterIP, list(name.spec.ipFamilies)) == ("", [])
    await create(strategy, "{type: NodePort, clusterIP: 10.0.0.1, ports: [{port: 80, nodePort: 30080}]}")


async def test_failed_update_keeps_what_the_stored_service_holds() -> None:
    strategy = make_strategy()
    old = await create(strategy, "{type: NodePort, ports: [{port: 80, nodePort: 30080}]}")
    await update(strategy, old, f"{{{PORT}}}", stored=False)
    with pytest.raises(Invalid, match="already allocated"):
        await create(strategy, "{type: NodePort, ports: [{port: 80, nodePort: 30080}]}")


async def test_external_name_becomes_a_service_with_an_address() -> None:
    strategy = make_strategy()
    old = await create(strategy, "{type: ExternalName, externalName: example.com}")
    assert old.spec.clusterIP == ""
    new = await update(strategy, old, f"{{{PORT}}}")
    assert new.spec.clusterIP.startswith("10.0.0.")


async def test_local_load_balancer_has_a_health_port() -> None:
    obj = await create(make_strategy(), f"{{type: LoadBalancer, externalTrafficPolicy: Local, {PORT}}}")
    assert obj.spec.healthCheckNodePort not in (0, obj.spec.ports[0].nodePort)


def test_name_must_begin_with_a_letter() -> None:
    assert make_strategy().validate_name("1a")
    assert not make_strategy().validate_name("a1")
