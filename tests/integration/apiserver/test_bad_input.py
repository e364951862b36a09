"""Bad input by both doors: the right code, reason and message, and nothing stored."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from google.rpc import status_pb2

from tests.support.apiserver import RunningServer
from tiphys.api.core.v1 import config_map_pb2, pod_pb2, service_pb2
from tiphys.api.meta.v1 import meta_pb2
from tiphys.apiserver.v1 import wire_pb2
from tiphys_apimachinery.codec import proto_codec

CONFIG_MAPS = "/api/v1/namespaces/default/configmaps"
PODS = "/api/v1/namespaces/default/pods"
CONTAINER = {"name": "c", "image": "busybox"}


def config_map(name: str = "a", **more: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, **more}


def pod(name: str = "a", **spec: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"containers": [CONTAINER], **spec}}


REFUSED_CREATES = [
    pytest.param(
        f"{PODS}?fieldValidation=Strict",
        pod(nodeNam="n"),
        400,
        "BadRequest",
        'strict decoding error: unknown field "spec.nodeNam"',
        id="unknown field",
    ),
    pytest.param(
        PODS,
        pod(containers="one"),
        400,
        "BadRequest",
        'Pod in version "v1" cannot be handled as a Pod',
        id="wrong type",
    ),
    pytest.param(
        CONFIG_MAPS, config_map("Not_Good"), 422, "Invalid", 'metadata.name: Invalid value: "Not_Good"', id="bad name"
    ),
    pytest.param(
        PODS, pod(containers=[{"name": "c"}]), 422, "Invalid", "spec.containers[0].image: Required value", id="missing"
    ),
    pytest.param(CONFIG_MAPS, {"metadata": {}}, 422, "Invalid", "name or generateName is required", id="no name"),
    pytest.param(CONFIG_MAPS, b'{"metadata":{"name":"a"', 400, "BadRequest", "json parse error", id="truncated JSON"),
    pytest.param(CONFIG_MAPS, pod(), 400, "BadRequest", "cannot be handled as a ConfigMap", id="another kind"),
    pytest.param(
        CONFIG_MAPS,
        config_map(metadata={"name": "a", "namespace": "other"}),
        400,
        "BadRequest",
        "the namespace of the provided object does not match the namespace sent on the request",
        id="another namespace",
    ),
    pytest.param(
        CONFIG_MAPS,
        config_map(metadata={"name": "a", "resourceVersion": "7"}),
        400,
        "BadRequest",
        "resourceVersion should not be set on objects to be created",
        id="version on create",
    ),
    pytest.param(
        CONFIG_MAPS,
        config_map(data={"a": "x" * (3 * 1024 * 1024)}),
        413,
        "RequestEntityTooLarge",
        "limit is 3145728",
        id="over 3 MB",
    ),
    pytest.param(
        "/api/v1/namespaces/default/gadgets",
        config_map(),
        404,
        "NotFound",
        "the server could not find the requested resource",
        id="unknown resource",
    ),
    pytest.param(
        "/api/v1/namespaces/missing/configmaps",
        config_map(),
        404,
        "NotFound",
        'namespaces "missing" not found',
        id="unknown namespace",
    ),
    pytest.param(
        f"{CONFIG_MAPS}?dryRun=Some", config_map(), 422, "Invalid", "dryRun: Unsupported value", id="bad dryRun"
    ),
]


@pytest.mark.parametrize(("path", "body", "code", "reason", "message"), REFUSED_CREATES)
async def test_bad_create_is_refused_over_rest_and_stores_nothing(
    server: RunningServer, path: str, body: Any, code: int, reason: str, message: str
) -> None:
    before = (await server.http("GET", CONFIG_MAPS)).json()["metadata"]["resourceVersion"]
    reply = await server.http("POST", path, body)
    status = reply.json()
    assert (reply.status, status["kind"], status["code"], status["reason"]) == (code, "Status", code, reason)
    assert message in status["message"]
    after = (await server.http("GET", CONFIG_MAPS)).json()
    assert after["metadata"]["resourceVersion"] == before


async def test_unauthenticated_and_forbidden_are_told_apart(server: RunningServer) -> None:
    bad = await server.http("GET", PODS, user=None, headers={"Authorization": "Bearer nonsense"})
    assert (bad.status, bad.json()["reason"], bad.json()["message"]) == (401, "Unauthorized", "Unauthorized")
    nobody = await server.http("GET", PODS, user=None)
    assert nobody.status == 403
    assert 'User "system:anonymous" cannot list resource "pods"' in nobody.json()["message"]
    alice = await server.http("POST", CONFIG_MAPS, config_map(), user="alice")
    assert (alice.status, alice.json()["reason"]) == (403, "Forbidden")
    assert alice.json()["message"] == (
        'configmaps is forbidden: User "alice" cannot create resource "configmaps" in API group ""'
        ' in the namespace "default"'
    )
    assert (await server.http("GET", f"{CONFIG_MAPS}/a")).status == 404


async def test_stale_version_is_a_conflict_and_changes_nothing(server: RunningServer) -> None:
    made = (await server.http("POST", CONFIG_MAPS, config_map(data={"a": "1"}))).json()
    newer = (await server.http("PUT", f"{CONFIG_MAPS}/a", {**made, "data": {"a": "2"}})).json()
    reply = await server.http("PUT", f"{CONFIG_MAPS}/a", {**made, "data": {"a": "3"}})
    assert (reply.status, reply.json()["reason"]) == (409, "Conflict")
    assert "the object has been modified; please apply your changes to the latest version" in reply.json()["message"]
    assert (await server.http("GET", f"{CONFIG_MAPS}/a")).json() == newer


async def test_change_of_an_immutable_field_is_refused(server: RunningServer) -> None:
    secret = {"metadata": {"name": "s"}, "immutable": True, "stringData": {"a": "b"}}
    secrets = "/api/v1/namespaces/default/secrets"
    made = (await server.http("POST", secrets, secret)).json()
    reply = await server.http("PUT", f"{secrets}/s", {**made, "type": "other"})
    assert (reply.status, reply.json()["reason"]) == (422, "Invalid")
    assert "field is immutable" in reply.json()["message"]
    assert (await server.http("GET", f"{secrets}/s")).json() == made


METHODS = [
    pytest.param("DELETE", "/api/v1/namespaces", 405, id="verb that the resource lacks"),
    pytest.param("POST", "/version", 405, id="write to a plain path"),
    pytest.param("GET", "/nothing/here", 404, id="unknown path"),
    pytest.param("GET", "/api/v1/namespaces/default/pods/x/gadget", 404, id="unknown subresource"),
]


@pytest.mark.parametrize(("method", "path", "code"), METHODS)
async def test_wrong_method_and_path(server: RunningServer, method: str, path: str, code: int) -> None:
    reply = await server.http(method, path)
    assert (reply.status, reply.json()["kind"]) == (code, "Status")


async def test_media_types_that_nobody_speaks(server: RunningServer) -> None:
    reply = await server.http("GET", PODS, headers={"Accept": "text/html"})
    assert (reply.status, reply.json()["reason"]) == (406, "NotAcceptable")
    reply = await server.http("POST", PODS, b"x", content_type="text/plain")
    assert (reply.status, reply.json()["reason"]) == (415, "UnsupportedMediaType")
    reply = await server.http("PATCH", f"{PODS}/x", b"{}", content_type="application/json")
    assert reply.status == 415


def _pod_message(**fields: Any) -> Any:
    made: Any = pod_pb2.Pod()
    made.metadata.name = "a"
    made.spec.containers.add(name="c", **fields)
    return made


def _named(cls: Any, name: str, **metadata: str) -> Any:
    made = cls()
    made.metadata.name = name
    for key, value in metadata.items():
        setattr(made.metadata, key, value)
    return made


# An unknown field of number 999 (varint 1), behind an otherwise good object.
_UNKNOWN = b"\xb8\x3e\x01"

GRPC_CREATES = [
    pytest.param(
        "core.v1.PodService",
        _pod_message(image="busybox").SerializeToString() + _UNKNOWN,
        "default",
        grpc.StatusCode.INVALID_ARGUMENT,
        400,
        "BadRequest",
        'strict decoding error: unknown field "999"',
        id="unknown field",
    ),
    pytest.param(
        "core.v1.ConfigMapService",
        b"\x0a\xff",
        "default",
        grpc.StatusCode.INVALID_ARGUMENT,
        400,
        "BadRequest",
        "cannot be handled as a ConfigMap",
        id="truncated",
    ),
    pytest.param(
        "core.v1.ConfigMapService",
        _named(config_map_pb2.ConfigMap, "Not_Good").SerializeToString(),
        "default",
        grpc.StatusCode.INVALID_ARGUMENT,
        422,
        "Invalid",
        'metadata.name: Invalid value: "Not_Good"',
        id="bad name",
    ),
    pytest.param(
        "core.v1.PodService",
        _pod_message().SerializeToString(),
        "default",
        grpc.StatusCode.INVALID_ARGUMENT,
        422,
        "Invalid",
        "spec.containers[0].image: Required value",
        id="missing",
    ),
    pytest.param(
        "core.v1.ConfigMapService",
        _named(config_map_pb2.ConfigMap, "a", namespace="other").SerializeToString(),
        "default",
        grpc.StatusCode.INVALID_ARGUMENT,
        400,
        "BadRequest",
        "does not match the namespace sent on the request",
        id="another namespace",
    ),
    pytest.param(
        "core.v1.ServiceService",
        _named(service_pb2.Service, "a").SerializeToString(),
        "missing",
        grpc.StatusCode.NOT_FOUND,
        404,
        "NotFound",
        'namespaces "missing" not found',
        id="unknown namespace",
    ),
]


@pytest.mark.parametrize(("service", "raw", "namespace", "grpc_code", "code", "reason", "message"), GRPC_CREATES)
async def test_bad_create_is_refused_over_grpc_and_stores_nothing(
    server: RunningServer,
    service: str,
    raw: bytes,
    namespace: str,
    grpc_code: grpc.StatusCode,
    code: int,
    reason: str,
    message: str,
) -> None:
    request = wire_pb2.CreateRequest(namespace=namespace, object=raw, field_validation="Strict")
    before = (await server.http("GET", CONFIG_MAPS)).json()["metadata"]["resourceVersion"]
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await server.grpc(service, "Create", request)
    assert refused.value.code() is grpc_code
    assert message in (refused.value.details() or "")
    status = status_of(refused.value)
    assert (status.code, status.reason) == (code, reason)
    assert (await server.http("GET", CONFIG_MAPS)).json()["metadata"]["resourceVersion"] == before


def status_of(error: grpc.aio.AioRpcError) -> meta_pb2.Status:
    """The Status in a failed call's trailer."""
    metadata: Any = error.trailing_metadata()
    raw = dict(metadata)["grpc-status-details-bin"]
    return meta_pb2.Status.FromString(status_pb2.Status.FromString(raw).details[0].value)


