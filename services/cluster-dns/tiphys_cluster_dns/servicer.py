"""The gRPC face of cluster-dns."""

from __future__ import annotations

from typing import Any

import dns.exception
import dns.message
import dns.rcode
import dns.rdatatype

from tiphys.clusterdns.v1 import clusterdns_pb2, clusterdns_pb2_grpc
from tiphys_apimachinery.errors import BadRequest
from tiphys_cluster_dns.chain import Chain
from tiphys_component.rpc import Servicer


class ClusterDnsServicer(clusterdns_pb2_grpc.ClusterDnsServiceServicer):
    """Serves tiphys.clusterdns.v1.ClusterDnsService."""

    def __init__(self, chain: Chain) -> None:
        self._chain = chain

    async def Lookup(self, request: clusterdns_pb2.LookupRequest, context: Any) -> clusterdns_pb2.LookupResponse:
        """What a client of the DNS port would get. Raises BadRequest for what is no name or type."""
        try:
            query = dns.message.make_query(request.name.rstrip(".") + ".", request.type or "A")
        except (dns.exception.DNSException, ValueError) as err:
            raise BadRequest(f"name {request.name!r}, type {request.type!r}: {err}") from err
        found = await self._chain.resolve(query)
        return clusterdns_pb2.LookupResponse(
            rcode=dns.rcode.to_text(found.message.rcode()),
            records=[line for rrset in found.message.answer for line in rrset.to_text().split("\n")],
            plugin=found.plugin,
        )


def servicer(chain: Chain) -> Servicer:
    """What the server registers."""
    name = clusterdns_pb2.DESCRIPTOR.services_by_name["ClusterDnsService"].full_name
    add = clusterdns_pb2_grpc.add_ClusterDnsServiceServicer_to_server
    return Servicer((name,), lambda server: add(ClusterDnsServicer(chain), server))
