"""Counts requests and how long they take, with Kubernetes' metric names and labels.

Source: kubernetes apiserver pkg/endpoints/metrics/metrics.go.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from prometheus_client.metrics_core import GaugeMetricFamily, Metric

from tiphys_apiserver.server.call import Call
from tiphys_apiserver.server.request_info import RequestInfo
from tiphys_component.metrics import Registry

_SCOPED = ("verb", "group", "version", "resource", "subresource", "scope", "component")
_TIMED = ("verb", "dry_run", "group", "version", "resource", "subresource", "scope", "component")
_COMPONENT = "apiserver"
_BUCKETS_S = (
    *(0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2, 3),
    *(4, 5, 6, 8, 10, 15, 20, 30, 45, 60),
)
_SIZES = tuple(1000.0 * 10**power for power in range(7))
_VERBS = {
    "get": "GET",
    "list": "LIST",
    "watch": "WATCH",
    "create": "POST",
    "update": "PUT",
    "patch": "PATCH",
    "apply": "APPLY",
    "delete": "DELETE",
    "deletecollection": "DELETECOLLECTION",
    "post": "POST",
    "put": "PUT",
    "head": "GET",
}
_TUNNELS = frozenset({"exec", "attach", "portforward", "proxy"})
_MUTATING = frozenset({"create", "update", "patch", "delete", "deletecollection", "post", "put"})
_Key = tuple[str, ...]


class RequestMetrics:
    """The request metrics of one server.

    A label's series is bound once, as looking it up costs more than counting. is_known tells what the server serves: a
    caller chooses what stands in a path, and only what is served may become a label.
    """

    def __init__(self, registry: Registry, is_known: Callable[[RequestInfo], bool] = lambda _: True) -> None:
        self._is_known = is_known
        self._total = registry.counter(
            "apiserver_request_total", "Requests by verb, resource and HTTP code.", (*_TIMED, "code")
        )
        self._duration = registry.quick_histogram(
            "apiserver_request_duration_seconds",
            "Seconds from request to answer, without watches and tunnels.",
            _TIMED,
            _BUCKETS_S,
        )
        self._sli = registry.quick_histogram(
            "apiserver_request_sli_duration_seconds",
            "Seconds from request to answer, without watches, tunnels and the time that webhooks took.",
            _TIMED,
            _BUCKETS_S,
        )
        self._sizes = registry.quick_histogram(
            "apiserver_response_sizes", "Bytes of the answers to GET and LIST.", _SCOPED, _SIZES
        )
        self._terminated = registry.counter(
            "apiserver_request_terminations_total",
            "Requests that the server sent away to protect itself.",
            (*_SCOPED, "code"),
        )
        self._bound: dict[_Key, tuple[Any, Any, Any]] = {}
        self._labels: dict[_Key, _Key] = {}
        self._sized: dict[_Key, Any] = {}
        self._now: Counter[str] = Counter()
        self._lasting: Counter[_Key] = Counter()
        registry.collector(self._collect)
        registry.on_reset(self._reset)

    def entered(self, call: Call) -> None:
        """Count a request as inside until left: as lasting where it is a watch or a tunnel."""
        if call.lasts:
            self._lasting[self._labels_of(call)] += 1
        else:
            self._now["mutating" if call.info.verb in _MUTATING else "readOnly"] += 1

    def left(self, call: Call) -> None:
        """Count it no longer."""
        if call.lasts:
            self._lasting[self._labels_of(call)] -= 1
        else:
            self._now["mutating" if call.info.verb in _MUTATING else "readOnly"] -= 1

    def observe(self, call: Call, code: int, seconds: float, size: int = 0) -> None:
        """Count one answered request."""
        labels = self._labels_of(call)
        key = (*labels, "All" if call.dry_run else "", str(code))
        bound = self._bound.get(key)
        if bound is None:
            timed = (labels[0], key[-2], *labels[1:])
            series = (self._duration.labels(*timed), self._sli.labels(*timed))
            bound = self._bound[key] = (self._total.labels(*timed, str(code)), *series)
        bound[0].inc()
        if call.lasts or code == 101:
            return
        bound[1].observe(seconds)
        bound[2].observe(max(0.0, seconds - call.webhooks_s))
        if size and call.info.is_resource_request and labels[0] in ("GET", "LIST"):
            sized = self._sized.get(labels)
            if sized is None:
                sized = self._sized[labels] = self._sizes.labels(*labels)
            sized.observe(size)

    def terminated(self, call: Call, code: int) -> None:
        """Count one request that flow control or a stopping server refused."""
        self._terminated.labels(*self._labels_of(call), str(code)).inc()

    def _labels_of(self, call: Call) -> _Key:
        info = call.info
        scope = _scope(info)
        said = "apply" if call.is_apply else info.verb
        raw = (said, info.api_group, info.api_version, info.resource, info.subresource, scope)
        found = self._labels.get(raw)
        if found is not None:
            return found
        verb = _VERBS.get(said, "OTHER")
        if info.subresource in _TUNNELS and info.is_resource_request:
            verb = "CONNECT"
        if info.is_resource_request and not self._is_known(info):
            # Not kept: there is no end of such paths.
            return (verb, "", "", "", "", "", _COMPONENT)
        found = (verb, info.api_group, info.api_version, info.resource, info.subresource, scope, _COMPONENT)
        if info.verb in _VERBS:
            self._labels[raw] = found
        return found

    def _reset(self) -> None:
        for family in (self._total, self._duration, self._sli, self._sizes, self._terminated):
            family.clear()
        self._bound.clear()
        self._sized.clear()

    def _collect(self) -> Iterator[Metric]:
        inside = GaugeMetricFamily(
            "apiserver_current_inflight_requests",
            "Requests inside now, without watches and tunnels.",
            labels=("request_kind",),
        )
        for kind in ("mutating", "readOnly"):
            inside.add_metric((kind,), self._now[kind])
        yield inside
        lasting = GaugeMetricFamily("apiserver_longrunning_requests", "Watches and tunnels inside now.", labels=_SCOPED)
        for key, count in self._lasting.items():
            lasting.add_metric(key, count)
        yield lasting


def _scope(info: RequestInfo) -> str:
    if not info.is_resource_request:
        return ""
    if info.name or info.verb == "create":
        return "resource"
    return "namespace" if info.namespace else "cluster"
