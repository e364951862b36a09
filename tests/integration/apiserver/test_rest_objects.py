"""The life of objects over HTTP: create, read, change, watch, delete, in every form a client may ask for."""

from __future__ import annotations

import gzip
from typing import Any

import orjson
import pytest
import yaml

from tests.support.apiserver import RunningServer
from tiphys.api.core.v1 import config_map_pb2
from tiphys.api.meta.v1 import meta_pb2
from tiphys_apimachinery.codec import proto_codec

CONFIG_MAPS = "/api/v1/namespaces/default/configmaps"
PODS = "/api/v1/namespaces/default/pods"
MERGE, STRATEGIC, JSON_PATCH = (
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/json-patch+json",
)
PROTOBUF = "application/vnd.kubernetes.protobuf"


def config_map(name: str = "a", data: dict[str, str] | None = None, **metadata: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, **metadata}, "data": data or {}}


def pod(name: str, **metadata: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, **metadata}, "spec": {"containers": [{"name": "c", "image": "busybox"}]}}


async def test_A2_create_answers_201_with_what_the_server_decided(server: RunningServer) -> None:
    reply = await server.http("POST", CONFIG_MAPS, config_map(data={"k": "v"}))
    made = reply.json()
    assert reply.status == 201
    assert list(made) == ["kind", "apiVersion", "metadata", "data"]
    assert (made["kind"], made["apiVersion"], made["data"]) == ("ConfigMap", "v1", {"k": "v"})
    assert {"name", "namespace", "uid", "resourceVersion", "creationTimestamp"} <= set(made["metadata"])
    assert (await server.http("GET", f"{CONFIG_MAPS}/a")).json() == made
    again = await server.http("POST", CONFIG_MAPS, config_map())
    assert (again.status, again.json()["reason"]) == (409, "AlreadyExists")


async def test_A25_generate_name_makes_different_names(server: RunningServer) -> None:
    names = set()
    for _ in range(20):
        made = (await server.http("POST", CONFIG_MAPS, {"metadata": {"generateName": "x-"}})).json()
        names.add(made["metadata"]["name"])
    assert len(names) == 20
    assert all(name.startswith("x-") and len(name) == 7 for name in names)


PATCHES = [
    pytest.param(MERGE, {"data": {"a": None, "b": "2"}}, {"b": "2", "c": "3"}, id="merge"),
    pytest.param(STRATEGIC, {"data": {"a": None, "b": "2"}}, {"b": "2", "c": "3"}, id="strategic"),
    pytest.param(JSON_PATCH, [{"op": "replace", "path": "/data/a", "value": "9"}], {"a": "9", "c": "3"}, id="json"),
]


@pytest.mark.parametrize(("content_type", "patch", "data"), PATCHES)
async def test_A28_patch_kinds(server: RunningServer, content_type: str, patch: Any, data: dict[str, str]) -> None:
    await server.http("POST", CONFIG_MAPS, config_map(data={"a": "1", "c": "3"}))
    reply = await server.http("PATCH", f"{CONFIG_MAPS}/a", patch, content_type=content_type)
    assert (reply.status, reply.json()["data"]) == (200, data)


async def test_A27_write_that_changes_nothing_keeps_the_version(server: RunningServer) -> None:
    made = (await server.http("POST", CONFIG_MAPS, config_map(data={"a": "1"}))).json()
    same = await server.http("PUT", f"{CONFIG_MAPS}/a", config_map(data={"a": "1"}))
    assert same.json() == made


async def test_A23_status_and_spec_are_written_apart(server: RunningServer) -> None:
    made = (await server.http("POST", PODS, {**pod("p"), "status": {"phase": "Running"}})).json()
    assert made["status"]["phase"] == "Pending"
    changed = {**made, "status": {"phase": "Failed"}, "metadata": {**made["metadata"], "labels": {"a": "b"}}}
    main = (await server.http("PUT", f"{PODS}/p", changed)).json()
    assert (main["status"]["phase"], main["metadata"]["labels"]) == ("Pending", {"a": "b"})
    wanted = {"status": {"phase": "Running"}, "spec": {"nodeName": "n"}}
    status = (await server.http("PATCH", f"{PODS}/p/status", wanted, content_type=MERGE)).json()
    assert status["status"]["phase"] == "Running"
    assert "nodeName" not in status["spec"]


