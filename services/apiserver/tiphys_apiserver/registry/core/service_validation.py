"""Rules of services that take more than one field.

Messages follow Kubernetes pkg/apis/core/validation and pkg/registry/core/service.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tiphys_apimachinery import validation
from tiphys_apimachinery.errors import FieldError
from tiphys_apiserver.registry.core.service_allocation import EXTERNAL_NAME, NODE_PORT_TYPES, NONE

_MAX_AFFINITY_S = 86400


def validate_service(service: Any, ip_family: str) -> Iterator[FieldError]:
    """Faults of a service in a cluster whose addresses are of the family."""
    spec = service.spec
    yield from _ports(spec)
    for key, value in spec.selector.items():
        for why in validation.is_qualified_name(key):
            yield FieldError.invalid("spec.selector", key, why)
        for why in validation.is_label_value(value):
            yield FieldError.invalid("spec.selector", value, why)
    yield from _type(spec)
    yield from _affinity(spec)
    yield from _addresses(spec)
    yield from _families(spec, ip_family)
    yield from _traffic(spec)


def _ports(spec: Any) -> Iterator[FieldError]:
    headless = spec.clusterIP == NONE
    if not spec.ports and not headless and spec.type != EXTERNAL_NAME:
        yield FieldError.required("spec.ports")
    names: set[str] = set()
    keys: set[tuple[str, int]] = set()
    node_ports: set[tuple[str, int]] = set()
    for index, port in enumerate(spec.ports):
        path = f"spec.ports[{index}]"
        if not port.name and len(spec.ports) > 1:
            yield FieldError.required(f"{path}.name")
        elif port.name:
            if port.name in names:
                yield FieldError.duplicate(f"{path}.name", port.name)
            names.add(port.name)
        yield from _target(port.targetPort, f"{path}.targetPort")
        if (port.protocol, port.port) in keys:
            yield FieldError.duplicate(path, {"port": port.port, "protocol": port.protocol})
        keys.add((port.protocol, port.port))
        if port.nodePort:
            if spec.type not in NODE_PORT_TYPES:
                yield FieldError.forbidden(f"{path}.nodePort", f"may not be used when `type` is '{spec.type}'")
            if (port.protocol, port.nodePort) in node_ports:
                yield FieldError.duplicate(f"{path}.nodePort", port.nodePort)
            node_ports.add((port.protocol, port.nodePort))


def _target(target: Any, path: str) -> Iterator[FieldError]:
    if target.type == 1:
        for why in validation.is_port_name(target.strVal):
            yield FieldError.invalid(path, target.strVal, why)
    elif not 1 <= target.intVal <= 65535:
        yield FieldError.invalid(path, target.intVal, "must be between 1 and 65535, inclusive")


def _type(spec: Any) -> Iterator[FieldError]:
    if spec.type in NODE_PORT_TYPES and spec.clusterIP == NONE:
        yield FieldError.invalid("spec.clusterIPs[0]", NONE, f"may not be set to 'None' for {spec.type} services")
    if spec.type != EXTERNAL_NAME:
        return
    if spec.clusterIP or spec.clusterIPs:
        yield FieldError.forbidden("spec.clusterIPs", "may not be set for ExternalName services")
    if not spec.externalName:
        yield FieldError.required("spec.externalName")
        return
    for why in validation.is_dns1123_subdomain(spec.externalName.removesuffix(".").lower()):
        yield FieldError.invalid("spec.externalName", spec.externalName, why)


def _affinity(spec: Any) -> Iterator[FieldError]:
    path = "spec.sessionAffinityConfig"
    if spec.sessionAffinity == "ClientIP":
        timeout_s = spec.sessionAffinityConfig.clientIP.timeoutSeconds
        if not 0 < timeout_s <= _MAX_AFFINITY_S:
            yield FieldError.invalid(
                f"{path}.clientIP.timeoutSeconds",
                timeout_s,
                f"must be greater than 0 and less than {_MAX_AFFINITY_S}",
            )
    elif spec.HasField("sessionAffinityConfig"):
        yield FieldError.forbidden(path, f"must not be set when session affinity is {spec.sessionAffinity}")


def _addresses(spec: Any) -> Iterator[FieldError]:
    listed = list(spec.clusterIPs)
    if listed and listed[0] != spec.clusterIP:
        yield FieldError.invalid("spec.clusterIPs[0]", listed, "first value must match `clusterIP`")
    if len(listed) > 2:
        yield FieldError.invalid("spec.clusterIPs", listed, "may only hold up to 2 values")
    for index, address in enumerate(listed):
        if address == NONE:
            if index:
                yield FieldError.invalid(
                    f"spec.clusterIPs[{index}]", address, "'None' must be the first and only value"
                )
            continue
        for why in validation.is_ip(address):
            yield FieldError.invalid(f"spec.clusterIPs[{index}]", address, why)
    for index, cidr in enumerate(spec.loadBalancerSourceRanges):
        path = f"spec.loadBalancerSourceRanges[{index}]"
        if spec.type != "LoadBalancer":
            yield FieldError.forbidden(
                "spec.LoadBalancerSourceRanges", "may only be used when `type` is 'LoadBalancer'"
            )
            break
        for why in validation.is_cidr(cidr.strip()):
            yield FieldError.invalid(path, cidr, why)


def _families(spec: Any, ip_family: str) -> Iterator[FieldError]:
    if spec.type == EXTERNAL_NAME:
        return
    if spec.ipFamilyPolicy == "RequireDualStack":
        yield FieldError.invalid(
            "spec.ipFamilyPolicy", spec.ipFamilyPolicy, "this cluster is not configured for dual-stack services"
        )
    for index, family in enumerate(spec.ipFamilies):
        if family != ip_family:
            yield FieldError.invalid(f"spec.ipFamilies[{index}]", family, "not configured on this cluster")
        elif family in spec.ipFamilies[:index]:
            yield FieldError.duplicate(f"spec.ipFamilies[{index}]", family)


def _traffic(spec: Any) -> Iterator[FieldError]:
    external = spec.type in NODE_PORT_TYPES or bool(spec.externalIPs and spec.type == "ClusterIP")
    if spec.externalTrafficPolicy and not external:
        yield FieldError.invalid(
            "spec.externalTrafficPolicy",
            spec.externalTrafficPolicy,
            "may only be set for externally-accessible services",
        )
    if spec.healthCheckNodePort and not (spec.type == "LoadBalancer" and spec.externalTrafficPolicy == "Local"):
        yield FieldError.invalid(
            "spec.healthCheckNodePort",
            spec.healthCheckNodePort,
            "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'",
        )
    for name in ("allocateLoadBalancerNodePorts", "loadBalancerClass"):
        if spec.HasField(name) and spec.type != "LoadBalancer":
            yield FieldError.forbidden(f"spec.{name}", "may only be used when `type` is 'LoadBalancer'")


def validate_service_update(new: Any, old: Any) -> Iterator[FieldError]:
    """What a change may not touch: the address, unless the service becomes or was an ExternalName."""
    if EXTERNAL_NAME in (new.spec.type, old.spec.type):
        return
    if old.spec.clusterIP and new.spec.clusterIP != old.spec.clusterIP:
        yield FieldError.invalid("spec.clusterIPs[0]", list(new.spec.clusterIPs), "may not change once set")
    before, after = list(old.spec.ipFamilies), list(new.spec.ipFamilies)
    if before and after and before[0] != after[0]:
        yield FieldError.invalid("spec.ipFamilies[0]", after[0], "may not change once set")
    balanced = old.spec.type == new.spec.type == "LoadBalancer" and old.spec.HasField("loadBalancerClass")
    if balanced and new.spec.loadBalancerClass != old.spec.loadBalancerClass:
        yield FieldError.invalid("spec.loadBalancerClass", new.spec.loadBalancerClass, "may not change once set")
