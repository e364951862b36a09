"""A transport that counts its requests, under the names that Kubernetes' dashboards ask for.

A request that reached no server counts as one answered 503.

Source: client-go's metrics as component-base/metrics/prometheus/restclient registers them.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from prometheus_client import Counter, Histogram

from tiphys_apimachinery.errors import APIError
from tiphys_client.kubeconfig import ClientConfig
from tiphys_client.transport import DEFAULT_TIMEOUT_S, GrpcTransport, Transport
from tiphys_component.clock import Clock, SystemClock
from tiphys_component.metrics import Registry

_BUCKETS_S = (0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0)
# HTTP's word for each method, as the metrics of REST clients have it; all others are POST.
_METHODS = {"Get": "GET", "List": "GET", "Watch": "GET", "GetScale": "GET", "GetLog": "GET", "Patch": "PATCH"}
_METHODS |= {"Update": "PUT", "UpdateStatus": "PUT", "Delete": "DELETE", "DeleteCollection": "DELETE", "Apply": "PATCH"}
_METHODS |= {"BatchPatch": "PATCH", "BatchDelete": "DELETE"}


class CountedTransport:
    """Implements Transport over another one. host is the server's address, as the metrics are to show it."""

    def __init__(self, inner: Transport, clock: Clock, *, host: str) -> None:
        self._inner = inner
        self._now = clock.monotonic
        self._host = host
        self._total = Counter(
            "rest_client_requests_total", "Requests by code.", ("code", "method", "host"), registry=None
        )
        self._duration = Histogram(
            "rest_client_request_duration_seconds",
            "Seconds from request to answer, without watches.",
            ("verb", "host"),
            buckets=_BUCKETS_S,
            registry=None,
        )
        self._bound: dict[tuple[str, str], Any] = {}

    def show_in(self, registry: Registry) -> None:
        """Have the registry show the counts."""
        registry.collector(self._total.collect)
        registry.collector(self._duration.collect)

    async def unary(self, service: str, method: str, request: bytes, *, timeout_s: float = DEFAULT_TIMEOUT_S) -> bytes:
        """One request, one reply."""
        verb, began, code = _METHODS.get(method, "POST"), self._now(), "200"
        try:
            return await self._inner.unary(service, method, request, timeout_s=timeout_s)
        except APIError as err:
            code = str(err.code)
            raise
        finally:
            self._count(code, verb)
            self._duration.labels(verb, self._host).observe(self._now() - began)

    async def stream(
        self, service: str, method: str, request: bytes, *, timeout_s: float | None = None
    ) -> AsyncGenerator[bytes]:
        """One request, many replies."""
        code = "200"
        try:
            replies: Any = self._inner.stream(service, method, request, timeout_s=timeout_s)
            async with aclosing(replies) as opened:
                async for reply in opened:
                    yield reply
        except APIError as err:
            code = str(err.code)
            raise
        finally:
            self._count(code, _METHODS.get(method, "POST"))

    async def close(self) -> None:
        """Close the inner transport."""
        await self._inner.close()

    def _count(self, code: str, verb: str) -> None:
        bound = self._bound.get((code, verb))
        if bound is None:
            bound = self._bound[code, verb] = self._total.labels(code, verb, self._host)
        bound.inc()


def counted_transport(config: ClientConfig, registry: Registry | None = None) -> CountedTransport:
    """A road over gRPC to the server of a kubeconfig, its counts shown in the registry; or later, by show_in."""
    transport = CountedTransport(GrpcTransport(config), SystemClock(), host=config.grpc_address)
    if registry is not None:
        transport.show_in(registry)
    return transport
