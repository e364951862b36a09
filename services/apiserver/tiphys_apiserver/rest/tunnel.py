"""Joins a client's connection to another server's, byte for byte, after both have agreed to switch protocols.

Nothing of SPDY or WebSocket is understood here: what one side writes the other reads.
"""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass
from typing import cast

from tiphys_apimachinery.errors import ServiceUnavailable
from tiphys_apiserver.rest.connection import connection_of
from tiphys_apiserver.rest.exchange import Answer, Exchange
from tiphys_apiserver.server.egress import Egress

_MAX_HEAD_BYTES = 64 * 1024
# A refusal's body that is passed on to the client.
_MAX_REFUSAL_BYTES = 1024 * 1024
_DIRECT = Egress()


@dataclass(frozen=True, slots=True)
class Target:
    """Where a request is sent on to; path has the query behind it. tls is None for plain HTTP.

    server_name is whom the certificate must name where that is not the host. headers are sent beside the client's.
    egress is the way there; None is the direct one.
    """

    host: str
    port: int
    path: str
    tls: ssl.SSLContext | None
    server_name: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    egress: Egress | None = None


class Pipe(asyncio.Protocol):
    """One end of a tunnel: what it receives is written to the other end."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._peer: asyncio.Transport | None = None
        self._early: list[bytes] = []
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A new connection."""
        self.attach(cast(asyncio.Transport, transport))

    def attach(self, transport: asyncio.Transport) -> None:
        """Take a connection, new or switched over from another protocol."""
        self._transport = transport

    def join(self, peer: asyncio.Transport) -> None:
        """Write what comes to the peer from now on, and first what came early."""
        self._peer = peer
        for data in self._early:
            peer.write(data)
        self._early.clear()

    def data_received(self, data: bytes) -> None:
        """Pass it on."""
        if self._peer is None:
            self._early.append(data)
        elif not self._peer.is_closing():
            self._peer.write(data)

    def eof_received(self) -> bool:
        """Pass a half close on where the other side can have one; TLS closes whole."""
        peer = self._peer
        if peer is not None and not peer.is_closing() and peer.can_write_eof():
            peer.write_eof()
            return self._transport is not None and self._transport.can_write_eof()
        return False

    def pause_writing(self) -> None:
        """Our reader is slow: let the other side wait."""
        if self._peer is not None and not self._peer.is_closing():
            self._peer.pause_reading()

    def resume_writing(self) -> None:
        """There is room again."""
        if self._peer is not None and not self._peer.is_closing():
            self._peer.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        """Close the other side too, after what is on its way to it."""
        if self._peer is not None:
            self._peer.close()
        if not self.over.done():
            self.over.set_result(None)


class TunnelResponse:
    """aiohttp's response to a request whose connection was taken over: nothing is left to do."""

    keep_alive = False
    status = 101

    async def prepare(self, request: object) -> None:
        """Everything is written."""

    async def write_eof(self) -> None:
        """Everything is written."""


async def tunnel(exchange: Exchange, target: Target, *, connect_timeout_s: float = 10.0) -> Answer | TunnelResponse:
    """Send the request on and, when it is accepted, join both connections until either ends.

    A refusal of the other side is passed on as it is. Raises ServiceUnavailable when it can't be reached.
    """
    reader, writer = await dial(target, connect_timeout_s)
    try:
        writer.write(request_head(exchange, target))
        await writer.drain()
        try:
            async with asyncio.timeout(connect_timeout_s):
                head = await reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, TimeoutError, OSError) as err:
            raise ServiceUnavailable(
                f"error dialing backend: {target.host}:{target.port} does not answer: {err}"
            ) from err
        code = _status_of(head)
        if code != 101:
            return await _refusal(reader, head, code)
        await _join(exchange, reader, writer, head)
        return TunnelResponse()
    finally:
        writer.close()


