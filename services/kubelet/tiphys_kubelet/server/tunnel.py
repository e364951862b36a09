"""SPDY upgrades: the client's connection and the runtime's become one pipe.

The runtime speaks the same SPDY/3.1 and the same protocols as the client, so bytes are passed on as they are; only
WebSocket clients need translation (stream_bridge). aiohttp does not know SPDY, so the connection is taken from it: its
protocol on the transport is exchanged for a stream before the answer goes out, and given back at the end.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

from aiohttp import web

from tiphys_component.spdy.upgrade import PROTOCOL_HEADER, UpgradeRefused, dial

CHUNK_BYTES = 256 * 1024


class TunnelResponse(web.StreamResponse):
    """A response that has been sent already; aiohttp has nothing left to do."""

    async def prepare(self, request: web.BaseRequest) -> None:
        """Nothing is sent."""

    async def write_eof(self, data: bytes = b"") -> None:
        """Nothing is sent."""


class _TakenOver(asyncio.StreamReaderProtocol):
    """The stream in place of aiohttp's protocol, which still must hear of the connection's end."""

    def __init__(self, reader: asyncio.StreamReader, former: asyncio.BaseProtocol) -> None:
        super().__init__(reader)
        self._former = former

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._former.connection_lost(exc)


def is_spdy(request: web.Request) -> bool:
    """The client asks for SPDY/3.1."""
    return request.headers.get("Upgrade", "").lower() == "spdy/3.1"


async def tunnel(request: web.Request, url: str) -> web.StreamResponse:
    """Joins the client to the runtime's URL until either ends; raises HTTPException where the runtime refuses."""
    offered = request.headers.getall(PROTOCOL_HEADER, [])
    protocols = [name.strip() for line in offered for name in line.split(",")]
    try:
        upstream_reader, upstream_writer, chosen = await dial(url, protocols=protocols)
    except UpgradeRefused as err:
        raise web.HTTPBadRequest(text=str(err)) from err
    except (OSError, TimeoutError) as err:
        raise web.HTTPBadGateway(text=f"the runtime's streaming server can't be reached: {err}") from err
    try:
        reader, writer = take_over(request)
        head = ["HTTP/1.1 101 Switching Protocols", "Connection: Upgrade", "Upgrade: SPDY/3.1"]
        head += [f"{PROTOCOL_HEADER}: {chosen}"] if chosen else []
        writer.write(("\r\n".join(head) + "\r\n\r\n").encode())
        await join(reader, writer, upstream_reader, upstream_writer)
    finally:
        upstream_writer.close()
    response = TunnelResponse()
    response.force_close()
    return response


def take_over(request: web.Request) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """The client's connection as a stream of bytes. Nothing may have been received beyond the request."""
    transport = request.transport
    if transport is None:
        raise web.HTTPBadRequest(text="the connection is gone")
    former = transport.get_protocol()
    reader = asyncio.StreamReader(limit=CHUNK_BYTES)
    protocol = _TakenOver(reader, former)
    transport.set_protocol(protocol)
    protocol.connection_made(transport)
    return reader, asyncio.StreamWriter(transport, protocol, reader, asyncio.get_running_loop())


async def join(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    upstream_reader: asyncio.StreamReader,
    upstream_writer: asyncio.StreamWriter,
) -> None:
    """Passes bytes on in both directions until either side ends."""
    async with asyncio.TaskGroup() as group:
        there = group.create_task(_pump(reader, upstream_writer))
        back = group.create_task(_pump(upstream_reader, writer))
        await asyncio.wait((there, back), return_when=asyncio.FIRST_COMPLETED)
        there.cancel()
        back.cancel()
    with suppress(ConnectionError):
        await writer.drain()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    # A connection that breaks is an end like any other here.
    with suppress(ConnectionError):
        while data := await reader.read(CHUNK_BYTES):
            writer.write(data)
            await writer.drain()
