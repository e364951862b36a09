"""Roads to an API server: over gRPC, or straight into a server in this process. Bytes go in, bytes come out.

Both raise errors of tiphys_apimachinery.errors and nothing else. A lost or refused connection is ServiceUnavailable, a
call that took too long is Timeout; is_retriable tells what a later try may cure.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any, NoReturn, Protocol, Self

import grpc
import grpc.aio

from tiphys_apimachinery.errors import (
    APIError,
    InternalError,
    ServerTimeout,
    ServiceUnavailable,
    Timeout,
    TooManyRequests,
    Unauthorized,
)
from tiphys_client.grpc_status import error_from
from tiphys_client.kubeconfig import ClientConfig, KubeconfigError
from tiphys_component.rpc import Options, channel

DEFAULT_TIMEOUT_S = 30.0

# Methods that change nothing; any other is a write.
READ_METHODS = frozenset(("Get", "List", "Watch", "GetScale", "GetLog"))


class Transport(Protocol):
    """A road to a server.

    service and method are full names, as in tiphys.apiserver.core.v1.PodService and Get; requests and replies are
    serialized messages of tiphys.apiserver.v1. Cancelling a call or closing a stream gives it up on the server too.
    """

    async def unary(self, service: str, method: str, request: bytes, *, timeout_s: float = DEFAULT_TIMEOUT_S) -> bytes:
        """One request, one reply; raises APIError, Timeout after timeout_s."""
        ...

    def stream(
        self, service: str, method: str, request: bytes, *, timeout_s: float | None = None
    ) -> AsyncGenerator[bytes]:
        """One request, many replies; ends when the server ends it, raises APIError. Must be closed (aclosing)."""
        ...

    async def close(self) -> None:
        """Give up all calls and connections; may be repeated."""
        ...


def is_retriable(err: object) -> bool:
    """Whether the same request may pass later with nothing changed by the caller."""
    return isinstance(err, ServiceUnavailable | Timeout | ServerTimeout | TooManyRequests)


class GrpcTransport:
    """A server over the network, or on a unix socket.

    Connects with the first call and again, with backoff, after every loss; a call made while there is no connection
    fails at once. Makes no grpc object before the first call, so that it may be made before a fork. Raises
    KubeconfigError where the server shall not be verified, which gRPC can't.
    """

    def __init__(
        self, config: ClientConfig, *, options: Options = (), token_source: Callable[[], str] | None = None
    ) -> None:
        if config.insecure_skip_tls_verify and not config.ca_pem:
            raise KubeconfigError(
                f"gRPC to {config.grpc_address} can't skip verification", "give the cluster's certificate-authority"
            )
        self._config = config
        self._options = options
        self._token_source = token_source or token_source_of(config)
        self._channel: grpc.aio.Channel | None = None
        self._calls: dict[tuple[str, str, bool], Any] = {}

    async def unary(self, service: str, method: str, request: bytes, *, timeout_s: float = DEFAULT_TIMEOUT_S) -> bytes:
        """One request, one reply."""
        call = self._call(service, method, streaming=False)
        try:
            reply: bytes = await call(request, timeout=timeout_s, metadata=self._metadata())
        except grpc.aio.AioRpcError as err:
            _raise_mapped(err)
        except asyncio.CancelledError:
            _raise_if_closed()
            raise
        return reply

    async def stream(
        self, service: str, method: str, request: bytes, *, timeout_s: float | None = None
    ) -> AsyncGenerator[bytes]:
        """One request, many replies."""
        call = self._call(service, method, streaming=True)(request, timeout=timeout_s, metadata=self._metadata())
        try:
            async for reply in call:
                yield reply
        except grpc.aio.AioRpcError as err:
            _raise_mapped(err)
        except asyncio.CancelledError:
            _raise_if_closed()
            raise
        finally:
            call.cancel()

    async def close(self) -> None:
        """Close the channel; calls in progress end with ServiceUnavailable."""
        opened, self._channel = self._channel, None
        self._calls.clear()
        if opened is not None:
            await opened.close(None)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self.close()

    def _call(self, service: str, method: str, *, streaming: bool) -> Any:
        key = (service, method, streaming)
        if key not in self._calls:
            if self._channel is None:
                self._channel = self._open()
            make = self._channel.unary_stream if streaming else self._channel.unary_unary
            self._calls[key] = make(f"/{service}/{method}", None, None)
        return self._calls[key]

    def _open(self) -> grpc.aio.Channel:
        config = self._config
        if not (config.ca_pem or config.server_url.startswith("https:")):
            return channel(config.grpc_address, options=self._options)
        credentials = grpc.ssl_channel_credentials(
            config.ca_pem or None, config.key_pem or None, config.cert_pem or None
        )
        return channel(config.grpc_address, credentials, server_name=config.tls_server_name, options=self._options)

    def _metadata(self) -> Sequence[tuple[str, str]]:
        token = self._token_source()
        return (("authorization", f"Bearer {token}"),) if token else ()


class InProcessTransport:
    """A server in this process: no sockets, no serialization beyond the messages themselves.

    handler is what answers; it has the methods of Transport and raises APIError. Time limits are kept here.
    """

    def __init__(self, handler: Transport) -> None:
        self._handler = handler

    async def unary(self, service: str, method: str, request: bytes, *, timeout_s: float = DEFAULT_TIMEOUT_S) -> bytes:
        """One request, one reply."""
        try:
            async with asyncio.timeout(timeout_s):
                return await self._handler.unary(service, method, request, timeout_s=timeout_s)
        except TimeoutError as err:
            raise Timeout(f"{service}/{method} took longer than {timeout_s:g} s") from err
        except APIError:
            raise
        except Exception as err:
            raise InternalError.of(err) from err

    async def stream(
        self, service: str, method: str, request: bytes, *, timeout_s: float | None = None
    ) -> AsyncGenerator[bytes]:
        """One request, many replies."""
        replies = self._handler.stream(service, method, request, timeout_s=timeout_s)
        deadline = None if timeout_s is None else asyncio.get_running_loop().time() + timeout_s
        async with aclosing(replies) as opened:
            while True:
                try:
                    async with asyncio.timeout_at(deadline):
                        reply = await anext(opened)
                except StopAsyncIteration:
                    return
                except TimeoutError as err:
                    raise Timeout(f"{service}/{method} took longer than {timeout_s} s") from err
                except APIError:
                    raise
                except Exception as err:
                    raise InternalError.of(err) from err
                yield reply

    async def close(self) -> None:
        """Nothing to give back: the server's owner stops it."""


