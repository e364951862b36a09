"""The legacy Endpoints of a Service: subsets of addresses that have the same ports; pure.

Source: kubernetes pkg/controller/endpoint/endpoints_controller.go and pkg/api/v1/endpoints/util.go.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Final

from tiphys.api.core.v1 import endpoints_pb2, service_pb2
from tiphys_controller_manager.backends import (
    HEADLESS_LABEL,
    address,
    families,
    hostname,
    is_headless,
    reference,
    target_port,
)
from tiphys_controller_manager.pods import PodView

MANAGED_BY: Final = "endpoints.kubernetes.io/managed-by"
MANAGER: Final = "endpoint-controller"
OVER_CAPACITY: Final = "endpoints.kubernetes.io/over-capacity"
# Source: endpoints_controller.go, maxCapacity.
CAPACITY: Final = 1000

# Name, protocol, number and application protocol; and an address with whether it is ready.
_Port = tuple[str, str, int, str]
_Place = tuple[str, bool]


def endpoints_of(service: service_pb2.Service, pods: Iterable[PodView]) -> endpoints_pb2.Endpoints:
    """The Endpoints that a Service with these pods should have."""
    made = endpoints_pb2.Endpoints()
    made.metadata.name, made.metadata.namespace = service.metadata.name, service.metadata.namespace
    made.metadata.labels.update({k: v for k, v in service.metadata.labels.items() if k != HEADLESS_LABEL})
    made.metadata.labels[MANAGED_BY] = MANAGER
    if is_headless(service):
        made.metadata.labels[HEADLESS_LABEL] = ""
    addresses, places = _places(service, pods)
    kept = _within_capacity(addresses)
    if len(kept) < len(addresses):
        made.metadata.annotations[OVER_CAPACITY] = "truncated"
    made.subsets.extend(_subsets({port: found & kept for port, found in places.items()}, addresses))
    return made


def _places(
    service: service_pb2.Service, pods: Iterable[PodView]
) -> tuple[dict[_Place, endpoints_pb2.EndpointAddress], dict[_Port | None, set[_Place]]]:
    """Every address, and those at which each port is served; None stands for a headless Service without ports."""
    unready_too = service.spec.publishNotReadyAddresses
    family = families(service)[0]
    addresses: dict[_Place, endpoints_pb2.EndpointAddress] = {}
    places: dict[_Port | None, set[_Place]] = defaultdict(set)
    for pod in pods:
        ip = address(pod, family)
        if pod.is_finished or ip is None or (pod.is_deleting and not unready_too):
            continue
        place = (ip, unready_too or pod.is_ready)
        ports = [
            (port.name, port.protocol or "TCP", number, port.appProtocol)
            for port in service.spec.ports
            if (number := target_port(pod, port)) is not None
        ]
        if not ports and not (is_headless(service) and not service.spec.ports):
            continue
        addresses[place] = _address(service, pod, ip)
        for served in ports or (None,):
            places[served].add(place)
    return addresses, places


def _subsets(
    places: dict[_Port | None, set[_Place]], addresses: dict[_Place, endpoints_pb2.EndpointAddress]
) -> list[endpoints_pb2.EndpointSubset]:
    """One subset for all ports that are served at exactly the same addresses."""
    grouped: dict[frozenset[_Place], list[_Port | None]] = defaultdict(list)
    for port, found in places.items():
        if found:
            grouped[frozenset(found)].append(port)
    made = []
    for found_at, ports in grouped.items():
        subset = endpoints_pb2.EndpointSubset()
        for place in sorted(found_at):
            (subset.addresses if place[1] else subset.notReadyAddresses).append(addresses[place])
        for name, protocol, number, application in sorted(port for port in ports if port is not None):
            item = subset.ports.add(name=name, port=number, protocol=protocol)
            if application:
                item.appProtocol = application
        made.append(subset)
    return sorted(made, key=lambda subset: subset.SerializeToString(deterministic=True))


def _within_capacity(addresses: Iterable[_Place]) -> set[_Place]:
    """Ready addresses first where there are too many."""
    return set(sorted(addresses, key=lambda place: (not place[1], place[0]))[:CAPACITY])


def _address(service: service_pb2.Service, pod: PodView, ip: str) -> endpoints_pb2.EndpointAddress:
    made = endpoints_pb2.EndpointAddress(ip=ip, targetRef=reference(pod))
    if pod.node:
        made.nodeName = pod.node
    name = hostname(pod, service)
    if name:
        made.hostname = name
    return made
