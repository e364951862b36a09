"""Attaches volumes to nodes and detaches them, as VolumeAttachments ask; what came of it stands in their status."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tiphys.api.storage.v1 import storage_pb2
from tiphys.thirdparty.csi.v1 import csi_pb2
from tiphys_apimachinery.errors import APIError, Conflict, NotFound
from tiphys_apimachinery.meta import format_time
from tiphys_client.client import Client
from tiphys_client.workqueue import RateLimitingQueue
from tiphys_component.log import get_logger
from tiphys_csi.companion.attaching import HANDLE_ANNOTATION, NODE_ANNOTATION, AttachStep, finalizer_of, plan
from tiphys_csi.companion.driver import ControllerRpc, Driver, Setback
from tiphys_csi.companion.frame import ATTACHMENTS_BY_VOLUME, Context, PersistentVolume, enqueue_own
from tiphys_csi.companion.requests import capability_of, secret_of

VolumeAttachment = storage_pb2.VolumeAttachment
_log = get_logger("csi.attacher")


class CannotAttach(Setback):
    """Something that the attachment names is not there yet, or can't be used."""


class Attacher:
    """Keys are VolumeAttachments."""

    name = "csi-attacher"

    def __init__(self, context: Context) -> None:
        self._context = context
        self._client: Client = context.client

    def watch(self, queue: RateLimitingQueue[str]) -> None:
        """Attachments; and volumes and nodes for those that wait for them."""
        informers = self._context.informers
        enqueue_own(informers.attachments, queue)

        def wake(volume: PersistentVolume) -> None:
            for key in informers.attachments.store.keys_by_index(ATTACHMENTS_BY_VOLUME, volume.metadata.name):
                queue.add(key)

        informers.volumes.add_handler(on_add=wake)

    def all_keys(self) -> Iterable[str]:
        """Every attachment."""
        return self._context.informers.attachments.keys()

    async def reconcile(self, key: str) -> None:
        """Do the next step of an attachment."""
        attachment = self._context.informers.attachments.get(key)
        if attachment is None:
            return
        driver = self._context.drivers.get(attachment.spec.attacher)
        if driver is None:
            return
        is_ours = self._context.duty.is_for_node(driver, attachment.spec.nodeName)
        step = plan(attachment, driver.facts, is_ours=is_ours)
        if step is AttachStep.ATTACH:
            await self._noting_errors(attachment, "attachError", self._attach(attachment, driver))
        elif step is AttachStep.SAY_ATTACHED:
            await self._set_status(attachment, {"attached": True, "attachError": None})
        elif step is AttachStep.DETACH:
            await self._noting_errors(attachment, "detachError", self._detach(attachment, driver))
        elif step is AttachStep.LET_GO:
            await self._let_go(attachment, driver)

    async def _attach(self, attachment: VolumeAttachment, driver: Driver) -> None:
        volume = self._context.informers.volumes.get(attachment.spec.source.persistentVolumeName)
        if volume is None:
            raise CannotAttach(f"volume {attachment.spec.source.persistentVolumeName!r} does not exist")
        csi = volume.spec.persistentVolumeSource.csi
        if csi.driver != driver.name:
            raise CannotAttach(f"volume {volume.metadata.name!r} is not of driver {driver.name}")
        node_id = self._node_id(attachment.spec.nodeName, driver)
        if not await self._mark(attachment, driver, csi.volumeHandle, node_id):
            return
        context = await driver.publish(
            csi_pb2.ControllerPublishVolumeRequest(
                volume_id=csi.volumeHandle,
                node_id=node_id,
                volume_capability=capability_of(volume, driver.facts),
                readonly=csi.readOnly and driver.facts.can(ControllerRpc.PUBLISH_READONLY),
                secrets=await self._context.secrets(secret_of(csi.controllerPublishSecretRef)),
                volume_context=csi.volumeAttributes,
            )
        )
        await self._set_status(attachment, {"attached": True, "attachmentMetadata": dict(context), "attachError": None})
        _log.info("volume attached", volume=volume.metadata.name, node=attachment.spec.nodeName)

    def _node_id(self, node: str, driver: Driver) -> str:
        """The driver's name for a node. Raises CannotAttach while it is not registered there."""
        if node == self._context.duty.node and driver.facts.node_id:
            return driver.facts.node_id
        found = self._context.informers.csi_nodes.get(node)
        for entry in [] if found is None else found.spec.drivers:
            if entry.name == driver.name:
                return entry.nodeID
        raise CannotAttach(f"driver {driver.name} is not registered on node {node!r}")

    async def _mark(self, attachment: VolumeAttachment, driver: Driver, handle: str, node_id: str) -> bool:
        """Have the attachment wait for us before it goes; False if it is gone."""
        finalizer = finalizer_of(driver.name)
        if finalizer in attachment.metadata.finalizers:
            return True
        metadata = {
            "uid": attachment.metadata.uid,
            "finalizers": [finalizer],
            "annotations": {HANDLE_ANNOTATION: handle, NODE_ANNOTATION: node_id},
        }
        name = attachment.metadata.name
        try:
            await self._client.patch(VolumeAttachment, name, "", {"metadata": metadata}, type="strategic")
        except (NotFound, Conflict):
            return False
        return True

    async def _detach(self, attachment: VolumeAttachment, driver: Driver) -> None:
        volume = self._context.informers.volumes.get(attachment.spec.source.persistentVolumeName)
        csi = None if volume is None else volume.spec.persistentVolumeSource.csi
        annotations = attachment.metadata.annotations
        handle = annotations.get(HANDLE_ANNOTATION) or ("" if csi is None else csi.volumeHandle)
        if not handle:
            raise CannotAttach(f"volume {attachment.spec.source.persistentVolumeName!r} is gone, its id unknown")
        await driver.unpublish(
            csi_pb2.ControllerUnpublishVolumeRequest(
                volume_id=handle,
                node_id=annotations.get(NODE_ANNOTATION) or self._node_id(attachment.spec.nodeName, driver),
                secrets=await self._context.secrets(None if csi is None else secret_of(csi.controllerPublishSecretRef)),
            )
        )
        await self._let_go(attachment, driver)
        _log.info("volume detached", attachment=attachment.metadata.name, node=attachment.spec.nodeName)

    async def _let_go(self, attachment: VolumeAttachment, driver: Driver) -> None:
        metadata = {
            "uid": attachment.metadata.uid,
            "$deleteFromPrimitiveList/finalizers": [finalizer_of(driver.name)],
        }
        name = attachment.metadata.name
        try:
            await self._client.patch(VolumeAttachment, name, "", {"metadata": metadata}, type="strategic")
        except (NotFound, Conflict):
            return

    async def _noting_errors(self, attachment: VolumeAttachment, field: str, work: Any) -> None:
        """Does the work; what fails is written where the controllers and users of attachments look for it."""
        try:
            await work
        except (Setback, APIError) as err:
            error = {"time": format_time(self._context.clock.now()), "message": str(err)}
            await self._set_status(attachment, {field: error})
            raise

    async def _set_status(self, attachment: VolumeAttachment, status: Mapping[str, Any]) -> None:
        change = {"metadata": {"uid": attachment.metadata.uid}, "status": status}
        try:
            await self._client.patch(VolumeAttachment, attachment.metadata.name, "", change, subresource="status")
        except (NotFound, Conflict):
            return
