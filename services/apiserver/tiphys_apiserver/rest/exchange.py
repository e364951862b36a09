"""One HTTP request and its answer, close to the wire: what the endpoints' callers need and no more."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from email.utils import formatdate
from http import HTTPStatus
from time import time
from typing import Any
from urllib.parse import parse_qsl, unquote

from aiohttp.web_request import BaseRequest

from tiphys_apimachinery.errors import BadRequest, RequestEntityTooLarge

# Largest body. Source: kube-apiserver's --max-request-body-bytes, 3 MiB.
MAX_BODY_BYTES = 3 * 1024 * 1024
# Bytes handed to a transport before waiting for it to drain: what joins, encrypts and sends them finds them in cache.
SLICE_BYTES = 128 * 1024
_REASONS = {status.value: status.phrase for status in HTTPStatus}
JSON_TYPE = "application/json"


class Exchange:
    """A request as it came. path is decoded; query has the first value of each name.

    sent is the body once it was read. started is called when the head of an answer that lasts is written.
    """

    __slots__ = ("headers", "method", "path", "query", "raw_path", "raw_query", "request", "sent", "started")

    def __init__(self, request: BaseRequest) -> None:
        self.request = request
        self.sent = b""
        self.started: Callable[[], None] | None = None
        self.method: str = request.method
        self.headers: Mapping[str, str] = request.headers
        raw = request.raw_path
        if not raw.startswith("/"):
            # The absolute form of a proxy request: http://host/path.
            raw = "/" + raw.partition("://")[2].partition("/")[2]
        self.raw_path, _, self.raw_query = raw.partition("?")
        self.path = unquote(self.raw_path) if "%" in self.raw_path else self.raw_path
        self.query: Mapping[str, str] = read_query(self.raw_query) if self.raw_query else {}

    def flag(self, name: str) -> bool:
        """A boolean of the query: true unless it is absent, false or 0."""
        value = self.query.get(name)
        return value is not None and value.lower() not in ("false", "0")

    def number(self, name: str) -> int | None:
        """A whole number of the query. Raises BadRequest."""
        value = self.query.get(name)
        if not value:
            return None
        try:
            return int(value)
        except ValueError as err:
            raise BadRequest(f"invalid value {value!r} of {name}: not a whole number") from err

    @property
    def transport(self) -> asyncio.Transport:
        """The connection. Raises ConnectionResetError when it is gone."""
        transport = self.request.transport
        if transport is None:
            raise ConnectionResetError("the client has gone")
        return transport

    async def body(self) -> bytes:
        """The whole body. Raises RequestEntityTooLarge before reading more than MAX_BODY_BYTES."""
        length = self.headers.get("Content-Length")
        if length is not None and length.isdigit() and int(length) > MAX_BODY_BYTES:
            raise RequestEntityTooLarge.of(f"limit is {MAX_BODY_BYTES}")
        if self.headers.get("Expect", "").lower() == "100-continue":
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        content = self.request.content
        parts: list[bytes] = []
        total = 0
        while True:
            part = await content.readany()
            if not part:
                break
            total += len(part)
            if total > MAX_BODY_BYTES:
                raise RequestEntityTooLarge.of(f"limit is {MAX_BODY_BYTES}")
            parts.append(part)
        self.sent = parts[0] if len(parts) == 1 else b"".join(parts)
        return self.sent

    def tell_started(self) -> None:
        """The head of an answer that lasts is written."""
        if self.started is not None:
            self.started()


def read_query(text: str) -> Mapping[str, str]:
    """First value of each name."""
    found: dict[str, str] = {}
    for name, value in parse_qsl(text, keep_blank_values=True):
        found.setdefault(name, value)
    return found


class Answer:
    """A finished answer, written with as few calls as its size allows.

    body is one piece, or the pieces of a long one; size is that of all pieces, and longest that of the longest, where
    who made them knows it: to ask ten thousand pieces costs a tenth of all the rest. aiohttp's connection calls prepare
    and write_eof as of its own responses.
    """

    __slots__ = ("_longest", "_size", "body", "cache_control", "content_type", "headers", "keep_alive", "status")

    def __init__(
        self,
        status: int,
        body: bytes | Sequence[bytes] = b"",
        content_type: str = JSON_TYPE,
        headers: Iterable[tuple[str, str]] = (),
        *,
        size: int = -1,
        longest: int = -1,
    ) -> None:
        self._size = size
        self._longest = longest
        self.status = status
        self.body = body
        self.content_type = content_type
        self.headers = list(headers)
        self.keep_alive = True
        self.cache_control = "no-cache, private"

    @property
    def size(self) -> int:
        """Bytes of the body; the pieces of a long one are counted once."""
        body = self.body
        if isinstance(body, bytes):
            return len(body)
        if self._size < 0:
            self._size = sum(map(len, body))
        return self._size

    def head(self, length: int, *, close: bool) -> bytes:
        """Status line and headers."""
        lines = [
            f"HTTP/1.1 {self.status} {_REASONS.get(self.status, '')}\r\n"
            f"Cache-Control: {self.cache_control}\r\nContent-Type: {self.content_type}\r\n"
            f"Content-Length: {length}\r\nDate: {http_date()}\r\n"
        ]
        lines += [f"{name}: {value}\r\n" for name, value in self.headers]
        lines.append("Connection: close\r\n\r\n" if close else "\r\n")
        return "".join(lines).encode("latin-1", "replace")

    async def prepare(self, request: BaseRequest) -> None:
        """Write everything. Raises ConnectionResetError when the client has gone."""
        transport: Any = request.transport
        if transport is None:
            raise ConnectionResetError("the client has gone")
        self.keep_alive = self.keep_alive and request.keep_alive
        body = self.body
        size = self.size
        head = self.head(size, close=not self.keep_alive)
        if request.method == "HEAD":
            transport.write(head)
        elif isinstance(body, bytes):
            transport.write(head + body)
        else:
            transport.write(head)
            await write_pieces(request, body, size, longest=self._longest)

    async def write_eof(self) -> None:
        """Nothing is left to write."""


async def write_pieces(request: BaseRequest, pieces: Sequence[bytes], size: int, *, longest: int = -1) -> None:
    """Write pieces of so many bytes in slices, waiting for the transport between them; so no list fills its buffer."""
    step = len(pieces) * SLICE_BYTES // max(size, 1) or 1
    if longest < 0:
        longest = max(map(len, pieces), default=0)
    if longest * step < 8 * SLICE_BYTES:
        # Pieces of like sizes, as most lists are of: so many at a time, without a look at each.
        for start in range(0, len(pieces), step):
            await _write(request, b"".join(pieces[start : start + step]))
        return
    batch: list[bytes] = []
    size = 0
    for piece in pieces:
        batch.append(piece)
        size += len(piece)
        if size >= SLICE_BYTES:
            await _write(request, b"".join(batch))
            batch, size = [], 0
    if batch:
        await _write(request, b"".join(batch))


async def _write(request: BaseRequest, data: bytes) -> None:
    transport: Any = request.transport
    if transport is None:
        raise ConnectionResetError("the client has gone")
    transport.write(data)
    await request.writer.drain()


class _Dates:
    """The Date header's text, made once a second."""

    __slots__ = ("_second", "_text")

    def __init__(self) -> None:
        self._second = 0
        self._text = ""

    def text(self) -> str:
        second = int(time())
        if second != self._second:
            self._second, self._text = second, formatdate(second, usegmt=True)
        return self._text


http_date = _Dates().text
