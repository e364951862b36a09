"""A kopf operator with a kind of its own, unmodified: a process that knows a kubeconfig and nothing else."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.apiserver import Reply, RunningServer

OPERATOR = Path(__file__).with_name("operator.py")
SHELVES = "/apis/example.com/v1/namespaces/default/shelves"
MAP = "/api/v1/namespaces/default/configmaps/oak"
MERGE = "application/merge-patch+json"
SCHEMA = {
    "type": "object",
    "properties": {
        "spec": {"type": "object", "properties": {"books": {"type": "integer", "minimum": 0}}},
        "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
    },
}
DEFINITION: dict[str, Any] = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "shelves.example.com"},
    "spec": {
        "group": "example.com",
        "scope": "Namespaced",
        "names": {"plural": "shelves", "singular": "shelf", "kind": "Shelf"},
        "versions": [{"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": SCHEMA}}],
    },
}


@pytest.fixture
async def operator(server: RunningServer, kubeconfig: Path) -> AsyncIterator[RunningServer]:
    path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    assert (await server.http("POST", path, DEFINITION)).status == 201
    environment = {**os.environ, "KUBECONFIG": str(kubeconfig)}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "kopf", "run", str(OPERATOR), "--namespace=default", "--standalone", env=environment
    )
    yield server
    process.terminate()
    assert await asyncio.wait_for(process.wait(), 20) == 0


async def _until(ask: Callable[[], Awaitable[Reply]], good: Callable[[Reply], bool]) -> Any:
    async with asyncio.timeout(30):
        while True:
            reply = await ask()
            if good(reply):
                return reply.json()
            await asyncio.sleep(0.1)


async def test_a_kopf_operator_creates_changes_and_clears_up(operator: RunningServer) -> None:
    shelf = {"apiVersion": "example.com/v1", "kind": "Shelf", "metadata": {"name": "oak"}, "spec": {"books": 3}}
    assert (await operator.http("POST", SHELVES, shelf)).status == 201
    made = await _until(lambda: operator.http("GET", MAP), lambda reply: reply.status == 200)
    assert (made["data"], made["metadata"]["ownerReferences"][0]["kind"]) == ({"books": "3"}, "Shelf")
    noted = await _until(
        lambda: operator.http("GET", f"{SHELVES}/oak"), lambda reply: "create" in reply.json().get("status", {})
    )
    assert noted["status"]["create"] == {"configMap": "oak"}
    assert noted["metadata"]["finalizers"] == ["kopf.zalando.org/KopfFinalizerMarker"]
    await operator.http("PATCH", f"{SHELVES}/oak", {"spec": {"books": 5}}, content_type=MERGE)
    await _until(lambda: operator.http("GET", MAP), lambda reply: reply.json()["data"] == {"books": "5"})
    await operator.http("DELETE", f"{SHELVES}/oak")
    await _until(lambda: operator.http("GET", MAP), lambda reply: reply.status == 404)
    await _until(lambda: operator.http("GET", f"{SHELVES}/oak"), lambda reply: reply.status == 404)
