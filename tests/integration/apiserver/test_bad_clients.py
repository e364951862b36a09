"""Clients that stall, break off, or send what only hurts: each harms itself alone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any
from urllib.parse import quote

import pytest

from tests.support.apiserver import JSON, RunningServer, read_reply, running_server
from tests.support.promptness import PROMPTLY_S
from tiphys_apiserver.rest.connection import ConnectionServer
from tiphys_apiserver.rest.exchange import Answer

MAPS = "/api/v1/namespaces/default/configmaps"
PODS = "/api/v1/namespaces/default/pods"
YAML = "application/yaml"
PROTOBUF = "application/vnd.kubernetes.protobuf"


async def prompt(server: RunningServer) -> None:
    """Somebody else is served as if nothing were."""
    async with asyncio.timeout(PROMPTLY_S):
        assert (await server.http("GET", MAPS)).status == 200


BOMBS = [
    pytest.param(b"[" * 1_000_000, JSON, 400, id="brackets that never close"),
    pytest.param(b'{"a":' * 200_000 + b"1" + b"}" * 200_000, JSON, 400, id="JSON 200,000 deep"),
    pytest.param(b'{"data":{"a":' + b"[" * 5000 + b"]" * 5000 + b"}}", JSON, 400, id="deep where text belongs"),
    pytest.param(
        b'{"metadata":{"name":"a"},"data":{"n":"' + b"x" * (2 << 20) + b'"}}', JSON, 422, id="over 1 MiB of data"
    ),
    pytest.param(
        b'{"metadata":{"name":"a","generation":' + b"9" * 5000 + b"}}", JSON, 400, id="number of 5,000 digits"
    ),
    pytest.param(
        b"{" + b",".join(b'"k%d":1' % n for n in range(200_000)) + b"}", JSON, 422, id="200,000 unknown members"
    ),
    pytest.param(b'{"metadata":{"name":"\xff\xfe"}}', JSON, 400, id="no UTF-8"),
    pytest.param(b'{"metadata":{"name":"\\ud800"}}', JSON, 400, id="half a surrogate"),
    pytest.param(b"\xef\xbb\xbf{}", JSON, 400, id="byte order mark"),
    pytest.param(b"", JSON, 400, id="nothing"),
    pytest.param(b"null", JSON, 400, id="null"),
    pytest.param(b"[" * 100_000, YAML, 400, id="YAML 100,000 deep"),
    pytest.param(
        b"a: &a [x,x,x,x,x,x,x,x,x]\n"
        + b"".join(b"%c: &%c [%s]\n" % (n + 1, n + 1, b",".join([b"*%c" % n] * 9)) for n in range(97, 110)),
        YAML,
        400,
        id="a billion laughs",
    ),
    pytest.param(b"metadata: &m {name: a, x: *m}", YAML, 400, id="YAML that holds itself"),
    pytest.param(b"!!python/object/apply:os.system ['true']", YAML, 400, id="YAML that calls"),
    pytest.param(
        b"k8s\x00" + b"\x0a\xff\xff\xff\xff\x0f", "application/vnd.kubernetes.protobuf", 400, id="protobuf, cut off"
    ),
    pytest.param(b"k8s\x00\x12\xe0\x5d" + b"\x0a\x80\x80" * 4000, PROTOBUF, 400, id="protobuf of lengths"),
]


@pytest.mark.parametrize(("body", "content_type", "code"), BOMBS)
async def test_bombs_are_refused_at_once(server: RunningServer, body: bytes, content_type: str, code: int) -> None:
    async with asyncio.timeout(PROMPTLY_S):
        reply = await server.http("POST", MAPS, body, content_type=content_type)
    assert (reply.status, reply.json()["kind"]) == (code, "Status")
    await prompt(server)


TRAVERSALS = (
    *("..", "../../secrets/x", "%2e%2e", "%2e%2e%2f%2e%2e%2fregistry", "a%2fb", "a%00b", "%ff", "a%0d%0aX:y"),
    *("~", "a;b", "a%3fb"),
)


@pytest.mark.parametrize("name", TRAVERSALS)
async def test_no_name_leads_elsewhere(server: RunningServer, name: str) -> None:
    await server.http("POST", "/api/v1/namespaces/default/secrets", {"metadata": {"name": "x"}})
    for path in (f"{MAPS}/{name}", f"/api/v1/namespaces/{name}/configmaps", f"/api/v1/namespaces/default/{name}/x"):
        reply = await server.http("GET", path)
        # A namespace that is not there has nothing in it; nothing else is found.
        assert reply.status in (400, 404) or reply.json()["items"] == [], (path, reply.body)
    stored = await server.http("POST", MAPS, {"metadata": {"name": "n", "namespace": "default"}, "data": {name: "v"}})
    assert stored.status in (201, 422)
    made = await server.http("POST", MAPS, {"metadata": {"name": name}})
    assert made.status == 422


SELECTORS = (
    "a in (" + ",".join(map(str, range(20_000))) + ")",
    "a=b," * 10_000 + "a=b",
    "a in (b",
    "((((",
    "!" * 5000,
    "=" * 5000,
    "\x00",
    "é=é",
)


@pytest.mark.parametrize("selector", SELECTORS, ids=lambda text: f"{text[:8]!r} of {len(text)}")
@pytest.mark.parametrize("kind", ["labelSelector", "fieldSelector"])
async def test_selectors_are_read_or_refused_at_once(server: RunningServer, kind: str, selector: str) -> None:
    text = quote(selector)[:60_000]
    async with asyncio.timeout(PROMPTLY_S):
        reply = await server.http("GET", f"{PODS}?{kind}={text}")
    assert reply.status in (200, 400), reply.body[:300]


MALFORMED = [
    pytest.param(b"GET / HTTP/9.9\r\n\r\n", id="version"),
    pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", id="TLS within TLS"),
    pytest.param(b"GET / HTTP/1.1\r\nHost: x\r\nA: \x01\r\n\r\n", id="control character"),
    pytest.param(b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"a" * 200_000 + b"\r\n\r\n", id="long header"),
    pytest.param(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", id="length below zero"),
    pytest.param(
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        id="two lengths: smuggling",
    ),
    pytest.param(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", id="no size of a chunk"),
]


@pytest.mark.parametrize("raw", MALFORMED)
async def test_what_is_no_http_is_told_so_and_hung_up_on(
    server: RunningServer, raw: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    reader, writer = await server.connect()
    writer.write(raw)
    async with asyncio.timeout(PROMPTLY_S):
        reply = await read_reply(reader)
        assert await reader.read() == b""
    writer.close()
    assert reply.status in (400, 404, 405, 413, 431), reply.body
    # Anybody can send this as often as they like: no traceback for each.
    assert not [record for record in caplog.records if record.exc_info]
    await prompt(server)


async def test_a_body_that_never_comes_ends_with_the_time_allowed() -> None:
    async with running_server(request_timeout_s=1.0) as server:
        reader, writer = await server.connect()
        head = f"POST {MAPS} HTTP/1.1\r\nHost: x\r\nContent-Type: {JSON}\r\nContent-Length: 100\r\n\r\n"
        writer.write(head.encode() + b'{"metadata"')
        await prompt(server)
        async with asyncio.timeout(PROMPTLY_S):
            reply = await read_reply(reader)
        assert (reply.status, reply.json()["reason"]) == (504, "Timeout")
        writer.close()


@pytest.mark.parametrize(("text", "code"), [("300ms", 504), ("1h", 504), ("never", 400), ("-5s", 504)])
async def test_a_caller_may_ask_for_less_time_and_never_for_more(text: str, code: int) -> None:
    async with running_server(request_timeout_s=1.0) as server:
        reader, writer = await server.connect()
        head = f"POST {MAPS}?timeout={text} HTTP/1.1\r\nHost: x\r\nContent-Type: {JSON}\r\nContent-Length: 9\r\n\r\n"
        writer.write(head.encode())
        async with asyncio.timeout(PROMPTLY_S):
            reply = await read_reply(reader)
        assert reply.status == code, reply.body
        writer.close()


async def test_slow_clients_hold_up_nobody(server: RunningServer) -> None:
    """Slow loris: heads and bodies that come byte by byte."""
    slow = [await server.connect() for _ in range(60)]
    head = f"POST {MAPS} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\nContent-Type: {JSON}\r\n\r\n"
    for number, (_, writer) in enumerate(slow):
        writer.write(b"GET / HTTP/1.1\r\nHo" if number % 2 else head.encode() + b"{")
    for _ in range(3):
        for _, writer in slow:
            writer.write(b"s")
        await prompt(server)
    for _, writer in slow:
        writer.transport.abort()


@asynccontextmanager
async def serving(body: bytes, stalled_s: float) -> AsyncIterator[int]:
    """A server that answers everything with this body."""

    async def handle(_request: Any) -> Answer:
        return Answer(200, body)

    listener = await asyncio.get_running_loop().create_server(
        ConnectionServer(handle, stalled_s=stalled_s), "127.0.0.1", 0
    )
    try:
        yield listener.sockets[0].getsockname()[1]
    finally:
        listener.close()


async def test_an_answer_that_is_not_read_is_dropped_with_its_client() -> None:
    async with serving(b"x" * (64 << 20), 0.2) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b" 200 " in await reader.readuntil(b"\r\n")
        assert isinstance(writer.transport, asyncio.Transport)
        writer.transport.pause_reading()
        async with asyncio.timeout(PROMPTLY_S):
            while not _is_reset(writer):  # noqa: ASYNC110  the other side tells nobody
                await asyncio.sleep(0.05)
        writer.transport.abort()


def _is_reset(writer: asyncio.StreamWriter) -> bool:
    """Whether the other side has broken off: what is written then fails."""
    with suppress(ConnectionError):
        writer.write(b"x")
    return writer.transport.is_closing()


async def test_an_answer_that_is_read_slowly_is_read_to_its_end() -> None:
    body = b"x" * (6 << 20)
    async with serving(body, 0.2) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=64 << 10)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")
        began, got = time.monotonic(), 0
        while got < len(body):
            got += len(await reader.readexactly(min(256 << 10, len(body) - got)))
            await asyncio.sleep(0.05)
        assert time.monotonic() - began > 1.0
        writer.close()


async def test_watches_that_nobody_reads_are_cut_off_alone(server: RunningServer) -> None:
    """Events flow to the one who reads; of the others' the server keeps next to nothing."""
    deaf = []
    for _ in range(20):
        _, writer = await server.connect()
        writer.write(f"GET {MAPS}?watch=1 HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert isinstance(writer.transport, asyncio.Transport)
        writer.transport.pause_reading()
        deaf.append(writer)
    reader, writer = await server.connect()
    writer.write(f"GET {MAPS}?watch=1 HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    await reader.readuntil(b"\r\n\r\n")
    text = "x" * 300_000
    for number in range(30):
        assert (
            await server.http("POST", MAPS, {"metadata": {"name": f"c{number}"}, "data": {"t": text}})
        ).status == 201
        async with asyncio.timeout(PROMPTLY_S):
            while f'"name":"c{number}"'.encode() not in await reader.readuntil(b"\n"):
                pass
    for one in (*deaf, writer):
        one.transport.abort()
