"""The gRPC face of the CNI service."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from tiphys.cni.v1 import cni_pb2, cni_pb2_grpc
from tiphys_cni import conflist, garbage, readiness
from tiphys_cni.turns import Turns
from tiphys_component.rpc import Servicer
from tiphys_sdk.cni.conf import Attachment
from tiphys_sdk.cni.spec import ErrorCode


@dataclass(frozen=True, slots=True)
class Place:
    """Where the node's network is: the folder of the configuration list, None where we write none; and of plugins.

    waits_for says for what the list waits while it isn't there.
    """

    conf_dir: Path | None
    bin_dir: Path | None = None
    waits_for: str = "the node's pod range is not known yet"


class CniServicer(cni_pb2_grpc.CniServiceServicer):
    """Serves tiphys.cni.v1.CniService."""

    def __init__(self, place: Place, turns: Turns) -> None:
        self._place = place
        self._conf_dir = place.conf_dir
        self._turns = turns

    async def ListAttachments(
        self,
        request: cni_pb2.ListAttachmentsRequest,
        context: grpc.aio.ServicerContext[cni_pb2.ListAttachmentsRequest, cni_pb2.ListAttachmentsResponse],
    ) -> cni_pb2.ListAttachmentsResponse:
        """The attachments of one network; without its name those of the network that we configured."""
        return cni_pb2.ListAttachmentsResponse(attachments=await asyncio.to_thread(self._attachments, request.network))

    async def CollectGarbage(
        self,
        request: cni_pb2.CollectGarbageRequest,
        context: grpc.aio.ServicerContext[cni_pb2.CollectGarbageRequest, cni_pb2.CollectGarbageResponse],
    ) -> cni_pb2.CollectGarbageResponse:
        """Does what the verb GC does, without a runtime that knows the verb."""
        network = await asyncio.to_thread(self._network, request.network)
        if request.gone:
            removed = await asyncio.to_thread(garbage.free, network, _attachments(request.gone), self._turns)
            return cni_pb2.CollectGarbageResponse(removed=removed)
        before = await asyncio.to_thread(garbage.kept, network)
        await asyncio.to_thread(garbage.collect, network, _attachments(request.valid))
        after = await asyncio.to_thread(garbage.kept, network)
        return cni_pb2.CollectGarbageResponse(removed=len(before - after))

    async def GetStatus(
        self,
        request: cni_pb2.GetStatusRequest,
        context: grpc.aio.ServicerContext[cni_pb2.GetStatusRequest, cni_pb2.GetStatusResponse],
    ) -> cni_pb2.GetStatusResponse:
        """Does what the verb STATUS does."""
        place = self._place
        if place.conf_dir is None:
            return cni_pb2.GetStatusResponse(ready=True)
        found = await asyncio.to_thread(readiness.trouble, place.conf_dir, place.bin_dir, place.waits_for)
        if found is None:
            return cni_pb2.GetStatusResponse(ready=True)
        is_ready = found.code == ErrorCode.ADDRESSES_EXHAUSTED
        return cni_pb2.GetStatusResponse(ready=is_ready, message=found.message, code=found.code)

    def _attachments(self, name: str) -> list[cni_pb2.Attachment]:
        own = conflist.read(self._conf_dir) if self._conf_dir is not None else None
        network = self._network(name or (str(own["name"]) if own is not None else conflist.NETWORK))
        interfaces = garbage.ports(str(network["name"]))
        return [
            cni_pb2.Attachment(
                network=str(network["name"]),
                container_id=one.container_id,
                ifname=one.ifname,
                host_interface=interfaces.get(one, ""),
            )
            for one in sorted(garbage.kept(network), key=lambda one: (one.container_id, one.ifname))
        ]

    def _network(self, name: str) -> Mapping[str, Any]:
        """The configuration of a network: the one we wrote, or for another's what bridge keeps by itself."""
        found = conflist.read(self._conf_dir) if self._conf_dir is not None else None
        if found is not None and found["name"] == name:
            return found
        return {"name": name, "plugins": [{"type": "bridge", "ipam": {"type": "host-local", "ranges": []}}]}


def _attachments(named: Iterable[cni_pb2.Attachment]) -> list[Attachment]:
    return [Attachment(one.container_id, one.ifname) for one in named]


def servicer(place: Place, turns: Turns) -> Servicer:
    """What the server registers; turns are those of the listener."""
    name = cni_pb2.DESCRIPTOR.services_by_name["CniService"].full_name
    made = CniServicer(place, turns)
    return Servicer((name,), lambda server: cni_pb2_grpc.add_CniServiceServicer_to_server(made, server))