def _managed(raw: bytes) -> Any:
    made = _named(config_map_pb2.ConfigMap, "a")
    made.metadata.managedFields.add(manager="x", operation="Update", apiVersion="v1").fieldsV1.Raw = raw
    return made


# What protobuf can carry and JSON can't say: stored once, it would break every list.
UNSAYABLE = [
    pytest.param(config_map_pb2.ConfigMap.FromString(b"\x0a\x03\x0a\x01a\x12\x06\x0a\x01k\x12\x01\xff"), id="no UTF-8"),
    pytest.param(_managed(b"\xff{"), id="no JSON"),
]


@pytest.mark.parametrize("made", UNSAYABLE)
async def test_what_json_cannot_say_is_refused_by_both_doors(server: RunningServer, made: Any) -> None:
    body = proto_codec.encode_envelope("v1", "ConfigMap", made.SerializeToString())
    reply = await server.http("POST", CONFIG_MAPS, body, content_type="application/vnd.kubernetes.protobuf")
    assert (reply.status, reply.json()["reason"]) == (400, "BadRequest"), reply.body
    create = wire_pb2.CreateRequest(namespace="default", object=made.SerializeToString())
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await server.grpc("core.v1.ConfigMapService", "Create", create)
    assert status_of(refused.value).code == 400
    assert (await server.http("GET", CONFIG_MAPS)).json()["items"] == []


