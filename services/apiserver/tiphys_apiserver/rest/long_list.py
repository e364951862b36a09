"""Long lists in JSON: made object by object while they are written, so that they are never in memory as a whole.

A list of 100,000 pods is some 300 MB of JSON. Short lists are kept by their objects and sent in one piece with their
length; of a long one the first bytes go out at once, and no more than two slices exist at a time.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

from aiohttp.web_request import BaseRequest

from tiphys_apiserver.rest.exchange import JSON_TYPE, Answer, http_date
from tiphys_apiserver.rest.watch_stream import LAST_CHUNK, chunk
from tiphys_apiserver.server.call import Seat
from tiphys_apiserver.storage.objects import CachedObject
from tiphys_component.proc import to_thread

# A list of so many objects is written as it is made.
LONG = 10_000
_SLICE = 64
# Slices of one step of compression, which is a call of a thread.
_GZIP_SLICES = 8
_GZIP_LEVEL = 1
# Longest time for one list: its seats are not another's meanwhile. Source: kube-apiserver --request-timeout.
_LIMIT_S = 60.0
# zlib's number for the gzip format with the largest window.
_GZIP_FORMAT = 31


class LongList(Answer):
    """An answer in chunks. It holds the request's seats until it is written: that is where its work is."""

    __slots__ = ("_gzip", "_head", "_items", "_seat")

    def __init__(self, head: bytes, items: Sequence[CachedObject]) -> None:
        """Head is the list's JSON up to its first item."""
        super().__init__(200, b"", JSON_TYPE)
        self._head = head
        self._items = items
        self._gzip = False
        self._seat: Seat | None = None

    def compress(self) -> None:
        """Write it gzipped."""
        self._gzip = True
        self.headers.append(("Content-Encoding", "gzip"))
        self.headers.append(("Vary", "Accept-Encoding"))

    def hold(self, seat: Seat | None) -> None:
        """Keep seats until everything is written, or the client has gone."""
        self._seat = seat

    def __del__(self) -> None:
        # Where the client went before the first byte nobody calls prepare.
        self._free()

    def _free(self) -> None:
        seat, self._seat = self._seat, None
        if seat is not None:
            seat.release()

    def pieces(self) -> Iterator[bytes]:
        """The JSON in slices."""
        items = self._items
        yield self._head
        for start in range(0, len(items), _SLICE):
            text = b",".join([obj.fleeting_json() for obj in items[start : start + _SLICE]])
            yield b"," + text if start else text
        yield b"]}\n"

    async def prepare(self, request: BaseRequest) -> None:
        """Write everything. Raises ConnectionResetError when the client has gone."""
        try:
            async with asyncio.timeout(_LIMIT_S):
                await self._write(request)
        except TimeoutError as err:
            if request.transport is not None:
                request.transport.abort()
            raise ConnectionResetError("the client reads too slowly") from err
        finally:
            self._free()

    async def _write(self, request: BaseRequest) -> None:
        transport: Any = request.transport
        if transport is None:
            raise ConnectionResetError("the client has gone")
        self.keep_alive = self.keep_alive and request.keep_alive
        transport.write(self._long_head(close=not self.keep_alive))
        if request.method == "HEAD":
            return
        if self._gzip:
            await self._write_gzipped(request)
        else:
            for piece in self.pieces():
                await _send(request, chunk(piece))
        await _send(request, LAST_CHUNK)

    def _long_head(self, *, close: bool) -> bytes:
        lines = [
            f"HTTP/1.1 200 OK\r\nCache-Control: {self.cache_control}\r\nContent-Type: {self.content_type}\r\n"
            f"Transfer-Encoding: chunked\r\nDate: {http_date()}\r\n",
            *(f"{name}: {value}\r\n" for name, value in self.headers),
            "Connection: close\r\n\r\n" if close else "\r\n",
        ]
        return "".join(lines).encode("latin-1", "replace")

    async def _write_gzipped(self, request: BaseRequest) -> None:
        packer = zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, _GZIP_FORMAT)
        batch: list[bytes] = []
        for piece in self.pieces():
            batch.append(piece)
            if len(batch) == _GZIP_SLICES:
                await _send_packed(request, await to_thread(packer.compress, b"".join(batch)))
                batch = []
        await _send_packed(request, packer.compress(b"".join(batch)) + packer.flush())


async def _send_packed(request: BaseRequest, data: bytes) -> None:
    # An empty chunk would be the last one.
    if data:
        await _send(request, chunk(data))


async def _send(request: BaseRequest, data: bytes) -> None:
    transport: Any = request.transport
    if transport is None:
        raise ConnectionResetError("the client has gone")
    transport.write(data)
    await request.writer.drain()
