"""Autoscalers on the real API server, with metrics that another API server serves behind it."""

from __future__ import annotations

import base64
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tests.integration.controller_manager.conftest import Cluster, cluster_of
from tests.support.apiserver import RunningServer, running_server
from tiphys.api.apps.v1 import apps_pb2
from tiphys.api.autoscaling.v2 import autoscaling_pb2 as v2
from tiphys_apimachinery.codec import json_codec
from tiphys_component.tls import CertificateAuthority

CUSTOM, EXTERNAL = "custom.metrics.k8s.io", "external.metrics.k8s.io"
Scaler = v2.HorizontalPodAutoscaler


@dataclass
class Adapter:
    """An API server of custom and external metrics, as a monitoring system has one."""

    busy: dict[str, str] = field(default_factory=dict)
    hits: str = "0"
    queue: str = "0"
    port: int = 0
    asked: list[str] = field(default_factory=list)

    async def answer(self, request: web.Request) -> web.Response:
        """Discovery, and numbers."""
        self.asked.append(request.path_qs)
        match request.path.strip("/").split("/"):
            case ["apis", group]:
                version = "v1beta2" if group == CUSTOM else "v1beta1"
                found: dict[str, Any] = {"kind": "APIGroup", "name": group, "versions": [{"version": version}]}
            case ["apis", group, version]:
                found = {"kind": "APIResourceList", "groupVersion": f"{group}/{version}", "resources": []}
            case ["apis", "custom.metrics.k8s.io", "v1beta2", "namespaces", "default", "pods", "*", "busy"]:
                items = [{"describedObject": {"name": name}, "value": value} for name, value in self.busy.items()]
                found = {"kind": "MetricValueList", "items": items}
            case ["apis", "custom.metrics.k8s.io", "v1beta2", "namespaces", "default", "services", "web", "hits"]:
                found = {"kind": "MetricValueList", "items": [{"describedObject": {"name": "web"}, "value": self.hits}]}
            case ["apis", "external.metrics.k8s.io", "v1beta1", "namespaces", "default", "queue"]:
                found = {"kind": "ExternalMetricValueList", "items": [{"value": self.queue}]}
            case _:
                return web.json_response({"kind": "Status", "message": "no such metric", "code": 404}, status=404)
        return web.json_response(found)


@asynccontextmanager
async def listening(adapter: Adapter, folder: Path) -> AsyncIterator[str]:
    """Serve the adapter as metrics.default.svc; the authority behind its certificate, for an APIService."""
    authority = CertificateAuthority.create("adapter-ca")
    authority.issue("metrics", sans=["metrics.default.svc"], server=True).write(folder / "a.crt", folder / "a.key")
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(folder / "a.crt", folder / "a.key")
    application = web.Application()
    application.router.add_route("*", "/{tail:.*}", adapter.answer)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
        adapter.port = runner.addresses[0][1]
        yield base64.b64encode(authority.cert_pem).decode()
    finally:
        await runner.cleanup()


async def register(server: RunningServer, adapter: Adapter, ca_bundle: str) -> None:
    """APIServices of both groups."""
    service = {"metadata": {"name": "metrics"}, "spec": {"type": "ExternalName", "externalName": "localhost"}}
    assert (await server.http("POST", "/api/v1/namespaces/default/services", service)).status == 201
    for group, version in ((CUSTOM, "v1beta2"), (EXTERNAL, "v1beta1")):
        spec = {
            "group": group,
            "version": version,
            "service": {"namespace": "default", "name": "metrics", "port": adapter.port},
            "caBundle": ca_bundle,
            "groupPriorityMinimum": 100,
            "versionPriority": 100,
        }
        body = {"metadata": {"name": f"{version}.{group}"}, "spec": spec}
        made = await server.http("POST", "/apis/apiregistration.k8s.io/v1/apiservices", body)
        assert made.status == 201, made.body


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[tuple[Cluster, Adapter]]:
    """A cluster whose autoscalers look twice a second, and the adapter behind it."""
    adapter = Adapter()
    async with (
        listening(adapter, tmp_path) as ca_bundle,
        running_server() as server,
        cluster_of(
            server,
            horizontal_pod_autoscaler_sync_period_s=0.5,
            horizontal_pod_autoscaler_downscale_stabilization_s=1.0,
        ) as cluster,
    ):
        await register(server, adapter, ca_bundle)
        yield cluster, adapter


def deployment(replicas: int) -> apps_pb2.Deployment:
    made = apps_pb2.Deployment()
    made.metadata.name, made.metadata.namespace = "web", "default"
    made.spec.replicas = replicas
    made.spec.selector.matchLabels["app"] = "web"
    made.spec.template.metadata.labels["app"] = "web"
    made.spec.template.spec.containers.add(name="c", image="busybox:1")
    return made


def scaler(metric: dict[str, Any], **spec: Any) -> Any:
    document = {
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
            "minReplicas": 1,
            "maxReplicas": 10,
            "metrics": [metric],
            **spec,
        },
    }
    return json_codec.from_json(Scaler, document, None)


async def replicas_are(cluster: Cluster, count: int) -> None:
    """Wait until the Deployment wants so many, and its pods are there."""

    async def look() -> bool:
        await cluster.run_pods()
        found = await cluster.client.get(apps_pb2.Deployment, "web", "default")
        return bool(found.spec.replicas == count and found.status.readyReplicas == count == found.status.replicas)

    await cluster.until(look)