async def test_grpc_refuses_what_rest_refuses(server: RunningServer) -> None:
    made = _named(config_map_pb2.ConfigMap, "a")
    create = wire_pb2.CreateRequest(namespace="default", object=made.SerializeToString())
    with pytest.raises(grpc.aio.AioRpcError) as forbidden:
        await server.grpc("core.v1.ConfigMapService", "Create", create, user="alice")
    assert forbidden.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert status_of(forbidden.value).reason == "Forbidden"
    with pytest.raises(grpc.aio.AioRpcError) as unknown:
        await server.grpc("core.v1.GadgetService", "Create", create)
    assert unknown.value.code() is grpc.StatusCode.UNIMPLEMENTED
    await server.grpc("core.v1.ConfigMapService", "Create", create)
    made.metadata.resourceVersion = "1"
    stale = wire_pb2.UpdateRequest(namespace="default", object=made.SerializeToString())
    with pytest.raises(grpc.aio.AioRpcError) as conflict:
        await server.grpc("core.v1.ConfigMapService", "Update", stale)
    assert conflict.value.code() is grpc.StatusCode.ABORTED
    assert (status_of(conflict.value).code, status_of(conflict.value).reason) == (409, "Conflict")


async def test_immutable_field_stays_over_grpc_too(server: RunningServer) -> None:
    made = _named(config_map_pb2.ConfigMap, "a")
    made.immutable = True
    made.data["k"] = "v"
    create = wire_pb2.CreateRequest(namespace="default", object=made.SerializeToString())
    await server.grpc("core.v1.ConfigMapService", "Create", create)
    made.data["k"] = "w"
    change = wire_pb2.UpdateRequest(namespace="default", object=made.SerializeToString())
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await server.grpc("core.v1.ConfigMapService", "Update", change)
    status = status_of(refused.value)
    assert (status.code, status.reason) == (422, "Invalid")
    assert "field is immutable" in status.message
    assert (await server.http("GET", f"{CONFIG_MAPS}/a")).json()["data"] == {"k": "v"}


