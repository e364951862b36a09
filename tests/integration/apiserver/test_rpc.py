"""The gRPC door: the same objects and rules as over HTTP, batches, watches, and reflection for any client."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pb2
from grpc_reflection.v1alpha import reflection_pb2

from tests.support.apiserver import RunningServer
from tiphys.api.apps.v1 import apps_pb2
from tiphys.api.authentication.v1 import authentication_pb2
from tiphys.api.authorization.v1 import authorization_pb2
from tiphys.api.autoscaling.v1 import autoscaling_pb2
from tiphys.api.core.v1 import binding_pb2, config_map_pb2, pod_pb2
from tiphys.api.meta.v1 import meta_pb2
from tiphys.apiserver.core.v1 import config_map_service_pb2, config_map_service_pb2_grpc
from tiphys.apiserver.v1 import wire_pb2

CONFIG_MAPS = "core.v1.ConfigMapService"
PODS = "core.v1.PodService"


def config_map(name: str, **data: str) -> Any:
    made: Any = config_map_pb2.ConfigMap()
    made.metadata.name = name
    made.metadata.namespace = "default"
    for key, value in data.items():
        made.data[key] = value
    return made


def pod(name: str) -> Any:
    made: Any = pod_pb2.Pod()
    made.metadata.name = name
    made.metadata.namespace = "default"
    made.spec.containers.add(name="c", image="busybox")
    return made


async def create(server: RunningServer, service: str, obj: Any) -> bytes:
    request = wire_pb2.CreateRequest(namespace="default", object=obj.SerializeToString())
    return wire_pb2.CreateResponse.FromString(await server.grpc(service, "Create", request)).object


async def test_A55_typed_stubs_speak_the_same_wire(server: RunningServer) -> None:
    stub: Any = config_map_service_pb2_grpc.ConfigMapServiceStub(server.channel())
    messages: Any = config_map_service_pb2
    made = await stub.Create(messages.ConfigMapServiceCreateRequest(namespace="default", object=config_map("a", k="v")))
    assert made.object.metadata.uid
    got = await stub.Get(messages.ConfigMapServiceGetRequest(namespace="default", name="a"))
    assert got.object == made.object
    listed = await stub.List(messages.ConfigMapServiceListRequest(namespace="default"))
    assert [item.metadata.name for item in listed.items] == ["a"]
    assert listed.metadata.resourceVersion == made.object.metadata.resourceVersion
    over_http = (await server.http("GET", "/api/v1/namespaces/default/configmaps/a")).json()
    assert over_http["metadata"]["uid"] == made.object.metadata.uid
    update = made.object
    update.data["k"] = "w"
    changed = await stub.Update(messages.ConfigMapServiceUpdateRequest(namespace="default", object=update))
    assert changed.object.data["k"] == "w"
    await stub.Delete(messages.ConfigMapServiceDeleteRequest(namespace="default", name="a"))
    with pytest.raises(grpc.aio.AioRpcError) as gone:
        await stub.Get(messages.ConfigMapServiceGetRequest(namespace="default", name="a"))
    assert gone.value.code() is grpc.StatusCode.NOT_FOUND


async def test_watch_sends_batches_in_order(server: RunningServer) -> None:
    call = server.watch(CONFIG_MAPS, wire_pb2.WatchRequest(namespace="default", send_initial_events=True))
    await create(server, CONFIG_MAPS, config_map("a"))
    await create(server, CONFIG_MAPS, config_map("b"))
    seen: list[tuple[int, str]] = []
    async with asyncio.timeout(5):
        async for raw in call:
            for event in wire_pb2.WatchResponse.FromString(raw).events:
                name = config_map_pb2.ConfigMap.FromString(event.object).metadata.name
                seen.append((event.type, name))
            if len(seen) == 3:
                break
    call.cancel()
    added = [name for kind, name in seen if kind == wire_pb2.EVENT_TYPE_ADDED]
    assert added == ["a", "b"]
    assert [kind for kind, _ in seen].count(wire_pb2.EVENT_TYPE_BOOKMARK) == 1


async def test_batch_create_has_a_result_for_each(server: RunningServer) -> None:
    objects = [config_map("a"), config_map("Not_Good"), config_map("b"), config_map("a")]
    request = wire_pb2.BatchCreateRequest(namespace="default", objects=[obj.SerializeToString() for obj in objects])
    answer = wire_pb2.BatchCreateResponse.FromString(await server.grpc(CONFIG_MAPS, "BatchCreate", request))
    statuses = [meta_pb2.Status.FromString(result.status).reason for result in answer.results]
    assert (statuses[1], statuses[2]) == ("Invalid", "")
    assert sorted((statuses[0], statuses[3])) == ["", "AlreadyExists"]
    assert config_map_pb2.ConfigMap.FromString(answer.results[2].object).metadata.resourceVersion


async def create_together(server: RunningServer, *objects: Any) -> list[tuple[str, str]]:
    """Reason of each object's failure, empty where there is none, and its message."""
    raw = [obj.SerializeToString() for obj in objects]
    request = wire_pb2.BatchCreateRequest(namespace="default", objects=raw, all_or_nothing=True)
    answer = wire_pb2.BatchCreateResponse.FromString(await server.grpc(CONFIG_MAPS, "BatchCreate", request))
    statuses = [meta_pb2.Status.FromString(result.status) for result in answer.results]
    return [(status.reason, status.message) for status in statuses]


