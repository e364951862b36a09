"""Binds claims to volumes, asks provisioners for new ones, and says in both statuses how they stand."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from tiphys.api.core.v1 import persistent_volume_claim_pb2, persistent_volume_pb2, reference_pb2
from tiphys.api.storage.v1 import storage_pb2
from tiphys_apimachinery.errors import NotFound
from tiphys_apimachinery.meta import namespaced_name, split_key
from tiphys_apimachinery.persistent_volumes import (
    BETA_STORAGE_PROVISIONER,
    BIND_COMPLETED,
    BOUND_BY_CONTROLLER,
    CLASS_ANNOTATION,
    STORAGE_PROVISIONER,
    ClaimView,
    VolumeView,
    claim_view,
    class_of,
    class_view,
    default_class,
)
from tiphys_client.controller import RequeueAfter
from tiphys_component.log import get_logger
from tiphys_controller_manager.controllers.persistentvolume_binder.plan import (
    Bind,
    ClaimStep,
    Lose,
    Note,
    Provision,
    SetPhase,
    Unbind,
    Wait,
    plan_claim,
    plan_volume,
)
from tiphys_controller_manager.frame import Context, Watch
from tiphys_controller_manager.volumes import CLAIM_INDEX, CLASS_INDEX, class_key

Claim = persistent_volume_claim_pb2.PersistentVolumeClaim
Volume = persistent_volume_pb2.PersistentVolume

# How long to wait for a view that lags; the events that end the wait come by themselves.
_LAG_S: Final = 1.0
_CLAIM: Final = "claim:"
_VOLUME: Final = "volume:"


class PersistentVolumeBinder:
    """Keys are claim:namespace/name and volume:name. A claim's step writes specs, a volume's step its status."""

    def __init__(self, context: Context) -> None:
        self._client = context.client
        self._events = context.events
        self._claims = context.informers.of(Claim)
        self._volumes = context.informers.of(Volume)
        self._classes = context.informers.of(storage_pb2.StorageClass)
        self._claim_writes = context.expectations(Claim)
        self._volume_writes = context.expectations(Volume)
        self._log = get_logger("persistentvolume-binder-controller")

    def watches(self) -> Iterable[Watch]:
        """Claims and volumes, each with those on its other side, and classes that claims wait for."""
        return (
            Watch(Claim, self._claim_keys),
            Watch(Volume, self._volume_keys),
            Watch(storage_pb2.StorageClass, self._class_keys),
        )

    def first_keys(self) -> Iterable[str]:
        """None: every claim and every volume is seen as added."""
        return ()

    async def reconcile(self, key: str) -> RequeueAfter | None:
        """One step of one claim or volume. Raises Conflict where another writer came first, and other API errors."""
        if not (self._claim_writes.are_met(key) and self._volume_writes.are_met(key)):
            return RequeueAfter(_LAG_S)
        if key.startswith(_CLAIM):
            await self._reconcile_claim(key, key.removeprefix(_CLAIM))
        else:
            await self._reconcile_volume(key, key.removeprefix(_VOLUME))
        return None

    async def _reconcile_claim(self, key: str, name: str) -> None:
        view: ClaimView | None = self._claims.projection(name)
        claim = self._claims.get(name)
        if view is None or claim is None:
            self._forget(key)
            return
        if await self._give_class(key, claim, view):
            return
        step = self._plan(view)
        match step:
            case Bind(volume):
                await self._bind(key, claim, volume)
            case Provision(provisioner):
                await self._ask(key, claim, provisioner)
            case Lose(note):
                await self._lose(key, claim, note)
            case Wait(note):
                self._tell(claim, note)

    async def _give_class(self, key: str, claim: Claim, view: ClaimView) -> bool:
        """Give a claim that names no class the default one, also one that came later than the claim; whether it did.

        An empty name is a choice and stays.
        """
        if view.is_bind_completed or view.volume or view.storage_class or view.is_deleting:
            return False
        if claim.spec.HasField("storageClassName") or CLASS_ANNOTATION in claim.metadata.annotations:
            return False
        chosen = default_class(class_view(item) for item in self._classes.list())
        if chosen is None:
            return False
        claim.spec.storageClassName = chosen.name
        self._claim_writes.wrote(key, await self._client.update(claim))
        return True

    def _plan(self, view: ClaimView) -> ClaimStep:
        store = self._volumes.store
        same_class = store.projections_by_index(CLASS_INDEX, class_key(view.storage_class))
        reserved = store.projections_by_index(CLAIM_INDEX, view.key)
        known = {found.name: found for _, found in (*same_class, *reserved)} if not view.is_bound else {}
        item = self._classes.get(view.storage_class) if view.storage_class else None
        return plan_claim(
            view,
            named=self._volumes.projection(view.volume) if view.volume else None,
            volumes=known.values(),
            storage_class=class_view(item) if item is not None else None,
        )

    async def _bind(self, key: str, claim: Claim, volume_name: str) -> None:
        """Each of the three writes only if it is still to do."""
        volume = self._volumes.get(volume_name)
        if volume is None:
            return
        if reserve(volume, claim):
            volume = await self._client.update(volume)
            self._volume_writes.wrote(key, volume)
        if name_volume(claim, volume_name):
            claim = await self._client.update(claim)
            self._claim_writes.wrote(key, claim)
            self._log.info("claim bound", claim=namespaced_name(claim), volume=volume_name)
        if claim.status.phase != "Bound":
            # The size is set when the claim becomes bound, and by whoever resizes from then on.
            claim.status.phase = "Bound"
            claim.status.ClearField("accessModes")
            claim.status.accessModes.extend(volume.spec.accessModes)
            claim.status.capacity["storage"].CopyFrom(volume.spec.capacity["storage"])
            self._claim_writes.wrote(key, await self._client.update_status(claim))

    async def _ask(self, key: str, claim: Claim, provisioner: str) -> None:
        annotations = claim.metadata.annotations
        names = (BETA_STORAGE_PROVISIONER, STORAGE_PROVISIONER)
        if any(annotations.get(name) != provisioner for name in names):
            for name in names:
                annotations[name] = provisioner
            claim = await self._client.update(claim)
            self._claim_writes.wrote(key, claim)
        text = (
            f"Waiting for a volume to be created either by the external provisioner '{provisioner}' or manually by the"
            " system administrator. If volume creation is delayed, please verify that the provisioner is running and"
            " correctly registered."
        )
        self._tell(claim, Note("Normal", "ExternalProvisioning", text))

    async def _lose(self, key: str, claim: Claim, note: Note) -> None:
        if claim.status.phase == "Lost" or await self._is_there(claim, note):
            return
        claim.status.phase = "Lost"
        claim.status.ClearField("accessModes")
        claim.status.ClearField("capacity")
        self._claim_writes.wrote(key, await self._client.update_status(claim))
        self._tell(claim, note)

    async def _is_there(self, claim: Claim, note: Note) -> bool:
        """A volume that our view lacks may be newer than the view."""
        if note.reason != "ClaimLost" or not claim.spec.volumeName:
            return False
        try:
            await self._client.get(Volume, claim.spec.volumeName)
        except NotFound:
            return False
        return True

    async def _reconcile_volume(self, key: str, name: str) -> None:
        view: VolumeView | None = self._volumes.projection(name)
        volume = self._volumes.get(name)
        if view is None or volume is None:
            self._forget(key)
            return
        claim: ClaimView | None = self._claims.projection(view.claim) if view.claim else None
        if view.claim_uid and (claim is None or claim.uid != view.claim_uid):
            claim = await self._ask_for_claim(view.claim)
        step = plan_volume(view, claim)
        match step:
            case SetPhase(phase, message, note):
                volume.status.phase = phase
                volume.status.message = message
                self._volume_writes.wrote(key, await self._client.update_status(volume))
                self._tell(volume, note)
            case Unbind(keep_reservation):
                release(volume, keep_reservation=keep_reservation)
                self._volume_writes.wrote(key, await self._client.update(volume))

    async def _ask_for_claim(self, key: str) -> ClaimView | None:
        """A released volume may be deleted, so the server's word counts, not that of a view that may lag."""
        namespace, name = split_key(key)
        try:
            return claim_view(await self._client.get(Claim, name, namespace))
        except NotFound:
            return None

    def _tell(self, obj: Any, note: Note | None) -> None:
        if note is not None:
            self._events.event(obj, note.kind, note.reason, note.message)

    def _forget(self, key: str) -> None:
        self._claim_writes.forget(key)
        self._volume_writes.forget(key)

    def _claim_keys(self, old: Any, new: Any) -> Iterable[str]:
        claim = new if new is not None else old
        keys = [_CLAIM + namespaced_name(claim)]
        keys += [_VOLUME + name for name in self._volumes.store.keys_by_index(CLAIM_INDEX, namespaced_name(claim))]
        if claim.spec.volumeName:
            keys.append(_VOLUME + claim.spec.volumeName)
        return dict.fromkeys(keys)

    def _volume_keys(self, old: Any, new: Any) -> Iterable[str]:
        keys = [_VOLUME + (new if new is not None else old).metadata.name]
        for volume in (new, old):
            if volume is not None and volume.spec.HasField("claimRef"):
                reference = volume.spec.claimRef
                keys.append(f"{_CLAIM}{reference.namespace}/{reference.name}")
        if new is not None and not new.spec.HasField("claimRef") and new.status.phase == "Available":
            keys += self._unbound_keys(class_of(new))
        return dict.fromkeys(keys)

    def _class_keys(self, old: Any, new: Any) -> Iterable[str]:
        if new is None:
            return ()
        without_class = self._unbound_keys("") if class_view(new).is_default else []
        return [*self._unbound_keys(new.metadata.name), *without_class]

    def _unbound_keys(self, storage_class: str) -> list[str]:
        return [_CLAIM + key for key in self._claims.store.keys_by_index(CLASS_INDEX, class_key(storage_class))]


