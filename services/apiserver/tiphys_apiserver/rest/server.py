"""The HTTP door: from a request on a connection through the chain to its answer. Errors become answers here."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence
from typing import Any

import orjson
from aiohttp.web_request import BaseRequest

from tiphys_apimachinery.errors import APIError, BadRequest, InternalError, NotAcceptable, Timeout
from tiphys_apiserver.authentication.interface import Credentials
from tiphys_apiserver.authorization.impersonation import Impersonation, read_headers
from tiphys_apiserver.rest.connection import ConnectionServer, connection_of
from tiphys_apiserver.rest.documents import Documents
from tiphys_apiserver.rest.exchange import JSON_TYPE, Answer, Exchange
from tiphys_apiserver.rest.negotiate import JSON_FORMAT, Format, choose_format
from tiphys_apiserver.rest.plain_paths import PlainPaths
from tiphys_apiserver.rest.read_options import read_write_options
from tiphys_apiserver.rest.render import status_answer
from tiphys_apiserver.rest.resources import Resources
from tiphys_apiserver.server.call import Call
from tiphys_apiserver.server.chain import Chain
from tiphys_apiserver.server.request_info import parse, selected_name
from tiphys_apiserver.server.request_metrics import RequestMetrics
from tiphys_component.app import listen_error
from tiphys_component.clock import Clock
from tiphys_component.deadlines import Deadlines
from tiphys_component.log import get_logger
from tiphys_component.options import parse_duration

_log = get_logger(__name__)

_WRITING = frozenset({"POST", "PUT", "PATCH", "DELETE"})
_APPLY = "application/apply-patch"
_BEARER = "bearer "
_TOO_LONG = "Timeout: request did not complete within the time allowed"
# Tokens of WebSocket clients in browsers, which can't set headers.
_WEBSOCKET_BEARER = "base64url.bearer.authorization.k8s.io."


class RestServer:
    """Serves HTTP on any number of addresses."""

    def __init__(
        self,
        chain: Chain,
        resources: Resources,
        paths: PlainPaths,
        *,
        metrics: RequestMetrics,
        clock: Clock,
        request_timeout_s: float = 60.0,
    ) -> None:
        self._chain = chain
        self._request_timeout_s = request_timeout_s
        self._deadlines = Deadlines(request_timeout_s)
        self._resources = resources
        self._documents = Documents(paths)
        self._metrics = metrics
        self._clock = clock
        self._http: ConnectionServer | None = None
        self._listeners: list[asyncio.Server] = []
        self.ports: list[int] = []

    async def listen(
        self, hosts: Sequence[str], port: int, tls: ssl.SSLContext | None, *, flag: str = "--secure-port"
    ) -> None:
        """Accept connections. Port 0 takes a free one for the first host and the same for the others.

        Raises StartupError when an address can't be listened on.
        """
        loop = asyncio.get_running_loop()
        if self._http is None:
            self._http = ConnectionServer(self.handle)
        for host in hosts:
            try:
                listener = await loop.create_server(self._http, host, port, ssl=tls, backlog=1024)
            except OSError as err:
                raise listen_error(err, f"{host}:{port}", flag) from err
            self._listeners.append(listener)
            port = listener.sockets[0].getsockname()[1]
            self.ports.append(port)

    async def close(self, timeout_s: float) -> None:
        """Accept no more, let requests finish, then close what is left."""
        for listener in self._listeners:
            listener.close()
        if self._http is not None:
            self._http.pre_shutdown()
            await self._http.shutdown(timeout_s)

    async def handle(self, request: BaseRequest) -> Any:
        """Answer one request; raises only when the client has gone."""
        exchange = Exchange(request)
        began = self._clock.monotonic()
        call: Call | None = None
        try:
            call = self._read_call(exchange)
            answer = await self._serve(exchange, call)
        except APIError as err:
            answer = status_answer(err, self._error_format(exchange))
            if err.code == 401:
                answer.headers.append(("WWW-Authenticate", 'Bearer realm="kubernetes-master"'))
            if err.code == 413:
                # The rest of the body is not read, so the connection can't go on.
                answer.keep_alive = False
        except ConnectionResetError:
            raise
        except Exception as err:
            _log.error("request failed", method=exchange.method, path=exchange.path, exc_info=err)
            answer = status_answer(InternalError.of(type(err).__name__), self._error_format(exchange))
        if call is not None:
            self._metrics.observe(call, answer.status, self._clock.monotonic() - began, _size(answer))
            if call.record is not None and isinstance(answer, Answer):
                answer.headers.append(("Audit-Id", call.record.audit_id))
            if isinstance(answer, Answer):
                answer.headers += call.flow_headers
            if call.warnings and isinstance(answer, Answer):
                answer.headers += [("Warning", f"299 - {_quoted(text)}") for text in call.warnings]
        if self._chain.leaving and isinstance(answer, Answer):
            answer.keep_alive = False
        if "pretty" in exchange.query and exchange.flag("pretty"):
            _make_pretty(answer)
        return answer

    async def _serve(self, exchange: Exchange, call: Call) -> Any:
        """The answer. Raises APIError, Timeout where it takes longer than it may; so nobody holds a seat for ever."""
        if call.lasts or (call.info.verb == "get" and not exchange.query):
            # What a get waits for, the store or another server, has limits of its own; a timer costs it 5 µs.
            return await self._answer(exchange, call)
        if "timeout" in exchange.query or not self._request_timeout_s:
            return await self._within(exchange, call)
        limit = self._deadlines.begin()
        try:
            with limit:
                return await self._answer(exchange, call)
        except TimeoutError as err:
            if not limit.expired:
                raise
            raise Timeout(_TOO_LONG) from err

    async def _within(self, exchange: Exchange, call: Call) -> Any:
        """The answer within a time of the request's own."""
        try:
            async with asyncio.timeout(self._time_for(exchange)) as limit:
                return await self._answer(exchange, call)
        except TimeoutError as err:
            if not limit.expired():
                raise
            raise Timeout(_TOO_LONG) from err

    def _time_for(self, exchange: Exchange) -> float | None:
        most = self._request_timeout_s or None
        text = exchange.query.get("timeout", "")
        if not text:
            return most
        try:
            asked = parse_duration(text)
        except ValueError as err:
            raise BadRequest(f"invalid timeout specified in the request URL: {text!r}") from err
        if asked <= 0:
            return most
        return asked if most is None else min(asked, most)

    async def _answer(self, exchange: Exchange, call: Call) -> Any:
        if call.info.is_resource_request:
            return await self._chain.run(call, lambda: self._resources.serve(exchange, call))
        return await self._chain.run(call, lambda: self._documents.serve(exchange))

    def _read_call(self, exchange: Exchange) -> Call:
        query = exchange.query
        selector = query.get("fieldSelector", "") if query else ""
        info = parse(
            exchange.method,
            exchange.path,
            watch=bool(query) and exchange.flag("watch"),
            selected_name=selected_name(selector) if selector else "",
        )
        call = Call(info, self._credentials(exchange), _impersonation(exchange), door=exchange, is_counted=True)
        if exchange.method in _WRITING:
            call.user_agent = exchange.headers.get("User-Agent", "")
            call.is_apply = info.verb == "patch" and exchange.headers.get("Content-Type", "").startswith(_APPLY)
        if query:
            call.field_selector = selector
            call.label_selector = query.get("labelSelector", "")
            if info.verb == "list":
                call.limit = exchange.number("limit") or 0
            elif info.verb == "watch":
                call.sends_initial_events = exchange.flag("sendInitialEvents")
            if exchange.method in _WRITING:
                read_write_options(exchange, call)
        return call

    def _credentials(self, exchange: Exchange) -> Credentials:
        headers = exchange.headers
        token = ""
        authorization = headers.get("Authorization", "")
        if authorization[:7].lower() == _BEARER:
            token = authorization[7:].strip()
        elif "Sec-WebSocket-Protocol" in headers:
            token = _websocket_token(headers["Sec-WebSocket-Protocol"])
        connection = connection_of(exchange.request)
        peer = connection.peername
        address = peer[0] if isinstance(peer, tuple) else ""
        return Credentials(token, connection.certificate, address, headers)

    def _error_format(self, exchange: Exchange) -> Format:
        try:
            return Format(choose_format(exchange.headers.get("Accept", "")).media)
        except NotAcceptable:
            return JSON_FORMAT


def _impersonation(exchange: Exchange) -> Impersonation | None:
    headers = exchange.headers
    # Four look-ups in the common case instead of a walk over all headers.
    if not any(name in headers for name in ("Impersonate-User", "Impersonate-Group", "Impersonate-Uid")):
        return None
    return read_headers(headers.items())


def _websocket_token(protocols: str) -> str:
    from base64 import urlsafe_b64decode

    for protocol in protocols.split(","):
        text = protocol.strip()
        if text.startswith(_WEBSOCKET_BEARER):
            encoded = text.removeprefix(_WEBSOCKET_BEARER)
            try:
                return urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)).decode()
            except ValueError:
                return ""
    return ""


def _size(answer: Any) -> int:
    """Bytes of an answer's body; 0 for one that was written by itself."""
    return answer.size if isinstance(answer, Answer) else 0


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ").replace("\r", " ")
    return f'"{escaped}"'


def _make_pretty(answer: Any) -> None:
    if isinstance(answer, Answer) and answer.content_type == JSON_TYPE and isinstance(answer.body, bytes):
        answer.body = orjson.dumps(orjson.loads(answer.body), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
