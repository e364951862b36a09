"""The controller service: volumes and snapshots come and go."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import ClassVar

from tiphys.thirdparty.csi.v1 import csi_pb2
from tiphys_component.clock import Clock
from tiphys_csi.hostpath import mounts, rules
from tiphys_csi.hostpath.rules import TOPOLOGY_KEY
from tiphys_csi.hostpath.state import Kind, Snapshot, Store, Volume, id_for
from tiphys_sdk.csi.controller import Controller, Rpc
from tiphys_sdk.csi.status import already_exists, failed_precondition, invalid_argument, not_found


class HostPathController(Controller):
    """Volumes of one node."""

    also_offers: ClassVar[tuple[Rpc.Type.ValueType, ...]] = (Rpc.CLONE_VOLUME, Rpc.SINGLE_NODE_MULTI_WRITER)

    def __init__(self, store: Store, node_id: str, limits: rules.Limits, clock: Clock) -> None:
        self._store = store
        self._node_id = node_id
        self._limits = limits
        self._clock = clock
        # Two volumes at once must not both get the last of the room.
        self._room = asyncio.Lock()

    async def CreateVolume(self, request: csi_pb2.CreateVolumeRequest) -> csi_pb2.CreateVolumeResponse:
        """The volume of this name, made if there is none; ALREADY_EXISTS if it is another one."""
        if request.parameters:
            raise invalid_argument("parameters", f"none is known, got {', '.join(sorted(request.parameters))}")
        kind = rules.kind_of(request.volume_capabilities)
        rules.check_place(request, self._node_id)
        known = await asyncio.to_thread(self._store.volume, id_for(request.name))
        if known is None:
            async with self._room:
                known = await self._create(request, kind)
        difference = rules.difference(known, request)
        if difference:
            raise already_exists("volume", request.name, difference)
        return csi_pb2.CreateVolumeResponse(volume=rules.volume_message(known, self._node_id))

    async def _create(self, request: csi_pb2.CreateVolumeRequest, kind: Kind) -> Volume:
        content, least_bytes = await self._source(request, kind)
        size = rules.size_for(request.capacity_range, self._limits, least_bytes)
        rules.check_room(size, await self._available(), self._limits)
        volume = Volume(
            id=id_for(request.name),
            name=request.name,
            capacity_bytes=size,
            kind=kind,
            source=rules.source_of(request),
        )
        if content is None:
            await asyncio.to_thread(self._store.add_volume, volume)
        else:
            try:
                await asyncio.to_thread(self._store.copy_volume, volume, content)
            except FileNotFoundError as err:
                raise not_found("source", volume.source) from err
        return volume

    async def _source(self, request: csi_pb2.CreateVolumeRequest, kind: Kind) -> tuple[Path | None, int]:
        """What fills the volume, and how large that is."""
        source = request.volume_content_source
        which = source.WhichOneof("type")
        if which is None:
            return None, 0
        if which == "snapshot":
            snapshot = await self._snapshot(source.snapshot.snapshot_id)
            content, size, found = self._store.snapshot_data(snapshot), snapshot.size_bytes, snapshot.kind
        else:
            volume = await self._volume(source.volume.volume_id)
            content, size, found = self._store.data(volume), volume.capacity_bytes, volume.kind
        if found != kind:
            raise invalid_argument("volume_content_source", f"is a {found} volume, wanted is {kind}")
        return content, size

    async def DeleteVolume(self, request: csi_pb2.DeleteVolumeRequest) -> csi_pb2.DeleteVolumeResponse:
        """Gone with its data; FAILED_PRECONDITION while it is in use, success where it is gone already."""
        volume = await asyncio.to_thread(self._store.volume, request.volume_id)
        if volume is not None:
            if volume.attached:
                raise failed_precondition(f"volume {volume.id} is attached to {', '.join(sorted(volume.attached))}")
            used = await asyncio.to_thread(mounts.targets_of, self._store.data(volume))
            if used:
                raise failed_precondition(f"volume {volume.id} is mounted on {used[0]}")
        await asyncio.to_thread(self._store.remove_volume, request.volume_id)
        return csi_pb2.DeleteVolumeResponse()

    async def ValidateVolumeCapabilities(
        self, request: csi_pb2.ValidateVolumeCapabilitiesRequest
    ) -> csi_pb2.ValidateVolumeCapabilitiesResponse:
        """Whether the volume can be used in all of these ways."""
        volume = await self._volume(request.volume_id)
        reply = csi_pb2.ValidateVolumeCapabilitiesResponse()
        problem = rules.problem_of(request.volume_capabilities)
        if not problem and rules.kind_of(request.volume_capabilities) != volume.kind:
            problem = f"it is a {volume.kind} volume"
        if problem:
            reply.message = problem
            return reply
        reply.confirmed.volume_context.update(request.volume_context)
        reply.confirmed.volume_capabilities.extend(request.volume_capabilities)
        reply.confirmed.parameters.update(request.parameters)
        return reply

    async def ListVolumes(self, request: csi_pb2.ListVolumesRequest) -> csi_pb2.ListVolumesResponse:
        """A page of volumes, by id."""
        found = {volume.id: volume for volume in await asyncio.to_thread(self._store.volumes)}
        chosen, token = rules.page(list(found), request.starting_token, request.max_entries)
        reply = csi_pb2.ListVolumesResponse(next_token=token)
        for identity in chosen:
            entry = reply.entries.add(volume=rules.volume_message(found[identity], self._node_id))
            entry.status.published_node_ids.extend(sorted(found[identity].attached))
        return reply

    async def ControllerGetVolume(
        self, request: csi_pb2.ControllerGetVolumeRequest
    ) -> csi_pb2.ControllerGetVolumeResponse:
        """One volume."""
        volume = await self._volume(request.volume_id)
        reply = csi_pb2.ControllerGetVolumeResponse(volume=rules.volume_message(volume, self._node_id))
        reply.status.published_node_ids.extend(sorted(volume.attached))
        return reply

    async def GetCapacity(self, request: csi_pb2.GetCapacityRequest) -> csi_pb2.GetCapacityResponse:
        """What may still be given out on this node; nothing for other nodes and for uses that can't be."""
        reply = csi_pb2.GetCapacityResponse()
        place = request.accessible_topology.segments.get(TOPOLOGY_KEY, self._node_id)
        if place == self._node_id and not rules.problem_of(request.volume_capabilities):
            reply.available_capacity = await self._available()
            reply.maximum_volume_size.value = self._limits.max_volume_bytes
        return reply

    async def CreateSnapshot(self, request: csi_pb2.CreateSnapshotRequest) -> csi_pb2.CreateSnapshotResponse:
        """The snapshot of this name, taken if there is none; ALREADY_EXISTS if it is of another volume."""
        identity = id_for(request.name)
        known = await asyncio.to_thread(self._store.snapshot, identity)
        if known is None:
            volume = await self._volume(request.source_volume_id)
            known = Snapshot(
                id=identity,
                name=request.name,
                source_volume_id=volume.id,
                size_bytes=volume.capacity_bytes,
                kind=volume.kind,
                created_ns=int(self._clock.now().timestamp() * 1e9),
            )
            try:
                await asyncio.to_thread(self._store.add_snapshot, known, self._store.data(volume))
            except FileNotFoundError as err:
                raise not_found("volume", volume.id) from err
        if known.source_volume_id != request.source_volume_id:
            raise already_exists("snapshot", request.name, f"of volume {known.source_volume_id}")
        return csi_pb2.CreateSnapshotResponse(snapshot=rules.snapshot_message(known))

    async def DeleteSnapshot(self, request: csi_pb2.DeleteSnapshotRequest) -> csi_pb2.DeleteSnapshotResponse:
        """Gone; success where it is gone already."""
        await asyncio.to_thread(self._store.remove_snapshot, request.snapshot_id)
        return csi_pb2.DeleteSnapshotResponse()

    async def GetSnapshot(self, request: csi_pb2.GetSnapshotRequest) -> csi_pb2.GetSnapshotResponse:
        """One snapshot."""
        return csi_pb2.GetSnapshotResponse(snapshot=rules.snapshot_message(await self._snapshot(request.snapshot_id)))

    async def ListSnapshots(self, request: csi_pb2.ListSnapshotsRequest) -> csi_pb2.ListSnapshotsResponse:
        """A page of snapshots, of one volume or all; an id that is unknown gives an empty page."""
        found = {
            snapshot.id: snapshot
            for snapshot in await asyncio.to_thread(self._store.snapshots)
            if request.snapshot_id in ("", snapshot.id) and request.source_volume_id in ("", snapshot.source_volume_id)
        }
        chosen, token = rules.page(list(found), request.starting_token, request.max_entries)
        reply = csi_pb2.ListSnapshotsResponse(next_token=token)
        for identity in chosen:
            reply.entries.add(snapshot=rules.snapshot_message(found[identity]))
        return reply

    async def ControllerExpandVolume(
        self, request: csi_pb2.ControllerExpandVolumeRequest
    ) -> csi_pb2.ControllerExpandVolumeResponse:
        """At least as large as is asked for; a volume that is larger stays as it is."""
        volume = await self._volume(request.volume_id)
        if request.capacity_range.required_bytes > volume.capacity_bytes:
            async with self._room:
                size = rules.size_for(request.capacity_range, self._limits, volume.capacity_bytes)
                rules.check_room(size - volume.capacity_bytes, await self._available(), self._limits)
                volume = await asyncio.to_thread(self._store.change_volume, volume, capacity_bytes=size)
        # The node does the rest: a loop device must be told of its new size.
        return csi_pb2.ControllerExpandVolumeResponse(
            capacity_bytes=volume.capacity_bytes, node_expansion_required=True
        )

    async def _available(self) -> int:
        volumes = await asyncio.to_thread(self._store.volumes) if self._limits.capacity_bytes else []
        return rules.available_bytes(self._limits, volumes, await asyncio.to_thread(self._store.free_bytes))

    async def _volume(self, volume_id: str) -> Volume:
        volume = await asyncio.to_thread(self._store.volume, volume_id)
        if volume is None:
            raise not_found("volume", volume_id)
        return volume

    async def _snapshot(self, snapshot_id: str) -> Snapshot:
        snapshot = await asyncio.to_thread(self._store.snapshot, snapshot_id)
        if snapshot is None:
            raise not_found("snapshot", snapshot_id)
        return snapshot