class FencedTransport:
    """A transport that lets writes through only while allowed() says so, as for a leader who may have lost its lease.

    A process that was stopped for longer than its lease finds out here, before its first write.
    """

    def __init__(self, inner: Transport, allowed: Callable[[], bool]) -> None:
        self._inner = inner
        self._allowed = allowed

    async def unary(self, service: str, method: str, request: bytes, *, timeout_s: float = DEFAULT_TIMEOUT_S) -> bytes:
        """One request, one reply; raises ServiceUnavailable for a write that is not allowed."""
        if method not in READ_METHODS and not self._allowed():
            raise ServiceUnavailable(f"{service}/{method}: this process may not write, it is no longer the leader")
        return await self._inner.unary(service, method, request, timeout_s=timeout_s)

    def stream(
        self, service: str, method: str, request: bytes, *, timeout_s: float | None = None
    ) -> AsyncGenerator[bytes]:
        """One request, many replies."""
        return self._inner.stream(service, method, request, timeout_s=timeout_s)

    async def close(self) -> None:
        """Close the inner transport."""
        await self._inner.close()


def _raise_if_closed() -> None:
    """Tell a channel that was closed under its call from a caller who was cancelled: grpc says the same of both."""
    task = asyncio.current_task()
    if task is not None and not task.cancelling():
        raise ServiceUnavailable("the connection was closed") from None


def _raise_mapped(err: grpc.aio.AioRpcError) -> NoReturn:
    raise error_from(err) from err


def token_source_of(config: ClientConfig) -> Callable[[], str]:
    """What gives the bearer token at each call, empty where there is none."""
    """What gives the bearer token at each call, empty where there is none."""
    if config.token_file is None:
        token = config.token
        return lambda: token
    return _TokenFile(config.token_file).read


class _TokenFile:
    """A token that the kubelet replaces now and then; read again when the file has changed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp: tuple[int, int] | None = None
        self._token = ""

    def read(self) -> str:
        try:
            info = self._path.stat()
            stamp = (info.st_mtime_ns, info.st_ino)
            if stamp != self._stamp:
                self._token, self._stamp = self._path.read_text().strip(), stamp
        except OSError as err:
            if not self._token:
                raise Unauthorized(f"cannot read token file {self._path}: {err.strerror}") from err
        return self._token
