"""The HTTP server itself: aiohttp's parser and connections, with a watch told when its client is slow or gone.

Of aiohttp only the server is imported, and not aiohttp.web: routes, files and applications cost a start 30 ms.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import Any, Protocol

from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.web_protocol import RequestHandler
from aiohttp.web_request import BaseRequest
from aiohttp.web_server import Server

from tiphys_apimachinery.codec import json_codec
from tiphys_apimachinery.errors import BadRequest
from tiphys_apiserver.rest.exchange import Answer
from tiphys_component.log import get_logger

_log = get_logger(__name__)

# How long a client may take nothing of what waits for it. One that reads however slowly stays.
STALLED_S = 30.0


class Listener(Protocol):
    """Who wants to know about a connection: a watch or a tunnel in its answer."""

    def writing_paused(self) -> None:
        """The transport's buffer is full."""

    def writing_resumed(self) -> None:
        """There is room again."""

    def connection_lost(self) -> None:
        """The client has gone."""


class Connection(RequestHandler):  # type: ignore[type-arg,unused-ignore]
    """One connection; its requests come one after the other. Knows its client's certificate."""

    __slots__ = ("_certificate", "_stall", "_stalled_s", "_waiting_bytes", "listener")

    def __init__(self, *args: Any, stalled_s: float = STALLED_S, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.listener: Listener | None = None
        self._certificate: bytes | None = None
        self._stalled_s = stalled_s
        self._stall: asyncio.TimerHandle | None = None
        self._waiting_bytes = 0

    def pause_writing(self) -> None:
        """The transport's buffer is full."""
        super().pause_writing()
        self._look_again()
        if self.listener is not None:
            self.listener.writing_paused()

    def resume_writing(self) -> None:
        """There is room in the transport's buffer again."""
        self._stop_looking()
        super().resume_writing()
        if self.listener is not None:
            self.listener.writing_resumed()

    def _look_again(self) -> None:
        if self.transport is not None:
            self._waiting_bytes = self.transport.get_write_buffer_size()
            self._stall = self._loop.call_later(self._stalled_s, self._end_if_stalled)

    def _stop_looking(self) -> None:
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None

    def _end_if_stalled(self) -> None:
        """Cut off a client that reads nothing, or what it was sent would be kept for as long as it likes."""
        transport = self.transport
        if transport is None:
            return
        if transport.get_write_buffer_size() < self._waiting_bytes:
            self._look_again()
            return
        _log.info("client reads nothing, cut off", peer=self.peername, bytes=self._waiting_bytes)
        transport.abort()

    def handle_error(
        self,
        request: BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> Any:
        """The answer to what is no HTTP: a Status, and no more than a line in the log, as anybody can send such."""
        if not isinstance(exc, HttpProcessingError):
            return super().handle_error(request, status, exc, message)
        text = " ".join(exc.message.split())
        _log.debug("request is no HTTP", peer=request.remote, err=text)
        error = BadRequest(f"malformed HTTP request: {text}")
        answer = Answer(error.code, json_codec.dumps(error.to_status()))
        answer.keep_alive = False
        return answer

    def connection_lost(self, exc: BaseException | None) -> None:
        """The connection is over."""
        self._stop_looking()
        listener, self.listener = self.listener, None
        if listener is not None:
            listener.connection_lost()
        super().connection_lost(exc)

    @property
    def certificate(self) -> bytes:
        """The client's certificate in DER, verified by TLS; empty without one."""
        if self._certificate is None:
            self._certificate = b""
            transport = self.transport
            tls: ssl.SSLObject | None = transport.get_extra_info("ssl_object") if transport is not None else None
            if tls is not None:
                self._certificate = tls.getpeercert(binary_form=True) or b""
        return self._certificate


class ConnectionServer(Server):
    """Makes a Connection for each client; give it to loop.create_server."""

    def __init__(self, handler: Any, *, stalled_s: float = STALLED_S) -> None:
        super().__init__(handler)
        self._stalled_s = stalled_s

    def __call__(self) -> Connection:
        """A new connection."""
        return Connection(
            self,
            loop=self._loop,
            stalled_s=self._stalled_s,
            access_log=None,
            keepalive_timeout=180.0,
            tcp_keepalive=True,
            auto_decompress=False,
            max_line_size=65536,
            max_field_size=65536,
        )


def connection_of(request: BaseRequest) -> Connection:
    """The connection that a request came by."""
    connection = request.protocol
    if not isinstance(connection, Connection):
        raise TypeError(f"the request came by {type(connection).__name__}")
    return connection