class AttachingController(HostPathController):
    """The same for a cluster that shall attach: nothing moves, but who may stage a volume is written down."""

    also_offers = (*HostPathController.also_offers, Rpc.PUBLISH_READONLY, Rpc.LIST_VOLUMES_PUBLISHED_NODES)

    async def ControllerPublishVolume(
        self, request: csi_pb2.ControllerPublishVolumeRequest
    ) -> csi_pb2.ControllerPublishVolumeResponse:
        """Attached to the node; NOT_FOUND for another node, ALREADY_EXISTS if it is attached in the other way."""
        volume = await self._volume(request.volume_id)
        if request.node_id != self._node_id:
            raise not_found("node", request.node_id)
        problem = rules.problem_of([request.volume_capability])
        if problem:
            raise invalid_argument("volume_capability", problem)
        known = volume.attached.get(request.node_id)
        if known is None:
            attached = {**volume.attached, request.node_id: request.readonly}
            await asyncio.to_thread(self._store.change_volume, volume, attached=attached)
        elif known != request.readonly:
            raise already_exists("volume", volume.id, f"attached {'read-only' if known else 'for writing'}")
        return csi_pb2.ControllerPublishVolumeResponse(publish_context={"attached-to": request.node_id})

    async def ControllerUnpublishVolume(
        self, request: csi_pb2.ControllerUnpublishVolumeRequest
    ) -> csi_pb2.ControllerUnpublishVolumeResponse:
        """Attached to the node, or to any, no more; success where it was not, or is gone."""
        volume = await asyncio.to_thread(self._store.volume, request.volume_id)
        if volume is not None:
            left = {node: way for node, way in volume.attached.items() if request.node_id not in ("", node)}
            if left != volume.attached:
                await asyncio.to_thread(self._store.change_volume, volume, attached=left)
        return csi_pb2.ControllerUnpublishVolumeResponse()
