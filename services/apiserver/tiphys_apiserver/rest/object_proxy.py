"""The proxy subresource of pods and services: any HTTP request to a port behind them."""

from __future__ import annotations

import ipaddress
import ssl
from dataclasses import dataclass
from typing import Any

from tiphys.api.core.v1 import pod_pb2, service_pb2
from tiphys.api.discovery.v1 import discovery_pb2
from tiphys_apimachinery.errors import BadRequest, Forbidden, ServiceUnavailable
from tiphys_apiserver.registry.objects import ObjectAccess
from tiphys_apiserver.rest.tunnel import Target


@dataclass(frozen=True, slots=True)
class Address:
    """NAME, NAME:PORT or SCHEME:NAME:PORT as it stands in the path; port may be a name, or empty."""

    scheme: str
    name: str
    port: str


def parse_address(text: str) -> Address:
    """Raises BadRequest for what is none of the three forms."""
    parts = text.split(":")
    match parts:
        case [name]:
            return Address("http", name, "")
        case [name, port]:
            return Address("http", name, port)
        case [scheme, name, port] if scheme in ("", "http", "https"):
            return Address(scheme or "http", name, port)
    raise BadRequest(f'invalid address "{text}": must be NAME, NAME:PORT or SCHEME:NAME:PORT')


async def pod_target(objects: ObjectAccess, namespace: str, text: str, path: str) -> Target:
    """Where a request to a pod goes. Raises NotFound, BadRequest, Forbidden, ServiceUnavailable."""
    address = parse_address(text)
    pod: Any = await objects.get(pod_pb2.Pod, address.name, namespace)
    port = address.port
    ports = [one for container in pod.spec.containers for one in container.ports]
    if not port:
        number = ports[0].containerPort if ports else 80
    elif port.isdigit():
        number = int(port)
    else:
        number = next((one.containerPort for one in ports if one.name == port), 0)
        if not number:
            raise BadRequest(f"pod {address.name} has no port named {port}")
    return _target(address, pod.status.podIP, number, path=path, what=f"pod {address.name}")


async def service_target(objects: ObjectAccess, namespace: str, text: str, path: str) -> Target:
    """Where a request to a service goes: a ready endpoint. Raises NotFound, BadRequest, ServiceUnavailable."""
    address = parse_address(text)
    service: Any = await objects.get(service_pb2.Service, address.name, namespace)
    wanted = [one for one in service.spec.ports if address.port in ("", one.name, str(one.port))]
    if not wanted:
        raise BadRequest(f"service {address.name} has no port {address.port}")
    slices: list[Any] = await objects.list(
        discovery_pb2.EndpointSlice, namespace, label_selector=f"kubernetes.io/service-name={address.name}"
    )
    for piece in slices:
        number = next((one.port for one in piece.ports if one.name == wanted[0].name), 0)
        for endpoint in piece.endpoints:
            if (
                number
                and endpoint.addresses
                and (endpoint.conditions.ready or not endpoint.conditions.HasField("ready"))
            ):
                return _target(address, endpoint.addresses[0], number, path=path, what=f"service {address.name}")
    raise ServiceUnavailable(f'no endpoints available for service "{address.name}"')


def _target(address: Address, host: str, port: int, *, path: str, what: str) -> Target:
    if not host:
        raise ServiceUnavailable(f"{what} has no address yet")
    found = ipaddress.ip_address(host)
    if found.is_loopback or found.is_link_local or found.is_unspecified:
        # Status and slices are written by others: no proxy to the server's own loopback or metadata services.
        raise Forbidden.of("", "", f"{what} has address {host}, which may not be reached by proxy")
    tls = None
    if address.scheme == "https":
        # As kube-apiserver: a pod's certificate is of its own making.
        tls = ssl.create_default_context()
        tls.check_hostname = False
        tls.verify_mode = ssl.CERT_NONE
    return Target(host, port, path, tls)
