"""Custom resources through a real server: from the definition to the objects and back."""

from __future__ import annotations

import asyncio
import resource
from collections.abc import AsyncIterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import grpc
import orjson
import pytest

from tests.support.apiserver import Reply, RunningServer, running_server
from tiphys.apiserver.v1 import custom_pb2, wire_pb2

_CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
_BASE = "/apis/stable.example.com/v1/namespaces/default/crontabs"
_MERGE = "application/merge-patch+json"
_APPLY = "application/apply-patch+yaml"
_STATUS = {"type": "object", "properties": {"replicas": {"type": "integer"}, "selector": {"type": "string"}}}
_SPEC = {
    "type": "object",
    "required": ["cronSpec"],
    "properties": {
        "cronSpec": {"type": "string", "pattern": "^[0-9* ]+$"},
        "image": {"type": "string"},
        "replicas": {"type": "integer", "minimum": 1, "maximum": 10, "default": 1},
        "ports": {
            "type": "array",
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["name"],
            "items": {
                "type": "object",
                "required": ["name"],
                "properties": {"name": {"type": "string"}, "port": {"type": "integer"}},
            },
        },
    },
    "x-kubernetes-validations": [{"rule": "self.replicas <= 5 || self.cronSpec != '*'", "message": "too often"}],
}
_VERSION = {
    "name": "v1",
    "served": True,
    "storage": True,
    "subresources": {
        "status": {},
        "scale": {
            "specReplicasPath": ".spec.replicas",
            "statusReplicasPath": ".status.replicas",
            "labelSelectorPath": ".status.selector",
        },
    },
    "selectableFields": [{"jsonPath": ".spec.image"}],
    "additionalPrinterColumns": [{"name": "Spec", "type": "string", "jsonPath": ".spec.cronSpec"}],
    "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": _SPEC, "status": _STATUS}}},
}
_NAMES = {"plural": "crontabs", "kind": "CronTab", "shortNames": ["ct"], "categories": ["all"]}


def _definition(*versions: dict[str, Any], **changes: Any) -> dict[str, Any]:
    names = {**_NAMES, **changes}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{names['plural']}.stable.example.com"},
        "spec": {
            "group": "stable.example.com",
            "scope": "Namespaced",
            "names": names,
            "versions": list(versions) or [_VERSION],
        },
    }


def _object(name: str, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "stable.example.com/v1",
        "kind": "CronTab",
        "metadata": {"name": name},
        "spec": {"cronSpec": "* *", **spec},
    }


async def _until(server: RunningServer, path: str, test: Any) -> Reply:
    """Read until the answer is as wanted; the server has as long as the test."""
    async with asyncio.timeout(5):
        while True:
            reply = await server.http("GET", path)
            if test(reply):
                return reply


def _condition(reply: Reply, kind: str) -> str:
    found = reply.json().get("status", {}).get("conditions", [])
    return next((str(condition["status"]) for condition in found if condition["type"] == kind), "")


async def _define(server: RunningServer, definition: dict[str, Any]) -> None:
    made = await server.http("POST", _CRDS, definition)
    assert made.status == 201, made.body
    path = f"{_CRDS}/{definition['metadata']['name']}"
    await _until(server, path, lambda reply: _condition(reply, "Established") == "True")


@pytest.fixture
async def server() -> AsyncIterator[RunningServer]:
    """A server that knows CronTab."""
    async with running_server() as found:
        await _define(found, _definition())
        yield found


async def test_A37_a_definition_is_ready_within_100_ms() -> None:
    loop = asyncio.get_running_loop()
    async with running_server() as server:
        made = await server.http("POST", _CRDS, _definition())
        begun = loop.time()
        while (await server.http("GET", _BASE)).status != 200:
            assert loop.time() - begun < 0.1
        assert made.status == 201


async def test_A37_objects_are_created_read_changed_and_deleted(server: RunningServer) -> None:
    made = (await server.http("POST", _BASE, _object("one"))).json()
    assert made["spec"] == {"cronSpec": "* *", "replicas": 1}
    assert made["metadata"]["generation"] == 1
    listed = (await server.http("GET", "/apis/stable.example.com/v1/crontabs")).json()
    assert (listed["kind"], [item["metadata"]["name"] for item in listed["items"]]) == ("CronTabList", ["one"])
    changed = (await server.http("PATCH", f"{_BASE}/one", {"spec": {"image": "x"}}, content_type=_MERGE)).json()
    assert (changed["spec"]["image"], changed["metadata"]["generation"]) == ("x", 2)
    changed["spec"]["image"] = "y"
    replaced = (await server.http("PUT", f"{_BASE}/one", changed)).json()
    assert replaced["spec"]["image"] == "y"
    stale = await server.http("PUT", f"{_BASE}/one", changed)
    assert (stale.status, stale.json()["reason"]) == (409, "Conflict")
    assert (await server.http("DELETE", f"{_BASE}/one")).json()["status"] == "Success"
    assert (await server.http("GET", f"{_BASE}/one")).status == 404


