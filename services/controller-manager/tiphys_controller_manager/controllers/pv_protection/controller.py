"""Lets deleted volumes go when no claim is bound to them.

Source: kubernetes pkg/controller/volume/pvprotection.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from tiphys.api.core.v1 import persistent_volume_pb2
from tiphys_apimachinery.errors import NotFound
from tiphys_apimachinery.meta import has_finalizer, is_being_deleted
from tiphys_client.controller import RequeueAfter
from tiphys_controller_manager.frame import Context, Watch, own_key

Volume = persistent_volume_pb2.PersistentVolume
FINALIZER: Final = "kubernetes.io/pv-protection"


class VolumeProtection:
    """Keys are names of volumes."""

    def __init__(self, context: Context) -> None:
        self._client = context.client
        self._volumes = context.informers.of(Volume)

    def watches(self) -> Iterable[Watch]:
        """Volumes."""
        return (Watch(Volume, own_key),)

    def first_keys(self) -> Iterable[str]:
        """None: every volume is seen as added."""
        return ()

    async def reconcile(self, key: str) -> RequeueAfter | None:
        """Give a volume its finalizer, or take it off one that is deleted and free. Raises errors of the API."""
        volume = self._volumes.get(key)
        if volume is None:
            return None
        is_held = has_finalizer(volume, FINALIZER)
        if is_being_deleted(volume):
            # The update fails on a version that is not the newest, so no binding is overlooked.
            if is_held and volume.status.phase != "Bound":
                volume.metadata.finalizers.remove(FINALIZER)
                await self._update(volume)
        elif not is_held:
            volume.metadata.finalizers.append(FINALIZER)
            await self._update(volume)
        return None

    async def _update(self, volume: Volume) -> None:
        try:
            await self._client.update(volume)
        except NotFound:
            return
