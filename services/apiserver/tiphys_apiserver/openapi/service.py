"""The OpenAPI documents of a server, each built when it is first asked for and kept as bytes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Protocol

import orjson
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message

from tiphys.api.meta.v1 import meta_pb2
from tiphys_apimachinery.schema import descriptor_of
from tiphys_apimachinery.scheme import ResourceInfo, Scheme
from tiphys_apiserver.crd.info import CustomInfo
from tiphys_apiserver.openapi import merge, v2, v3
from tiphys_apiserver.openapi.custom import CustomDocuments, facts_of
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


class CustomResources(Protocol):
    """The custom resources that are served."""

    @property
    def generation(self) -> int:
        """Grows with every one that comes or goes."""
        ...

    def custom_infos(self) -> list[CustomInfo]:
        """What is known of each, in each version."""
        ...


class OpenAPIService:
    """Documents by need: building one takes up to half a second of a thread, and happens once.

    What custom resources add is made apart, again when one came or went, and put behind what stays.
    """

    def __init__(self, scheme: Scheme, *, release: str, custom: CustomResources | None = None) -> None:
        self._scheme = scheme
        self._release = release
        self._custom = custom
        self._lock = asyncio.Lock()
        self._built: dict[str, bytes] = {}
        self._added: dict[str, bytes] = {}
        self._added_at = 0
        self._writer: CustomDocuments | None = None
        # By digest of what a document of custom resources shows: the hash of its bytes.
        self._hashes: dict[str, str] = {}

    async def v2_json(self) -> bytes:
        """Version 2 as JSON."""
        document = await self._once("v2.json", lambda: orjson.dumps(self._document_v2()))
        infos = self._infos()
        if not infos:
            return document

        return await self._with("v2.json", lambda: merge.append_json(document, self._added_to_v2(infos)))

    async def v2_protobuf(self) -> bytes:
        """Version 2 as openapi.v2 protobuf, which is what kubectl reads."""
        document = await self._once("v2.pb", lambda: v2.to_protobuf(self._document_v2()))
        infos = self._infos()
        if not infos:
            return document

        return await self._with("v2.pb", lambda: merge.append_protobuf(document, self._added_to_v2(infos)))

    def _added_to_v2(self, infos: Iterable[CustomInfo]) -> Iterator[JSON]:
        """What each custom resource adds, made when it is asked for."""
        customs = self._customs()
        return (customs.v2([info]) for info in infos)

    async def v3_index(self) -> bytes:
        """Where the documents of version 3 are. Builds all of them: their hashes are in it."""
        digests = {place: v3.digest(await self.v3(*place)) for place in self._places()}
        places = {place: infos for place, infos in self._custom_places().items() if place not in digests}

        def build() -> bytes:
            # Those of thousands of custom resources are not kept: few are ever read.
            known = {facts_of(infos): infos for infos in places.values()}
            self._hashes = {
                facts: self._hashes.get(facts) or v3.digest(v3.encode(self._customs().v3(infos)))
                for facts, infos in known.items()
            }
            added = {place: self._hashes[facts_of(infos)] for place, infos in places.items()}
            return orjson.dumps(v3.index(digests | added))

        return await self._with("v3", build)

    async def v3(self, group: str, version: str) -> bytes:
        """Version 3 of one group-version. Raises KeyError where there is none."""
        if (group, version) in self._places():
            return await self._once(f"v3/{group}/{version}", partial(self._document_v3, group, version))
        infos = self._custom_places()[group, version]
        return await self._with(f"v3/{group}/{version}", lambda: v3.encode(self._customs().v3(infos)))

    def _customs(self) -> CustomDocuments:
        if self._writer is None:
            self._writer = CustomDocuments(self._kinds(), load_comments(), release=self._release)
        return self._writer

    async def _once(self, name: str, build: Callable[[], bytes]) -> bytes:
        async with self._lock:
            if name not in self._built:
                self._built[name] = await asyncio.to_thread(build)
        return self._built[name]

    async def _with(self, name: str, build: Callable[[], bytes]) -> bytes:
        """The same for what custom resources have a part in."""
        async with self._lock:
            generation = self._custom.generation if self._custom is not None else 0
            if generation != self._added_at:
                self._added, self._added_at = {}, generation
            made = self._added.get(name)
            if made is None:
                made = self._added[name] = await asyncio.to_thread(build)
        return made

    def _infos(self) -> list[CustomInfo]:
        return self._custom.custom_infos() if self._custom is not None else []

    def _custom_places(self) -> dict[tuple[str, str], list[CustomInfo]]:
        found: dict[tuple[str, str], list[CustomInfo]] = {}
        for info in self._infos():
            found.setdefault((info.group, info.version), []).append(info)
        return found

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