async def test_A37_an_object_is_checked_and_pruned(server: RunningServer) -> None:
    faulty = await server.http("POST", _BASE, _object("one", cronSpec="x", replicas=0))
    assert faulty.status == 422
    assert {cause["field"] for cause in faulty.json()["details"]["causes"]} == {"spec.cronSpec", "spec.replicas"}
    pruned = await server.http("POST", _BASE, _object("two", other=1))
    assert "other" not in pruned.json()["spec"]
    assert 'unknown field \\"spec.other\\"' in pruned.header("Warning")[0]
    strict = await server.http("POST", f"{_BASE}?fieldValidation=Strict", _object("three", other=1))
    assert strict.status == 400
    assert 'unknown field "spec.other"' in strict.json()["message"]


async def test_A38_rules_of_the_schema_are_asked(server: RunningServer) -> None:
    refused = await server.http("POST", _BASE, _object("one", cronSpec="*", replicas=6))
    assert refused.status == 422
    assert "too often" in refused.json()["message"]


async def test_A37_status_and_scale_have_doors_of_their_own(server: RunningServer) -> None:
    await server.http("POST", _BASE, {**_object("one"), "status": {"replicas": 9}})
    before = (await server.http("GET", f"{_BASE}/one")).json()
    assert "status" not in before
    patch = {"status": {"replicas": 3, "selector": "a=b"}, "spec": {"image": "no"}}
    after = (await server.http("PATCH", f"{_BASE}/one/status", patch, content_type=_MERGE)).json()
    assert after["status"]["replicas"] == 3
    assert after["spec"] == before["spec"]
    assert after["metadata"]["generation"] == 1
    scale = (await server.http("GET", f"{_BASE}/one/scale")).json()
    assert (scale["spec"], scale["status"]) == ({"replicas": 1}, {"replicas": 3, "selector": "a=b"})
    await server.http("PATCH", f"{_BASE}/one/scale", {"spec": {"replicas": 4}}, content_type=_MERGE)
    assert (await server.http("GET", f"{_BASE}/one")).json()["spec"]["replicas"] == 4


async def test_A22_a_selectable_field_selects(server: RunningServer) -> None:
    for name in ("one", "two"):
        await server.http("POST", _BASE, _object(name, image=name))
    found = (await server.http("GET", f"{_BASE}?fieldSelector=spec.image%3Dtwo")).json()["items"]
    assert [item["metadata"]["name"] for item in found] == ["two"]
    assert (await server.http("GET", f"{_BASE}?fieldSelector=spec.cronSpec%3D1")).status == 400


async def test_A37_the_columns_of_the_definition_are_printed(server: RunningServer) -> None:
    await server.http("POST", _BASE, _object("one"))
    accept = {"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io"}
    table = (await server.http("GET", _BASE, headers=accept)).json()
    assert [column["name"] for column in table["columnDefinitions"]] == ["Name", "Spec"]
    assert table["rows"][0]["cells"] == ["one", "* *"]


async def test_A30_lists_of_custom_objects_merge_by_their_keys(server: RunningServer) -> None:
    def config(name: str, port: int) -> dict[str, Any]:
        return _object("one", ports=[{"name": name, "port": port}])

    for manager, name in (("a", "http"), ("b", "dns")):
        path = f"{_BASE}/one?fieldManager={manager}"
        assert (await server.http("PATCH", path, config(name, 1), content_type=_APPLY)).status in (200, 201)
    stored = (await server.http("GET", f"{_BASE}/one")).json()
    assert [port["name"] for port in stored["spec"]["ports"]] == ["http", "dns"]
    conflict = await server.http("PATCH", f"{_BASE}/one?fieldManager=b", config("http", 2), content_type=_APPLY)
    assert conflict.status == 409


async def test_A37_a_strategic_patch_is_refused(server: RunningServer) -> None:
    await server.http("POST", _BASE, _object("one"))
    kind = "application/strategic-merge-patch+json"
    assert (await server.http("PATCH", f"{_BASE}/one", {"spec": {}}, content_type=kind)).status == 415
    protobuf = "application/vnd.kubernetes.protobuf"
    assert (await server.http("GET", f"{_BASE}/one", headers={"Accept": protobuf})).status == 406
    accept = {"Accept": f"{protobuf},application/json"}
    assert (await server.http("GET", f"{_BASE}/one", headers=accept)).json()["kind"] == "CronTab"


