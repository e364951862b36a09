from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tiphys_cluster import egress
from tiphys_cluster.egress import Options, Proxy, Refused, is_reachable, parse_request


def test_a_tunnel_is_asked_by_host_and_port() -> None:
    request = parse_request(b"CONNECT registry.example:5000 HTTP/1.1\r\nHost: x\r\n\r\n")

    assert (request.host, request.port, request.is_tunnel, request.head) == ("registry.example", 5000, True, b"")


def test_a_plain_request_goes_on_in_the_form_a_server_takes() -> None:
    request = parse_request(
        b"GET http://registry.example:5000/v2/?a=b HTTP/1.1\r\nHost: registry.example:5000\r\n"
        b"Proxy-Connection: keep-alive\r\nAccept: */*\r\n\r\n"
    )

    assert (request.host, request.port) == ("registry.example", 5000)
    assert request.head == (
        b"GET /v2/?a=b HTTP/1.1\r\nHost: registry.example:5000\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    )


def test_a_request_without_a_path_asks_for_the_root_at_port_80() -> None:
    request = parse_request(b"GET http://registry.example HTTP/1.1\r\n\r\n")

    assert request.port == 80
    assert request.head.startswith(b"GET / HTTP/1.1\r\n")


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"CONNECT registry.example HTTP/1.1\r\n\r\n",
        b"CONNECT registry.example:port HTTP/1.1\r\n\r\n",
        b"GET https://registry.example/ HTTP/1.1\r\n\r\n",
        b"\xff\xfe\r\n\r\n",
        b"hello\r\n\r\n",
    ],
    ids=["own-path", "no-port", "bad-port", "tls-without-tunnel", "binary", "one-word"],
)
def test_what_is_no_proxy_request_is_refused(head: bytes) -> None:
    with pytest.raises(Refused):
        parse_request(head)


@pytest.mark.parametrize(
    ("address", "allowed"),
    [
        ("203.0.113.7", True),
        ("10.0.0.1", True),
        ("127.0.0.1", False),
        ("::1", False),
        ("169.254.169.254", False),
        ("0.0.0.0", False),
        ("224.0.0.1", False),
    ],
)
def test_what_only_this_machine_may_reach_stays_closed(address: str, allowed: bool) -> None:
    assert is_reachable(address) is allowed


@asynccontextmanager
async def proxied(**changes: str) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection to a proxy that runs."""
    usual: dict[str, Any] = {"bind_address": "127.0.0.1", "port": 0, "allow_from": "127.0.0.0/8"}
    options = Options(**{**usual, **changes})
    proxy = Proxy(options)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(proxy.run())
        await proxy.serving.wait()
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        try:
            yield reader, writer
        finally:
            writer.close()
            await writer.wait_closed()
            running.cancel()


@asynccontextmanager
async def echo() -> AsyncIterator[int]:
    """A server that answers with what it hears; its port."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.read(1024))
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]


async def test_a_tunnel_carries_bytes_both_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(egress, "is_reachable", lambda address: True)
    async with echo() as port, proxied() as (reader, writer):
        writer.write(f"CONNECT localhost:{port} HTTP/1.1\r\n\r\n".encode())
        assert b" 200 " in await reader.readuntil(b"\r\n\r\n")
        writer.write(b"hello")

        assert await reader.read() == b"hello"


async def test_the_machines_own_proxy_is_asked_for_the_tunnel() -> None:
    async def upstream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n" + head.split(b"\r\n")[0])
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(upstream, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with proxied(upstream=url) as (reader, writer):
            writer.write(b"CONNECT registry.example:443 HTTP/1.1\r\n\r\n")
            await reader.readuntil(b"\r\n\r\n")

            assert await reader.read() == b"CONNECT registry.example:443 HTTP/1.1"


@pytest.mark.parametrize(
    ("request_", "allow_from", "status"),
    [
        (b"CONNECT 127.0.0.1:22 HTTP/1.1\r\n\r\n", "127.0.0.0/8", b"403"),
        (b"CONNECT registry.example:443 HTTP/1.1\r\n\r\n", "198.18.0.0/24", b"403"),
        (b"GET / HTTP/1.1\r\n\r\n", "127.0.0.0/8", b"400"),
    ],
    ids=["loopback", "stranger", "no-proxy-request"],
)
async def test_what_is_not_served_is_told_by_status(request_: bytes, allow_from: str, status: bytes) -> None:
    async with proxied(allow_from=allow_from) as (reader, writer):
        writer.write(request_)

        assert (await reader.read()).split(b" ")[1] == status
