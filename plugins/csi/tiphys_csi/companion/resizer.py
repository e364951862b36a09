"""Makes volumes larger when their claims ask for more."""

from __future__ import annotations

from collections.abc import Iterable

from tiphys.thirdparty.csi.v1 import csi_pb2
from tiphys_apimachinery.errors import NotFound
from tiphys_apimachinery.meta import namespaced_name
from tiphys_apimachinery.persistent_volumes import volume_view
from tiphys_client.client import Client
from tiphys_client.workqueue import RateLimitingQueue
from tiphys_component.log import get_logger
from tiphys_csi.companion import resizing
from tiphys_csi.companion.driver import Driver, DriverError, NodeRpc
from tiphys_csi.companion.frame import Claim, Context, PersistentVolume, enqueue_own
from tiphys_csi.companion.requests import capability_of, secret_of, size_of, size_text
from tiphys_csi.companion.resizing import Grown, ResizeStep

_log = get_logger("csi.resizer")


class Resizer:
    """Keys are claims, as namespace/name."""

    name = "csi-resizer"

    def __init__(self, context: Context) -> None:
        self._context = context
        self._client: Client = context.client

    def watch(self, queue: RateLimitingQueue[str]) -> None:
        """Claims."""
        enqueue_own(self._context.informers.claims, queue)

    def all_keys(self) -> Iterable[str]:
        """Every claim."""
        return self._context.informers.claims.keys()

    async def reconcile(self, key: str) -> None:
        """Do the next step of a claim."""
        informers = self._context.informers
        claim = informers.claims.get(key)
        if claim is None or not claim.spec.volumeName:
            return
        volume = informers.volumes.get(claim.spec.volumeName)
        if volume is None:
            return
        view = volume_view(volume)
        driver = self._context.drivers.get(view.driver)
        if driver is None:
            return
        is_ours = self._context.duty.is_for_volume(driver, view.node_affinity)
        step = resizing.plan(claim, volume, driver.facts, is_ours=is_ours)
        if step is ResizeStep.NOTHING:
            return
        claim = await self._begin(claim)
        try:
            grown = await self._grow(step, claim, volume, driver)
        except DriverError as err:
            text = f"resize volume {volume.metadata.name} by resizer {driver.name} failed: {err}"
            self._context.events.event(claim, "Warning", "VolumeResizeFailed", text)
            raise
        await self._finish(claim, volume, grown)

    async def _begin(self, claim: Claim) -> Claim:
        marked = resizing.with_resizing(claim, self._context.clock)
        if marked == claim:
            return claim
        self._context.events.event(claim, "Normal", "Resizing", f"resizing volume {claim.spec.volumeName}")
        return await self._client.update_status(marked)

    async def _grow(self, step: ResizeStep, claim: Claim, volume: PersistentVolume, driver: Driver) -> Grown:
        wanted = size_of(claim.spec.resources.requests)
        if step is ResizeStep.LEAVE_TO_NODE:
            return Grown(wanted, needs_node=True)
        csi = volume.spec.persistentVolumeSource.csi
        request = csi_pb2.ControllerExpandVolumeRequest(
            volume_id=csi.volumeHandle,
            volume_capability=capability_of(volume, driver.facts),
            secrets=await self._context.secrets(secret_of(csi.controllerExpandSecretRef)),
        )
        request.capacity_range.required_bytes = wanted
        reply = await driver.expand(request)
        needs_node = reply.node_expansion_required and NodeRpc.EXPAND_VOLUME in driver.facts.node
        return Grown(max(reply.capacity_bytes, wanted), needs_node)

    async def _finish(self, claim: Claim, volume: PersistentVolume, grown: Grown) -> None:
        """The volume first: a claim never says that it has what its volume has not."""
        name = volume.metadata.name
        if size_of(volume.spec.capacity) < grown.size_bytes:
            change = {
                "metadata": {"uid": volume.metadata.uid},
                "spec": {"capacity": {"storage": size_text(grown.size_bytes)}},
            }
            try:
                await self._client.patch(PersistentVolume, name, "", change)
            except NotFound:
                return
        await self._client.update_status(resizing.with_outcome(claim, grown, self._context.clock))
        if grown.needs_node:
            text = "Require file system resize of volume on node"
            self._context.events.event(claim, "Normal", "FileSystemResizeRequired", text)
        else:
            self._context.events.event(claim, "Normal", "VolumeResizeSuccessful", "Resize volume succeeded")
        _log.info("volume resized", claim=namespaced_name(claim), volume=name, size_bytes=grown.size_bytes)
