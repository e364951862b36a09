"""gRPC servers and channels: health, reflection, errors mapped in one place, a stop that lets calls end."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import grpc
import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from tiphys_component.app import StartupError
from tiphys_component.contracts import ContractPool
from tiphys_component.log import get_logger
from tiphys_component.tls import TLSFiles, grpc_channel_credentials, grpc_server_credentials

Metadata = tuple[tuple[str, str | bytes], ...]
ErrorReply = tuple[grpc.StatusCode, str, Metadata]
ErrorMapper = Callable[[Exception], ErrorReply | None]
"""What a caller is told of an error; None for one that nobody expected, which is logged and told as INTERNAL."""

Options = Sequence[tuple[str, int | str]]

# One server certificate, one listener: without so_reuseport a second process on the port is refused instead of getting
# half of the calls. Clients ping idle connections, and by default the server would punish that.
SERVER_OPTIONS: Options = (
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", 64 << 20),
    ("grpc.max_send_message_length", -1),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.http2.max_pings_without_data", 0),
)
# A dead peer is noticed within 20 + 10 seconds; a restarted one is found again within 3.
CHANNEL_OPTIONS: Options = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 3_000),
)


@dataclass(frozen=True, slots=True)
class Servicer:
    """What a server offers: register adds it (generated code's add_…_to_server), names are its full service names."""

    names: tuple[str, ...]
    register: Callable[[Any], None]


class Server:
    """A grpc.aio server with the standard health service and reflection.

    bind is HOST:PORT (port 0 lets the system choose) or unix:PATH. tls are files, ready credentials, or None for plain
    text, which only a unix socket or a test should use. run() makes it a service; start() and stop() may be called
    instead, each once.
    """

    def __init__(
        self,
        bind: str,
        tls: TLSFiles | grpc.ServerCredentials | None,
        servicers: Sequence[Servicer],
        error_mapper: ErrorMapper | None = None,
        *,
        options: Options = (),
        grace_s: float = 2.0,
        flag: str = "--bind-address",
    ) -> None:
        self._bind = bind
        self._tls = tls
        self._servicers = tuple(servicers)
        self._error_mapper = error_mapper or (lambda _err: None)
        self._options = (*SERVER_OPTIONS, *options)
        self._grace_s = grace_s
        self._flag = flag
        self._server: grpc.aio.Server | None = None
        self._health: Any = None
        self.port = 0

    @property
    def address(self) -> str:
        """Where a client finds it, with the port that the system chose; valid after start()."""
        return self._bind if self._bind.startswith("unix:") else f"{self._bind.rpartition(':')[0]}:{self.port}"

    async def start(self) -> None:
        """Listen and serve; raises StartupError if the address can't be listened on."""
        server = grpc.aio.server(options=self._options)
        health_servicer = health.aio.HealthServicer()  # type: ignore[attr-defined]  # set at run time
        health_pb2_grpc.add_HealthServicer_to_server(health_servicer, server)
        guard = _Guard(server, self._error_mapper)
        names = [name for servicer in self._servicers for name in servicer.names]
        for servicer in self._servicers:
            servicer.register(guard)
        health_name = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
        contracts: Any = ContractPool()
        reflection.enable_server_reflection((*names, health_name, reflection.SERVICE_NAME), server, pool=contracts)
        try:
            self.port = self._listen(server)
        except RuntimeError as err:
            raise StartupError(
                f"cannot listen on {self._bind}",
                f"stop what listens there, or give a free address of this machine with {self._flag}",
            ) from err
        try:
            await _start_whole(server)
            for name in ("", *names):
                await health_servicer.set(name, health_pb2.HealthCheckResponse.SERVING)
        except BaseException:
            # Who is cancelled here will not call stop(), and the library must not find the server running at its end.
            await server.stop(None)
            raise
        self._server, self._health = server, health_servicer

    def _listen(self, server: grpc.aio.Server) -> int:
        if self._tls is None:
            return server.add_insecure_port(self._bind)
        credentials = grpc_server_credentials(self._tls) if isinstance(self._tls, TLSFiles) else self._tls
        return server.add_secure_port(self._bind, credentials)

    async def set_serving(self, name: str, serving: bool) -> None:
        """What the health service says of one service, or with the empty name of the whole server."""
        if self._health is not None:
            status = health_pb2.HealthCheckResponse
            await self._health.set(name, status.SERVING if serving else status.NOT_SERVING)

    async def stop(self) -> None:
        """Take no new calls, let those in progress end within the grace time, cancel the rest. Repeating it is safe."""
        server, self._server = self._server, None
        if server is not None and self._health is not None:
            await self._health.enter_graceful_shutdown()
            await server.stop(self._grace_s)

    async def run(self) -> None:
        """Start, serve until cancelled, stop; raises StartupError."""
        async with self:
            await asyncio.get_running_loop().create_future()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self.stop()


async def _start_whole(server: grpc.aio.Server) -> None:
    """Starts it to the end, also when cancelled: the library can't stop a server whose start was broken off."""
    over = asyncio.Event()

    async def start() -> None:
        try:
            await server.start()
        finally:
            over.set()

    try:
        await asyncio.shield(start())
    except asyncio.CancelledError:
        await over.wait()
        raise


def channel(
    address: str,
    tls: TLSFiles | grpc.ChannelCredentials | None = None,
    *,
    server_name: str = "",
    options: Options = (),
) -> grpc.aio.Channel:
    """A channel to HOST:PORT or unix:PATH; it connects with the first call and again after every loss.

    server_name is the name expected in the server's certificate, where it is not the host's. The caller closes it.
    """
    settings: list[tuple[str, int | str]] = [*CHANNEL_OPTIONS, *options]
    if address.startswith("unix:"):
        # Servers in Go refuse the escaped path that grpc would send as authority.
        settings.append(("grpc.default_authority", "localhost"))
    if server_name:
        settings.append(("grpc.ssl_target_name_override", server_name))
    if tls is None:
        return grpc.aio.insecure_channel(address, options=settings)
    credentials = grpc_channel_credentials(tls) if isinstance(tls, TLSFiles) else tls
    return grpc.aio.secure_channel(address, credentials, options=settings)


def unix_address(path: Path | str) -> str:
    """The gRPC address of a unix socket."""
    return f"unix:{path}"


_Handler = Any
"""A grpc.RpcMethodHandler; its stubs know one kind of four."""

_MAKERS: dict[tuple[bool, bool], Callable[..., _Handler]] = {
    (False, False): grpc.unary_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, False): grpc.stream_unary_rpc_method_handler,
    (True, True): grpc.stream_stream_rpc_method_handler,
}