async def test_an_object_over_three_megabytes_is_refused_over_grpc_too(server: RunningServer) -> None:
    made = _named(config_map_pb2.ConfigMap, "big")
    made.data["k"] = "x" * (3 << 20)
    create = wire_pb2.CreateRequest(namespace="default", object=made.SerializeToString())
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await server.grpc("core.v1.ConfigMapService", "Create", create)
    status = status_of(refused.value)
    assert (status.code, status.reason) == (413, "RequestEntityTooLarge")
    assert "limit is 3145728" in status.message
    assert (await server.http("GET", f"{CONFIG_MAPS}/big")).status == 404


async def test_key_of_another_object_is_no_name(server: RunningServer) -> None:
    await server.http("POST", CONFIG_MAPS, config_map())
    assert (await server.http("GET", "/api/v1/configmaps/a")).status == 404
    for namespace, name in (("", "default/a"), ("default/", "a")):
        request = wire_pb2.GetRequest(namespace=namespace, name=name)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await server.grpc("core.v1.ConfigMapService", "Get", request)
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_namespaced_object_needs_its_namespace(server: RunningServer) -> None:
    assert (await server.http("POST", "/api/v1/configmaps", config_map())).status == 404
    made = _named(config_map_pb2.ConfigMap, "a")
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await server.grpc("core.v1.ConfigMapService", "Create", wire_pb2.CreateRequest(object=made.SerializeToString()))
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    delete = wire_pb2.DeleteRequest(name="a")
    with pytest.raises(grpc.aio.AioRpcError) as lost:
        await server.grpc("core.v1.ConfigMapService", "Delete", delete)
    assert lost.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    listed = (await server.http("GET", "/api/v1/configmaps?fieldSelector=metadata.name=a")).json()
    assert listed["items"] == []
