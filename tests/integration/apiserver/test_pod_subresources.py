"""Bindings and evictions over HTTP."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.apiserver import RunningServer

PODS = "/api/v1/namespaces/default/pods"
BUDGETS = "/apis/policy/v1/namespaces/default/poddisruptionbudgets"
MERGE = "application/merge-patch+json"


async def make_pod(server: RunningServer, name: str = "p", **spec: Any) -> dict[str, Any]:
    containers = [{"name": "c", "image": "busybox"}]
    body = {"metadata": {"name": name, "labels": {"app": "a"}}, "spec": {"containers": containers, **spec}}
    reply = await server.http("POST", PODS, body)
    assert reply.status == 201, reply.body
    made: dict[str, Any] = reply.json()
    return made


def binding(node: str, **metadata: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Binding", "metadata": metadata, "target": {"kind": "Node", "name": node}}


PATHS = [
    pytest.param(f"{PODS}/p/binding", {}, id="subresource"),
    pytest.param("/api/v1/namespaces/default/bindings", {"name": "p"}, id="older resource"),
]


@pytest.mark.parametrize(("path", "metadata"), PATHS)
async def test_pod_is_bound_once(server: RunningServer, path: str, metadata: dict[str, str]) -> None:
    made = await make_pod(server)
    reply = await server.http("POST", path, binding("n1", **metadata))
    assert (reply.status, reply.json()["status"]) == (201, "Success")
    bound = (await server.http("GET", f"{PODS}/p")).json()
    assert bound["spec"]["nodeName"] == "n1"
    assert bound["metadata"]["generation"] == made["metadata"]["generation"]
    assert [(one["type"], one["status"]) for one in bound["status"]["conditions"]] == [("PodScheduled", "True")]
    again = await server.http("POST", path, binding("n2", **metadata))
    assert (again.status, again.json()["reason"]) == (409, "Conflict")
    assert 'pod p is already assigned to node "n1"' in again.json()["message"]


async def test_binding_of_another_pods_uid_is_a_conflict(server: RunningServer) -> None:
    await make_pod(server)
    reply = await server.http("POST", f"{PODS}/p/binding", binding("n", uid="other"))
    assert reply.status == 409
    assert "UID in precondition: other" in reply.json()["message"]


async def test_gated_pod_is_not_bound(server: RunningServer) -> None:
    await make_pod(server, schedulingGates=[{"name": "example.com/wait"}])
    reply = await server.http("POST", f"{PODS}/p/binding", binding("n"))
    assert reply.status == 409
    assert "non-empty .spec.schedulingGates" in reply.json()["message"]


@pytest.mark.parametrize("node", ["", None])
async def test_binding_without_a_node_is_invalid(server: RunningServer, node: str | None) -> None:
    await make_pod(server)
    reply = await server.http("POST", f"{PODS}/p/binding", {"target": {"name": node} if node else {}})
    assert (reply.status, reply.json()["reason"]) == (422, "Invalid")
    assert "target.name: Required value" in reply.json()["message"]


async def running_pod_with_budget(server: RunningServer, allowed: int) -> None:
    await make_pod(server)
    status = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
    await server.http("PATCH", f"{PODS}/p/status", {"status": status}, content_type=MERGE)
    spec = {"selector": {"matchLabels": {"app": "a"}}, "minAvailable": 1}
    made = await server.http("POST", BUDGETS, {"metadata": {"name": "b"}, "spec": spec})
    assert made.status == 201, made.body
    counts = {"disruptionsAllowed": allowed, "currentHealthy": 1, "desiredHealthy": 1, "expectedPods": 1}
    state = {"status": {**counts, "observedGeneration": made.json()["metadata"]["generation"]}}
    assert (await server.http("PATCH", f"{BUDGETS}/b/status", state, content_type=MERGE)).status == 200


EVICTION = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p", "namespace": "default"}}


async def test_eviction_spends_the_budget_and_deletes(server: RunningServer) -> None:
    await running_pod_with_budget(server, 1)
    reply = await server.http("POST", f"{PODS}/p/eviction", EVICTION)
    assert reply.status == 201, reply.body
    assert (await server.http("GET", f"{PODS}/p")).status == 404
    budget = (await server.http("GET", f"{BUDGETS}/b")).json()
    assert budget["status"]["disruptionsAllowed"] == 0
    assert list(budget["status"]["disruptedPods"]) == ["p"]


async def test_eviction_in_the_version_of_old_kubectls_is_taken(server: RunningServer) -> None:
    await running_pod_with_budget(server, 1)
    reply = await server.http("POST", f"{PODS}/p/eviction", {**EVICTION, "apiVersion": "policy/v1beta1"})
    assert reply.status == 201, reply.body


async def test_eviction_against_the_budget_is_refused_for_now(server: RunningServer) -> None:
    await running_pod_with_budget(server, 0)
    reply = await server.http("POST", f"{PODS}/p/eviction", EVICTION)
    status = reply.json()
    assert (reply.status, status["reason"]) == (429, "TooManyRequests")
    assert status["message"] == "Cannot evict pod as it would violate the pod's disruption budget."
    assert status["details"]["causes"][0]["reason"] == "DisruptionBudget"
    assert (await server.http("GET", f"{PODS}/p")).status == 200


async def test_namespace_goes_when_its_finalizer_is_gone(server: RunningServer) -> None:
    await server.http("POST", "/api/v1/namespaces", {"metadata": {"name": "n"}})
    deleted = (await server.http("DELETE", "/api/v1/namespaces/n")).json()
    assert (deleted["status"]["phase"], deleted["spec"]["finalizers"]) == ("Terminating", ["kubernetes"])
    refused = await server.http("POST", "/api/v1/namespaces/n/configmaps", {"metadata": {"name": "a"}})
    assert (refused.status, refused.json()["reason"]) == (403, "Forbidden")
    deleted["spec"]["finalizers"] = []
    finalized = await server.http("PUT", "/api/v1/namespaces/n/finalize", deleted)
    assert finalized.status == 200, finalized.body
    assert (await server.http("GET", "/api/v1/namespaces/n")).status == 404
