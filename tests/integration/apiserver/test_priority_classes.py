"""Priority classes through every verb, as upstream's conformance has it."""

from __future__ import annotations

from typing import Any

from tests.support.apiserver import RunningServer

CLASSES = "/apis/scheduling.k8s.io/v1/priorityclasses"
MERGE = "application/merge-patch+json"


def made(name: str, value: int) -> dict[str, Any]:
    return {"metadata": {"name": name, "labels": {"of": "test"}}, "value": value, "description": "first"}


async def test_C19_priority_classes_are_had_by_every_verb_and_keep_their_value(server: RunningServer) -> None:
    """Conformance: PriorityClass endpoints can be operated with different HTTP methods."""
    for name, value in (("p1", 1), ("p2", 2)):
        assert (await server.http("POST", CLASSES, made(name, value))).status == 201
    # What is an order once may not be another later, by any verb.
    patched = await server.http("PATCH", f"{CLASSES}/p1", {"value": 100}, content_type=MERGE)
    assert (patched.status, patched.json()["reason"]) == (422, "Invalid")
    current = (await server.http("GET", f"{CLASSES}/p1")).json()
    put = await server.http("PUT", f"{CLASSES}/p1", {**current, "value": 100})
    assert (put.status, put.json()["reason"]) == (422, "Invalid")
    # All else may.
    patched = await server.http("PATCH", f"{CLASSES}/p1", {"description": "patched"}, content_type=MERGE)
    assert (patched.status, patched.json()["description"]) == (200, "patched")
    current = (await server.http("GET", f"{CLASSES}/p2")).json()
    put = await server.http("PUT", f"{CLASSES}/p2", {**current, "description": "put"})
    assert (put.status, put.json()["description"]) == (200, "put")
    listed = (await server.http("GET", f"{CLASSES}?labelSelector=of%3Dtest")).json()["items"]
    assert [(item["metadata"]["name"], item["value"]) for item in listed] == [("p1", 1), ("p2", 2)]
    assert (await server.http("DELETE", f"{CLASSES}/p1")).status == 200
    assert (await server.http("DELETE", f"{CLASSES}?labelSelector=of%3Dtest")).status == 200
    left = {item["metadata"]["name"] for item in (await server.http("GET", CLASSES)).json()["items"]}
    assert left == {"system-cluster-critical", "system-node-critical"}
