"""Passes requests for other servers' groups on to them, and puts those groups into this server's documents."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson

from tiphys.api.apiregistration.v1.apiregistration_pb2 import APIService
from tiphys_apimachinery.errors import NotFound
from tiphys_apiserver.admission.webhooks.caller import Resolve
from tiphys_apiserver.aggregation import documents
from tiphys_apiserver.aggregation.availability import Availability
from tiphys_apiserver.aggregation.client import ClientFiles, RemoteClient
from tiphys_apiserver.aggregation.openapi import RemoteOpenAPI
from tiphys_apiserver.aggregation.remotes import Remotes, RemoteTable, by_group
from tiphys_apiserver.registry.objects import ObjectAccess
from tiphys_apiserver.registry.table import ResourceTable
from tiphys_apiserver.rest.exchange import Answer, Exchange
from tiphys_apiserver.rest.fetch import Document
from tiphys_apiserver.rest.forward import forward
from tiphys_apiserver.rest.plain_paths import Handler
from tiphys_apiserver.rest.tunnel import tunnel
from tiphys_apiserver.server.call import Call
from tiphys_apiserver.server.egress import Egress
from tiphys_component.app import start_loop
from tiphys_component.clock import Clock
from tiphys_component.metrics import Registry


class Aggregator:
    """The other API servers behind this one. A group-version that is served here is never asked for elsewhere."""

    def __init__(
        self,
        objects: ObjectAccess,
        resolve: Resolve,
        *,
        egress: Egress,
        files: ClientFiles,
        clock: Clock,
        metrics: Registry,
    ) -> None:
        self._remotes = RemoteTable(objects)
        self._client = RemoteClient(resolve, egress, files)
        self._openapi = RemoteOpenAPI(self._client, clock)
        self._availability = Availability(
            objects, self._remotes, self._client, resolve=resolve, clock=clock, metrics=metrics
        )

    def start(self, group: asyncio.TaskGroup, table: ResourceTable) -> None:
        """Keep the Available conditions true, as a task of the group."""
        cacher = table.of_class(APIService).store.cacher
        start_loop(group, self._availability.run(cacher), "availability of APIServices")

    async def serve(self, exchange: Exchange, call: Call) -> Any:
        """Pass a request for a resource on. None where nobody serves its group; raises ServiceUnavailable."""
        remotes = await self._remotes.current()
        remote = remotes.get((call.info.api_group, call.info.api_version))
        if remote is None:
            return None
        path = exchange.raw_path + (f"?{exchange.raw_query}" if exchange.raw_query else "")
        target = await self._client.target(remote, path, call.user)
        if exchange.headers.get("Upgrade"):
            return await tunnel(exchange, target)
        return await forward(exchange, target)

    async def document(self, exchange: Exchange, local: Handler) -> Answer:
        """The answer for a path of discovery or OpenAPI: local's, with the other servers' groups put in."""
        remotes = await self._remotes.current()
        if not remotes or exchange.method not in ("GET", "HEAD"):
            return await local(exchange)
        path = exchange.path.rstrip("/")
        match path.split("/")[1:]:
            case ["apis"]:
                return self._groups(await local(exchange), remotes)
            case ["apis", group]:
                return await self._group(exchange, local, group, remotes)
            case ["apis", group, version]:
                return await self._of_remote(exchange, local, (group, version), path=path, remotes=remotes)
            case ["openapi", "v2"]:
                return await self._openapi.put_into(await local(exchange), remotes.values())
            case ["openapi", "v3"]:
                return _replaced(await local(exchange), documents.merge_openapi_index, remotes.values())
            case ["openapi", "v3", "apis", group, version]:
                return await self._of_remote(exchange, local, (group, version), path=path, remotes=remotes)
        return await local(exchange)

    def _groups(self, answer: Answer, remotes: Remotes) -> Answer:
        if "as=APIGroupDiscoveryList" in answer.content_type:
            return _replaced(answer, documents.merge_aggregated, remotes.values(), self._availability.lists)
        return _replaced(answer, documents.merge_groups, remotes.values())

    async def _group(self, exchange: Exchange, local: Handler, name: str, remotes: Remotes) -> Answer:
        versions = by_group(remotes.values()).get(name)
        if versions is None:
            return await local(exchange)
        try:
            answer = await local(exchange)
        except NotFound:
            head = {"kind": "APIGroup", "apiVersion": "v1"}
            return Answer(200, orjson.dumps({**head, **documents.api_group(name, versions, None)}))
        answer.body = orjson.dumps(documents.api_group(name, versions, orjson.loads(_whole(answer))))
        return answer

    async def _of_remote(
        self, exchange: Exchange, local: Handler, place: tuple[str, str], *, path: str, remotes: Remotes
    ) -> Answer:
        """A document that the remote itself writes, where this server has none of that name."""
        remote = remotes.get(place)
        if remote is None:
            return await local(exchange)
        try:
            return await local(exchange)
        except NotFound:
            accept = exchange.headers.get("Accept", "application/json")
            found: Document = await self._client.read(remote, path, accept=accept)
            return Answer(found.status, found.body, found.content_type)


def _whole(answer: Answer) -> bytes:
    return answer.body if isinstance(answer.body, bytes) else b"".join(answer.body)


def _replaced(answer: Answer, merge: Any, *more: Any) -> Answer:
    """The answer with merge applied to its document."""
    return Answer(
        answer.status, orjson.dumps(merge(orjson.loads(_whole(answer)), *more)), answer.content_type, answer.headers
    )
