"""A watch over HTTP: frames made once for all watchers, written straight to each transport.

Every frame is a chunk of its own, so that what is shared includes the chunk's header, and a batch
is one write. A client that reads slowly is paused: it holds one batch in its transport and a place
in the cache's history; when that has moved on it is told 410 and cut off.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Sequence

from tiphys.api.meta.v1 import meta_pb2
from tiphys.api.runtime import runtime_pb2
from tiphys_apimachinery.codec import json_codec, proto_codec
from tiphys_apimachinery.errors import APIError
from tiphys_apiserver.rest.connection import connection_of
from tiphys_apiserver.rest.exchange import Exchange, http_date
from tiphys_apiserver.rest.negotiate import Media
from tiphys_apiserver.storage.subscription import RunningWatch
from tiphys_apiserver.storage.watch_event import EventBatch, FrameMaker, WatchEvent

LAST_CHUNK = b"0\r\n\r\n"


def chunk(data: bytes) -> bytes:
    """Data as one chunk of HTTP/1.1."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def chunked(maker: FrameMaker) -> FrameMaker:
    """The maker's frames as chunks. Make it once and keep it: frames are shared by maker."""

    def make(event: WatchEvent) -> bytes:
        return chunk(maker(event))

    return make


def error_frame(error: APIError, media: Media) -> bytes:
    """The ERROR event that ends a watch before its time."""
    status = error.to_status()
    if media is Media.PROTOBUF:
        body = proto_codec.encode_envelope("v1", "Status", status.SerializeToString())
        event = meta_pb2.WatchEvent(type="ERROR", object=runtime_pb2.RawExtension(raw=body))
        data = event.SerializeToString()
        return struct.pack(">I", len(data)) + data
    return b'{"type":"ERROR","object":%b}\n' % json_codec.dumps(status)


class WatchResponse:
    """The sink of one HTTP watch, and aiohttp's response to it: it has written everything itself."""

    keep_alive = False

    def __init__(
        self, exchange: Exchange, media: Media, maker: FrameMaker, *, headers: Sequence[tuple[str, str]] = ()
    ) -> None:
        self._exchange = exchange
        self._media = media
        self._headers = headers
        self._maker = maker
        self._transport = exchange.transport
        self._connection = connection_of(exchange.request)
        self._subscription: RunningWatch | None = None
        self._over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        # HTTP/1.0 knows no chunks: the end of the connection is the end of the watch.
        self.status = 200

    async def serve(self, subscription: RunningWatch, timeout_s: float) -> None:
        """Write the head and let events flow until either side ends the watch or its time is up."""
        self._subscription = subscription
        content_type = f"{self._media.value};stream=watch" if self._media is Media.PROTOBUF else self._media.value
        extra = "".join(f"{name}: {value}\r\n" for name, value in self._headers)
        self._transport.write(
            f"HTTP/1.1 200 OK\r\nCache-Control: no-cache, private\r\nContent-Type: {content_type}\r\n"
            f"Date: {http_date()}\r\n{extra}Transfer-Encoding: chunked\r\n\r\n".encode()
        )
        self._exchange.tell_started()
        self._connection.listener = self
        timer = asyncio.get_running_loop().call_later(timeout_s, subscription.close)
        try:
            await self._over
        finally:
            timer.cancel()
            self._connection.listener = None
            subscription.close()
            # The subscription knows this sink: a ring would keep the connection, 100 KB, until the collector comes.
            self._subscription = None

    def end(self) -> None:
        """End the watch from the server's side."""
        if self._subscription is not None:
            self._subscription.close()

    # -- the cache's side

    def deliver(self, batch: EventBatch) -> None:
        """Write a batch; nothing to a client that has hung up, of which connection_lost will tell."""
        if not self._transport.is_closing():
            self._transport.write(batch.frame(self._maker))

    def ended(self, error: APIError | None) -> None:
        """End the answer, with an ERROR event where there is one to tell."""
        if self._over.done():
            return
        if self._subscription is not None and not self._transport.is_closing():
            if error is not None:
                self._transport.write(chunk(error_frame(error, self._media)))
            self._transport.write(LAST_CHUNK)
            if self._subscription.paused:
                # The client does not read: waiting for it to take the rest could last for ever.
                self._transport.abort()
        self._over.set_result(None)

    # -- the connection's side

    def writing_paused(self) -> None:
        """The client is slow."""
        if self._subscription is not None:
            self._subscription.pause()

    def writing_resumed(self) -> None:
        """The client has caught up."""
        if self._subscription is not None:
            self._subscription.resume()

    def connection_lost(self) -> None:
        """The client has gone."""
        if not self._over.done():
            self._over.set_result(None)

    # -- aiohttp's side

    async def prepare(self, request: object) -> None:
        """Everything is written."""

    async def write_eof(self) -> None:
        """Everything is written."""
