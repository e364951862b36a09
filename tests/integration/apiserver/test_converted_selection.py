"""A39: selectors ask for what is seen in the version of the request, whichever one objects lie in.

Colors are small letters in v1 and capitals in v2, and a label says the version: only a webhook knows either.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.integration.apiserver.test_costly_rules import CRDS
from tests.integration.apiserver.test_rest_watch import MERGE, watch
from tests.support.apiserver import RunningServer, next_batch, running_server
from tests.support.https_hook import ca_bundle, https_hook
from tests.support.promptness import PROMPTLY_S
from tiphys.api.meta.v1 import meta_pb2
from tiphys.apiserver.v1 import custom_pb2, wire_pb2

CRD = f"{CRDS}/lamps.example.com"
V1 = "/apis/example.com/v1/namespaces/default/lamps"
V2 = "/apis/example.com/v2/namespaces/default/lamps"
RED = "&fieldSelector=spec.color%3DRED"


class Hook:
    """Converts, and counts the objects that it was sent."""

    def __init__(self) -> None:
        self.sent = 0

    def answer(self, _path: str, review: dict[str, Any]) -> Any:
        request = review["request"]
        self.sent += len(request["objects"])
        objects = [self._converted(obj, request["desiredAPIVersion"]) for obj in request["objects"]]
        response = {"uid": request["uid"], "result": {"status": "Success"}, "convertedObjects": objects}
        return {"apiVersion": review["apiVersion"], "kind": review["kind"], "response": response}

    @staticmethod
    def _converted(obj: dict[str, Any], wanted: str) -> dict[str, Any]:
        version, color = wanted.rpartition("/")[2], obj["spec"]["color"]
        metadata = {**obj["metadata"], "labels": {**obj["metadata"].get("labels", {}), "version": version}}
        spec = {"color": color.upper() if version == "v2" else color.lower()}
        return {**obj, "apiVersion": wanted, "metadata": metadata, "spec": spec}


def version(name: str, *, stored: bool) -> dict[str, Any]:
    spec = {"type": "object", "properties": {"color": {"type": "string"}}}
    schema = {"openAPIV3Schema": {"type": "object", "properties": {"spec": spec}}}
    fields = [{"jsonPath": ".spec.color"}]
    return {"name": name, "served": True, "storage": stored, "schema": schema, "selectableFields": fields}


@pytest.fixture
def hook() -> Hook:
    return Hook()


@pytest.fixture
async def server(hook: Hook) -> AsyncIterator[RunningServer]:
    """Lamps a to d are stored in v1; a and c are red."""
    async with running_server() as running, https_hook(running.pki, hook.answer) as url:
        webhook = {
            "clientConfig": {"url": f"{url}/convert", "caBundle": ca_bundle(running.pki)},
            "conversionReviewVersions": ["v1"],
        }
        spec = {
            "group": "example.com",
            "scope": "Namespaced",
            "names": {"plural": "lamps", "kind": "Lamp"},
            "versions": [version("v1", stored=True), version("v2", stored=False)],
            "conversion": {"strategy": "Webhook", "webhook": webhook},
        }
        made = await running.http("POST", CRDS, {"metadata": {"name": "lamps.example.com"}, "spec": spec})
        assert made.status == 201, made.body
        await wait_until_served(running, V2)
        for name, color in (("a", "red"), ("b", "blue"), ("c", "red"), ("d", "green")):
            await put(running, name, color)
        yield running


async def wait_until_served(server: RunningServer, path: str) -> None:
    async with asyncio.timeout(PROMPTLY_S):
        while (await server.http("GET", path)).status != 200:
            continue


async def put(server: RunningServer, name: str, color: str) -> None:
    metadata = {"name": name, "labels": {"version": "v1", "name": name}}
    lamp = {"apiVersion": "example.com/v1", "kind": "Lamp", "metadata": metadata, "spec": {"color": color}}
    made = await server.http("POST", V1, lamp)
    assert made.status == 201, made.body


async def paint(server: RunningServer, name: str, color: str) -> None:
    changed = await server.http("PATCH", f"{V1}/{name}", {"spec": {"color": color}}, content_type=MERGE)
    assert changed.status == 200, changed.body


async def names(server: RunningServer, path: str, query: str) -> list[str]:
    reply = await server.http("GET", f"{path}?{query}")
    assert reply.status == 200, reply.body
    return [item["metadata"]["name"] for item in reply.json()["items"]]


@pytest.mark.parametrize(
    ("path", "query", "expected"),
    [
        pytest.param(V2, "fieldSelector=spec.color%3DRED", ["a", "c"], id="field"),
        pytest.param(V2, "fieldSelector=spec.color!%3DRED", ["b", "d"], id="other fields"),
        pytest.param(V2, "fieldSelector=spec.color%3Dred", [], id="field as stored"),
        pytest.param(V2, "fieldSelector=spec.color%3DRED,metadata.name%3Dc", ["c"], id="field and name"),
        pytest.param(V2, "fieldSelector=metadata.name%3Dc", ["c"], id="name"),
        pytest.param(V2, "labelSelector=version%3Dv2,name%3Db", ["b"], id="labels"),
        pytest.param(V2, "labelSelector=version%3Dv1", [], id="label as stored"),
        pytest.param(V1, "fieldSelector=spec.color%3Dred", ["a", "c"], id="field of the stored version"),
        pytest.param(V1, "labelSelector=version%3Dv1,name%3Db", ["b"], id="labels of the stored version"),
    ],
)
async def test_A39_lists_are_chosen_in_the_version_asked_for(
    server: RunningServer, path: str, query: str, expected: list[str]
) -> None:
    assert await names(server, path, query) == expected


async def test_A39_the_version_that_all_lie_in_is_chosen_from_without_the_webhook(
    server: RunningServer, hook: Hook
) -> None:
    before = hook.sent
    assert await names(server, V1, "fieldSelector=spec.color%3Dred&labelSelector=version%3Dv1") == ["a", "c"]
    assert hook.sent == before


async def test_A39_pages_of_what_is_chosen_are_full_but_the_last(server: RunningServer) -> None:
    for index in range(6):
        await put(server, f"e{index}", "red" if index % 2 else "blue")
    pages: list[list[str]] = []
    token = ""
    while not pages or token:
        reply = (await server.http("GET", f"{V2}?limit=2{RED}&continue={token}")).json()
        pages.append([item["metadata"]["name"] for item in reply["items"]])
        token = reply["metadata"].get("continue", "")
        # What comes meanwhile is in no page: all show one moment.
        await put(server, f"f{len(pages)}", "red")
    assert pages == [["a", "c"], ["e1", "e3"], ["e5"]]


async def test_A39_after_a_change_of_the_stored_version_both_are_chosen_from(server: RunningServer) -> None:
    crd = (await server.http("GET", CRD)).json()
    for item in crd["spec"]["versions"]:
        item["storage"] = item["name"] == "v2"
    assert (await server.http("PUT", CRD, crd)).status == 200
    stored = (await server.http("GET", CRD)).json()["status"]["storedVersions"]
    assert stored == ["v1", "v2"]
    # From when the new definition is in force, what is written lies in v2, and the rest stays where it is.
    await paint(server, "b", "red")
    for path, color, expected in ((V1, "red", ["a", "b", "c"]), (V2, "RED", ["a", "b", "c"]), (V2, "red", [])):
        assert await names(server, path, f"fieldSelector=spec.color%3D{color}") == expected
    assert await names(server, V2, "labelSelector=version%3Dv2") == ["a", "b", "c", "d"]


async def test_A39_a_watch_sees_objects_enter_and_leave_in_its_own_version(server: RunningServer) -> None:
    async with watch(server, RED, path=V2) as watching:
        assert sorted([(await watching.next())["object"]["metadata"]["name"] for _ in range(2)]) == ["a", "c"]
        await paint(server, "b", "red")
        await paint(server, "d", "white")
        await paint(server, "a", "blue")
        assert (await server.http("PATCH", f"{V1}/c", {"metadata": {"labels": {"n": "1"}}}, content_type=MERGE)).status
        for name in ("b", "a"):
            assert (await server.http("DELETE", f"{V1}/{name}")).status == 200
        seen = [await watching.next() for _ in range(4)]
    objects = [event["object"] for event in seen]
    assert [(event["type"], event["object"]["metadata"]["name"]) for event in seen] == [
        ("ADDED", "b"), ("DELETED", "a"), ("MODIFIED", "c"), ("DELETED", "b"),
    ]  # fmt: skip
    assert {obj["spec"]["color"] for obj in objects} == {"RED"}
    # One that leaves says so with the revision of the change, from where a watch would go on.
    revisions = [int(obj["metadata"]["resourceVersion"]) for obj in objects]
    assert revisions == sorted(set(revisions))


async def test_A39_a_watch_from_a_revision_tells_only_what_changed_for_its_selector(server: RunningServer) -> None:
    since = (await server.http("GET", V2)).json()["metadata"]["resourceVersion"]
    await paint(server, "d", "white")
    await paint(server, "c", "blue")
    async with watch(server, f"{RED}&resourceVersion={since}", path=V2) as watching:
        event = await watching.next()
    assert (event["type"], event["object"]["metadata"]["name"]) == ("DELETED", "c")


async def test_A39_grpc_chooses_in_the_version_asked_for_too(server: RunningServer) -> None:
    service = "custom.v2.lamps.example.com"
    request = wire_pb2.ListRequest(namespace="default", field_selector="spec.color=RED")
    reply = wire_pb2.ListResponse.FromString(await server.grpc(service, "List", request))
    found = [custom_pb2.CustomObject.FromString(raw).metadata.name for raw in reply.items]
    assert found == ["a", "c"]
    since = meta_pb2.ListMeta.FromString(reply.metadata).resourceVersion
    wanted = wire_pb2.WatchRequest(namespace="default", field_selector="spec.color=BLUE", resource_version=since)
    call = server.watch(service, wanted)
    await paint(server, "d", "white")
    await paint(server, "a", "blue")
    async with asyncio.timeout(PROMPTLY_S):
        batch = await next_batch(call)
    call.cancel()
    seen = [(event.type, custom_pb2.CustomObject.FromString(event.object).metadata.name) for event in batch.events]
    assert seen == [(wire_pb2.EVENT_TYPE_ADDED, "a")]


async def test_A39_what_is_deleted_is_chosen_in_the_version_asked_for(server: RunningServer) -> None:
    assert (await server.http("DELETE", f"{V2}?fieldSelector=spec.color%3DRED")).status == 200
    assert await names(server, V1, "") == ["b", "d"]