async def test_A24_generation_rises_only_with_the_spec(server: RunningServer) -> None:
    path = "/apis/apps/v1/namespaces/default/deployments"
    template = {"metadata": {"labels": {"a": "b"}}, "spec": pod("x")["spec"]}
    spec = {"replicas": 1, "selector": {"matchLabels": {"a": "b"}}, "template": template}
    made = (await server.http("POST", path, {"metadata": {"name": "d"}, "spec": spec})).json()
    assert made["metadata"]["generation"] == 1
    labelled = await server.http("PATCH", f"{path}/d", {"metadata": {"labels": {"x": "y"}}}, content_type=MERGE)
    assert labelled.json()["metadata"]["generation"] == 1
    scaled = await server.http("PATCH", f"{path}/d/scale", {"spec": {"replicas": 4}}, content_type=MERGE)
    assert (scaled.json()["kind"], scaled.json()["spec"], scaled.json()["status"]["selector"]) == (
        "Scale",
        {"replicas": 4},
        "a=b",
    )
    assert (await server.http("GET", f"{path}/d")).json()["metadata"]["generation"] == 2


async def test_A31_dry_run_stores_nothing(server: RunningServer) -> None:
    reply = await server.http("POST", f"{CONFIG_MAPS}?dryRun=All", config_map())
    assert (reply.status, "uid" in reply.json()["metadata"]) == (201, True)
    assert (await server.http("GET", f"{CONFIG_MAPS}/a")).status == 404
    await server.http("POST", CONFIG_MAPS, config_map())
    await server.http("DELETE", f"{CONFIG_MAPS}/a?dryRun=All")
    changed = await server.http("PATCH", f"{CONFIG_MAPS}/a?dryRun=All", {"data": {"x": "y"}}, content_type=MERGE)
    assert changed.json()["data"] == {"x": "y"}
    assert "data" not in (await server.http("GET", f"{CONFIG_MAPS}/a")).json()


async def test_A31_a_hundred_dry_runs_leave_the_revision_of_the_store_as_it_was(server: RunningServer) -> None:
    async def revision() -> str:
        return str((await server.http("GET", CONFIG_MAPS)).json()["metadata"]["resourceVersion"])

    before = await revision()
    for number in range(100):
        reply = await server.http("POST", f"{CONFIG_MAPS}?dryRun=All", config_map(f"m{number}"))
        assert reply.status == 201
    assert await revision() == before


async def test_A32_unknown_fields_warn_by_default_and_are_dropped(server: RunningServer) -> None:
    reply = await server.http("POST", CONFIG_MAPS, {**config_map(), "dat": {}})
    assert reply.status == 201
    assert reply.header("Warning") == ['299 - "unknown field \\"dat\\""']
    silent = await server.http("POST", f"{CONFIG_MAPS}?fieldValidation=Ignore", {**config_map("b"), "dat": {}})
    assert (silent.status, silent.header("Warning")) == (201, [])
    doubled = b'{"metadata":{"name":"c"},"data":{"a":"1","a":"2"}}'
    strict = await server.http("POST", f"{CONFIG_MAPS}?fieldValidation=Strict", doubled)
    assert strict.status == 400
    assert 'duplicate field "data.a"' in strict.json()["message"]


