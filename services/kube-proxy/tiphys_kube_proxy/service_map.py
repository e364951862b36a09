"""What the data plane must do, as values: one ServicePort a port of a Service, with its endpoints. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address

from tiphys.api.core.v1.service_pb2 import Service
from tiphys.api.discovery.v1.discovery_pb2 import EndpointSlice

SERVICE_NAME_LABEL = "kubernetes.io/service-name"
# Services with this label are another proxy's.
PROXY_NAME_LABEL = "service.kubernetes.io/service-proxy-name"
DEFAULT_AFFINITY_S = 10800


@dataclass(frozen=True, slots=True, order=True)
class Endpoint:
    """Where traffic may go: an address and port of one pod."""

    address: str
    port: int
    is_local: bool = False


@dataclass(frozen=True, slots=True)
class Endpoints:
    """The endpoints of one port, by what they are good for.

    cluster: for traffic that may go to any node; local: only those on this node. Each is the ready
    ones, or where none is ready the ones that still serve while they terminate.
    """

    cluster: tuple[Endpoint, ...] = ()
    local: tuple[Endpoint, ...] = ()


@dataclass(frozen=True, slots=True)
class ServicePort:
    """One port of a Service as a data plane sees it; protocol in lower case."""

    namespace: str
    name: str
    port_name: str
    protocol: str
    port: int
    cluster_ips: tuple[str, ...]
    node_port: int
    external_ips: tuple[str, ...]
    affinity_s: int
    internal_local: bool
    external_local: bool
    endpoints: Endpoints

    @property
    def key(self) -> str:
        """ns/name/protocol/port name; unique."""
        return f"{self.namespace}/{self.name}/{self.protocol}/{self.port_name}"


def service_ports(
    services: Iterable[Service], slices: Mapping[str, Sequence[EndpointSlice]], *, node: str
) -> list[ServicePort]:
    """Every port to serve, ordered by key. `slices` holds the EndpointSlices by "namespace/service"."""
    found = []
    for service in services:
        if not _is_ours(service):
            continue
        own = slices.get(f"{service.metadata.namespace}/{service.metadata.name}", ())
        found += [_service_port(service, index, own, node) for index in range(len(service.spec.ports))]
    return sorted(found, key=lambda p: p.key)


def _is_ours(service: Service) -> bool:
    if service.spec.type == "ExternalName" or PROXY_NAME_LABEL in service.metadata.labels:
        return False
    return service.spec.clusterIP not in ("", "None")


def _service_port(service: Service, index: int, slices: Sequence[EndpointSlice], node: str) -> ServicePort:
    spec, port = service.spec, service.spec.ports[index]
    sticky = spec.sessionAffinity == "ClientIP"
    configured = spec.sessionAffinityConfig.clientIP.timeoutSeconds
    balancers = [i.ip for i in service.status.loadBalancer.ingress if i.ip and i.ipMode != "Proxy"]
    return ServicePort(
        namespace=service.metadata.namespace,
        name=service.metadata.name,
        port_name=port.name,
        protocol=(port.protocol or "TCP").lower(),
        port=port.port,
        cluster_ips=tuple(spec.clusterIPs) or (spec.clusterIP,),
        node_port=port.nodePort,
        external_ips=tuple(sorted({*spec.externalIPs, *balancers})),
        affinity_s=(configured or DEFAULT_AFFINITY_S) if sticky else 0,
        internal_local=spec.internalTrafficPolicy == "Local",
        external_local=spec.externalTrafficPolicy == "Local",
        endpoints=_endpoints(slices, port.name, node, every=spec.publishNotReadyAddresses),
    )


def _endpoints(slices: Sequence[EndpointSlice], port_name: str, node: str, *, every: bool) -> Endpoints:
    ready: set[Endpoint] = set()
    terminating: set[Endpoint] = set()
    for endpoint_slice in slices:
        number = next((p.port for p in endpoint_slice.ports if p.name == port_name), 0)
        if not number:
            continue
        for entry in endpoint_slice.endpoints:
            conditions = entry.conditions
            is_ready = every or not conditions.HasField("ready") or conditions.ready
            target = ready if is_ready else terminating
            if not is_ready and not (conditions.serving and conditions.terminating):
                continue
            target.update(Endpoint(a, number, entry.nodeName == node) for a in entry.addresses)
    return Endpoints(
        cluster=tuple(sorted(ready or terminating)),
        local=tuple(sorted({e for e in ready if e.is_local} or {e for e in terminating if e.is_local})),
    )


def family(address: str) -> int:
    """4 or 6."""
    return ip_address(address).version
