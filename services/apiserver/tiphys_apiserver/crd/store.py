"""The store of one custom resource, whose objects may lie there in several versions.

An object keeps the version that it was last written in until it is written again: what is read of it in order to change
it is converted first, and a write that changes nothing else still brings it to the version that is stored now.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from tiphys_apimachinery.codec import proto_codec
from tiphys_apiserver.registry.store import ResourceStore
from tiphys_apiserver.storage.interface import KeyValue

Upgrade = Callable[[Any], Awaitable[Any]]


class CustomStore(ResourceStore):
    """Follows versions where `follow` was called; before that it is as every store."""

    _upgrade: Upgrade | None = None
    _classes: dict[str, type[Any]] | None = None

    def follow(self, classes: dict[str, type[Any]], upgrade: Upgrade | None) -> None:
        """Objects may lie in other versions than the one stored now. classes are by apiVersion.

        upgrade brings an object to the stored version; without one its version is only a name.
        """
        self.keeps_versions = True
        if upgrade is not None:
            self._classes = classes
            self._upgrade = upgrade

    async def _upgraded(self, obj: Any) -> Any:
        if self._upgrade is None or obj.KIND.api_version == self._api_version:
            return obj
        return await self._upgrade(obj)

    async def _is_outdated(self, key: str) -> bool:
        found = await self._store.get(key)
        return found is not None and proto_codec.decode_envelope(found.value)[0] != self._api_version

    def _cached(self, namespace: str, name: str) -> Any | None:
        found = self.cacher.get_nowait(namespace, name)
        return None if found is None else found.message()

    def _decode(self, found: KeyValue | None) -> Any | None:
        if found is None:
            return None
        api_version, _, raw = proto_codec.decode_envelope(found.value)
        obj: Any = (self._classes or {}).get(api_version, self._message).FromString(raw)
        obj.metadata.resourceVersion = str(found.mod_revision)
        return obj

    def _version_of(self, obj: Any) -> str:
        # A deletion may leave an object in the version in which it found it.
        return str(obj.KIND.api_version)
