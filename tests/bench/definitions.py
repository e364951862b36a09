"""Custom resource definitions: how soon a kind is served, and what a thousand of them take. A server of its own.

Run by itself: python -m tests.bench.definitions
"""

from __future__ import annotations

import asyncio
from time import perf_counter
from typing import Any

import orjson
import uvloop

from tests.bench.api_server import RunningApiServer, running_api_server
from tests.bench.figures import Figure, median, print_figures, print_heading
from tests.bench.process import rss_mb, spending
from tests.bench.rest_client import Client, request

_CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
_DEFINITIONS = 1000
# Definitions whose readiness is timed, one after the other.
_TIMED = 20
_READY_MS = 100.0
_MEMORY_MB = 300.0


def definition(number: int) -> tuple[bytes, str]:
    """A definition with a schema of some 8 KB, ten to a group, and the path of its objects."""
    text = {"type": "string", "description": "Some words on what this field is about, as definitions have them."}
    part = {"type": "object", "properties": {f"field{index}": text for index in range(8)}}
    spec = {"type": "object", "properties": {f"part{index}": part for index in range(12)}}
    plural, group = f"things{number}", f"g{number // 10}.example.com"
    schema = {"openAPIV3Schema": {"type": "object", "properties": {"spec": spec}}}
    document: dict[str, Any] = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"plural": plural, "kind": f"Thing{number}"},
            "versions": [{"name": "v1", "served": True, "storage": True, "schema": schema}],
        },
    }
    return orjson.dumps(document), f"/apis/{group}/v1/namespaces/default/{plural}"


async def measure_definitions(store: str) -> list[Figure]:
    """Both figures over one store."""
    with running_api_server(store) as server:
        async with Client(server.port, server.tls).connected() as client:
            await client.call(request("GET", "/openapi/v2"))
            ready = Figure(
                f"{store}: a definition, created to first list answered",
                median([await _ready_ms(client, number) for number in range(_TIMED)]),
                "ms",
                _READY_MS,
            )
            figures = [ready, await _memory(client, server, store)]
    print_figures(figures)
    return figures


async def _ready_ms(client: Client, number: int) -> float:
    body, path = definition(number)
    began = perf_counter()
    await client.call(request("POST", _CRDS, body), status=201)
    await _until_served(client, path)
    return (perf_counter() - began) * 1000


async def _until_served(client: Client, path: str) -> None:
    async with asyncio.timeout(30):
        while True:
            try:
                await client.call(request("GET", path))
                return
            except RuntimeError:
                # Not served yet.
                continue


async def _memory(client: Client, server: RunningApiServer, store: str) -> Figure:
    """What definitions add, each with one object, discovery and OpenAPI read."""
    before = rss_mb(server.pid)
    with spending(*server.pids()) as spent:
        for number in range(_TIMED, _DEFINITIONS):
            body, path = definition(number)
            await client.call(request("POST", _CRDS, body), status=201)
            await _until_served(client, path)
            group = path.split("/")[2]
            thing = {"apiVersion": f"{group}/v1", "kind": f"Thing{number}", "metadata": {"name": "a"}}
            await client.call(request("POST", path, orjson.dumps(thing)), status=201)
    cpu_ms = sum(spent.cpu) * 1000 / (_DEFINITIONS - _TIMED)
    for path in ("/apis", "/openapi/v3"):
        await client.call(request("GET", path))
    whole = await client.call(request("GET", "/openapi/v2"))
    added = rss_mb(server.pid) - before
    note = f"{cpu_ms:.1f} ms of CPU each with an object; OpenAPI v2 is {len(whole) / 1e6:.0f} MB"
    return Figure(f"{store}: memory of {_DEFINITIONS:,} definitions, all read", added, "MB", _MEMORY_MB, note)


if __name__ == "__main__":
    print_heading()
    uvloop.run(measure_definitions("sqlite"))
