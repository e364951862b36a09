"""Counts requests and how long they take, with Kubernetes' metric names."""

from __future__ import annotations

from typing import Any

from tiphys_apiserver.server.request_info import RequestInfo
from tiphys_component.metrics import Registry

_LASTING = frozenset({"watch"})


class RequestMetrics:
    """The request metrics of one server; a label's series is bound once, as looking it up costs more than counting."""

    def __init__(self, registry: Registry) -> None:
        self._total = registry.counter(
            "apiserver_request_total",
            "Requests by verb, resource and HTTP code.",
            ("verb", "group", "version", "resource", "subresource", "code"),
        )
        self._duration = registry.histogram(
            "apiserver_request_duration_seconds",
            "Seconds from request to answer, without watches and tunnels.",
            ("verb", "group", "resource", "subresource"),
        )
        self._bound: dict[tuple[str, ...], tuple[Any, Any]] = {}

    def observe(self, info: RequestInfo, code: int, seconds: float) -> None:
        """Count one answered request."""
        resource = info.resource if info.is_resource_request else ""
        # A caller chooses what stands in a path: only what was found may become a label.
        if code in (401, 404, 405) and info.is_resource_request:
            key = (info.verb, "", "", "", "", str(code))
        else:
            key = (info.verb, info.api_group, info.api_version, resource, info.subresource, str(code))
        bound = self._bound.get(key)
        if bound is None:
            duration = self._duration.labels(key[0], key[1], key[3], key[4])
            bound = self._bound[key] = (self._total.labels(*key), duration)
        bound[0].inc()
        if info.verb not in _LASTING and code != 101:
            bound[1].observe(seconds)
