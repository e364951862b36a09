"""The HTTP server itself: aiohttp's parser and connections, with a watch told when its client is slow or gone.

Of aiohttp only the server is imported, and not aiohttp.web: routes, files and applications cost a start 30 ms.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import Any, Protocol

from aiohttp import web_protocol
from aiohttp.http import StreamWriter
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.web_protocol import PayloadAccessError, RequestHandler
from aiohttp.web_request import BaseRequest
from aiohttp.web_server import Server

from tiphys_apimachinery.codec import json_codec
from tiphys_apimachinery.errors import BadRequest
from tiphys_apiserver.rest.exchange import Answer
from tiphys_component.log import get_logger

_log = get_logger(__name__)

# How long a client may take nothing of what waits for it. One that reads however slowly stays.
STALLED_S = 30.0
# What reading a body meets after its answer.
_OVER = PayloadAccessError()


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

    async def start(self) -> None:
        """Answer one request after the other in the connection's own task; aiohttp's makes a task for each, for 10 µs.

        Nothing here reads context variables, and no request outlives its answer, so there is nothing to part.
        """
        while not self._force_close:
            if not self._messages:
                try:
                    self._waiter = self._loop.create_future()
                    await self._waiter
                finally:
                    self._waiter = None
            if not await self._answer(*self._messages.popleft()):
                break
            self._expect_next()
        if not self._force_close:
            self._task_handler = None
            if self.transport is not None:
                self.transport.close()

    async def _answer(self, message: Any, payload: Any) -> bool:
        """Answer a request; whether the connection goes on after it."""
        manager, task = self._manager, self._task_handler
        factory, handler = self._request_factory, self._request_handler
        if manager is None or factory is None or handler is None or task is None:
            # The client has gone, and what it had sent is answered to nobody.
            return False
        if self._parser is not None:
            self._parser.message_consumed()
        if self._buffer_paused and len(self._messages) <= self._msg_queue_resume_size:
            self._resume_reading_if_drained()
        manager.requests_count += 1
        if isinstance(message, web_protocol._ErrInfo):
            handler, message = self._make_error_handler(message), web_protocol.ERROR
        request = factory(message, payload, self, StreamWriter(self, self._loop), task)
        try:
            answer, was_reset = await self._handle_request(request, None, handler)
            if was_reset:
                return False
            self._keepalive = bool(answer.keep_alive)
            if not payload.is_eof():
                # What was not read of a body would be taken for the next request.
                await self._skip(payload)
            payload.set_exception(_OVER)
        except ConnectionError:
            return False
        except asyncio.CancelledError:
            self.force_close()
            raise
        except Exception as err:
            _log.error("connection failed", peer=self.peername, exc_info=err)
            self.force_close()
        finally:
            # No ring through the task, as aiohttp.
            request._task = None  # type: ignore[assignment]
        return self._keepalive and not self._close and not self._force_close

    async def _skip(self, payload: Any) -> None:
        """Read the rest of a body for a while, and end the connection where more would come."""
        try:
            async with asyncio.timeout(self._lingering_time):
                while not payload.is_eof() and not self._force_close:
                    await payload.readany()
        except TimeoutError:
            self.close()

    def _expect_next(self) -> None:
        """End the connection where no next request comes in time."""
        end = self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
        if self._keepalive_handle is None:
            self._keepalive_handle = self._loop.call_at(end, self._process_keepalive)

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
