"""Deletes volumes whose claims are gone, and then their PersistentVolumes."""

from __future__ import annotations

from collections.abc import Iterable

from tiphys_apimachinery.errors import Conflict, NotFound
from tiphys_apimachinery.persistent_volumes import PROVISIONED_BY, volume_view
from tiphys_client.client import Client
from tiphys_client.workqueue import RateLimitingQueue
from tiphys_component.log import get_logger
from tiphys_csi.companion.driver import Driver, DriverError
from tiphys_csi.companion.frame import ATTACHMENTS_BY_VOLUME, Context, PersistentVolume, enqueue_own
from tiphys_csi.companion.provisioning import VOLUME_FINALIZER, VolumeStep, plan_volume
from tiphys_csi.companion.requests import DELETION_SECRET_NAME, DELETION_SECRET_NAMESPACE

_log = get_logger("csi.deleter")


class Deleter:
    """Keys are PersistentVolumes."""

    name = "csi-deleter"

    def __init__(self, context: Context) -> None:
        self._context = context
        self._client: Client = context.client

    def watch(self, queue: RateLimitingQueue[str]) -> None:
        """Volumes, and the end of their attachments."""
        informers = self._context.informers
        enqueue_own(informers.volumes, queue)
        informers.attachments.add_handler(on_delete=lambda gone: queue.add(gone.spec.source.persistentVolumeName))

    def all_keys(self) -> Iterable[str]:
        """Every volume."""
        return self._context.informers.volumes.keys()

    async def reconcile(self, key: str) -> None:
        """Do the next step of a volume."""
        informers, duty = self._context.informers, self._context.duty
        volume = informers.volumes.get(key)
        if volume is None:
            return
        view = volume_view(volume)
        driver = self._context.drivers.get(view.driver)
        if driver is None or volume.metadata.annotations.get(PROVISIONED_BY) != driver.name:
            return
        attached = informers.attachments.store.keys_by_index(ATTACHMENTS_BY_VOLUME, key)
        is_ours = duty.is_for_volume(driver, view.node_affinity)
        step = plan_volume(view, is_ours=is_ours, is_attached=bool(attached))
        if step is VolumeStep.DELETE:
            await self._delete(volume, driver)
        elif step is VolumeStep.LET_GO:
            await self._let_go(volume)

    async def _delete(self, volume: PersistentVolume, driver: Driver) -> None:
        annotations, metadata = volume.metadata.annotations, volume.metadata
        name = annotations.get(DELETION_SECRET_NAME, "")
        reference = (annotations.get(DELETION_SECRET_NAMESPACE, ""), name) if name else None
        try:
            secrets = await self._context.secrets(reference)
        except NotFound:
            # Its namespace went with the claim; a driver that needs it says so.
            secrets = {}
        try:
            await driver.delete_volume(volume.spec.persistentVolumeSource.csi.volumeHandle, secrets)
        except DriverError as err:
            self._context.events.event(volume, "Warning", "VolumeFailedDelete", str(err))
            raise
        try:
            await self._client.delete(PersistentVolume, metadata.name, preconditions_uid=metadata.uid, absent_ok=True)
        except Conflict:
            return
        await self._let_go(volume)
        _log.info("volume deleted", volume=metadata.name, driver=driver.name)

    async def _let_go(self, volume: PersistentVolume) -> None:
        metadata = volume.metadata
        if VOLUME_FINALIZER not in metadata.finalizers:
            return
        change = {"metadata": {"uid": metadata.uid, "$deleteFromPrimitiveList/finalizers": [VOLUME_FINALIZER]}}
        try:
            await self._client.patch(PersistentVolume, metadata.name, "", change, type="strategic")
        except (NotFound, Conflict):
            return
