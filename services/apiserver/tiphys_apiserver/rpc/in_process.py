"""The gRPC door without a wire: the same services and the same chain, for clients in this process."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from tiphys_apimachinery.errors import NotFound
from tiphys_apiserver.rpc.custom_services import CustomServices
from tiphys_apiserver.rpc.server import make_services
from tiphys_apiserver.server.assembly import Assembly
from tiphys_client.transport import DEFAULT_TIMEOUT_S, InProcessTransport

Metadata = Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class _Context:
    """As much of a call's context as handlers ask for."""

    metadata: Metadata

    def auth_context(self) -> dict[str, list[bytes]]:
        return {}

    def invocation_metadata(self) -> Metadata:
        return self.metadata

    def peer(self) -> str:
        return "in-process"

    async def send_initial_metadata(self, _metadata: object) -> None:
        """Nobody waits for a head here."""


@dataclass(frozen=True, slots=True)
class _Details:
    method: str


class InProcessDoor:
    """Hands calls to the handlers that gRPC would call."""

    def __init__(self, parts: Assembly) -> None:
        self._services = make_services(parts)
        self._custom = CustomServices(parts.hall, parts.chain)

    def transport(self, token: str) -> InProcessTransport:
        """The road of one client, who shows this bearer token."""
        return InProcessTransport(_Caller(self, _Context((("authorization", f"Bearer {token}"),))))

    def method(self, service: str, method: str) -> Any:
        """The handler of a method. Raises NotFound."""
        found = self._services.get(service, {}).get(method)
        found = found or self._custom.service(_Details(f"/{service}/{method}"))
        if found is None:
            raise NotFound(f"no method {service}/{method}")
        return found


@dataclass(frozen=True, slots=True)
class _Caller:
    """One client's calls, with its credentials."""

    door: InProcessDoor
    context: _Context

    async def unary(self, service: str, method: str, request: bytes, *, timeout_s: float = DEFAULT_TIMEOUT_S) -> bytes:
        handler = self.door.method(service, method)
        reply: bytes = await handler.unary_unary(handler.request_deserializer(request), self.context)
        return reply

    async def stream(
        self, service: str, method: str, request: bytes, *, timeout_s: float | None = None
    ) -> AsyncGenerator[bytes]:
        handler = self.door.method(service, method)
        replies = handler.unary_stream(handler.request_deserializer(request), self.context)
        async with aclosing(replies) as opened:
            async for reply in opened:
                yield reply

    async def close(self) -> None:
        """Nothing is open."""
