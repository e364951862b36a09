"""The gRPC face of the CNI service."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import grpc

from tiphys.cni.v1 import cni_pb2, cni_pb2_grpc
from tiphys_cni import conflist
from tiphys_cni.netlink import RouteSocket
from tiphys_cni.registry import PLUGINS
from tiphys_component.rpc import Servicer
from tiphys_sdk.cni.conf import VALID_ATTACHMENTS, Attachment, Call
from tiphys_sdk.cni.spec import NEWEST_VERSION

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


def collect(network: Mapping[str, Any], valid: Iterable[Attachment]) -> None:
    """Has each plugin of a configuration list do the verb GC, the last of the chain first. Blocks. Raises CNIError."""
    entries = [{"containerID": one.container_id, "ifname": one.ifname} for one in valid]
    for plugin in reversed(network["plugins"]):
        conf = {**plugin, "cniVersion": NEWEST_VERSION, "name": network["name"], VALID_ATTACHMENTS: entries}
        PLUGINS[plugin["type"]].collect(Call("GC", "", "", -1, "", "", "", conf))


class CniServicer(cni_pb2_grpc.CniServiceServicer):
    """Serves tiphys.cni.v1.CniService. conf_dir has the configuration list that we write; None where we write none."""

    def __init__(self, conf_dir: Path | None) -> None:
        self._conf_dir = conf_dir

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
        network = await asyncio.to_thread(self._network, request.network)
        valid = [Attachment(one.container_id, one.ifname) for one in request.valid]
        await asyncio.to_thread(collect, network, valid)
        after = await asyncio.to_thread(attachments, request.network)
        return cni_pb2.CollectGarbageResponse(removed=len(before) - len(after))

    def _network(self, name: str) -> Mapping[str, Any]:
        """The configuration of a network: the one we wrote, or for another's what bridge keeps by itself."""
        found = conflist.read(self._conf_dir) if self._conf_dir is not None else None
        if found is not None and found["name"] == name:
            return found
        return {"name": name, "plugins": [{"type": "bridge", "ipam": {"type": "host-local", "ranges": []}}]}


def servicer(conf_dir: Path | None) -> Servicer:
    """What the server registers."""
    name = cni_pb2.DESCRIPTOR.services_by_name["CniService"].full_name
    made = CniServicer(conf_dir)
    return Servicer((name,), lambda server: cni_pb2_grpc.add_CniServiceServicer_to_server(made, server))
