"""The HTTP server itself: aiohttp's parser and connections, with a watch told when its client is slow or gone."""

from __future__ import annotations

import ssl
from typing import Any, Protocol

from aiohttp.web import BaseRequest, Server
from aiohttp.web_protocol import RequestHandler


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

    __slots__ = ("_certificate", "listener")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.listener: Listener | None = None
        self._certificate: bytes | None = None

    def pause_writing(self) -> None:
        """The transport's buffer is full."""
        super().pause_writing()
        if self.listener is not None:
            self.listener.writing_paused()

    def resume_writing(self) -> None:
        """There is room in the transport's buffer again."""
        super().resume_writing()
        if self.listener is not None:
            self.listener.writing_resumed()

    def connection_lost(self, exc: BaseException | None) -> None:
        """The connection is over."""
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

    def __call__(self) -> Connection:
        """A new connection."""
        return Connection(
            self,
            loop=self._loop,
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
