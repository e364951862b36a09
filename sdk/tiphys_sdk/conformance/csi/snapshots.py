"""Steps on snapshots, and on volumes made from something."""

from __future__ import annotations

import grpc

from tiphys.thirdparty.csi.v1 import csi_pb2
from tiphys_sdk.conformance.bench import expect
from tiphys_sdk.conformance.csi.controller import refused
from tiphys_sdk.conformance.csi.session import UNKNOWN_ID, ControllerRpc, Session

_INVALID = grpc.StatusCode.INVALID_ARGUMENT


async def snapshot_steps(session: Session) -> None:
    """All of them."""
    for step in (_create, _create_checks, _delete, _list, _restore, _clone):
        await step(session)


def _request(session: Session, purpose: str, volume_id: str) -> csi_pb2.CreateSnapshotRequest:
    return csi_pb2.CreateSnapshotRequest(name=session.name(purpose), source_volume_id=volume_id)


async def _taken(session: Session, request: csi_pb2.CreateSnapshotRequest) -> csi_pb2.Snapshot:
    reply = await session.call(session.controller, "CreateSnapshot", request)
    snapshot: csi_pb2.Snapshot = reply.snapshot
    if snapshot.snapshot_id not in session.snapshots:
        session.snapshots.append(snapshot.snapshot_id)
    return snapshot


async def _create(session: Session) -> None:
    demand = "CreateSnapshot with one name gives one snapshot, of the volume and moment that it was taken of"
    async with session.bench.step("create snapshot: twice", demand):
        session.require(ControllerRpc.CREATE_DELETE_SNAPSHOT)
        volume = await session.create(session.request("snapped"))
        request = _request(session, "snapshot", volume.volume_id)
        one, other = await _taken(session, request), await _taken(session, request)
        expect(one.snapshot_id, "snapshot_id is empty")
        expect(one.snapshot_id == other.snapshot_id, f"two calls gave {one.snapshot_id!r} and {other.snapshot_id!r}")
        expect(one.source_volume_id == volume.volume_id, f"it is of volume {one.source_volume_id!r}")
        expect(one.creation_time == other.creation_time, "its moment changed from call to call")
    demand = "CreateSnapshot with the name of another volume's snapshot gives ALREADY_EXISTS"
    async with session.bench.step("create snapshot: same name, other volume", demand):
        session.require(ControllerRpc.CREATE_DELETE_SNAPSHOT)
        first = await session.create(session.request("snapped-one"))
        other_volume = await session.create(session.request("snapped-other"))
        await _taken(session, _request(session, "contested", first.volume_id))
        request = _request(session, "contested", other_volume.volume_id)
        await refused(session, session.controller, "CreateSnapshot", request, grpc.StatusCode.ALREADY_EXISTS)


async def _create_checks(session: Session) -> None:
    async with session.bench.step("create snapshot: missing fields", "without name or source: INVALID_ARGUMENT"):
        session.require(ControllerRpc.CREATE_DELETE_SNAPSHOT)
        volume = await session.create(session.request("snapped"))
        nameless = csi_pb2.CreateSnapshotRequest(source_volume_id=volume.volume_id)
        await refused(session, session.controller, "CreateSnapshot", nameless, _INVALID)
        sourceless = csi_pb2.CreateSnapshotRequest(name=session.name("sourceless"))
        await refused(session, session.controller, "CreateSnapshot", sourceless, _INVALID)
    async with session.bench.step("create snapshot: unknown volume", "of a volume that is not there: NOT_FOUND"):
        session.require(ControllerRpc.CREATE_DELETE_SNAPSHOT)
        request = _request(session, "of-nothing", UNKNOWN_ID)
        await refused(session, session.controller, "CreateSnapshot", request, grpc.StatusCode.NOT_FOUND)


async def _delete(session: Session) -> None:
    async with session.bench.step("delete snapshot: twice", "DeleteSnapshot of what is gone, or never was, succeeds"):
        session.require(ControllerRpc.CREATE_DELETE_SNAPSHOT)
        volume = await session.create(session.request("snapped"))
        taken = await _taken(session, _request(session, "short-lived", volume.volume_id))
        for snapshot_id in (taken.snapshot_id, taken.snapshot_id, UNKNOWN_ID):
            request = csi_pb2.DeleteSnapshotRequest(snapshot_id=snapshot_id)
            await session.call(session.controller, "DeleteSnapshot", request)
        session.snapshots.remove(taken.snapshot_id)
    async with session.bench.step("delete snapshot: missing id", "without snapshot_id: INVALID_ARGUMENT"):
        session.require(ControllerRpc.CREATE_DELETE_SNAPSHOT)
        await refused(session, session.controller, "DeleteSnapshot", csi_pb2.DeleteSnapshotRequest(), _INVALID)


async def _list(session: Session) -> None:
    async with session.bench.step("list snapshots", "by id, by volume, and an empty page for an unknown id"):
        session.require(ControllerRpc.LIST_SNAPSHOTS)
        volume = await session.create(session.request("listed"))
        taken = await _taken(session, _request(session, "listed", volume.volume_id))
        for request, wanted in (
            (csi_pb2.ListSnapshotsRequest(snapshot_id=taken.snapshot_id), [taken.snapshot_id]),
            (csi_pb2.ListSnapshotsRequest(source_volume_id=volume.volume_id), [taken.snapshot_id]),
            (csi_pb2.ListSnapshotsRequest(snapshot_id=UNKNOWN_ID), []),
        ):
            reply = await session.call(session.controller, "ListSnapshots", request)
            found = [entry.snapshot.snapshot_id for entry in reply.entries]
            expect(found == wanted, f"{found} came, wanted {wanted}")


async def _restore(session: Session) -> None:
    async with session.bench.step("create volume: from snapshot", "the answer names the snapshot as its source"):
        session.require(ControllerRpc.CREATE_DELETE_SNAPSHOT)
        volume = await session.create(session.request("restored"))
        taken = await _taken(session, _request(session, "restored", volume.volume_id))
        request = session.request("from-snapshot")
        request.volume_content_source.snapshot.snapshot_id = taken.snapshot_id
        made = await session.create(request)
        expect(made.content_source == request.volume_content_source, f"the source is {made.content_source}")
        expect(await session.create(request) == made, "two calls gave two answers")
    async with session.bench.step("create volume: from unknown snapshot", "a source that is not there: NOT_FOUND"):
        session.require(ControllerRpc.CREATE_DELETE_SNAPSHOT)
        request = session.request("from-nothing")
        request.volume_content_source.snapshot.snapshot_id = UNKNOWN_ID
        await refused(session, session.controller, "CreateVolume", request, grpc.StatusCode.NOT_FOUND)


async def _clone(session: Session) -> None:
    async with session.bench.step("create volume: from volume", "a copy names its source; NOT_FOUND without one"):
        session.require(ControllerRpc.CLONE_VOLUME)
        volume = await session.create(session.request("original"))
        request = session.request("copy")
        request.volume_content_source.volume.volume_id = volume.volume_id
        made = await session.create(request)
        expect(made.volume_id != volume.volume_id, "the copy is the original")
        expect(made.content_source == request.volume_content_source, f"the source is {made.content_source}")
        unknown = session.request("copy-of-nothing")
        unknown.volume_content_source.volume.volume_id = UNKNOWN_ID
        await refused(session, session.controller, "CreateVolume", unknown, grpc.StatusCode.NOT_FOUND)
