"""What dashboards made for Kubernetes ask of /metrics, of a server that has had something to do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.apiserver import RunningServer
from tiphys.apiserver.v1 import wire_pb2

PODS = "/api/v1/namespaces/default/pods"
POD = {"metadata": {"name": "a"}, "spec": {"containers": [{"name": "c", "image": "busybox"}]}}
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


async def scrape(server: RunningServer) -> Samples:
    reply = await server.http("GET", "/metrics")
    assert reply.status == 200
    families = text_string_to_metric_families(reply.body.decode())
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }


def value(samples: Samples, name: str, **labels: str) -> float:
    """The sum of the samples of a name that have these labels."""
    wanted = set(labels.items())
    return sum(number for (one, has), number in samples.items() if one == name and wanted <= has)


@asynccontextmanager
async def watching(server: RunningServer) -> AsyncIterator[asyncio.StreamReader]:
    reader, writer = await server.connect()
    writer.write(f"GET {PODS}?watch=1 HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    await reader.readuntil(b"\r\n\r\n")
    try:
        yield reader
    finally:
        writer.close()


async def test_J5_requests_are_counted_under_the_names_and_labels_of_kubernetes(server: RunningServer) -> None:
    await server.http("POST", PODS, POD)
    await server.http("GET", f"{PODS}/a")
    await server.http("GET", PODS)
    await server.http(
        "PATCH", f"{PODS}/a", {"metadata": {"labels": {"x": "y"}}}, content_type="application/merge-patch+json"
    )
    await server.http("GET", f"{PODS}/missing")
    await server.grpc("core.v1.PodService", "Get", wire_pb2.GetRequest(namespace="default", name="a"))
    found = await scrape(server)
    pods = {"group": "", "version": "v1", "resource": "pods", "subresource": "", "component": "apiserver"}
    for verb, scope, code, count in (
        ("POST", "resource", "201", 1),
        ("GET", "resource", "200", 2),
        ("GET", "resource", "404", 1),
        ("LIST", "namespace", "200", 1),
        ("PATCH", "resource", "200", 1),
    ):
        labels = {**pods, "verb": verb, "scope": scope, "dry_run": "", "code": code}
        assert found["apiserver_request_total", frozenset(labels.items())] == count, (verb, code)
    timed = {**pods, "verb": "LIST", "scope": "namespace", "dry_run": ""}
    for name in ("apiserver_request_duration_seconds", "apiserver_request_sli_duration_seconds"):
        assert found[f"{name}_count", frozenset(timed.items())] == 1
        assert value(found, f"{name}_bucket", le="60.0", **timed) == 1
    assert value(found, "apiserver_response_sizes_count", verb="LIST", resource="pods") == 1


async def test_J5_what_is_inside_now_is_told_apart_from_what_lasts(server: RunningServer) -> None:
    async with watching(server):
        found = await scrape(server)
        labels = {"verb": "WATCH", "version": "v1", "resource": "pods", "scope": "namespace", "component": "apiserver"}
        assert value(found, "apiserver_longrunning_requests", **labels) == 1
        # The scrape itself.
        assert value(found, "apiserver_current_inflight_requests", request_kind="readOnly") == 1
        assert value(found, "apiserver_current_inflight_requests", request_kind="mutating") == 0
        assert value(found, "apiserver_registered_watchers", resource="pods") == 1


async def test_J5_the_store_and_the_watch_caches_are_counted(server: RunningServer) -> None:
    async with watching(server) as reader:
        await server.http("POST", PODS, POD)
        assert b"ADDED" in await reader.readuntil(b"}\n")
        found = await scrape(server)
    place = {"group": "", "resource": "pods"}
    assert value(found, "apiserver_storage_objects", resource="pods") == 1
    assert value(found, "apiserver_storage_objects", resource="clusterroles.rbac.authorization.k8s.io") > 20
    assert value(found, "apiserver_resource_objects", **place) == 1
    assert value(found, "etcd_requests_total", operation="create", **place) == 1
    assert value(found, "etcd_request_duration_seconds_count", operation="create", **place) == 1
    assert value(found, "etcd_request_errors_total", operation="create", **place) == 0
    assert (
        value(found, "etcd_requests_total", operation="create", group="apiregistration.k8s.io", resource="apiservices")
        > 1
    )
    assert value(found, "apiserver_watch_events_total", version="v1", **place) == 1
    assert value(found, "apiserver_watch_cache_events_received_total", **place) == 1
    assert value(found, "apiserver_watch_cache_events_dispatched_total", **place) == 1
    assert value(found, "apiserver_watch_cache_initializations_total", **place) == 1
    assert value(found, "apiserver_watch_cache_resource_version", **place) > 1


async def test_J5_names_that_callers_make_up_become_no_labels(server: RunningServer) -> None:
    for user in ("admin", "alice"):
        for number in range(3):
            await server.http("GET", f"/apis/made.up{number}/v1/namespaces/default/gadgets{number}/x", user=user)
            await server.http("GET", f"/api/v1/namespaces/default/pods/a/gadget{number}", user=user)
            await server.http(("LINK", "PURGE", "SEARCH")[number], f"{PODS}/a", user=user)
    found = await scrape(server)
    for (name, labels), _ in found.items():
        assert not any("gadget" in text or "made.up" in text or "purge" in text.lower() for _, text in labels), name
    assert value(found, "apiserver_request_total", verb="OTHER", resource="pods") == 6


async def test_J5_the_program_and_the_rules_of_its_dashboards(server: RunningServer) -> None:
    found = await scrape(server)
    assert value(found, "kubernetes_build_info", major="1", minor="34") == 1
    names = {name for name, _ in found}
    assert {"process_resident_memory_bytes", "process_cpu_seconds_total", "process_start_time_seconds"} <= names
    assert {"apiserver_flowcontrol_current_executing_seats", "apiserver_flowcontrol_dispatched_requests_total"} <= names


@pytest.mark.parametrize(
    ("method", "path"), [("DELETE", "/metrics"), ("GET", "/resetMetrics"), ("POST", "/resetMetrics")]
)
async def test_J6_counters_restart_when_they_are_reset(server: RunningServer, method: str, path: str) -> None:
    for _ in range(5):
        await server.http("GET", PODS)
    assert value(await scrape(server), "apiserver_request_total", verb="LIST", resource="pods") == 5
    reply = await server.http(method, path)
    assert (reply.status, reply.body) == (200, b"metrics reset\n")
    await server.http("GET", PODS)
    found = await scrape(server)
    assert value(found, "apiserver_request_total", verb="LIST", resource="pods") == 1
    assert value(found, "apiserver_request_duration_seconds_count", verb="LIST", resource="pods") == 1
    assert value(found, "etcd_requests_total", operation="create") == 0


async def test_J6_not_everybody_may_reset(server: RunningServer) -> None:
    for method, path in (("DELETE", "/metrics"), ("GET", "/resetMetrics")):
        assert (await server.http(method, path, user="alice")).status == 403
    assert (await server.http("POST", "/metrics")).status == 405
