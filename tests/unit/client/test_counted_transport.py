"""Requests to the API server are counted as clients of Kubernetes count theirs."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest

from tiphys_apimachinery.errors import NotFound, ServiceUnavailable
from tiphys_client.counted_transport import CountedTransport
from tiphys_component.clock import FakeClock
from tiphys_component.metrics import Registry

HOST = "10.0.0.1:6444"


class Road:
    """Answers what the name of the service says, half a second later."""

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock
        self.closed = False

    async def unary(self, service: str, method: str, request: bytes, *, timeout_s: float = 30.0) -> bytes:
        self._clock.advance(0.5)
        if service == "missing":
            raise NotFound("no such thing")
        return b"answer"

    async def stream(
        self, service: str, method: str, request: bytes, *, timeout_s: float | None = None
    ) -> AsyncGenerator[bytes]:
        yield b"one"
        if service == "gone":
            raise ServiceUnavailable("the connection was closed")
        yield b"two"

    async def close(self) -> None:
        self.closed = True


@pytest.fixture
def counted() -> tuple[CountedTransport, Registry]:
    clock, registry = FakeClock(), Registry()
    transport = CountedTransport(Road(clock), clock, host=HOST)
    transport.show_in(registry)
    return transport, registry


async def test_J5_requests_are_counted_by_code_and_method(counted: tuple[CountedTransport, Registry]) -> None:
    transport, registry = counted
    assert await transport.unary("pods", "Get", b"") == b"answer"
    await transport.unary("pods", "BatchCreate", b"")
    with pytest.raises(NotFound):
        await transport.unary("missing", "Delete", b"")
    for code, method in (("200", "GET"), ("200", "POST"), ("404", "DELETE")):
        assert registry.value("rest_client_requests_total", code=code, method=method, host=HOST) == 1
    assert registry.value("rest_client_request_duration_seconds_sum", verb="GET", host=HOST) == 0.5


async def test_J5_watches_are_counted_when_they_end(counted: tuple[CountedTransport, Registry]) -> None:
    transport, registry = counted
    assert [reply async for reply in transport.stream("pods", "Watch", b"")] == [b"one", b"two"]
    with pytest.raises(ServiceUnavailable):
        async with aclosing(transport.stream("gone", "Watch", b"")) as replies:
            assert [reply async for reply in replies] == [b"one"]
    assert registry.value("rest_client_requests_total", code="200", method="GET", host=HOST) == 1
    assert registry.value("rest_client_requests_total", code="503", method="GET", host=HOST) == 1
