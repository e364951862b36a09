"""Reads measures: metrics.k8s.io, custom.metrics.k8s.io and external.metrics.k8s.io, whoever serves them.

All three are asked by REST, as the latter two are other servers' behind the API server, and the first may be.
Source: kubernetes pkg/controller/podautoscaler/metrics and k8s.io/metrics' clients.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final
from urllib.parse import quote

from tiphys_apimachinery.errors import APIError
from tiphys_apimachinery.labels import from_label_selector
from tiphys_apimachinery.quantity import Quantity, QuantityError
from tiphys_apimachinery.scheme import Scheme
from tiphys_client.rest import PathReader
from tiphys_component.clock import Clock
from tiphys_component.options import parse_duration
from tiphys_controller_manager.controllers.horizontal_pod_autoscaler.readings import (
    MeasureError,
    PodSample,
    Reading,
    Samples,
)

RESOURCE: Final = "/apis/metrics.k8s.io/v1beta1"
CUSTOM: Final = "/apis/custom.metrics.k8s.io"
EXTERNAL: Final = "/apis/external.metrics.k8s.io/v1beta1"
# Newest first; the names of the members differ.
_CUSTOM_VERSIONS: Final = ("v1beta2", "v1beta1")
_VERSION_KEPT_S: Final = 60.0
_USUAL_WINDOW_S: Final = 60.0


class MetricsSource:
    """The measures of specs. Every read answers with a reading, which is the error where there is none."""

    def __init__(self, rest: PathReader, scheme: Scheme, clock: Clock) -> None:
        self._rest = rest
        self._scheme = scheme
        self._clock = clock
        self._custom = ("", float("-inf"))

    async def read(self, metric: Any, namespace: str, selector: str) -> Reading:
        """The measure that one entry of a spec names; selector is that of the workload's pods."""
        try:
            match metric.type:
                case "Resource":
                    return await self._resource(namespace, selector, metric.resource.name)
                case "ContainerResource":
                    source = metric.containerResource
                    return await self._resource(namespace, selector, source.name, source.container)
                case "Pods":
                    return await self._pods(namespace, selector, metric.pods.metric)
                case "Object":
                    return await self._object(namespace, metric.object)
                case "External":
                    return await self._external(namespace, metric.external.metric)
        except MeasureError as err:
            return err
        except (KeyError, TypeError, AttributeError, ValueError) as err:
            return MeasureError(f"the metrics API's answer can't be read: {err}")
        return MeasureError(f"unknown metric source type {metric.type!r}")

    async def _resource(self, namespace: str, selector: str, name: str, container: str = "") -> Samples:
        path = f"{RESOURCE}/namespaces/{quote(namespace)}/pods"
        failed = f"unable to get metrics for resource {name}"
        try:
            items = (await self._rest.get(path, {"labelSelector": selector}))["items"]
        except APIError as err:
            raise MeasureError(f"{failed}: unable to fetch metrics from resource metrics API: {err.message}") from err
        if not items:
            raise MeasureError(f"{failed}: no metrics returned from resource metrics API")
        found: dict[str, PodSample] = {}
        for item in items:
            value = _resource_value(item, name, container)
            if value is not None:
                found[item["metadata"]["name"]] = PodSample(
                    value, _moment(item.get("timestamp")), _duration(item.get("window"))
                )
        return found

    async def _pods(self, namespace: str, selector: str, metric: Any) -> Samples:
        items = await self._custom_values(
            f"namespaces/{quote(namespace)}/pods/*/{quote(metric.name)}",
            {"labelSelector": selector, **_metric_selector(metric)},
            f"unable to get metric {metric.name}",
        )
        return {
            item["describedObject"]["name"]: PodSample(
                _amount(item["value"]), _moment(item.get("timestamp")), item.get("windowSeconds") or _USUAL_WINDOW_S
            )
            for item in items
        }

    async def _object(self, namespace: str, source: Any) -> int:
        described, name = source.describedObject, quote(source.metric.name)
        where = f"{described.kind} {namespace}/{described.name}"
        if described.kind == "Namespace" and "/" not in described.apiVersion:
            path = f"namespaces/{quote(described.name)}/metrics/{name}"
        else:
            path = f"namespaces/{quote(namespace)}/{self._plural(described)}/{quote(described.name)}/{name}"
        failed = f"unable to get metric {source.metric.name}"
        try:
            items = await self._custom_values(path, _metric_selector(source.metric), failed)
        except MeasureError as err:
            raise MeasureError(f"{err} on {where}") from err
        return _amount(items[0]["value"])

    async def _external(self, namespace: str, metric: Any) -> int:
        query = {"labelSelector": str(from_label_selector(metric.selector))} if metric.HasField("selector") else None
        failed = f"unable to get external metric {namespace}/{metric.name}"
        try:
            path = f"{EXTERNAL}/namespaces/{quote(namespace)}/{quote(metric.name)}"
            items = (await self._rest.get(path, query))["items"]
        except APIError as err:
            raise MeasureError(f"{failed}: unable to fetch metrics from external metrics API: {err.message}") from err
        if not items:
            raise MeasureError(f"{failed}: no metrics returned from external metrics API")
        return sum(_amount(item["value"]) for item in items)

    async def _custom_values(self, path: str, query: Mapping[str, str], failed: str) -> list[Any]:
        """The items of a MetricValueList, at least one. Raises MeasureError."""
        try:
            version = await self._custom_version()
            items: list[Any] = (await self._rest.get(f"{CUSTOM}/{version}/{path}", query))["items"]
        except APIError as err:
            self._custom = ("", float("-inf"))
            raise MeasureError(f"{failed}: unable to fetch metrics from custom metrics API: {err.message}") from err
        if not items:
            raise MeasureError(f"{failed}: no metrics returned from custom metrics API")
        return items

    async def _custom_version(self) -> str:
        """The newest version that is served; asked for once a minute. Raises APIError."""
        version, until_s = self._custom
        if self._clock.monotonic() >= until_s:
            group = await self._rest.get(CUSTOM)
            served = {one["version"] for one in group["versions"]}
            version = next((one for one in _CUSTOM_VERSIONS if one in served), _CUSTOM_VERSIONS[0])
            self._custom = (version, self._clock.monotonic() + _VERSION_KEPT_S)
        return version

    def _plural(self, described: Any) -> str:
        """Resource and group of an object, as in ingresses.networking.k8s.io."""
        group = described.apiVersion.rpartition("/")[0]
        for info in self._scheme.resources():
            if (info.group, info.kind) == (group, described.kind):
                return quote(info.group_resource)
        # Of a kind that was defined at run time; what most plurals look like.
        plural = f"{described.kind.lower()}s"
        return quote(f"{plural}.{group}" if group else plural)


def _metric_selector(metric: Any) -> dict[str, str]:
    return {"metricLabelSelector": str(from_label_selector(metric.selector))} if metric.HasField("selector") else {}


def _resource_value(item: Any, name: str, container: str) -> int | None:
    """What a pod, or its container, uses; None where one container does not tell."""
    found = {one["name"]: one["usage"].get(name) for one in item["containers"]}
    if container:
        if container not in found:
            pod = item["metadata"]
            raise MeasureError(
                f"unable to get metrics for resource {name}: container {container} not present in metrics for pod "
                f"{pod['namespace']}/{pod['name']}"
            )
        found = {container: found[container]}
    if any(value is None for value in found.values()):
        return None
    return sum(_amount(value) for value in found.values())


def _amount(text: Any) -> int:
    try:
        return Quantity.parse(str(text)).milli_value()
    except QuantityError as err:
        raise MeasureError(f"the metrics API answers {text!r}: {err}") from err


def _moment(text: str | None) -> float:
    return datetime.fromisoformat(text).timestamp() if text else 0.0


def _duration(text: str | None) -> float:
    """Seconds in a Duration's text, such as 1m30.5s."""
    return parse_duration(text) if text else _USUAL_WINDOW_S