async def test_A37_an_object_is_watched(server: RunningServer) -> None:
    revision = (await server.http("GET", _BASE)).json()["metadata"]["resourceVersion"]
    await server.http("POST", _BASE, _object("one"))
    await server.http("DELETE", f"{_BASE}/one")
    path = f"{_BASE}?watch=true&timeoutSeconds=1&resourceVersion={revision}"
    text = (await server.http("GET", path)).body.decode()
    assert [line.split('"')[3] for line in text.splitlines()] == ["ADDED", "DELETED"]


async def test_A37_versions_convert_without_a_webhook() -> None:
    loose = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    other = {"name": "v1beta1", "served": True, "storage": False, "schema": {"openAPIV3Schema": loose}}
    async with running_server() as server:
        await _define(server, _definition(_VERSION, other))
        await server.http("POST", _BASE, _object("one"))
        beta = _BASE.replace("/v1/", "/v1beta1/")
        shown = (await server.http("GET", f"{beta}/one")).json()
        assert (shown["apiVersion"], shown["spec"]["replicas"]) == ("stable.example.com/v1beta1", 1)
        made = await server.http("POST", beta, {**_object("two"), "apiVersion": "stable.example.com/v1beta1"})
        assert made.status == 201
        items = (await server.http("GET", _BASE)).json()["items"]
        assert [item["apiVersion"] for item in items] == ["stable.example.com/v1"] * 2
        group = (await server.http("GET", "/apis/stable.example.com")).json()
        assert [version["version"] for version in group["versions"]] == ["v1", "v1beta1"]


async def test_A33_users_of_a_deprecated_version_are_warned() -> None:
    async with running_server() as server:
        await _define(server, _definition({**_VERSION, "deprecated": True}))
        warning = (await server.http("GET", _BASE)).header("Warning")
        assert warning == ['299 - "stable.example.com/v1 CronTab is deprecated"']


async def test_A37_a_changed_definition_takes_effect(server: RunningServer) -> None:
    await server.http("POST", _BASE, _object("one"))
    path = f"{_CRDS}/crontabs.stable.example.com"
    crd = (await server.http("GET", path)).json()
    spec = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    spec["properties"]["mode"] = {"type": "string", "default": "slow"}
    assert (await server.http("PUT", path, crd)).status == 200
    shown = await _until(server, f"{_BASE}/one", lambda reply: "mode" in reply.json()["spec"])
    assert shown.json()["spec"]["mode"] == "slow"


async def test_A37_a_name_in_use_is_free_again_after_the_other_is_gone(server: RunningServer) -> None:
    second = _definition(plural="crons", singular="cron")
    await server.http("POST", _CRDS, second)
    path = f"{_CRDS}/crons.stable.example.com"
    await _until(server, path, lambda reply: _condition(reply, "NamesAccepted") == "False")
    assert (await server.http("GET", "/apis/stable.example.com/v1/crons")).status == 404
    await server.http("DELETE", f"{_CRDS}/crontabs.stable.example.com")
    await _until(server, path, lambda reply: _condition(reply, "Established") == "True")
    assert (await server.http("GET", "/apis/stable.example.com/v1/crons")).status == 200


async def test_A37_objects_go_before_their_definition(server: RunningServer) -> None:
    held = _object("held")
    held["metadata"]["finalizers"] = ["example.com/hold"]
    await server.http("POST", _BASE, held)
    await server.http("POST", _BASE, _object("free"))
    path = f"{_CRDS}/crontabs.stable.example.com"
    deleted = (await server.http("DELETE", path)).json()
    assert deleted["metadata"]["finalizers"] == ["customresourcecleanup.apiextensions.k8s.io"]
    await _until(server, f"{_BASE}/free", lambda reply: reply.status == 404)
    assert _condition(await server.http("GET", path), "Terminating") == "True"
    refused = await server.http("POST", _BASE, _object("late"))
    assert refused.status == 405
    await server.http("PATCH", f"{_BASE}/held", {"metadata": {"finalizers": None}}, content_type=_MERGE)
    await _until(server, path, lambda reply: reply.status == 404)
    assert (await server.http("GET", _BASE)).status == 404


