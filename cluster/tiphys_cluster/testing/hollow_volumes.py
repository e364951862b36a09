"""A provisioner with nothing behind it: makes the volumes that claims ask for, and takes away those that are free."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from random import Random
from typing import Any, Final

from tiphys.api.core.v1.persistent_volume_claim_pb2 import PersistentVolumeClaim
from tiphys.api.core.v1.persistent_volume_pb2 import PersistentVolume
from tiphys_apimachinery.errors import AlreadyExists, APIError, NotFound
from tiphys_apimachinery.meta import is_being_deleted
from tiphys_apimachinery.persistent_volumes import STORAGE_PROVISIONER
from tiphys_client.client import Client
from tiphys_client.informer import Informer
from tiphys_component.app import start_loop
from tiphys_component.clock import Clock

PROVISIONER: Final = "hollow.tiphys.dev"
_PROVISIONED_BY: Final = "pv.kubernetes.io/provisioned-by"
_AGAIN_S: Final = 1.0
_TAKES_S: Final = (0.1, 3.0)


class HollowVolumes:
    """Works for storage classes whose provisioner is PROVISIONER. A volume is named for its claim's uid."""

    def __init__(self, client: Client, clock: Clock, rng: Random) -> None:
        self._client = client
        self._clock = clock
        self._rng = rng
        self._group: asyncio.TaskGroup | None = None
        # Claims and volumes at which somebody is at work.
        self._at_work: set[str] = set()
        self._claims: Informer[PersistentVolumeClaim, None] = Informer(
            client, PersistentVolumeClaim, clock=clock, rng=rng
        )
        self._volumes: Informer[PersistentVolume, None] = Informer(client, PersistentVolume, clock=clock, rng=rng)
        self._claims.add_handler(self._on_claim, lambda _, new: self._on_claim(new), lambda _: None)
        self._volumes.add_handler(self._on_volume, lambda _, new: self._on_volume(new), lambda _: None)

    async def run(self) -> None:
        """Provision until cancelled."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            start_loop(group, self._claims.run(), "claims of the hollow provisioner")
            start_loop(group, self._volumes.run(), "volumes of the hollow provisioner")

    def _on_claim(self, claim: PersistentVolumeClaim) -> None:
        asked = claim.metadata.annotations.get(STORAGE_PROVISIONER) == PROVISIONER
        if asked and not claim.spec.volumeName and not is_being_deleted(claim):
            self._start(claim.metadata.uid, lambda: self._make(claim))

    def _on_volume(self, volume: PersistentVolume) -> None:
        is_ours = volume.metadata.annotations.get(_PROVISIONED_BY) == PROVISIONER
        if is_ours and volume.status.phase == "Released" and volume.spec.persistentVolumeReclaimPolicy == "Delete":
            self._start(volume.metadata.uid, lambda: self._remove(volume.metadata.name))

    def _start(self, uid: str, work: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        if self._group is not None and uid not in self._at_work:
            self._at_work.add(uid)
            self._group.create_task(self._until_done(uid, work), name=f"volume for {uid}")

    async def _until_done(self, uid: str, work: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        try:
            await self._clock.sleep(self._rng.uniform(*_TAKES_S))
            while True:
                try:
                    await work()
                    return
                except (AlreadyExists, NotFound):
                    return
                except APIError:
                    await self._clock.sleep(_AGAIN_S)
        finally:
            self._at_work.discard(uid)

    async def _make(self, claim: PersistentVolumeClaim) -> None:
        made = PersistentVolume()
        made.metadata.name = f"pvc-{claim.metadata.uid}"
        made.metadata.annotations[_PROVISIONED_BY] = PROVISIONER
        spec = made.spec
        spec.storageClassName, spec.persistentVolumeReclaimPolicy = claim.spec.storageClassName, "Delete"
        spec.capacity["storage"].CopyFrom(claim.spec.resources.requests["storage"])
        spec.accessModes.extend(claim.spec.accessModes)
        spec.persistentVolumeSource.hostPath.path = f"/hollow/{claim.metadata.uid}"
        claimed = spec.claimRef
        claimed.kind, claimed.apiVersion = "PersistentVolumeClaim", "v1"
        claimed.namespace, claimed.name, claimed.uid = (
            claim.metadata.namespace,
            claim.metadata.name,
            claim.metadata.uid,
        )
        await self._client.create(made)

    async def _remove(self, name: str) -> None:
        await self._client.delete(PersistentVolume, name, absent_ok=True)
