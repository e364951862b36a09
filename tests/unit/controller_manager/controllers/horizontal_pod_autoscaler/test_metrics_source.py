"""Reading measures from the three groups."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from tiphys.api.autoscaling.v2 import autoscaling_pb2 as v2
from tiphys_apimachinery.codec import json_codec
from tiphys_apimachinery.errors import APIError, NotFound, ServiceUnavailable
from tiphys_apimachinery.scheme import load_default
from tiphys_component.clock import FakeClock
from tiphys_controller_manager.controllers.horizontal_pod_autoscaler.metrics_source import MetricsSource
from tiphys_controller_manager.controllers.horizontal_pod_autoscaler.readings import MeasureError, PodSample

TIME = "2026-01-02T03:04:05Z"
AT_S = 1767323045.0
CUSTOM = "/apis/custom.metrics.k8s.io"


class Paths:
    """Documents by path; remembers what was asked."""

    def __init__(self, **documents: Any) -> None:
        self.documents: dict[str, Any] = {CUSTOM: {"versions": [{"version": "v1beta1"}, {"version": "v1beta2"}]}}
        self.asked: list[tuple[str, dict[str, str]]] = []

    async def get(self, path: str, query: Mapping[str, str] | None = None) -> Any:
        """The document, or what is to be raised."""
        self.asked.append((path, dict(query or {})))
        found = self.documents.get(path, NotFound("the server could not find the requested resource"))
        if isinstance(found, APIError):
            raise found
        return found

    async def close(self) -> None:
        """Nothing is open."""


def metric(document: dict[str, Any]) -> Any:
    """An entry of a spec."""
    return json_codec.from_json(v2.MetricSpec, document, None)


def source(paths: Paths) -> MetricsSource:
    """A source on these documents."""
    return MetricsSource(paths, load_default(), FakeClock())


def pod_metrics(name: str, **cpus: str) -> dict[str, Any]:
    """One PodMetrics."""
    containers = [{"name": one, "usage": {"cpu": cpu} if cpu else {}} for one, cpu in cpus.items()]
    metadata = {"name": name, "namespace": "default"}
    return {"metadata": metadata, "timestamp": TIME, "window": "1m0.5s", "containers": containers}


CPU = {"type": "Resource", "resource": {"name": "cpu", "target": {}}}
PODS = "/apis/metrics.k8s.io/v1beta1/namespaces/default/pods"


async def test_resource_of_pods_is_the_sum_of_their_containers() -> None:
    paths = Paths()
    items = [pod_metrics("a", app="100m", side="1500000n"), pod_metrics("b", app="5m", side="")]
    paths.documents[PODS] = {"items": items}
    assert await source(paths).read(metric(CPU), "default", "app=web") == {"a": PodSample(102, AT_S, 60.5)}
    assert paths.asked == [(PODS, {"labelSelector": "app=web"})]


async def test_resource_of_one_container() -> None:
    paths = Paths()
    paths.documents[PODS] = {"items": [pod_metrics("a", app="100m", side="7m")]}
    resource = {"name": "cpu", "container": "side", "target": {}}
    asked = {"type": "ContainerResource", "containerResource": resource}
    assert await source(paths).read(metric(asked), "default", "app=web") == {"a": PodSample(7, AT_S, 60.5)}
    resource["container"] = "none"
    found = await source(paths).read(metric(asked), "default", "app=web")
    assert "container none not present in metrics for pod default/a" in str(found)


def values(*items: tuple[str, str]) -> dict[str, Any]:
    """A MetricValueList."""
    return {"items": [{"describedObject": {"name": name}, "timestamp": TIME, "value": value} for name, value in items]}


async def test_J4_custom_measure_of_pods_and_of_an_object() -> None:
    paths = Paths()
    paths.documents[f"{CUSTOM}/v1beta2/namespaces/default/pods/*/busy"] = values(("a", "3"), ("b", "500m"))
    paths.documents[f"{CUSTOM}/v1beta2/namespaces/default/ingresses.networking.k8s.io/main/hits"] = values(
        ("main", "2k")
    )
    paths.documents[f"{CUSTOM}/v1beta2/namespaces/default/metrics/load"] = values(("default", "1"))
    made = source(paths)
    selector = {"matchLabels": {"kind": "slow"}}
    asked = {"type": "Pods", "pods": {"metric": {"name": "busy", "selector": selector}, "target": {}}}
    found = await made.read(metric(asked), "default", "app=web")
    assert found == {"a": PodSample(3000, AT_S, 60.0), "b": PodSample(500, AT_S, 60.0)}
    assert paths.asked[-1][1] == {"labelSelector": "app=web", "metricLabelSelector": "kind=slow"}
    described = {"kind": "Ingress", "name": "main", "apiVersion": "networking.k8s.io/v1"}
    asked = {"type": "Object", "object": {"metric": {"name": "hits"}, "describedObject": described, "target": {}}}
    assert await made.read(metric(asked), "default", "") == 2_000_000
    described = {"kind": "Namespace", "name": "default", "apiVersion": "v1"}
    asked = {"type": "Object", "object": {"metric": {"name": "load"}, "describedObject": described, "target": {}}}
    assert await made.read(metric(asked), "default", "") == 1000
    # The versions were asked for once.
    assert [path for path, _ in paths.asked].count(CUSTOM) == 1


async def test_J4_older_custom_metrics_server_is_spoken_to_in_its_version() -> None:
    paths = Paths()
    paths.documents[CUSTOM] = {"versions": [{"version": "v1beta1"}]}
    paths.documents[f"{CUSTOM}/v1beta1/namespaces/default/pods/*/busy"] = values(("a", "3"))
    asked = {"type": "Pods", "pods": {"metric": {"name": "busy"}, "target": {}}}
    assert await source(paths).read(metric(asked), "default", "x=y") == {"a": PodSample(3000, AT_S, 60.0)}


async def test_J4_external_measures_add_up() -> None:
    paths = Paths()
    path = "/apis/external.metrics.k8s.io/v1beta1/namespaces/default/queue"
    paths.documents[path] = {"items": [{"value": "3"}, {"value": "4500m"}]}
    selector = {"matchLabels": {"region": "north"}}
    asked = {"type": "External", "external": {"metric": {"name": "queue", "selector": selector}, "target": {}}}
    assert await source(paths).read(metric(asked), "default", "") == 7500
    assert paths.asked == [(path, {"labelSelector": "region=north"})]


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"items": []}, "no metrics returned from resource metrics API"),
        (NotFound("nothing"), "unable to fetch metrics from resource metrics API: nothing"),
        (ServiceUnavailable("down"), "unable to fetch metrics from resource metrics API: down"),
        ({}, "can't be read"),
        ({"items": [{}]}, "can't be read"),
        ({"items": [pod_metrics("a", app="many")]}, "the metrics API answers 'many'"),
        ([], "can't be read"),
    ],
    ids=["empty", "not-there", "down", "no-list", "no-item", "no-amount", "no-object"],
)
async def test_answer_that_is_none_says_why(document: Any, words: str) -> None:
    paths = Paths()
    paths.documents[PODS] = document
    found = await source(paths).read(metric(CPU), "default", "app=web")
    assert isinstance(found, MeasureError)
    assert words in str(found)
