"""Custom resources in several versions: a webhook over real HTTPS converts lists, watches and writes, or fails to.

The example is that of Kubernetes' conformance tests: v1 has hostPort, v2 has host and port.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import orjson
import pytest

from tests.support.apiserver import Reply, RunningServer, next_batch, running_server, shared_pki
from tests.support.https_hook import ca_bundle, https_hook
from tests.support.promptness import PROMPTLY_S
from tiphys.apiserver.v1 import custom_pb2, wire_pb2
from tiphys_apiserver.storage.sqlite.store import SqliteStore
from tiphys_component.clock import SystemClock

_CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
_CRD = f"{_CRDS}/endpoints.test.example.com"
_V1 = "/apis/test.example.com/v1/namespaces/default/endpoints"
_V2 = "/apis/test.example.com/v2/namespaces/default/endpoints"
_MERGE = "application/merge-patch+json"
_APPLY = "application/apply-patch+yaml"


@dataclass
class Converter:
    """A webhook that converts, and what it was asked; `lie` changes its answers."""

    asked: list[dict[str, Any]] = field(default_factory=list)
    lie: Callable[[dict[str, Any]], Any] = lambda response: response

    def answer(self, _path: str, review: dict[str, Any]) -> Any:
        request = review["request"]
        self.asked.append(request)
        wanted = request["desiredAPIVersion"]
        response = {
            "uid": request["uid"],
            "result": {"status": "Success"},
            "convertedObjects": [_convert(obj, wanted) for obj in request["objects"]],
        }
        found = self.lie(response)
        if not isinstance(found, dict):
            return found
        return {"apiVersion": review["apiVersion"], "kind": review["kind"], "response": found}


def _convert(obj: dict[str, Any], wanted: str) -> dict[str, Any]:
    made = {**obj, "apiVersion": wanted}
    if wanted.endswith("/v2"):
        host, _, port = made.pop("hostPort", "").partition(":")
        return {**made, "host": host, "port": port}
    return {**made, "hostPort": f"{made.pop('host', '')}:{made.pop('port', '')}"}


def _version(name: str, *fields: str, storage: bool) -> dict[str, Any]:
    properties = {field: {"type": "string", "maxLength": 30} for field in fields}
    schema = {"type": "object", "required": list(fields), "properties": properties}
    return {"name": name, "served": True, "storage": storage, "schema": {"openAPIV3Schema": schema}}


def _definition(url: str, ca: str, *, stored: str = "v1") -> dict[str, Any]:
    webhook = {"clientConfig": {"url": f"{url}/convert", "caBundle": ca}, "conversionReviewVersions": ["v1"]}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "endpoints.test.example.com"},
        "spec": {
            "group": "test.example.com",
            "scope": "Namespaced",
            "names": {"plural": "endpoints", "kind": "Endpoint"},
            "versions": [
                _version("v1", "hostPort", storage=stored == "v1"),
                _version("v2", "host", "port", storage=stored == "v2"),
            ],
            "conversion": {"strategy": "Webhook", "webhook": webhook},
        },
    }


def _old(name: str, host_port: str = "a:1") -> dict[str, Any]:
    meta = {"name": name, "labels": {"name": name}}
    return {"apiVersion": "test.example.com/v1", "kind": "Endpoint", "metadata": meta, "hostPort": host_port}


def _new(name: str, host: str = "b", port: str = "2") -> dict[str, Any]:
    meta = {"name": name, "labels": {"name": name}}
    return {"apiVersion": "test.example.com/v2", "kind": "Endpoint", "metadata": meta, "host": host, "port": port}


async def _until(server: RunningServer, path: str, test: Callable[[Reply], bool]) -> Reply:
    async with asyncio.timeout(PROMPTLY_S):
        while True:
            reply = await server.http("GET", path)
            if test(reply):
                return reply


async def _store_in(server: RunningServer, version: str) -> None:
    """Change the stored version, and wait until that is in force."""
    crd = (await server.http("GET", _CRD)).json()
    for item in crd["spec"]["versions"]:
        item["storage"] = item["name"] == version
    assert (await server.http("PUT", _CRD, crd)).status == 200
    wanted = base64.b64encode(hashlib.sha256(f"test.example.com/{version}/Endpoint".encode()).digest()[:8]).decode()
    await _until(server, "/apis/test.example.com/v1", lambda reply: wanted in reply.body.decode())


@pytest.fixture
def hook() -> Converter:
    return Converter()


@pytest.fixture
async def server(hook: Converter) -> AsyncIterator[RunningServer]:
    """A server with the definition, stored in v1."""
    async with running_server() as running, https_hook(running.pki, hook.answer) as url:
        made = await running.http("POST", _CRDS, _definition(url, ca_bundle(running.pki)))
        assert made.status == 201, made.body
        await _until(running, _V2, lambda reply: reply.status == 200)
        yield running


async def test_A39_a_custom_object_is_read_and_written_in_both_versions(server: RunningServer, hook: Converter) -> None:
    made = await server.http("POST", _V1, _old("one"))
    assert made.status == 201
    # What is asked for as it is stored needs nobody.
    assert hook.asked == []
    shown = (await server.http("GET", f"{_V2}/one")).json()
    assert (shown["apiVersion"], shown["host"], shown["port"]) == ("test.example.com/v2", "a", "1")
    assert "hostPort" not in shown
    assert shown["metadata"] == made.json()["metadata"]
    made = await server.http("POST", _V2, _new("two"))
    assert (made.status, made.json()["host"]) == (201, "b")
    assert (await server.http("GET", f"{_V1}/two")).json()["hostPort"] == "b:2"
    patched = await server.http("PATCH", f"{_V2}/one", {"port": "9"}, content_type=_MERGE)
    assert (patched.status, patched.json()["port"]) == (200, "9")
    assert (await server.http("GET", f"{_V1}/one")).json()["hostPort"] == "a:9"
    body = {**_new("two", "c"), "metadata": patched.json()["metadata"] | {"name": "two"}}
    assert (await server.http("PUT", f"{_V2}/two", body)).status == 409
    config = orjson.dumps({**_new("three"), "metadata": {"name": "three"}})
    for _ in range(2):
        applied = await server.http("PATCH", f"{_V2}/three?fieldManager=m", config, content_type=_APPLY)
        assert applied.status in (200, 201), applied.body
    assert applied.json()["metadata"]["managedFields"][0]["apiVersion"] == "test.example.com/v2"
    assert (await server.http("DELETE", f"{_V2}/two")).status == 200


async def test_A39_a_list_of_mixed_versions_is_shown_in_one(server: RunningServer, hook: Converter) -> None:
    await server.http("POST", _V1, _old("one"))
    await _store_in(server, "v2")
    await server.http("POST", _V2, _new("two"))
    hook.asked.clear()
    old = (await server.http("GET", _V1)).json()["items"]
    assert [(item["apiVersion"], item["hostPort"]) for item in old] == [
        ("test.example.com/v1", "a:1"), ("test.example.com/v1", "b:2"),
    ]  # fmt: skip
    new = (await server.http("GET", _V2)).json()["items"]
    assert [(item["host"], item["port"]) for item in new] == [("a", "1"), ("b", "2")]
    # Each list asked for what lies in the other version, in one question.
    assert [[obj["metadata"]["name"] for obj in request["objects"]] for request in hook.asked] == [["two"], ["one"]]
    chosen = (await server.http("GET", f"{_V2}?labelSelector=name%3Done")).json()["items"]
    assert [item["host"] for item in chosen] == ["a"]
    gone = await server.http("DELETE", _V2)
    assert gone.status == 200
    assert (await server.http("GET", _V2)).json()["items"] == []


async def _stored(folder: Path) -> bytes:
    """What lies in the store of the object named one."""
    store = await SqliteStore.open(folder / "tiphys.db", SystemClock())
    try:
        found = await store.get("/registry/test.example.com/endpoints/default/one")
    finally:
        await store.close()
    assert found is not None
    return found.value


async def test_A52_objects_are_migrated_by_writing_them_again(hook: Converter, tmp_path: Path) -> None:
    on_disk = {"store": "sqlite", "store_file": tmp_path / "tiphys.db"}
    async with https_hook(shared_pki(), hook.answer) as url:
        async with running_server(**on_disk) as server:
            await server.http("POST", _CRDS, _definition(url, ca_bundle(server.pki)))
            await _until(server, _V2, lambda reply: reply.status == 200)
            await server.http("POST", _V1, _old("one"))
            await _store_in(server, "v2")
        before = await _stored(tmp_path)
        assert b"test.example.com/v1" in before
        assert b"hostPort" in before
        async with running_server(**on_disk) as server:
            await _until(server, f"{_V2}/one", lambda reply: reply.status == 200)
            await _migrate(server)
        after = await _stored(tmp_path)
        assert b"test.example.com/v1" not in after
        assert b"hostPort" not in after


async def _migrate(server: RunningServer) -> None:
    """Write the object as it is, and then give up the version that it was stored in."""
    crd = (await server.http("GET", _CRD)).json()
    assert crd["status"]["storedVersions"] == ["v1", "v2"]
    early = {**crd, "spec": {**crd["spec"], "versions": crd["spec"]["versions"][1:]}}
    refused = await server.http("PUT", _CRD, early)
    assert (refused.status, "must remain in spec.versions" in refused.json()["message"]) == (422, True)
    shown = (await server.http("GET", f"{_V2}/one")).json()
    assert (shown["host"], shown["port"]) == ("a", "1")
    written = (await server.http("PUT", f"{_V2}/one", shown)).json()
    assert written["metadata"]["resourceVersion"] != shown["metadata"]["resourceVersion"]
    # Once migrated, a write without change is none again.
    again = (await server.http("PUT", f"{_V2}/one", written)).json()
    assert again["metadata"]["resourceVersion"] == written["metadata"]["resourceVersion"]
    for versions, status in ((["v1"], 422), ([], 422), (["v2"], 200)):
        crd = (await server.http("GET", _CRD)).json()
        crd["status"]["storedVersions"] = versions
        assert (await server.http("PUT", f"{_CRD}/status", crd)).status == status
    crd = (await server.http("GET", _CRD)).json()
    crd["spec"]["versions"] = crd["spec"]["versions"][1:]
    assert (await server.http("PUT", _CRD, crd)).status == 200
    await _until(server, _V1, lambda reply: reply.status == 404)
    assert (await server.http("GET", f"{_V2}/one")).json()["host"] == "a"


async def test_A39_events_of_a_watch_are_converted(server: RunningServer) -> None:
    await server.http("POST", _V1, _old("one"))
    reader, writer = await server.connect()
    path = f"{_V2}?watch=true&allowWatchBookmarks=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan"
    writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    async with asyncio.timeout(PROMPTLY_S):
        assert b"200 OK" in await reader.readuntil(b"\r\n\r\n")

        async def event() -> tuple[str, dict[str, Any]]:
            size = int((await reader.readuntil(b"\r\n")).strip(), 16)
            found = orjson.loads((await reader.readexactly(size + 2)).strip())
            return found["type"], found["object"]

        kind, first = await event()
        assert (kind, first["apiVersion"], first["host"]) == ("ADDED", "test.example.com/v2", "a")
        kind, bookmark = await event()
        assert (kind, bookmark["apiVersion"]) == ("BOOKMARK", "test.example.com/v2")
        await server.http("PATCH", f"{_V1}/one", {"hostPort": "z:9"}, content_type=_MERGE)
        kind, changed = await event()
        assert (kind, changed["host"], changed["port"]) == ("MODIFIED", "z", "9")
        await server.http("DELETE", f"{_V1}/one")
        kind, last = await event()
        assert (kind, last["host"]) == ("DELETED", "z")
    writer.close()


async def test_A39_a_watch_whose_conversion_fails_ends_with_the_error(server: RunningServer, hook: Converter) -> None:
    await server.http("POST", _V1, _old("one"))
    hook.lie = lambda response: {**response, "result": {"status": "Failure", "message": "too old"}}
    text = (await server.http("GET", f"{_V2}?watch=true&timeoutSeconds=5")).body.decode()
    event = orjson.loads(text)
    assert (event["type"], event["object"]["code"]) == ("ERROR", 500)
    assert "conversion webhook for test.example.com/v1, Kind=Endpoint failed: too old" in event["object"]["message"]


async def test_A39_both_versions_are_served_over_grpc(server: RunningServer) -> None:
    await server.http("POST", _V1, _old("one"))
    service = "custom.v2.endpoints.test.example.com"
    request = wire_pb2.GetRequest(namespace="default", name="one")
    reply = wire_pb2.GetResponse.FromString(await server.grpc(service, "Get", request))
    shown = custom_pb2.CustomObject.FromString(reply.object)
    assert (shown.api_version, orjson.loads(shown.json)) == ("test.example.com/v2", {"host": "a", "port": "1"})
    shown.metadata.Clear()
    shown.metadata.name = "two"
    wanted = wire_pb2.CreateRequest(namespace="default", object=shown.SerializeToString())
    await server.grpc(service, "Create", wanted)
    assert (await server.http("GET", f"{_V1}/two")).json()["hostPort"] == "a:1"
    call = server.watch(service, wire_pb2.WatchRequest(namespace="default"))
    async with asyncio.timeout(PROMPTLY_S):
        batch = await next_batch(call)
    call.cancel()
    found = [custom_pb2.CustomObject.FromString(event.object) for event in batch.events]
    assert {(obj.metadata.name, obj.api_version) for obj in found} == {
        ("one", "test.example.com/v2"), ("two", "test.example.com/v2"),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("lie", "words"),
    [
        pytest.param(lambda _: b"garbage", "is not JSON", id="garbage"),
        pytest.param(lambda _: 500, "HTTP status 500", id="error"),
        pytest.param(lambda found: {**found, "uid": "other"}, "expected response.uid", id="uid"),
        pytest.param(lambda found: {**found, "convertedObjects": []}, "returned 0 objects, expected 1", id="count"),
    ],
)
async def test_A39_a_broken_webhook_is_named_and_hurts_nobody_else(
    server: RunningServer, hook: Converter, lie: Any, words: str
) -> None:
    await server.http("POST", _V1, _old("one"))
    hook.lie = lie
    for method, path, body in (("GET", f"{_V2}/one", None), ("GET", _V2, None), ("POST", _V2, _new("two"))):
        failed = await server.http(method, path, body)
        assert failed.status == 500
        message = failed.json()["message"]
        assert "conversion webhook for test.example.com/v" in message
        assert words in message
    request = wire_pb2.GetRequest(namespace="default", name="one")
    with pytest.raises(grpc.aio.AioRpcError, match="conversion webhook"):
        await server.grpc("custom.v2.endpoints.test.example.com", "Get", request)
    assert (await server.http("GET", f"{_V1}/one")).status == 200
    # The definition and its objects can go without the webhook's help.
    await _store_in(server, "v2")
    assert (await server.http("DELETE", _CRD)).status == 200
    await _until(server, _CRD, lambda reply: reply.status == 404)


async def test_A39_each_version_is_checked_by_its_own_schema(server: RunningServer, hook: Converter) -> None:
    refused = await server.http("POST", _V2, {**_new("one"), "port": "9" * 31})
    assert (refused.status, "port: Too long" in refused.json()["message"]) == (422, True)
    assert hook.asked == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        pytest.param({"clientConfig": {"url": "http://a.io"}}, "'https' is the only allowed URL scheme", id="scheme"),
        pytest.param({"clientConfig": {}}, "exactly one of url or service", id="nowhere"),
        pytest.param({"clientConfig": {"service": {"name": "a"}}}, "service.namespace: Required value", id="service"),
        pytest.param({"conversionReviewVersions": ["v1beta1"]}, "must include at least one of v1", id="review"),
        pytest.param({"conversionReviewVersions": []}, "conversionReviewVersions: Required", id="no review"),
    ],
)
async def test_A39_a_webhook_that_can_not_be_asked_is_refused(
    server: RunningServer, change: dict[str, Any], words: str
) -> None:
    crd = _definition("https://a.io", "")
    crd["spec"]["conversion"]["webhook"] |= change
    refused = await server.http("POST", _CRDS, crd)
    assert (refused.status, words in refused.json()["message"]) == (422, True), refused.json()["message"]


@pytest.mark.parametrize(
    ("patch", "content_type"),
    [
        pytest.param({"port": "9"}, "application/merge-patch+json", id="merge"),
        pytest.param([{"op": "replace", "path": "/port", "value": "9"}], "application/json-patch+json", id="json"),
        pytest.param(
            {"apiVersion": "test.example.com/v2", "kind": "Endpoint", "host": "a", "port": "9"},
            "application/apply-patch+yaml",
            id="apply",
        ),
    ],
)
async def test_A39_patches_are_made_in_the_version_that_they_are_sent_in(
    server: RunningServer, patch: Any, content_type: str
) -> None:
    assert (await server.http("POST", _V1, _old("one", "a:1"))).status == 201
    query = "?fieldManager=tester&force=true" if content_type.endswith("yaml") else "?fieldManager=tester"
    changed = await server.http("PATCH", f"{_V2}/one{query}", patch, content_type=content_type)
    assert changed.status == 200, changed.body
    assert (changed.json()["host"], changed.json()["port"]) == ("a", "9")
    assert (await server.http("GET", f"{_V1}/one")).json()["hostPort"] == "a:9"
    if content_type.endswith("yaml"):
        by = [entry for entry in changed.json()["metadata"]["managedFields"] if entry["manager"] == "tester"]
        assert [entry["apiVersion"] for entry in by] == ["test.example.com/v2"]
        assert "f:port" in by[0]["fieldsV1"]


async def test_A39_a_strategic_patch_of_a_converted_object_is_refused(server: RunningServer) -> None:
    await server.http("POST", _V1, _old("one"))
    strategic = "application/strategic-merge-patch+json"
    assert (await server.http("PATCH", f"{_V2}/one", {"port": "9"}, content_type=strategic)).status == 415
    assert (await server.http("GET", f"{_V1}/one")).json()["hostPort"] == "a:1"


async def test_A39_a_patch_that_its_versions_schema_refuses_changes_nothing(server: RunningServer) -> None:
    await server.http("POST", _V1, _old("one", "a:1"))
    merge = "application/merge-patch+json"
    refused = await server.http("PATCH", f"{_V2}/one", {"port": "9" * 31}, content_type=merge)
    assert (refused.status, refused.json()["reason"]) == (422, "Invalid")
    assert (await server.http("GET", f"{_V1}/one")).json()["hostPort"] == "a:1"