class _Guard:
    """Stands in for the server while servicers register, and gives every handler the mapping of errors.

    An interceptor would do the same at 10 to 20 µs for each call; this costs one try.
    """

    def __init__(self, server: grpc.aio.Server, error_mapper: ErrorMapper) -> None:
        self._server = server
        self._map = error_mapper
        self._log = get_logger("rpc")

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.GenericRpcHandler[Any, Any]]) -> None:
        self._server.add_generic_rpc_handlers([_GuardedHandlers(handler, self.guard) for handler in handlers])

    def add_registered_method_handlers(self, service: str, handlers: dict[str, _Handler]) -> None:
        guarded = {name: self.guard(handler) for name, handler in handlers.items()}
        self._server.add_registered_method_handlers(service, guarded)  # type: ignore[attr-defined]

    def guard(self, handler: _Handler) -> _Handler:
        serve = handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream
        make = _MAKERS[handler.request_streaming, handler.response_streaming]
        wrap = self._guard_generator if inspect.isasyncgenfunction(serve) else self._guard_coroutine
        return make(wrap(serve), handler.request_deserializer, handler.response_serializer)

    def _guard_coroutine(self, serve: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def call(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
            try:
                return await serve(request, context)
            except grpc.aio.AbortError:
                raise
            except Exception as err:
                await self._abort(err, context)

        return call

    def _guard_generator(self, serve: Callable[..., AsyncIterator[Any]]) -> Callable[..., AsyncIterator[Any]]:
        async def stream(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[Any]:
            try:
                async with aclosing(serve(request, context)) as replies:  # type: ignore[type-var]
                    async for reply in replies:
                        yield reply
            except grpc.aio.AbortError:
                raise
            except Exception as err:
                await self._abort(err, context)

        return stream

    async def _abort(self, err: Exception, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        reply = self._map(err)
        if reply is None:
            self._log.error("call failed", err=str(err) or type(err).__name__, exc_info=err)
            reply = (grpc.StatusCode.INTERNAL, f"internal error: {err}", ())
        code, message, metadata = reply
        await context.abort(code, message, metadata)


class _GuardedHandlers(grpc.GenericRpcHandler):  # type: ignore[type-arg]  # not generic at run time
    """A generic handler whose methods are guarded, each once."""

    def __init__(self, inner: grpc.GenericRpcHandler[Any, Any], guard: Callable[[Any], Any]) -> None:
        self._inner = inner
        self._guard = guard
        self._guarded: dict[str, tuple[object, Any]] = {}

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        handler = self._inner.service(details)
        if handler is None:
            return None
        # Kept with the handler it was made of: one that comes new for each call must not be answered by an old one.
        known = self._guarded.get(details.method)
        if known is None or known[0] is not handler:
            known = self._guarded[details.method] = (handler, self._guard(handler))
        return known[1]
