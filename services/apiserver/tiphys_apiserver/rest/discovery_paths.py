"""Serves what discovery.py and openapi/ compile: /api, /apis, /openapi/v2, /openapi/v3 and the issuer's documents."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
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


def add_discovery_paths(paths: PlainPaths, resources: Sequence[ResourceInfo], server_address: str) -> None:
    """/api and /apis with everything below that is no resource."""
    groups = discovery.groups_of(resources)
    paths.add("/api", _document(lambda: discovery.api_versions(server_address), resources, legacy=True))
    paths.add("/apis", _document(lambda: discovery.api_group_list(groups), resources, legacy=False))
    for group in groups:
        base = f"/apis/{group.name}" if group.name else "/api"
        if group.name:
            paths.add(base, _constant(lambda group=group: discovery.api_group(group)))  # type: ignore[misc]
        for version in group.versions:
            made = _constant(
                lambda name=group.name, version=version: discovery.api_resource_list(name, version, resources)  # type: ignore[misc]
            )
            paths.add(f"{base}/{version}", made)


def _constant(make: Callable[[], Any]) -> Handler:
    body = cache(lambda: orjson.dumps(make()))

    async def handle(_exchange: Exchange) -> Answer:
        return Answer(200, body())

    return handle


def _document(make: Callable[[], Any], resources: Sequence[ResourceInfo], *, legacy: bool) -> Handler:
    plain = cache(lambda: orjson.dumps(make()))
    aggregated = cache(lambda: orjson.dumps(discovery.aggregated(resources, legacy=legacy)))

    async def handle(exchange: Exchange) -> Answer:
        if choose_format(exchange.headers.get("Accept", ""), tables=False).aggregated:
            return Answer(200, aggregated(), _AGGREGATED_TYPE, [("Vary", "Accept")])
        return Answer(200, plain(), headers=[("Vary", "Accept")])

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