async def names_of(server: RunningServer) -> set[str]:
    items = (await server.http("GET", "/api/v1/namespaces/default/configmaps")).json()["items"]
    return {item["metadata"]["name"] for item in items} - {"kube-root-ca.crt"}


async def test_A56_batch_of_all_or_nothing_is_stored_whole(server: RunningServer) -> None:
    assert await create_together(server, *(config_map(f"m{number}") for number in range(128))) == [("", "")] * 128
    assert len(await names_of(server)) == 128


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        pytest.param("Not_Good", "Invalid", id="refused on its way"),
        pytest.param("there", "AlreadyExists", id="refused by the store"),
    ],
)
async def test_A56_one_refused_object_leaves_nothing_of_its_batch(server: RunningServer, bad: str, reason: str) -> None:
    assert await create_together(server, config_map("there")) == [("", "")]
    results = await create_together(server, config_map("a"), config_map(bad), config_map("b"))
    assert [found for found, _ in results] == ["Conflict", reason, "Conflict"]
    assert bad in results[0][1]
    assert await names_of(server) == {"there"}


async def test_A56_batch_larger_than_a_transaction_is_refused(server: RunningServer) -> None:
    with pytest.raises(grpc.aio.AioRpcError, match="129 objects are too many"):
        await create_together(server, *(config_map(f"m{number}") for number in range(129)))
    assert await names_of(server) == set()


async def test_A56_statuses_are_written_in_one_call_with_a_result_each(server: RunningServer) -> None:
    stored = []
    for name in ("a", "b"):
        await create(server, PODS, pod(name))
        made = pod(name)
        made.metadata.namespace = "default"
        made.status.phase = "Running"
        stored.append(made.SerializeToString())
    absent = pod("c")
    absent.metadata.namespace = "default"
    request = wire_pb2.BatchUpdateStatusRequest(namespace="default", objects=[*stored, absent.SerializeToString()])
    answer = wire_pb2.BatchCreateResponse.FromString(await server.grpc(PODS, "BatchUpdateStatus", request))
    assert [meta_pb2.Status.FromString(result.status).reason for result in answer.results] == ["", "", "NotFound"]
    found = (await server.http("GET", "/api/v1/namespaces/default/pods/b")).json()
    assert found["status"]["phase"] == "Running"


async def test_batches_of_patches_and_deletes_want_the_verb_of_the_single_call(server: RunningServer) -> None:
    await create(server, CONFIG_MAPS, config_map("a"))
    patch = wire_pb2.BatchPatchRequest(namespace="default", patch_type=wire_pb2.PATCH_TYPE_MERGE)
    patch.patches.add(name="a", patch=b'{"data":{"k":"v"}}')
    delete = wire_pb2.BatchDeleteRequest(namespace="default", deletes=[wire_pb2.NamedDelete(name="a")])
    for method, request in (("BatchPatch", patch), ("BatchDelete", delete)):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await server.grpc(CONFIG_MAPS, method, request, user="alice")
        assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
    found = (await server.http("GET", "/api/v1/namespaces/default/configmaps/a")).json()
    assert "data" not in found


async def test_batch_of_patches_refuses_what_one_patch_may_not_be(server: RunningServer) -> None:
    await create(server, CONFIG_MAPS, config_map("a", k="v"))
    apply = wire_pb2.BatchPatchRequest(namespace="default", patch_type=wire_pb2.PATCH_TYPE_APPLY)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await server.grpc(CONFIG_MAPS, "BatchPatch", apply)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    merge = wire_pb2.BatchPatchRequest(namespace="default", patch_type=wire_pb2.PATCH_TYPE_MERGE)
    for name, text in (
        ("a", b"no JSON"),
        ("", b"{}"),
        ("a", b'{"metadata":{"name":"b"}}'),
        ("a", b'{"data":{"k":"w"}}'),
    ):
        merge.patches.add(name=name, patch=text)
    answer = wire_pb2.BatchPatchResponse.FromString(await server.grpc(CONFIG_MAPS, "BatchPatch", merge))
    assert [meta_pb2.Status.FromString(raw).code for raw in answer.statuses] == [400, 400, 400, 200]
    unnamed = wire_pb2.BatchDeleteRequest(namespace="default", deletes=[wire_pb2.NamedDelete(uid="u")])
    deleted = wire_pb2.BatchDeleteResponse.FromString(await server.grpc(CONFIG_MAPS, "BatchDelete", unnamed))
    assert [meta_pb2.Status.FromString(raw).code for raw in deleted.statuses] == [400]