async def test_A34_object_with_finalizer_stays_until_it_is_gone(server: RunningServer) -> None:
    await server.http("POST", CONFIG_MAPS, config_map(finalizers=["example.com/a"]))
    deleted = (await server.http("DELETE", f"{CONFIG_MAPS}/a")).json()
    assert deleted["metadata"]["deletionTimestamp"]
    more = {"metadata": {"finalizers": ["example.com/a", "example.com/b"]}}
    added = await server.http("PATCH", f"{CONFIG_MAPS}/a", more, content_type=MERGE)
    assert added.status == 422
    refusal = "no new finalizers can be added if the object is being deleted, found new finalizers"
    assert f'{refusal} []string{{"example.com/b"}}' in added.json()["message"]
    none = await server.http("PATCH", f"{CONFIG_MAPS}/a", {"metadata": {"finalizers": None}}, content_type=MERGE)
    assert none.status == 200
    assert (await server.http("GET", f"{CONFIG_MAPS}/a")).status == 404


async def test_A35_propagation_leaves_its_finalizer(server: RunningServer) -> None:
    for policy, finalizer in (("Foreground", "foregroundDeletion"), ("Orphan", "orphan")):
        name = policy.lower()
        await server.http("POST", CONFIG_MAPS, config_map(name))
        reply = await server.http("DELETE", f"{CONFIG_MAPS}/{name}", {"propagationPolicy": policy})
        assert reply.json()["metadata"]["finalizers"] == [finalizer]
    await server.http("POST", CONFIG_MAPS, config_map("background"))
    reply = await server.http("DELETE", f"{CONFIG_MAPS}/background", {"propagationPolicy": "Background"})
    status = reply.json()
    assert (status["kind"], status["status"], status["details"]["kind"]) == ("Status", "Success", "configmaps")


async def test_A34_pod_on_a_node_gets_its_grace(server: RunningServer) -> None:
    await server.http("POST", PODS, {**pod("p"), "spec": {**pod("p")["spec"], "nodeName": "n"}})
    first = (await server.http("DELETE", f"{PODS}/p")).json()
    assert first["metadata"]["deletionGracePeriodSeconds"] == 30
    shorter = (await server.http("DELETE", f"{PODS}/p?gracePeriodSeconds=5")).json()
    assert shorter["metadata"]["deletionGracePeriodSeconds"] == 5
    longer = (await server.http("DELETE", f"{PODS}/p?gracePeriodSeconds=60")).json()
    assert longer["metadata"]["deletionGracePeriodSeconds"] == 5
    assert (await server.http("DELETE", f"{PODS}/p?gracePeriodSeconds=0")).json()["kind"] == "Pod"
    assert (await server.http("GET", f"{PODS}/p")).status == 404


async def test_delete_with_a_wrong_uid_is_a_conflict(server: RunningServer) -> None:
    await server.http("POST", CONFIG_MAPS, config_map())
    reply = await server.http("DELETE", f"{CONFIG_MAPS}/a", {"preconditions": {"uid": "other"}})
    assert (reply.status, reply.json()["reason"]) == (409, "Conflict")
    assert "Precondition failed: UID in precondition: other" in reply.json()["message"]


async def test_deletecollection_deletes_what_the_selector_chooses(server: RunningServer) -> None:
    for number in range(4):
        await server.http("POST", CONFIG_MAPS, config_map(f"c{number}", labels={"even": str(number % 2 == 0)}))
    reply = await server.http("DELETE", f"{CONFIG_MAPS}?labelSelector=even%3DTrue")
    assert [item["metadata"]["name"] for item in reply.json()["items"]] == ["c0", "c2"]
    left = (await server.http("GET", CONFIG_MAPS)).json()
    assert [item["metadata"]["name"] for item in left["items"]] == ["c1", "c3"]


