"""Sends a plain HTTP request on and streams the answer back as it comes: logs that follow, proxied pages."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence

from tiphys_apimachinery.errors import APIError, ServiceUnavailable
from tiphys_apiserver.rest.connection import connection_of
from tiphys_apiserver.rest.exchange import Exchange
from tiphys_apiserver.rest.tunnel import Target, dial, request_head
from tiphys_component.log import get_logger

_log = get_logger(__name__)

_HEAD_TIMEOUT_S = 30.0
_READ_BYTES = 64 * 1024
_MAX_REFUSAL_BYTES = 64 * 1024
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


Refusal = Callable[[int, bytes], APIError]


async def forward(exchange: Exchange, target: Target, *, refusal: Refusal | None = None) -> ForwardResponse:
    """Pass request and answer through; with refusal, an answer of 400 and up is raised as the error it makes of it.

    Raises ServiceUnavailable when the target can't be reached.
    """
    reader, writer = await dial(target, 10.0)
    connection = connection_of(exchange.request)
    try:
        # HTTP/1.0 in effect: one request a connection, and its end may be the end of the answer.
        head = request_head(exchange, target).replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
        writer.write(_without_connection(head))
        await _send_body(exchange, writer)
        answer = await read_head(reader, target)
        if refusal is not None:
            await raise_refusal(reader, answer, refusal)
        connection.listener = _Gone(writer)
        return await _stream(exchange, reader, answer)
    finally:
        connection.listener = None
        writer.close()


async def raise_refusal(reader: asyncio.StreamReader, head: bytes, refusal: Refusal) -> None:
    """Raises what refusal makes of an answer of 400 and up; other answers are left unread."""
    status, headers = parse_head(head)
    if status < 400:
        return
    text = b""
    try:
        async for piece in read_body(reader, headers):
            text += piece
            if len(text) >= _MAX_REFUSAL_BYTES:
                break
    except (asyncio.IncompleteReadError, ConnectionError) as err:
        _log.debug("refusal broke off", status=status, err=str(err))
    raise refusal(status, text[:_MAX_REFUSAL_BYTES])


async def read_head(reader: asyncio.StreamReader, target: Target) -> bytes:
    """Status line and headers of the answer. Raises ServiceUnavailable when there is none in time."""
    try:
        async with asyncio.timeout(_HEAD_TIMEOUT_S):
            return await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, TimeoutError, OSError) as err:
        where = f"{target.host}:{target.port}"
        raise ServiceUnavailable(f"error dialing backend: {where} does not answer: {err}") from err


async def _send_body(exchange: Exchange, writer: asyncio.StreamWriter) -> None:
    """Pass the request's body on as it comes, of any length.

    A target that ends the connection meanwhile may still have answered: that is for the reader to find.
    """
    request = exchange.request
    if not request.can_read_body:
        return
    if exchange.headers.get("Expect", "").lower() == "100-continue":
        exchange.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    is_chunked = "chunked" in exchange.headers.get("Transfer-Encoding", "").lower()
    try:
        while data := await request.content.readany():
            writer.write(b"%x\r\n%b\r\n" % (len(data), data) if is_chunked else data)
            await writer.drain()
        if is_chunked:
            writer.write(b"0\r\n\r\n")
    except ConnectionError as err:
        _log.debug("target takes no more of the request", path=exchange.path, err=str(err))


def _without_connection(head: bytes) -> bytes:
    """Only the last Connection header, which asks the other side to close after its answer."""
    lines = head.split(b"\r\n")
    kept = [
        line
        for line in lines[:-3]
        if not line.lower().startswith((b"connection:", b"keep-alive:", b"accept-encoding:", b"expect:"))
    ]
    return b"\r\n".join([*kept, *lines[-3:]])


async def _stream(exchange: Exchange, reader: asyncio.StreamReader, head: bytes) -> ForwardResponse:
    """Write the answer on in chunks of HTTP/1.1, taking apart those of the other side."""
    status, pairs = parse_head(head)
    kept = [f"{name}: {value}" for name, value in pairs if name.lower() not in _OF_CONNECTION]
    reason = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ", 1)[1]
    has_body = exchange.method != "HEAD" and status not in (204, 304)
    kept += ["Transfer-Encoding: chunked"] if has_body else []
    start = "\r\n".join([f"HTTP/1.1 {reason}", *kept, "Connection: close"])
    exchange.transport.write(start.encode("latin-1") + b"\r\n\r\n")
    exchange.tell_started()
    if not has_body:
        return ForwardResponse(status)
    try:
        async for data in read_body(reader, pairs):
            exchange.transport.write(b"%x\r\n%b\r\n" % (len(data), data))
            await exchange.request.writer.drain()
        exchange.transport.write(b"0\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionError) as err:
        # The other side broke off, or our client did: the answer ends without its last chunk.
        _log.debug("answer broke off", path=exchange.path, err=str(err))
    return ForwardResponse(status)


Headers = Sequence[tuple[str, str]]


def parse_head(head: bytes) -> tuple[int, Headers]:
    """Status and headers of an answer's head. Raises ServiceUnavailable for what is no HTTP."""
    status_line, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
    try:
        status = int(status_line.split(" ")[1])
    except (IndexError, ValueError) as err:
        raise ServiceUnavailable("error dialing backend: the answer is no HTTP") from err
    return status, [(name.strip(), value.strip()) for name, _, value in (line.partition(":") for line in lines)]


async def read_body(reader: asyncio.StreamReader, headers: Headers) -> AsyncIterator[bytes]:
    """The pieces of an answer's body as they come. Raises IncompleteReadError when it breaks off."""
    found = {name.lower(): value for name, value in headers}
    if found.get("transfer-encoding", "").lower() == "chunked":
        while size := int((await reader.readuntil(b"\r\n")).split(b";")[0].strip(), 16):
            async for data in _read(reader, size):
                yield data
            await reader.readexactly(2)
    else:
        length = found.get("content-length", "")
        async for data in _read(reader, int(length) if length.isdigit() else None):
            yield data


async def _read(reader: asyncio.StreamReader, length: int | None) -> AsyncIterator[bytes]:
    left = length
    while left is None or left > 0:
        data = await reader.read(_READ_BYTES if left is None else min(left, _READ_BYTES))
        if not data:
            if left:
                raise asyncio.IncompleteReadError(b"", left)
            return
        if left is not None:
            left -= len(data)
        yield data
