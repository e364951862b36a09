"""The OpenAPI documents of a server, each built when it is first asked for and kept as bytes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from functools import partial

import orjson
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message

from tiphys.api.meta.v1 import meta_pb2
from tiphys_apimachinery.schema import descriptor_of
from tiphys_apimachinery.scheme import ResourceInfo, Scheme
from tiphys_apiserver.openapi import v2, v3
from tiphys_apiserver.openapi.schemas import JSON, load_comments

_META_KINDS: tuple[type[Message], ...] = (meta_pb2.DeleteOptions, meta_pb2.Status, meta_pb2.Patch)


def kinds_of(scheme: Scheme) -> dict[str, Descriptor]:
    """The message of every kind that operations name, by "group/version/Kind"."""
    found: dict[str, Descriptor] = {}
    for resource in scheme.resources():
        prefix = f"{resource.group}/{resource.version}/"
        found[prefix + resource.kind] = descriptor_of(resource.message)
        if resource.list_message is not None:
            found[f"{prefix}{resource.kind}List"] = descriptor_of(resource.list_message)
        for sub in resource.subresources.values():
            group, version = (sub.group, sub.version) if sub.version else (resource.group, resource.version)
            kind = scheme.kind(f"{group}/{version}" if group else version, sub.kind)
            if kind is not None:
                found[f"{group}/{version}/{sub.kind}"] = descriptor_of(kind.message)
    for message in _META_KINDS:
        found[f"meta/v1/{message.DESCRIPTOR.name}"] = descriptor_of(message)
    return found


class OpenAPIService:
    """Documents by need: building one takes up to half a second of a thread, and happens once."""

    def __init__(self, scheme: Scheme, *, release: str) -> None:
        self._scheme = scheme
        self._release = release
        self._lock = asyncio.Lock()
        self._built: dict[str, bytes] = {}

    async def v2_json(self) -> bytes:
        """Version 2 as JSON."""
        return await self._once("v2.json", lambda: orjson.dumps(self._document_v2()))

    async def v2_protobuf(self) -> bytes:
        """Version 2 as openapi.v2 protobuf, which is what kubectl reads."""
        return await self._once("v2.pb", lambda: v2.to_protobuf(self._document_v2()))

    async def v3_index(self) -> bytes:
        """Where the documents of version 3 are. Builds all of them: their hashes are in it."""
        documents = {place: await self.v3(*place) for place in self._places()}
        return await self._once("v3", lambda: orjson.dumps(v3.index(documents)))

    async def v3(self, group: str, version: str) -> bytes:
        """Version 3 of one group-version. Raises KeyError where there is none."""
        if (group, version) not in self._places():
            raise KeyError((group, version))
        return await self._once(f"v3/{group}/{version}", partial(self._document_v3, group, version))

    async def _once(self, name: str, build: Callable[[], bytes]) -> bytes:
        async with self._lock:
            if name not in self._built:
                self._built[name] = await asyncio.to_thread(build)
        return self._built[name]

    def _places(self) -> dict[tuple[str, str], None]:
        return {(r.group, r.version): None for r in self._scheme.resources()}

    def _resources(self) -> list[ResourceInfo]:
        return list(self._scheme.resources())

    def _kinds(self) -> Mapping[str, Descriptor]:
        return kinds_of(self._scheme)

    def _document_v2(self) -> JSON:
        return v2.document(self._resources(), self._kinds(), load_comments(), release=self._release)

    def _document_v3(self, group: str, version: str) -> bytes:
        document = v3.document(
            group, version, self._resources(), kinds=self._kinds(), comments=load_comments(), release=self._release
        )
        return v3.encode(document)
