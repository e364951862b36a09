"""The server makes itself a Service, and follows its own address."""

from __future__ import annotations

from tiphys.api.core.v1.service_pb2 import Service
from tiphys.api.discovery.v1.discovery_pb2 import EndpointSlice
from tiphys_client.fake import FakeClient
from tiphys_cluster_dns.published import NAME, NAMESPACE, publish


async def test_publishing_again_changes_nothing() -> None:
    client = FakeClient()
    await publish(client, cluster_ip="10.96.0.10", address="198.18.0.1", port=53)
    first = client.stored(EndpointSlice, NAME, NAMESPACE)
    await publish(client, cluster_ip="10.96.0.10", address="198.18.0.1", port=53)
    assert client.stored(EndpointSlice, NAME, NAMESPACE) == first
    assert client.stored(Service, NAME, NAMESPACE).spec.clusterIP == "10.96.0.10"


async def test_a_new_address_takes_the_old_ones_place() -> None:
    client = FakeClient()
    await publish(client, cluster_ip="10.96.0.10", address="198.18.0.1", port=53)
    await publish(client, cluster_ip="10.96.0.10", address="198.18.0.9", port=5353)
    found = client.stored(EndpointSlice, NAME, NAMESPACE)
    assert [list(e.addresses) for e in found.endpoints] == [["198.18.0.9"]]
    assert {p.port for p in found.ports} == {5353}
