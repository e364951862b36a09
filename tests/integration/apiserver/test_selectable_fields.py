"""A22: each version of a custom resource says which fields select, whichever version is stored."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.integration.apiserver.test_costly_rules import CRDS
from tests.integration.apiserver.test_rest_watch import watch
from tests.support.apiserver import RunningServer, running_server

NAMESPACE = "/apis/example.com/{}/namespaces/default/lamps"
V1, V2 = NAMESPACE.format("v1"), NAMESPACE.format("v2")
MERGE = "application/merge-patch+json"


def version(name: str, *fields: str, stored: bool = False) -> dict[str, Any]:
    spec = {"type": "object", "properties": {"color": {"type": "string"}, "watts": {"type": "integer"}}}
    return {
        "name": name,
        "served": True,
        "storage": stored,
        "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": spec}}},
        "selectableFields": [{"jsonPath": field} for field in fields],
    }


@pytest.fixture
async def server() -> AsyncIterator[RunningServer]:
    """Lamps are selected by their watts in v1, which is stored, and in v2 by their color."""
    names = {"plural": "lamps", "kind": "Lamp"}
    versions = [version("v1", ".spec.watts", stored=True), version("v2", ".spec.color")]
    spec = {"group": "example.com", "scope": "Namespaced", "names": names, "versions": versions}
    async with running_server() as found:
        made = await found.http("POST", CRDS, {"metadata": {"name": "lamps.example.com"}, "spec": spec})
        assert made.status == 201, made.body
        while (await found.http("GET", V2)).status != 200:
            continue
        yield found


def lamp(name: str, color: str, watts: int, of: str = "v1") -> dict[str, Any]:
    spec = {"color": color, "watts": watts}
    return {"apiVersion": f"example.com/{of}", "kind": "Lamp", "metadata": {"name": name}, "spec": spec}


async def names(server: RunningServer, path: str, selector: str) -> list[str]:
    reply = await server.http("GET", f"{path}?fieldSelector={selector}")
    assert reply.status == 200, reply.body
    return [item["metadata"]["name"] for item in reply.json()["items"]]


async def test_A22_a_version_that_is_not_stored_selects_by_fields_of_its_own(server: RunningServer) -> None:
    assert (await server.http("POST", V1, lamp("a", "red", 5))).status == 201
    assert (await server.http("POST", V2, lamp("b", "blue", 5, "v2"))).status == 201
    assert (await server.http("POST", V2, lamp("c", "red", 9, "v2"))).status == 201
    assert await names(server, V2, "spec.color%3Dred") == ["a", "c"]
    assert await names(server, V2, "spec.color!%3Dred") == ["b"]
    assert await names(server, V1, "spec.watts%3D5") == ["a", "b"]
    assert await names(server, V2, "metadata.name%3Db,spec.color%3Dblue") == ["b"]
    gone = await server.http("DELETE", f"{V2}?fieldSelector=spec.color%3Dred")
    assert gone.status == 200
    assert await names(server, V1, "metadata.namespace%3Ddefault") == ["b"]


@pytest.mark.parametrize(
    ("path", "field"),
    [
        pytest.param(V1, "spec.color", id="of the other version"),
        pytest.param(V2, "spec.watts", id="of the stored version"),
        pytest.param(V2, "spec.none", id="of none"),
    ],
)
async def test_A22_fields_that_a_version_does_not_name_are_refused(
    server: RunningServer, path: str, field: str
) -> None:
    for query in (f"?fieldSelector={field}%3Dx", f"?watch=1&fieldSelector={field}%3Dx"):
        reply = await server.http("GET", f"{path}{query}")
        assert (reply.status, reply.json()["message"]) == (400, f"field label not supported: {field}")


async def test_A22_watches_of_a_version_tell_what_enters_and_leaves_its_selection(server: RunningServer) -> None:
    async with watch(server, "&fieldSelector=spec.color%3Dred&resourceVersion=0", path=V2) as watching:
        await server.http("POST", V1, lamp("a", "blue", 1))
        await server.http("PATCH", f"{V1}/a", {"spec": {"color": "red"}}, content_type=MERGE)
        await server.http("PATCH", f"{V2}/a", {"spec": {"watts": 2}}, content_type=MERGE)
        await server.http("PATCH", f"{V1}/a", {"spec": {"color": "blue"}}, content_type=MERGE)
        events = [await watching.next() for _ in range(3)]
    assert [event["type"] for event in events] == ["ADDED", "MODIFIED", "DELETED"]
    assert {event["object"]["apiVersion"] for event in events} == {"example.com/v2"}
    assert [event["object"]["spec"]["watts"] for event in events] == [1, 2, 2]
