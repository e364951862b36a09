"""Serves what discovery.py and openapi/ compile: /api, /apis, /openapi/v2, /openapi/v3 and the issuer's documents."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any

import orjson

from tiphys_apimachinery.errors import NotFound
from tiphys_apimachinery.scheme import ResourceInfo
from tiphys_apiserver.openapi.service import OpenAPIService
from tiphys_apiserver.rest import discovery
from tiphys_apiserver.rest.exchange import Answer, Exchange
from tiphys_apiserver.rest.negotiate import choose_format
from tiphys_apiserver.rest.plain_paths import Handler, PlainPaths

_AGGREGATED_TYPE = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
# Clients ask for …v2@v1.0…, but an @ is no part of a media type to Go's parser: the answer is named with a dot.
_V2_PROTOBUF = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"


class Catalog:
    """The resources that are served: those that are there from the start, and those that come and go.

    What is made of them is kept until one comes or goes.
    """

    def __init__(
        self, fixed: Sequence[ResourceInfo], custom: Callable[[], Sequence[ResourceInfo]], generation: Callable[[], int]
    ) -> None:
        self._fixed = list(fixed)
        self._custom = custom
        self._generation = generation
        self._made_at = -1
        self._made: dict[str, bytes] = {}

    def resources(self) -> list[ResourceInfo]:
        """All of them as they are now."""
        return [*self._fixed, *self._custom()]

    def made(self, name: str, make: Callable[[list[ResourceInfo]], Any]) -> bytes:
        """The document of this name; made from the resources when it is first asked for after they changed."""
        generation = self._generation()
        if generation != self._made_at:
            self._made, self._made_at = {}, generation
        body = self._made.get(name)
        if body is None:
            body = self._made[name] = orjson.dumps(make(self.resources()))
        return body


def add_discovery_paths(paths: PlainPaths, catalog: Catalog, server_address: str) -> None:
    """/api and /apis with everything below that is no resource."""
    paths.add("/api", _document(catalog, lambda _: discovery.api_versions(server_address), legacy=True))
    listed = _document(
        catalog, lambda resources: discovery.api_group_list(discovery.groups_of(resources)), legacy=False
    )
    paths.add("/apis", listed)
    for group in discovery.groups_of(catalog.resources()):
        base = f"/apis/{group.name}" if group.name else "/api"
        if group.name:
            paths.add(base, partial(_group, catalog, group.name))
        for version in group.versions:
            paths.add(f"{base}/{version}", partial(_version, catalog, group.name, version))

    async def defined(exchange: Exchange) -> Answer:
        match exchange.path.strip("/").split("/"):
            case ["apis", group]:
                return await _group(catalog, group, exchange)
            case ["apis", group, version]:
                return await _version(catalog, group, version, exchange)
        raise NotFound.of_path()

    paths.add_under("/apis/", defined)


async def _group(catalog: Catalog, name: str, _exchange: Exchange) -> Answer:
    def make(resources: list[ResourceInfo]) -> Any:
        for group in discovery.groups_of(resource for resource in resources if resource.group == name):
            return discovery.api_group(group)
        raise NotFound.of_path()

    return Answer(200, catalog.made(f"group/{name}", make))


async def _version(catalog: Catalog, group: str, version: str, _exchange: Exchange) -> Answer:
    def make(resources: list[ResourceInfo]) -> Any:
        found = [r for r in resources if (r.group, r.version) == (group, version)]
        if not found:
            raise NotFound.of_path()
        return discovery.api_resource_list(group, version, found)

    return Answer(200, catalog.made(f"version/{group}/{version}", make))


def _document(catalog: Catalog, make: Callable[[list[ResourceInfo]], Any], *, legacy: bool) -> Handler:
    name = "legacy" if legacy else "groups"

    async def handle(exchange: Exchange) -> Answer:
        if choose_format(exchange.headers.get("Accept", ""), tables=False).aggregated:
            body = catalog.made(f"aggregated/{name}", lambda found: discovery.aggregated(found, legacy=legacy))
            return Answer(200, body, _AGGREGATED_TYPE, [("Vary", "Accept")])
        return Answer(200, catalog.made(name, make), headers=[("Vary", "Accept")])

    return handle


def _constant(make: Callable[[], Any]) -> Handler:
    body = cache(lambda: orjson.dumps(make()))

    async def handle(_exchange: Exchange) -> Answer:
        return Answer(200, body())

    return handle


def add_openapi_paths(paths: PlainPaths, documents: OpenAPIService) -> None:
    """/openapi/v2 in both forms, /openapi/v3 and the document of each group-version."""

    async def v2(exchange: Exchange) -> Answer:
        accept = exchange.headers.get("Accept", "")
        if "openapi.spec.v2" in accept and "protobuf" in accept.partition(",")[0]:
            return Answer(200, await documents.v2_protobuf(), _V2_PROTOBUF, [("Vary", "Accept")])
        return Answer(200, await documents.v2_json(), headers=[("Vary", "Accept")])

    async def v3_index(_exchange: Exchange) -> Answer:
        return Answer(200, await documents.v3_index())

    async def v3(exchange: Exchange) -> Answer:
        place = exchange.path.removeprefix("/openapi/v3/").split("/")
        match place:
            case ["api", version]:
                group = ""
            case ["apis", group, version]:
                pass
            case _:
                raise NotFound.of_path()
        try:
            body = await documents.v3(group, version)
        except KeyError as err:
            raise NotFound.of_path() from err
        # The hash in the address changes with the document, so whoever gives it may keep it for ever.
        headers = [("Expires", "Thu, 31 Dec 2099 23:59:59 GMT")] if exchange.query.get("hash") else []
        return Answer(200, body, headers=headers)

    paths.add("/openapi/v2", v2)
    paths.add("/openapi/v3", v3_index)
    paths.add_under("/openapi/v3/", v3)


def add_issuer_paths(paths: PlainPaths, discovery_document: dict[str, Any], keys: dict[str, Any]) -> None:
    """What others need to check tokens of service accounts by themselves."""
    paths.add("/.well-known/openid-configuration", _constant(lambda: discovery_document))

    async def jwks(_exchange: Exchange) -> Answer:
        return Answer(200, orjson.dumps(keys), "application/jwk-set+json")

    paths.add("/openid/v1/jwks", jwks)