def reserve(volume: Volume, claim: Claim) -> bool:
    """Make the volume name this very claim; whether anything changed."""
    if not volume.spec.HasField("claimRef"):
        # Ours, not a user's: it goes altogether if the claim takes another volume.
        volume.metadata.annotations[BOUND_BY_CONTROLLER] = "yes"
    wanted = reference_pb2.ObjectReference(
        kind="PersistentVolumeClaim",
        apiVersion="v1",
        namespace=claim.metadata.namespace,
        name=claim.metadata.name,
        uid=claim.metadata.uid,
        resourceVersion=claim.metadata.resourceVersion,
    )
    if volume.spec.claimRef.uid == claim.metadata.uid:
        return False
    volume.spec.claimRef.CopyFrom(wanted)
    return True


def name_volume(claim: Claim, volume: str) -> bool:
    """Make the claim name the volume for good; whether anything changed."""
    annotations = claim.metadata.annotations
    if claim.spec.volumeName == volume and BIND_COMPLETED in annotations:
        return False
    if claim.spec.volumeName != volume:
        claim.spec.volumeName = volume
        annotations[BOUND_BY_CONTROLLER] = "yes"
    annotations[BIND_COMPLETED] = "yes"
    return True


def release(volume: Volume, *, keep_reservation: bool) -> None:
    """Take the claim off the volume; of a user's reservation only the uid."""
    if keep_reservation:
        volume.spec.claimRef.ClearField("uid")
        volume.spec.claimRef.ClearField("resourceVersion")
        return
    volume.spec.ClearField("claimRef")
    volume.metadata.annotations.pop(BOUND_BY_CONTROLLER, None)