async def dial(target: Target, timeout_s: float) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection to the target. Raises ServiceUnavailable."""
    try:
        async with asyncio.timeout(timeout_s):
            return await (target.egress or _DIRECT).open(
                target.host, target.port, target.tls, server_name=target.server_name, limit=_MAX_HEAD_BYTES
            )
    except (OSError, TimeoutError, ssl.SSLError) as err:
        raise ServiceUnavailable(
            f"error dialing backend: dial tcp {target.host}:{target.port}: {err or 'i/o timeout'}"
        ) from err


# Headers that concern the client and this server only.
_NOT_PASSED_ON = frozenset({"host", "authorization", "cookie"})


def request_head(exchange: Exchange, target: Target) -> bytes:
    """The request's head for the target: same method and headers, without the caller's credentials."""
    lines = [f"{exchange.method} {target.path} HTTP/1.1", f"Host: {target.host}:{target.port}"]
    for name, value in exchange.headers.items():
        lower = name.lower()
        if lower in _NOT_PASSED_ON or lower.startswith(("impersonate-", "x-remote-")):
            continue
        if lower == "sec-websocket-protocol":
            # A bearer token may hide among the protocols; it is for this server.
            kept = [part for part in value.split(",") if not part.strip().startswith("base64url.bearer.")]
            value = ",".join(kept)
        lines.append(f"{name}: {value}")
    lines += [f"{name}: {value}" for name, value in target.headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace")


def _status_of(head: bytes) -> int:
    parts = head.split(b"\r\n", 1)[0].split(b" ", 2)
    try:
        return int(parts[1])
    except (IndexError, ValueError) as err:
        raise ServiceUnavailable("error dialing backend: the answer is no HTTP") from err


async def _refusal(reader: asyncio.StreamReader, head: bytes, code: int) -> Answer:
    headers = {
        name.strip().lower(): value.strip()
        for name, _, value in (line.partition(":") for line in head.decode("latin-1").split("\r\n")[1:])
    }
    length = headers.get("content-length", "")
    body = b""
    try:
        async with asyncio.timeout(5.0):
            wanted = min(int(length), _MAX_REFUSAL_BYTES) if length.isdigit() else _MAX_REFUSAL_BYTES
            body = await (reader.readexactly(wanted) if length.isdigit() else reader.read(wanted))
    except (TimeoutError, asyncio.IncompleteReadError) as err:
        body = getattr(err, "partial", b"")
    return Answer(code, body, headers.get("content-type", "text/plain"))


async def _join(exchange: Exchange, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: bytes) -> None:
    """Answer the client, take both connections from their protocols, and wait for the end of either."""
    connection = connection_of(exchange.request)
    client = exchange.transport
    upstream = cast(asyncio.Transport, writer.transport)
    to_client, to_upstream = Pipe(), Pipe()
    to_client.attach(upstream)
    to_upstream.attach(client)
    client.write(head)
    exchange.tell_started()
    # No await from here to the end of the exchange: no byte may reach the old protocols in between.
    # What already came behind the upgrade request, aiohttp keeps in _message_tail; what came behind
    # the answer, the stream reader keeps in its buffer. Neither has a public way to take it.
    early_client = bytes(connection._message_tail)
    connection._message_tail = b""
    early_upstream = bytes(reader._buffer)  # type: ignore[attr-defined]
    upstream.set_protocol(to_client)
    client.set_protocol(to_upstream)
    if early_upstream:
        client.write(early_upstream)
    if early_client:
        upstream.write(early_client)
    to_client.join(client)
    to_upstream.join(upstream)
    # The reader and aiohttp may have paused their transports over what they held.
    upstream.resume_reading()
    client.resume_reading()
    try:
        await asyncio.wait((to_client.over, to_upstream.over), return_when=asyncio.FIRST_COMPLETED)
    finally:
        upstream.close()
        client.close()
        # The client's connection no longer tells aiohttp that it ended.
        connection.connection_lost(None)