async def test_A37_a_definition_is_published(server: RunningServer) -> None:
    accept = {"Accept": "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"}
    groups = (await server.http("GET", "/apis", headers=accept)).json()["items"]
    found = next(group for group in groups if group["metadata"].get("name") == "stable.example.com")
    resource = found["versions"][0]["resources"][0]
    assert (resource["resource"], resource["shortNames"], resource["categories"]) == ("crontabs", ["ct"], ["all"])
    index = (await server.http("GET", "/openapi/v3")).json()["paths"]
    place = index["apis/stable.example.com/v1"]["serverRelativeURL"]
    schemas = (await server.http("GET", place)).json()["components"]["schemas"]
    assert schemas["com.example.stable.v1.CronTab"]["properties"]["spec"]["required"] == ["cronSpec"]
    old = (await server.http("GET", "/openapi/v2")).json()
    assert "com.example.stable.v1.CronTab" in old["definitions"]
    assert f"{_BASE.replace('default', '{namespace}')}/{{name}}/scale" in old["paths"]


async def test_A37_custom_objects_are_served_over_grpc(server: RunningServer) -> None:
    service = "custom.v1.crontabs.stable.example.com"
    sent = custom_pb2.CustomObject(json=orjson.dumps({"spec": {"cronSpec": "*", "other": 1}}))
    sent.metadata.name = "one"
    request = wire_pb2.CreateRequest(namespace="default", object=sent.SerializeToString())
    reply = wire_pb2.CreateResponse.FromString(await server.grpc(service, "Create", request))
    made = custom_pb2.CustomObject.FromString(reply.object)
    assert (made.api_version, made.kind, made.metadata.generation) == ("stable.example.com/v1", "CronTab", 1)
    assert orjson.loads(made.json) == {"spec": {"cronSpec": "*", "replicas": 1}}
    listed = wire_pb2.ListResponse.FromString(await server.grpc(service, "List", wire_pb2.ListRequest()))
    assert len(listed.items) == 1
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await server.grpc(service, "Create", wire_pb2.CreateRequest(namespace="default", object=b""), user="alice")
    assert refused.value.code() == grpc.StatusCode.PERMISSION_DENIED
    for faulty in (b"[]", b"{"):
        sent.json = faulty
        request = wire_pb2.CreateRequest(namespace="default", object=sent.SerializeToString())
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await server.grpc(service, "Create", request)
        assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT


async def test_A37_rules_of_access_hold_for_custom_objects(server: RunningServer) -> None:
    assert (await server.http("GET", _BASE, user="alice")).status == 403
    rules = [{"apiGroups": ["stable.example.com"], "resources": ["crontabs"], "verbs": ["list"]}]
    role = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "r"}}
    await server.http("POST", "/apis/rbac.authorization.k8s.io/v1/clusterroles", {**role, "rules": rules})
    binding = {
        **role,
        "kind": "ClusterRoleBinding",
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "r"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "alice"}],
    }
    await server.http("POST", "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", binding)
    allowed = await _until_allowed(server)
    assert allowed.json()["items"] == []
    assert (await server.http("POST", _BASE, _object("one"), user="alice")).status == 403


async def _until_allowed(server: RunningServer) -> Reply:
    async with asyncio.timeout(5):
        while (reply := await server.http("GET", _BASE, user="alice")).status != 200:
            pass
    return reply


@pytest.mark.slow
async def test_A37_a_thousand_definitions_take_at_most_300_mb() -> None:
    """In a process of its own: in one that has run other tests nobody can tell whose memory it is."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        assert await asyncio.get_running_loop().run_in_executor(pool, _mb_of_a_thousand_definitions) < 300


def _mb_of_a_thousand_definitions() -> float:
    return asyncio.run(_define_a_thousand())


async def _define_a_thousand() -> float:
    text = {"type": "string", "description": "Some words on what this field is about, as definitions have them."}
    part = {"type": "object", "properties": {f"field{index}": text for index in range(8)}}
    spec = {"type": "object", "properties": {f"part{index}": part for index in range(12)}}
    schema = {"openAPIV3Schema": {"type": "object", "properties": {"spec": spec}}}
    version = {"name": "v1", "served": True, "storage": True, "schema": schema}
    async with running_server() as server:
        await server.http("GET", "/openapi/v2")
        before = _resident_mb()
        for index in range(1000):
            plural, group = f"things{index}", f"g{index // 10}.example.com"
            made = _definition(version)
            made["metadata"]["name"] = f"{plural}.{group}"
            made["spec"] |= {"group": group, "names": {"plural": plural, "kind": f"Thing{index}"}}
            assert (await server.http("POST", _CRDS, made)).status == 201
            path = f"/apis/{group}/v1/namespaces/default/{plural}"
            thing = {"apiVersion": f"{group}/v1", "kind": f"Thing{index}", "metadata": {"name": "a"}}
            await _until(server, path, lambda reply: reply.status == 200)
            assert (await server.http("POST", path, thing)).status == 201
        await server.http("GET", "/openapi/v2")
        return _resident_mb() - before


def _resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20