async def test_A20_pages_show_one_state(server: RunningServer) -> None:
    for number in range(5):
        await server.http("POST", CONFIG_MAPS, config_map(f"c{number}"))
    first = (await server.http("GET", f"{CONFIG_MAPS}?limit=2")).json()
    assert first["metadata"]["remainingItemCount"] == 3
    await server.http("DELETE", f"{CONFIG_MAPS}/c3")
    token = first["metadata"]["continue"]
    rest = (await server.http("GET", f"{CONFIG_MAPS}?limit=5&continue={token}")).json()
    names = [item["metadata"]["name"] for item in first["items"] + rest["items"]]
    assert names == ["c0", "c1", "c2", "c3", "c4"]
    assert rest["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]


async def test_A22_field_selectors(server: RunningServer) -> None:
    await server.http("POST", PODS, {**pod("p"), "spec": {**pod("p")["spec"], "nodeName": "n"}})
    await server.http("POST", PODS, pod("q"))
    chosen = (await server.http("GET", "/api/v1/pods?fieldSelector=spec.nodeName%3Dn")).json()
    assert [item["metadata"]["name"] for item in chosen["items"]] == ["p"]
    refused = await server.http("GET", "/api/v1/pods?fieldSelector=spec.color%3Dn")
    assert (refused.status, refused.json()["message"]) == (400, "field label not supported: spec.color")


async def test_A44_one_object_in_every_media(server: RunningServer) -> None:
    made = (await server.http("POST", CONFIG_MAPS, config_map(data={"k": "v"}))).json()
    as_yaml = await server.http("GET", f"{CONFIG_MAPS}/a", headers={"Accept": "application/yaml"})
    assert yaml.safe_load(as_yaml.body)["data"] == {"k": "v"}
    as_protobuf = await server.http("GET", f"{CONFIG_MAPS}/a", headers={"Accept": PROTOBUF})
    assert as_protobuf.header("Content-Type") == [PROTOBUF]
    version, kind, raw = proto_codec.decode_envelope(as_protobuf.body)
    message = config_map_pb2.ConfigMap.FromString(raw)
    assert (version, kind, message.metadata.uid) == ("v1", "ConfigMap", made["metadata"]["uid"])
    message.data["k"] = "w"
    body = proto_codec.encode_envelope("v1", "ConfigMap", message.SerializeToString())
    put = await server.http("PUT", f"{CONFIG_MAPS}/a", body, content_type=PROTOBUF)
    assert put.json()["data"] == {"k": "w"}
    text = b"metadata:\n  name: b\ndata:\n  on: 'yes'\n"
    posted = await server.http("POST", CONFIG_MAPS, text, content_type="application/yaml")
    assert posted.status == 201, posted.body
    listed = await server.http("GET", CONFIG_MAPS, headers={"Accept": f"{PROTOBUF},application/json"})
    found = config_map_pb2.ConfigMapList.FromString(proto_codec.decode_envelope(listed.body)[2])
    assert [item.metadata.name for item in found.items] == ["a", "b"]
    assert found.metadata.resourceVersion


async def test_A43_metadata_only(server: RunningServer) -> None:
    await server.http("POST", CONFIG_MAPS, config_map(data={"k": "v"}))
    accept = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
    one = (await server.http("GET", f"{CONFIG_MAPS}/a", headers={"Accept": accept})).json()
    assert (one["kind"], one["apiVersion"], one["metadata"]["name"]) == (
        "PartialObjectMetadata",
        "meta.k8s.io/v1",
        "a",
    )
    assert "data" not in one
    accept = f"{PROTOBUF};as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
    listed = await server.http("GET", CONFIG_MAPS, headers={"Accept": accept})
    found = meta_pb2.PartialObjectMetadataList.FromString(proto_codec.decode_envelope(listed.body)[2])
    assert [item.metadata.name for item in found.items] == ["a"]


async def test_A43_table(server: RunningServer) -> None:
    await server.http("POST", CONFIG_MAPS, config_map(data={"k": "v"}))
    accept = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
    table = (await server.http("GET", CONFIG_MAPS, headers={"Accept": accept})).json()
    assert (table["kind"], table["apiVersion"]) == ("Table", "meta.k8s.io/v1")
    assert [column["name"] for column in table["columnDefinitions"]] == ["Name", "Data", "Age"]
    assert table["rows"][0]["cells"][:2] == ["a", 1]
    assert table["rows"][0]["object"]["kind"] == "PartialObjectMetadata"


async def test_large_list_is_gzipped_when_asked(server: RunningServer) -> None:
    for number in range(3):
        await server.http("POST", CONFIG_MAPS, config_map(f"c{number}", {"k": "v" * 60_000}))
    plain = await server.http("GET", CONFIG_MAPS)
    small = await server.http("GET", CONFIG_MAPS, headers={"Accept-Encoding": "gzip"})
    assert small.header("Content-Encoding") == ["gzip"]
    assert gzip.decompress(small.body) == plain.body
    assert orjson.loads(plain.body)["kind"] == "ConfigMapList"


async def test_head_answers_without_a_body(server: RunningServer) -> None:
    reader, writer = await server.connect()
    writer.write(b"HEAD /version HTTP/1.1\r\nHost: x\r\n\r\nGET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 OK\r\n")
    assert await reader.readexactly(2) == b"ok"
    writer.close()
    await writer.wait_closed()


async def test_A5_index_lists_paths_that_answer(server: RunningServer) -> None:
    paths = (await server.http("GET", "/")).json()["paths"]
    assert {"/api", "/apis", "/apis/apps/v1", "/healthz", "/livez", "/metrics", "/openapi/v3"} <= set(paths)
    for path in paths:
        if not path.startswith("/openapi"):
            assert (await server.http("GET", path)).status == 200, path


async def test_readyz_names_its_checks(server: RunningServer) -> None:
    verbose = await server.http("GET", "/readyz?verbose", user=None)
    assert verbose.body.decode().splitlines() == [
        "[+]ping ok",
        "[+]etcd ok",
        "[+]poststarthook/bootstrap ok",
        "[+]shutdown ok",
        "readyz check passed",
    ]
    assert (await server.http("GET", "/readyz/etcd", user=None)).body == b"ok"
    assert (await server.http("GET", "/readyz/nothing", user=None)).status == 404


async def test_version_names_both_releases(server: RunningServer) -> None:
    version = (await server.http("GET", "/version")).json()
    assert (version["major"], version["minor"]) == ("1", "34")
    assert version["gitVersion"].startswith("v1.34.0+tiphys.")


async def test_A26_default_namespaces_are_there(server: RunningServer) -> None:
    listed = (await server.http("GET", "/api/v1/namespaces")).json()
    names = [item["metadata"]["name"] for item in listed["items"]]
    assert names == ["default", "kube-node-lease", "kube-public", "kube-system"]


async def test_two_versions_show_one_object(server: RunningServer) -> None:
    base = "/apis/autoscaling/{}/namespaces/default/horizontalpodautoscalers"
    target = {"kind": "Deployment", "name": "d", "apiVersion": "apps/v1"}
    spec = {"scaleTargetRef": target, "maxReplicas": 3, "targetCPUUtilizationPercentage": 50}
    made = await server.http("POST", base.format("v1"), {"metadata": {"name": "h"}, "spec": spec})
    assert made.status == 201, made.body
    newer = (await server.http("GET", base.format("v2") + "/h")).json()
    assert newer["apiVersion"] == "autoscaling/v2"
    resource = newer["spec"]["metrics"][0]["resource"]
    assert resource == {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}
    older = (await server.http("GET", base.format("v1") + "/h")).json()
    assert older["spec"]["targetCPUUtilizationPercentage"] == 50
    assert older["metadata"]["resourceVersion"] == newer["metadata"]["resourceVersion"]
    event = {
        "metadata": {"name": "e"},
        "involvedObject": {"kind": "Pod", "name": "p", "namespace": "default"},
        "reason": "Because",
        "message": "text",
        "type": "Normal",
    }
    assert (await server.http("POST", "/api/v1/namespaces/default/events", event)).status == 201
    shown = (await server.http("GET", "/apis/events.k8s.io/v1/namespaces/default/events/e")).json()
    assert (shown["note"], shown["regarding"]["name"], shown["reason"]) == ("text", "p", "Because")
