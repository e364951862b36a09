"""Makes the DNS server the Service kube-system/kube-dns, with an EndpointSlice that names this process."""

from __future__ import annotations

import contextlib

from tiphys.api.core.v1.service_pb2 import Service
from tiphys.api.discovery.v1.discovery_pb2 import EndpointSlice
from tiphys_apimachinery.errors import AlreadyExists, Conflict, NotFound
from tiphys_client.client import Client
from tiphys_cluster_dns.zone import SERVICE_NAME_LABEL

NAMESPACE = "kube-system"
NAME = "kube-dns"
_PROTOCOLS = (("dns", "UDP"), ("dns-tcp", "TCP"))


def dns_service(cluster_ip: str) -> Service:
    """The Service with its fixed address. It has no selector: its endpoints are written here."""
    found = Service()
    found.metadata.name, found.metadata.namespace = NAME, NAMESPACE
    found.metadata.labels.update({"k8s-app": "kube-dns", "kubernetes.io/name": "CoreDNS"})
    found.spec.clusterIP = cluster_ip
    for name, protocol in _PROTOCOLS:
        found.spec.ports.add(name=name, protocol=protocol, port=53).targetPort.intVal = 53
    return found


def dns_slice(address: str, port: int) -> EndpointSlice:
    """The endpoints: where this process listens."""
    found = EndpointSlice(addressType="IPv4" if ":" not in address else "IPv6")
    found.metadata.name, found.metadata.namespace = NAME, NAMESPACE
    found.metadata.labels[SERVICE_NAME_LABEL] = NAME
    found.metadata.labels["endpointslice.kubernetes.io/managed-by"] = "cluster-dns.tiphys"
    found.endpoints.add(addresses=[address]).conditions.ready = True
    for name, protocol in _PROTOCOLS:
        found.ports.add(name=name, protocol=protocol, port=port)
    return found


async def publish(client: Client, *, cluster_ip: str, address: str, port: int) -> None:
    """Ensures both objects; what is there already and right stays as it is. Raises APIError."""
    try:
        # What is there stays: its address can't change, and the rest is the user's to change. Asked for first, because
        # a second Service with the address would be refused for that before its name is looked at.
        await client.get(Service, NAME, NAMESPACE)
    except NotFound:
        with contextlib.suppress(AlreadyExists):
            await client.create(dns_service(cluster_ip))
    await _ensure_slice(client, dns_slice(address, port))


async def _ensure_slice(client: Client, wanted: EndpointSlice) -> None:
    while True:
        try:
            await client.create(wanted)
            return
        except AlreadyExists:
            found = await client.get(EndpointSlice, NAME, NAMESPACE)
        if found.endpoints == wanted.endpoints and found.ports == wanted.ports:
            return
        del found.endpoints[:], found.ports[:]
        found.endpoints.extend(wanted.endpoints)
        found.ports.extend(wanted.ports)
        try:
            await client.update(found)
            return
        except Conflict:
            continue
