"""The gRPC face of the CNI service."""

from __future__ import annotations

import asyncio

import grpc

from tiphys.cni.v1 import cni_pb2, cni_pb2_grpc
from tiphys_cni.main import bridge
from tiphys_cni.netlink import RouteSocket
from tiphys_component.rpc import Servicer
from tiphys_sdk.cni.conf import Call

_PREFIX = "cni "


def attachments(network: str) -> list[cni_pb2.Attachment]:
    """What bridge ports note about themselves; network "" means all. Blocks for one netlink dump."""
    found = []
    with RouteSocket() as host:
        for link in host.links():
            words = link.alias.removeprefix(_PREFIX).split(" ")
            if link.alias.startswith(_PREFIX) and len(words) == 3 and network in ("", words[0]):
                found.append(
                    cni_pb2.Attachment(
                        network=words[0], container_id=words[1], ifname=words[2], host_interface=link.name
                    )
                )
    return found


class CniServicer(cni_pb2_grpc.CniServiceServicer):
    """Serves tiphys.cni.v1.CniService."""

    async def ListAttachments(
        self,
        request: cni_pb2.ListAttachmentsRequest,
        context: grpc.aio.ServicerContext[cni_pb2.ListAttachmentsRequest, cni_pb2.ListAttachmentsResponse],
    ) -> cni_pb2.ListAttachmentsResponse:
        """Every attachment, or those of one network."""
        return cni_pb2.ListAttachmentsResponse(attachments=await asyncio.to_thread(attachments, request.network))

    async def CollectGarbage(
        self,
        request: cni_pb2.CollectGarbageRequest,
        context: grpc.aio.ServicerContext[cni_pb2.CollectGarbageRequest, cni_pb2.CollectGarbageResponse],
    ) -> cni_pb2.CollectGarbageResponse:
        """Does what the verb GC does, without a runtime that knows the verb."""
        before = await asyncio.to_thread(attachments, request.network)
        valid = [{"containerID": a.container_id, "ifname": a.ifname} for a in request.valid]
        conf = {
            "cniVersion": "1.1.0",
            "name": request.network,
            "type": "bridge",
            "ipam": {"type": "host-local", "ranges": []},
            "cni.dev/valid-attachments": valid,
        }
        call = Call("GC", "", "", -1, "", "", "", conf)
        await asyncio.to_thread(bridge.collect, call)
        after = await asyncio.to_thread(attachments, request.network)
        return cni_pb2.CollectGarbageResponse(removed=len(before) - len(after))


def servicer() -> Servicer:
    """What the server registers."""
    name = cni_pb2.DESCRIPTOR.services_by_name["CniService"].full_name
    return Servicer((name,), lambda server: cni_pb2_grpc.add_CniServiceServicer_to_server(CniServicer(), server))
