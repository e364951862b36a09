"""Watches over HTTP: what is sent, in which form, and how they end."""

from __future__ import annotations

import asyncio
import gc
import struct
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest

from tests.support.apiserver import RunningServer, read_chunks, running_server
from tests.support.kubelet import wait_until
from tiphys.api.core.v1 import config_map_pb2
from tiphys.api.meta.v1 import meta_pb2
from tiphys_apimachinery.codec import proto_codec
from tiphys_apiserver.rest.watch_stream import WatchResponse

CONFIG_MAPS = "/api/v1/namespaces/default/configmaps"
MERGE = "application/merge-patch+json"


class Watching:
    """One open watch; next() is the next event."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._chunks = read_chunks(reader)

    async def next(self) -> Any:
        async with asyncio.timeout(5):
            return orjson.loads(await anext(self._chunks))

    async def raw(self) -> bytes:
        async with asyncio.timeout(5):
            return await anext(self._chunks)

    async def is_over(self) -> bool:
        async with asyncio.timeout(5):
            return [chunk async for chunk in self._chunks] == []


@asynccontextmanager
async def watch(
    server: RunningServer, query: str = "", accept: str = "application/json", path: str = CONFIG_MAPS
) -> AsyncIterator[Watching]:
    reader, writer = await server.connect()
    writer.write(f"GET {path}?watch=1{query} HTTP/1.1\r\nHost: x\r\nAccept: {accept}\r\n\r\n".encode())
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200"), head
    try:
        yield Watching(reader)
    finally:
        writer.transport.abort()


def config_map(name: str, **metadata: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, **metadata}}


async def test_A10_events_come_in_order_with_whole_objects(server: RunningServer) -> None:
    await server.http("POST", CONFIG_MAPS, config_map("a"))
    async with watch(server) as watching:
        first = await watching.next()
        assert (first["type"], first["object"]["metadata"]["name"], first["object"]["kind"]) == (
            "ADDED",
            "a",
            "ConfigMap",
        )
        await server.http("PATCH", f"{CONFIG_MAPS}/a", {"data": {"k": "v"}}, content_type=MERGE)
        await server.http("DELETE", f"{CONFIG_MAPS}/a")
        changed, deleted = await watching.next(), await watching.next()
        assert (changed["type"], changed["object"]["data"]) == ("MODIFIED", {"k": "v"})
        assert (deleted["type"], deleted["object"]["data"]) == ("DELETED", {"k": "v"})
        versions = [int(event["object"]["metadata"]["resourceVersion"]) for event in (first, changed, deleted)]
        assert versions == sorted(set(versions))


async def test_A10_object_that_leaves_the_selection_is_deleted_for_its_watcher(server: RunningServer) -> None:
    async with watch(server, "&labelSelector=a%3Db&resourceVersion=0") as watching:
        await server.http("POST", CONFIG_MAPS, config_map("x"))
        await server.http("POST", CONFIG_MAPS, config_map("y", labels={"a": "b"}))
        assert (await watching.next())["object"]["metadata"]["name"] == "y"
        await server.http("PATCH", f"{CONFIG_MAPS}/y", {"metadata": {"labels": None}}, content_type=MERGE)
        gone = await watching.next()
        assert (gone["type"], gone["object"]["metadata"]["labels"]) == ("DELETED", {"a": "b"})


async def test_A11_watch_resumes_right_after_a_version(server: RunningServer) -> None:
    await server.http("POST", CONFIG_MAPS, config_map("a"))
    version = (await server.http("GET", CONFIG_MAPS)).json()["metadata"]["resourceVersion"]
    await server.http("POST", CONFIG_MAPS, config_map("b"))
    async with watch(server, f"&resourceVersion={version}") as watching:
        assert (await watching.next())["object"]["metadata"]["name"] == "b"


async def test_A14_initial_events_end_with_a_marked_bookmark(server: RunningServer) -> None:
    await server.http("POST", CONFIG_MAPS, config_map("a"))
    query = "&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
    async with watch(server, query) as watching:
        events = [await watching.next(), await watching.next()]
    assert [event["type"] for event in events] == ["ADDED", "BOOKMARK"]
    assert events[1]["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}


async def test_protobuf_frames(server: RunningServer) -> None:
    await server.http("POST", CONFIG_MAPS, config_map("a"))
    async with watch(server, accept="application/vnd.kubernetes.protobuf") as watching:
        frame = await watching.raw()
    (length,) = struct.unpack(">I", frame[:4])
    event = meta_pb2.WatchEvent.FromString(frame[4:])
    assert (length, event.type) == (len(frame) - 4, "ADDED")
    version, kind, raw = proto_codec.decode_envelope(event.object.raw)
    assert (version, kind) == ("v1", "ConfigMap")
    assert config_map_pb2.ConfigMap.FromString(raw).metadata.name == "a"


FORMS = [
    pytest.param("application/json;as=Table;g=meta.k8s.io;v=v1", "Table", id="table"),
    pytest.param(
        "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1", "PartialObjectMetadata", id="metadata"
    ),
]


@pytest.mark.parametrize(("accept", "kind"), FORMS)
async def test_A43_other_forms(server: RunningServer, accept: str, kind: str) -> None:
    await server.http("POST", CONFIG_MAPS, config_map("a"))
    async with watch(server, accept=accept) as watching:
        event = await watching.next()
    assert (event["type"], event["object"]["kind"]) == ("ADDED", kind)


async def test_converted_version_is_watched_in_its_own_form(server: RunningServer) -> None:
    event = {"metadata": {"name": "e"}, "involvedObject": {"namespace": "default"}, "message": "text", "type": "Normal"}
    assert (await server.http("POST", "/api/v1/namespaces/default/events", event)).status == 201
    async with watch(server, path="/apis/events.k8s.io/v1/events") as watching:
        seen = (await watching.next())["object"]
    assert (seen["apiVersion"], seen["note"]) == ("events.k8s.io/v1", "text")


async def test_watch_ends_in_good_order_when_its_time_is_up(server: RunningServer) -> None:
    async with watch(server, "&timeoutSeconds=1") as watching:
        assert await watching.is_over()


async def test_A54_watch_ends_in_good_order_when_the_server_stops() -> None:
    async with running_server() as server:
        reader, writer = await server.connect()
        writer.write(f"GET {CONFIG_MAPS}?watch=1 HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        await reader.readuntil(b"\r\n\r\n")
    assert await Watching(reader).is_over()
    writer.close()


async def test_future_version_is_refused(server: RunningServer) -> None:
    reply = await server.http("GET", f"{CONFIG_MAPS}?watch=1&resourceVersion=x1")
    assert (reply.status, reply.json()["message"]) == (400, 'invalid resource version: "x1"')


async def test_A10_slow_client_does_not_hold_up_another(server: RunningServer) -> None:
    big = {"data": {"k": "v" * 500_000}}
    reader, writer = await server.connect()
    writer.write(f"GET {CONFIG_MAPS}?watch=1 HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    await reader.readuntil(b"\r\n\r\n")
    # From here on this client reads nothing: its buffers fill up after a few events.
    assert isinstance(writer.transport, asyncio.Transport)
    writer.transport.pause_reading()
    async with watch(server) as quick:
        for number in range(20):
            await server.http("POST", CONFIG_MAPS, {**config_map(f"c{number}"), **big})
            assert (await quick.next())["object"]["metadata"]["name"] == f"c{number}"
    writer.transport.abort()


async def test_a_watch_that_is_over_is_gone_without_the_collector(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a ring each would hold its connection, some 100 KB, until the collector comes; it comes seldom."""
    seen: list[weakref.ref[WatchResponse]] = []
    serve = WatchResponse.serve

    async def noted(self: WatchResponse, *rest: Any) -> None:
        seen.append(weakref.ref(self))
        await serve(self, *rest)

    monkeypatch.setattr(WatchResponse, "serve", noted)
    gc.disable()
    try:
        async with watch(server):
            assert len(seen) == 1
        async with watch(server, "&resourceVersion=0&timeoutSeconds=1") as watching:
            assert await ends(watching)
        await wait_until(lambda: all(one() is None for one in seen))
    finally:
        gc.enable()
    assert len(seen) == 2


async def ends(watching: Watching) -> bool:
    """Whether the server ends it, with whatever it still sends before."""
    async with asyncio.timeout(10):
        while True:
            try:
                await watching.raw()
            except StopAsyncIteration:
                return True
