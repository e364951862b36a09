"""Sends a plain HTTP request on and streams the answer back as it comes: logs that follow, proxied pages."""

from __future__ import annotations

import asyncio

from tiphys_apimachinery.errors import ServiceUnavailable
from tiphys_apiserver.rest.connection import connection_of
from tiphys_apiserver.rest.exchange import Exchange
from tiphys_apiserver.rest.tunnel import Target, dial, request_head

_HEAD_TIMEOUT_S = 30.0
_READ_BYTES = 64 * 1024
# Headers about one connection, which each side has of its own.
_OF_CONNECTION = frozenset({"connection", "keep-alive", "transfer-encoding", "upgrade", "content-length"})


class ForwardResponse:
    """aiohttp's response to a request that another server answers."""

    keep_alive = False

    def __init__(self, status: int) -> None:
        self.status = status

    async def prepare(self, request: object) -> None:
        """Everything is written."""

    async def write_eof(self) -> None:
        """Everything is written."""


class _Gone:
    """Ends a stream whose client has gone, though nothing comes from the other side."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer

    def writing_paused(self) -> None:
        """The stream waits by itself."""

    def writing_resumed(self) -> None:
        """The stream goes on by itself."""

    def connection_lost(self) -> None:
        """Make the reader see the end."""
        self._writer.transport.abort()


async def forward(exchange: Exchange, target: Target) -> ForwardResponse:
    """Pass request and answer through. Raises ServiceUnavailable when the target can't be reached."""
    body = await exchange.body()
    reader, writer = await dial(target, 10.0)
    connection = connection_of(exchange.request)
    try:
        # HTTP/1.0 in effect: one request a connection, and its end may be the end of the answer.
        head = request_head(exchange, target).replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
        writer.write(_without_connection(head) + body)
        try:
            async with asyncio.timeout(_HEAD_TIMEOUT_S):
                answer = await reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, TimeoutError, OSError) as err:
            raise ServiceUnavailable(
                f"error dialing backend: {target.host}:{target.port} does not answer: {err}"
            ) from err
        connection.listener = _Gone(writer)
        return await _stream(exchange, reader, answer)
    finally:
        connection.listener = None
        writer.close()


def _without_connection(head: bytes) -> bytes:
    """Only the last Connection header, which asks the other side to close after its answer."""
    lines = head.split(b"\r\n")
    kept = [
        line
        for line in lines[:-3]
        if not line.lower().startswith((b"connection:", b"keep-alive:", b"accept-encoding:"))
    ]
    return b"\r\n".join([*kept, *lines[-3:]])


async def _stream(exchange: Exchange, reader: asyncio.StreamReader, head: bytes) -> ForwardResponse:
    """Write the answer on in chunks of HTTP/1.1, taking apart those of the other side."""
    status_line, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
    pairs = [(name.strip(), value.strip()) for name, _, value in (line.partition(":") for line in lines)]
    headers = {name.lower(): value for name, value in pairs}
    kept = [f"{name}: {value}" for name, value in pairs if name.lower() not in _OF_CONNECTION]
    start = "\r\n".join(
        [f"HTTP/1.1 {status_line.split(' ', 1)[1]}", *kept, "Transfer-Encoding: chunked", "Connection: close"]
    )
    exchange.transport.write(start.encode("latin-1") + b"\r\n\r\n")
    try:
        if headers.get("transfer-encoding", "").lower() == "chunked":
            await _copy_chunks(exchange, reader)
        elif headers.get("content-length", "").isdigit():
            await _copy(exchange, reader, int(headers["content-length"]))
        else:
            await _copy(exchange, reader, None)
        exchange.transport.write(b"0\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionError):
        # The other side broke off, or our client did: the answer ends without its last chunk.
        pass
    return ForwardResponse(int(status_line.split(" ")[1]))


async def _copy(exchange: Exchange, reader: asyncio.StreamReader, length: int | None) -> None:
    left = length
    while left is None or left > 0:
        data = await reader.read(_READ_BYTES if left is None else min(left, _READ_BYTES))
        if not data:
            if left:
                raise asyncio.IncompleteReadError(b"", left)
            return
        if left is not None:
            left -= len(data)
        await _write(exchange, data)


async def _copy_chunks(exchange: Exchange, reader: asyncio.StreamReader) -> None:
    while True:
        line = await reader.readuntil(b"\r\n")
        size = int(line.split(b";")[0].strip(), 16)
        if size == 0:
            return
        await _copy(exchange, reader, size)
        await reader.readexactly(2)


async def _write(exchange: Exchange, data: bytes) -> None:
    exchange.transport.write(b"%x\r\n%b\r\n" % (len(data), data))
    await exchange.request.writer.drain()
