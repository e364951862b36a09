"""A REST client that costs little beside the server: prepared bytes on kept TLS connections, and no HTTP library.

It reads just as much of an answer as it needs to know where it ends: its status and its length. 16 connections with one
call in flight each are the conditions of DESIGN.md section 12.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import cast

IN_FLIGHT = 16


def request(method: str, path: str, body: bytes = b"", *headers: str, content_type: str = "application/json") -> bytes:
    """The bytes of a request."""
    lines = [f"{method} {path} HTTP/1.1", "Host: bench", *headers]
    if not any(line.startswith("Accept:") for line in headers):
        lines.append("Accept: application/json")
    if body:
        lines += [f"Content-Type: {content_type}", f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, "", ""]).encode() + body


class Connection(asyncio.Protocol):
    """One connection with at most one call in flight."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[bytes] | None = None
        self._parts: list[bytes] = []
        self._missing = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ready to call."""
        # uvloop's TLS transport is one by behaviour, not by class.
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Whoever waits is told."""
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(exc or ConnectionResetError("the server closed the connection"))

    async def call(self, data: bytes, *, status: int = 200) -> bytes:
        """The answer's body. Raises RuntimeError for another status."""
        assert self._transport is not None
        self._answer = asyncio.get_running_loop().create_future()
        self._parts, self._missing = [], 0
        self._transport.write(data)
        whole = await self._answer
        if int(whole[9:12]) != status:
            raise RuntimeError(f"{data[:80]!r}: {whole[:2000].decode(errors='replace')}")
        return whole

    def data_received(self, data: bytes) -> None:
        """A piece of the answer."""
        if not self._parts:
            self._missing = _whole_length(data)
        self._parts.append(data)
        self._missing -= len(data)
        if self._missing <= 0 and self._answer is not None:
            self._answer.set_result(self._parts[0] if len(self._parts) == 1 else b"".join(self._parts))

    def close(self) -> None:
        """Hang up."""
        if self._transport is not None:
            self._transport.close()


def _whole_length(start: bytes) -> int:
    """Bytes of the answer that starts so; its head comes in one piece, as the server writes it."""
    end = start.index(b"\r\n\r\n")
    at = start.index(b"Content-Length: ") + 16
    return end + 4 + int(start[at : start.index(b"\r", at)])


class Client:
    """Connections to one server as one user."""

    def __init__(self, port: int, tls: ssl.SSLContext) -> None:
        self._port = port
        self._tls = tls
        self._connections: list[Connection] = []

    @asynccontextmanager
    async def connected(self, connections: int = IN_FLIGHT) -> AsyncIterator[Client]:
        """Connect, and hang up at the end of the block."""
        try:
            for _ in range(connections):
                self._connections.append(await self.open(Connection))
            yield self
        finally:
            for connection in self._connections:
                connection.close()
            self._connections.clear()

    async def open(self, protocol: Callable[[], Connection]) -> Connection:
        """One more connection."""
        loop = asyncio.get_running_loop()
        return (await loop.create_connection(protocol, "127.0.0.1", self._port, ssl=self._tls))[1]

    async def call(self, data: bytes, *, status: int = 200) -> bytes:
        """One call on the first connection; head and body of the answer."""
        return await self._connections[0].call(data, status=status)

    async def all(self, requests: Iterable[bytes], *, status: int = 200) -> None:
        """Make all calls, as many at once as there are connections. Raises RuntimeError for a failed one."""
        left = iter(requests)

        async def work(connection: Connection) -> None:
            for data in left:
                await connection.call(data, status=status)

        async with asyncio.TaskGroup() as group:
            for connection in self._connections:
                group.create_task(work(connection))


class WatchConnection(Connection):
    """Counts the events of a watch and throws them away."""

    def __init__(self, progress: Callable[[int], None], marker: bytes) -> None:
        super().__init__()
        self._progress = progress
        self._marker = marker
        self._tail = b""

    def start(self, data: bytes) -> None:
        """Ask for the watch."""
        assert self._transport is not None
        self._transport.write(data)

    def data_received(self, data: bytes) -> None:
        """Some events, perhaps the last of them in part."""
        found = data.count(self._marker)
        seam = self._tail + data[: len(self._marker) - 1]
        found += seam.count(self._marker)
        self._tail = data[-(len(self._marker) - 1) :]
        if found:
            self._progress(found)


async def watch_object(client: Client, path: str, name: str, marker: bytes, seen: asyncio.Event) -> WatchConnection:
    """Follow one object of a collection; seen is set when an event holds marker. The caller closes the watch."""
    watch = await client.open(lambda: WatchConnection(lambda _: seen.set(), marker))
    assert isinstance(watch, WatchConnection)
    watch.start(request("GET", f"{path}?watch=1&fieldSelector=metadata.name%3D{name}"))
    return watch