async def test_batch_bind_binds_each_pod_once(server: RunningServer) -> None:
    await create(server, PODS, pod("a"))
    await create(server, PODS, pod("b"))
    bindings = []
    for name, node in (("a", "n1"), ("b", "n2"), ("c", "n1")):
        binding: Any = binding_pb2.Binding()
        binding.metadata.name, binding.metadata.namespace, binding.target.name = name, "default", node
        bindings.append(binding.SerializeToString())
    request = wire_pb2.BatchBindRequest(bindings=bindings)
    for codes in ([201, 201, 404], [409, 409, 404]):
        answer = wire_pb2.BatchBindResponse.FromString(await server.grpc(PODS, "BatchBind", request))
        assert [meta_pb2.Status.FromString(raw).code for raw in answer.statuses] == codes
    found = (await server.http("GET", "/api/v1/namespaces/default/pods/b")).json()
    assert found["spec"]["nodeName"] == "n2"
    condition = found["status"]["conditions"][0]
    assert (condition["type"], condition["status"]) == ("PodScheduled", "True")


async def test_status_patch_and_scale(server: RunningServer) -> None:
    made: Any = apps_pb2.ReplicaSet()
    made.metadata.name = "r"
    made.spec.replicas = 1
    made.spec.selector.matchLabels["a"] = "b"
    made.spec.template.metadata.labels["a"] = "b"
    made.spec.template.spec.containers.add(name="c", image="i")
    service = "apps.v1.ReplicaSetService"
    stored: Any = apps_pb2.ReplicaSet.FromString(await create(server, service, made))
    stored.status.replicas = 1
    stored.spec.replicas = 7
    update = wire_pb2.UpdateRequest(namespace="default", object=stored.SerializeToString())
    await server.grpc(service, "UpdateStatus", update)
    scale: Any = autoscaling_pb2.Scale()
    scale.metadata.name = "r"
    scale.spec.replicas = 3
    request = wire_pb2.UpdateRequest(namespace="default", name="r", object=scale.SerializeToString())
    answer = wire_pb2.UpdateResponse.FromString(await server.grpc(service, "UpdateScale", request))
    scaled: Any = autoscaling_pb2.Scale.FromString(answer.object)
    assert (scaled.spec.replicas, scaled.status.replicas, scaled.status.selector) == (3, 1, "a=b")
    patch = wire_pb2.PatchRequest(
        namespace="default",
        name="r",
        subresource="status",
        patch_type=wire_pb2.PATCH_TYPE_MERGE,
        patch=b'{"status":{"replicas":2}}',
    )
    patched = wire_pb2.PatchResponse.FromString(await server.grpc(service, "Patch", patch))
    final: Any = apps_pb2.ReplicaSet.FromString(patched.object)
    assert (final.status.replicas, final.spec.replicas) == (2, 3)


async def test_tokens_and_reviews(server: RunningServer) -> None:
    request = wire_pb2.CreateRequest(namespace="default", name="default")
    answer = await server.grpc("core.v1.ServiceAccountService", "CreateToken", request)
    token: Any = authentication_pb2.TokenRequest.FromString(wire_pb2.CreateResponse.FromString(answer).object)
    reply = await server.http(
        "POST",
        "/apis/authentication.k8s.io/v1/selfsubjectreviews",
        {},
        user=None,
        headers={"Authorization": f"Bearer {token.status.token}"},
    )
    assert reply.json()["status"]["userInfo"]["username"] == "system:serviceaccount:default:default"
    review: Any = authorization_pb2.SelfSubjectAccessReview()
    review.spec.resourceAttributes.verb = "list"
    review.spec.resourceAttributes.resource = "pods"
    service = "authorization.v1.SelfSubjectAccessReviewService"
    for user, allowed in (("admin", True), ("alice", False)):
        raw = await server.grpc(service, "Create", wire_pb2.CreateRequest(object=review.SerializeToString()), user=user)
        made: Any = authorization_pb2.SelfSubjectAccessReview.FromString(wire_pb2.CreateResponse.FromString(raw).object)
        assert made.status.allowed is allowed


async def test_A55_reflection_describes_every_service(server: RunningServer) -> None:
    ask = server.channel().stream_stream(
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )

    async def answer(**question: str) -> Any:
        async def questions() -> Any:
            yield reflection_pb2.ServerReflectionRequest(**question)

        async for found in ask(questions()):
            return found
        raise AssertionError("no answer")

    listed = await answer(list_services="")
    names = [service.name for service in listed.list_services_response.service]
    assert {"tiphys.apiserver.core.v1.PodService", "tiphys.apiserver.apps.v1.DeploymentService"} <= set(names)
    for name in names:
        found = await answer(file_containing_symbol=name)
        files = [
            descriptor_pb2.FileDescriptorProto.FromString(raw)
            for raw in found.file_descriptor_response.file_descriptor_proto
        ]
        services = {f"{file.package}.{service.name}" for file in files for service in file.service}
        assert name in services