async def told(cluster: Cluster) -> dict[str, tuple[str, str]]:
    """The autoscaler's conditions."""
    found = await cluster.client.get(Scaler, "web", "default")
    return {one.type: (one.status, one.reason) for one in found.status.conditions}


async def test_B31_J4_custom_metric_of_pods_scales_a_deployment(scene: tuple[Cluster, Adapter]) -> None:
    cluster, adapter = scene
    await cluster.client.create(deployment(2))
    await replicas_are(cluster, 2)
    pods = [pod["metadata"]["name"] for pod in await pods_of(cluster)]
    adapter.busy = dict.fromkeys(pods, "9")
    target = {"type": "AverageValue", "averageValue": "3"}
    await cluster.client.create(scaler({"type": "Pods", "pods": {"metric": {"name": "busy"}, "target": target}}))
    await replicas_are(cluster, 6)
    assert any("pods/*/busy?labelSelector=app%3Dweb" in path for path in adapter.asked)
    adapter.busy = {pod["metadata"]["name"]: "1" for pod in await pods_of(cluster)}
    await replicas_are(cluster, 2)
    conditions = await told(cluster)
    assert conditions["ScalingActive"] == ("True", "ValidMetricFound")
    events = (await cluster.server.http("GET", "/api/v1/namespaces/default/events")).json()["items"]
    rescales = [event["message"] for event in events if event["reason"] == "SuccessfulRescale"]
    assert "New size: 6; reason: pods metric busy above target" in rescales
    # The kubectls that know the first version alone see a number too.
    path = "/apis/autoscaling/v1/namespaces/default/horizontalpodautoscalers/web"
    older = (await cluster.server.http("GET", path)).json()
    assert older["status"]["desiredReplicas"] == 2


async def pods_of(cluster: Cluster) -> list[dict[str, Any]]:
    path = "/api/v1/namespaces/default/pods?labelSelector=app%3Dweb"
    found: list[dict[str, Any]] = (await cluster.server.http("GET", path)).json()["items"]
    return found


async def test_B31_metric_of_an_object_and_one_from_outside_to_zero_and_back(scene: tuple[Cluster, Adapter]) -> None:
    cluster, adapter = scene
    await cluster.client.create(deployment(1))
    await replicas_are(cluster, 1)
    described = {"apiVersion": "v1", "kind": "Service", "name": "web"}
    hits = {
        "type": "Object",
        "object": {
            "metric": {"name": "hits"},
            "describedObject": described,
            "target": {"type": "Value", "value": "10"},
        },
    }
    queue = {
        "type": "External",
        "external": {"metric": {"name": "queue"}, "target": {"type": "AverageValue", "averageValue": "10"}},
    }
    adapter.hits, adapter.queue = "20", "25"
    await cluster.client.create(scaler(hits, metrics=[hits, queue], minReplicas=0, maxReplicas=3))
    await replicas_are(cluster, 3)
    adapter.hits, adapter.queue = "0", "0"
    await replicas_are(cluster, 0)
    adapter.queue = "11"
    await replicas_are(cluster, 2)


async def test_B31_custom_resource_with_a_scale_is_scaled(scene: tuple[Cluster, Adapter]) -> None:
    cluster, adapter = scene
    names = {"plural": "fleets", "singular": "fleet", "kind": "Fleet"}
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    scale = {
        "specReplicasPath": ".spec.ships",
        "statusReplicasPath": ".status.ships",
        "labelSelectorPath": ".status.selector",
    }
    version = {
        "name": "v1",
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": schema},
        "subresources": {"status": {}, "scale": scale},
    }
    definition = {
        "metadata": {"name": "fleets.sea.example.com"},
        "spec": {"group": "sea.example.com", "scope": "Namespaced", "names": names, "versions": [version]},
    }
    path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    assert (await cluster.server.http("POST", path, definition)).status == 201
    fleets = "/apis/sea.example.com/v1/namespaces/default/fleets"
    fleet = {"apiVersion": "sea.example.com/v1", "kind": "Fleet", "metadata": {"name": "argo"}, "spec": {"ships": 1}}

    async def made() -> bool:
        return (await cluster.server.http("POST", fleets, fleet)).status == 201

    await cluster.until(made)
    status = {"status": {"ships": 1, "selector": "app=argo"}}
    merge = "application/merge-patch+json"
    assert (await cluster.server.http("PATCH", f"{fleets}/argo/status", status, content_type=merge)).status == 200
    adapter.queue = "33"
    queue = {
        "type": "External",
        "external": {"metric": {"name": "queue"}, "target": {"type": "AverageValue", "averageValue": "10"}},
    }
    reference = {"apiVersion": "sea.example.com/v1", "kind": "Fleet", "name": "argo"}
    await cluster.client.create(scaler(queue, scaleTargetRef=reference))

    async def grown() -> bool:
        return bool((await cluster.server.http("GET", f"{fleets}/argo")).json()["spec"]["ships"] == 4)

    await cluster.until(grown)


async def test_adapter_that_is_not_there_is_told_and_changes_nothing(cluster: Cluster) -> None:
    await cluster.client.create(deployment(2))
    queue = {"type": "External", "external": {"metric": {"name": "q"}, "target": {"type": "Value", "value": "1"}}}
    await cluster.client.create(scaler(queue))

    async def condition() -> Any:
        return (await told(cluster)).get("ScalingActive")

    assert await cluster.until(condition) == ("False", "FailedGetExternalMetric")
    assert (await cluster.client.get(apps_pb2.Deployment, "web", "default")).spec.replicas == 2
