"""The objects of a kind by namespace, for plug-ins that ask at every write: looked up anew only when one changed."""

from __future__ import annotations

from typing import Generic, TypeVar

from google.protobuf.message import Message

from tiphys_apiserver.registry.objects import ObjectAccess

M = TypeVar("M", bound=Message)


class ByNamespace(Generic[M]):
    """Few objects of a kind in few namespaces, such as limits and quotas."""

    def __init__(self, objects: ObjectAccess, cls: type[M]) -> None:
        self._objects = objects
        self._cls = cls
        self._seen = 0
        self._found: dict[str, list[M]] = {}

    async def of(self, namespace: str) -> list[M]:
        """The objects of a namespace, in key order; read only."""
        version = self._objects.version(self._cls)
        if not version or version != self._seen:
            found: dict[str, list[M]] = {}
            for obj in await self._objects.list(self._cls):
                found.setdefault(getattr(obj, "metadata").namespace, []).append(obj)  # noqa: B009 no message's own type
            self._found, self._seen = found, version
        return self._found.get(namespace, [])
