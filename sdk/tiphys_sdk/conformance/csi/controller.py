"""Steps on volumes that come, are looked at, grow, and go."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import grpc.aio

from tiphys.thirdparty.csi.v1 import csi_pb2
from tiphys_sdk.conformance.bench import Failure, expect, expect_code
from tiphys_sdk.conformance.csi.session import UNKNOWN_ID, ControllerRpc, Session, capability

_INVALID = grpc.StatusCode.INVALID_ARGUMENT
_PAGE = 2


async def refused(session: Session, service: Any, name: str, request: Any, *codes: grpc.StatusCode) -> None:
    """A call that must fail with one of the codes, asked twice."""
    for _ in range(2):
        await expect_code(getattr(service, name)(request, timeout=session.call_limit_s), *codes)


async def volume_steps(session: Session) -> None:
    """Creating and deleting."""
    for step in (
        _create_checks,
        _create_twice,
        _create_differently,
        _create_sizes,
        _create_at_once,
        _delete,
        _validate,
        _list,
        _capacity,
        _get,
        _expand,
        _expand_checks,
    ):
        await step(session)


async def _create_checks(session: Session) -> None:
    async with session.bench.step("create volume: missing fields", "without name or capabilities: INVALID_ARGUMENT"):
        session.require(ControllerRpc.CREATE_DELETE_VOLUME)
        nameless = session.request("nameless")
        nameless.name = ""
        await refused(session, session.controller, "CreateVolume", nameless, _INVALID)
        bare = session.request("bare")
        del bare.volume_capabilities[:]
        await refused(session, session.controller, "CreateVolume", bare, _INVALID)


async def _create_twice(session: Session) -> None:
    demand = "CreateVolume with one name gives one volume, however often it is asked"
    async with session.bench.step("create volume: twice", demand):
        session.require(ControllerRpc.CREATE_DELETE_VOLUME)
        request = session.request("twice")
        one, other = await session.create(request), await session.create(request)
        expect(one.volume_id, "volume_id is empty")
        expect(one == other, f"two calls gave {one.volume_id!r} and {other.volume_id!r}, or differ in the rest")
        if session.has_topology:
            expect(one.accessible_topology, "the driver has topology and does not say where the volume is")
        third = await session.create(session.request("third"))
        expect(third.volume_id != one.volume_id, "two names gave one volume")


async def _create_differently(session: Session) -> None:
    demand = "CreateVolume with the name of a volume that does not fit gives ALREADY_EXISTS"
    async with session.bench.step("create volume: same name, other size", demand):
        session.require(ControllerRpc.CREATE_DELETE_VOLUME)
        made = await session.create(session.request("size"))
        larger = session.request("size", size_bytes=max(made.capacity_bytes, session.size_bytes) * 2)
        await refused(session, session.controller, "CreateVolume", larger, grpc.StatusCode.ALREADY_EXISTS)


async def _create_sizes(session: Session) -> None:
    async with session.bench.step("create volume: size", "a volume is as large as is asked, or its size is unknown"):
        session.require(ControllerRpc.CREATE_DELETE_VOLUME)
        made = await session.create(session.request("large", size_bytes=session.size_bytes * 3))
        expect(
            made.capacity_bytes in (0, max(made.capacity_bytes, session.size_bytes * 3)),
            f"{session.size_bytes * 3} bytes were asked for, {made.capacity_bytes} came",
        )
    async with session.bench.step("create volume: impossible size", "bounds that no size meets are refused"):
        session.require(ControllerRpc.CREATE_DELETE_VOLUME)
        request = session.request("impossible", size_bytes=session.size_bytes * 2)
        request.capacity_range.limit_bytes = session.size_bytes
        codes = (grpc.StatusCode.OUT_OF_RANGE, _INVALID)
        await refused(session, session.controller, "CreateVolume", request, *codes)


async def _create_at_once(session: Session) -> None:
    demand = "two CreateVolume at once with one name give one volume; one of them may get ABORTED"
    async with session.bench.step("create volume: at once", demand):
        session.require(ControllerRpc.CREATE_DELETE_VOLUME)
        request = session.request("at-once")
        found: set[str] = set()

        async def create() -> None:
            try:
                found.add((await session.create(request)).volume_id)
            except grpc.aio.AioRpcError as err:
                if err.code() is not grpc.StatusCode.ABORTED:
                    raise

        async with asyncio.TaskGroup() as group:
            for _ in range(4):
                group.create_task(create())
        expect(len(found) == 1, f"the volumes {sorted(found)} came of one name")


async def _delete(session: Session) -> None:
    async with session.bench.step("delete volume: missing id", "without volume_id: INVALID_ARGUMENT"):
        session.require(ControllerRpc.CREATE_DELETE_VOLUME)
        await refused(session, session.controller, "DeleteVolume", csi_pb2.DeleteVolumeRequest(), _INVALID)
    async with session.bench.step("delete volume: twice", "DeleteVolume of what is gone succeeds"):
        session.require(ControllerRpc.CREATE_DELETE_VOLUME)
        made = await session.create(session.request("gone"))
        await session.delete(made.volume_id)
        await session.delete(made.volume_id)
    async with session.bench.step("delete volume: unknown id", "DeleteVolume of what never was succeeds"):
        session.require(ControllerRpc.CREATE_DELETE_VOLUME)
        await session.delete(UNKNOWN_ID)


async def _validate(session: Session) -> None:
    def request(volume_id: str, *, with_capability: bool = True) -> csi_pb2.ValidateVolumeCapabilitiesRequest:
        capabilities = [capability()] if with_capability else []
        return csi_pb2.ValidateVolumeCapabilitiesRequest(volume_id=volume_id, volume_capabilities=capabilities)

    name = "ValidateVolumeCapabilities"
    async with session.bench.step("validate: capabilities", "what the volume was made for is confirmed, each time"):
        session.require(ControllerRpc.CREATE_DELETE_VOLUME)
        made = await session.create(session.request("valid"))
        for _ in range(2):
            reply = await session.call(session.controller, name, request(made.volume_id))
            expect(reply.HasField("confirmed"), f"not confirmed: {reply.message}")
    async with session.bench.step("validate: missing fields", "without volume_id or capabilities: INVALID_ARGUMENT"):
        session.require(ControllerRpc.CREATE_DELETE_VOLUME)
        made = await session.create(session.request("valid"))
        await refused(session, session.controller, name, request(""), _INVALID)
        bare = request(made.volume_id, with_capability=False)
        await refused(session, session.controller, name, bare, _INVALID)
    async with session.bench.step("validate: unknown id", "of a volume that is not there: NOT_FOUND"):
        session.require(ControllerRpc.CREATE_DELETE_VOLUME)
        await refused(session, session.controller, name, request(UNKNOWN_ID), grpc.StatusCode.NOT_FOUND)


async def _list(session: Session) -> None:
    async with session.bench.step("list volumes: pages", "pages have every volume once, and there is a last one"):
        session.require(ControllerRpc.LIST_VOLUMES)
        wanted = {(await session.create(session.request(f"page-{number}"))).volume_id for number in range(_PAGE * 2)}
        seen: list[str] = []
        token, pages = "", 0
        while pages == 0 or token:
            request = csi_pb2.ListVolumesRequest(max_entries=_PAGE, starting_token=token)
            reply = await session.call(session.controller, "ListVolumes", request)
            expect(len(reply.entries) <= _PAGE, f"{len(reply.entries)} entries on a page of {_PAGE}")
            seen.extend(entry.volume.volume_id for entry in reply.entries)
            token, pages = reply.next_token, pages + 1
            if pages > 1000 or len(seen) != len(set(seen)):
                raise Failure(f"after {pages} pages a volume came twice, or the pages did not end")
        expect(wanted <= set(seen), f"{sorted(wanted - set(seen))} are missing")
    async with session.bench.step("list volumes: bad token", "a starting_token that no page gave: ABORTED"):
        session.require(ControllerRpc.LIST_VOLUMES)
        request = csi_pb2.ListVolumesRequest(starting_token="no token of yours")
        await refused(session, session.controller, "ListVolumes", request, grpc.StatusCode.ABORTED)


async def _capacity(session: Session) -> None:
    async with session.bench.step("get capacity", "GetCapacity tells what is left, never less than nothing"):
        session.require(ControllerRpc.GET_CAPACITY)
        reply = await session.call(session.controller, "GetCapacity", csi_pb2.GetCapacityRequest())
        expect(reply.available_capacity >= 0, f"{reply.available_capacity} bytes are left")


async def _get(session: Session) -> None:
    async with session.bench.step("get volume", "ControllerGetVolume gives the volume; NOT_FOUND for an unknown one"):
        session.require(ControllerRpc.GET_VOLUME)
        made = await session.create(session.request("got"))
        request = csi_pb2.ControllerGetVolumeRequest(volume_id=made.volume_id)
        reply = await session.call(session.controller, "ControllerGetVolume", request)
        expect(reply.volume.volume_id == made.volume_id, f"another volume came: {reply.volume.volume_id!r}")
        unknown = csi_pb2.ControllerGetVolumeRequest(volume_id=UNKNOWN_ID)
        await refused(session, session.controller, "ControllerGetVolume", unknown, grpc.StatusCode.NOT_FOUND)


async def _expand(session: Session) -> None:
    demand = "ControllerExpandVolume gives at least the size asked for, and the same when it is asked again"
    async with session.bench.step("expand volume: twice", demand):
        session.require(ControllerRpc.EXPAND_VOLUME)
        made = await session.create(session.request("grown"))
        wanted = max(made.capacity_bytes, session.size_bytes) * 2
        request = csi_pb2.ControllerExpandVolumeRequest(volume_id=made.volume_id, volume_capability=capability())
        request.capacity_range.required_bytes = wanted
        one = await session.call(session.controller, "ControllerExpandVolume", request)
        other = await session.call(session.controller, "ControllerExpandVolume", request)
        expect(one.capacity_bytes >= wanted, f"{wanted} bytes were asked for, {one.capacity_bytes} came")
        expect(one == other, "two calls gave two answers")


async def _expand_checks(session: Session) -> None:
    name = "ControllerExpandVolume"
    async with session.bench.step("expand volume: missing fields", "without id or range: INVALID_ARGUMENT"):
        session.require(ControllerRpc.EXPAND_VOLUME)
        made = await session.create(session.request("grown-not"))
        nameless = csi_pb2.ControllerExpandVolumeRequest()
        nameless.capacity_range.required_bytes = session.size_bytes
        await refused(session, session.controller, name, nameless, _INVALID)
        boundless = csi_pb2.ControllerExpandVolumeRequest(volume_id=made.volume_id)
        await refused(session, session.controller, name, boundless, _INVALID)
    async with session.bench.step("expand volume: unknown id", "of a volume that is not there: NOT_FOUND"):
        session.require(ControllerRpc.EXPAND_VOLUME)
        request = csi_pb2.ControllerExpandVolumeRequest(volume_id=UNKNOWN_ID)
        request.capacity_range.required_bytes = session.size_bytes
        await refused(session, session.controller, name, request, grpc.StatusCode.NOT_FOUND)
