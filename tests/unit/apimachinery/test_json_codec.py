"""JSON is Kubernetes' JSON, whatever the object, and bad input is named precisely."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.apimachinery.samples import random_message
from tiphys.api.apiextensions.v1 import apiextensions_pb2
from tiphys.api.apps.v1 import apps_pb2
from tiphys.api.core.v1 import config_map_pb2, node_pb2, pod_pb2, secret_pb2, service_pb2
from tiphys.api.meta.v1 import meta_pb2
from tiphys.api.rbac.v1 import rbac_pb2
from tiphys_apimachinery.codec import json_codec, proto_codec
from tiphys_apimachinery.codec.json_codec import FieldSink
from tiphys_apimachinery.errors import BadRequest
from tiphys_apimachinery.scheme import KindInfo, load_default

# The envelope itself is no kind with a JSON form.
_KINDS = [kind for kind in load_default().kinds() if kind.kind != "Unknown"]


@pytest.mark.parametrize("kind", _KINDS, ids=lambda kind: f"{kind.api_version}/{kind.kind}")
def test_any_object_goes_through_json_and_back(kind: KindInfo) -> None:
    @settings(max_examples=8, deadline=None, derandomize=True)
    @given(st.integers(0, 2**32))
    def check(seed: int) -> None:
        message = random_message(kind.message, seed)
        text = json_codec.dumps(message)
        again = json_codec.loads(text, type(message), strict=True)
        assert json_codec.dumps(again) == text
        # An unknown member sends the same text down the slow road.
        assert json_codec.from_json(type(message), {**orjson.loads(text), "unheardOf": 1}) == again
        proto_codec.fill_like_go(message)
        proto_codec.fill_like_go(again)
        assert again.SerializeToString(deterministic=True) == message.SerializeToString(deterministic=True)

    check()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            {"spec": {"replicas": "3"}},
            "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            {"spec": {"replicas": 1.5}},
            "json: cannot unmarshal number 1.5 into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            {"spec": {"replicas": 2**31}},
            "json: cannot unmarshal number 2147483648 into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            {"spec": {"replicas": True}},
            "json: cannot unmarshal bool into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            {"spec": {"template": {"spec": {"containers": {}}}}},
            "json: cannot unmarshal object into Go struct field PodSpec.spec.template.spec.containers of type "
            "[]v1.Container",
        ),
        (
            {"spec": {"template": {"spec": {"containers": [{"image": 5}]}}}},
            "json: cannot unmarshal number into Go struct field Container.spec.template.spec.containers.image of type "
            "string",
        ),
        (
            {"spec": {"template": {"spec": {"hostNetwork": 1}}}},
            "json: cannot unmarshal number into Go struct field PodSpec.spec.template.spec.hostNetwork of type bool",
        ),
        (
            {"spec": {"template": {"spec": {"containers": [{"command": "ls"}]}}}},
            "json: cannot unmarshal string into Go struct field Container.spec.template.spec.containers.command of "
            "type []string",
        ),
        (
            {"metadata": {"labels": {"a": 1}}},
            "json: cannot unmarshal number into Go struct field ObjectMeta.metadata.labels of type string",
        ),
        (
            {"metadata": []},
            "json: cannot unmarshal array into Go struct field Deployment.metadata of type v1.ObjectMeta",
        ),
        (
            {"metadata": {"creationTimestamp": "yesterday"}},
            'metadata.creationTimestamp: parsing time "yesterday" as "2006-01-02T15:04:05Z07:00": cannot parse '
            '"yesterday"',
        ),
        (
            {"spec": {"template": {"spec": {"containers": [{"resources": {"limits": {"cpu": "lots"}}}]}}}},
            'spec.template.spec.containers[0].resources.limits.cpu: "lots": quantities must match the regular '
            "expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
        ),
    ],
)
def test_wrong_type_names_path_and_value(value: dict[str, Any], message: str) -> None:
    with pytest.raises(BadRequest) as caught:
        json_codec.from_json(apps_pb2.Deployment, value)
    assert str(caught.value) == f'Deployment in version "v1" cannot be handled as a Deployment: {message}'


def test_A32_unknown_and_repeated_members_are_named_with_their_paths() -> None:
    text = (
        b'{"kind":"Pod","foo":1,"metadata":{"name":"a","name":"b"},'
        b'"spec":{"containers":[{"name":"a","imge":"x"},{"handler":{}}]}}'
    )
    sink = FieldSink()
    pod = json_codec.loads(text, pod_pb2.Pod, sink=sink)
    assert pod.metadata.name == "b"
    assert sink.messages() == [
        'unknown field "spec.containers[0].imge"',
        'unknown field "spec.containers[1].handler"',
        'unknown field "foo"',
        'duplicate field "metadata.name"',
    ]


def test_A32_strict_reading_refuses_unknown_members() -> None:
    with pytest.raises(BadRequest) as caught:
        json_codec.loads(b'{"spec":{"foo":1}}', apps_pb2.Deployment, strict=True)
    assert str(caught.value) == (
        'Deployment in version "v1" cannot be handled as a Deployment: strict decoding error: unknown field "spec.foo"'
    )


def test_A32_without_strict_unknown_members_are_dropped() -> None:
    assert json_codec.loads(b'{"spec":{"foo":1}}', pod_pb2.Pod) == json_codec.loads(b'{"spec":{}}', pod_pb2.Pod)


def test_name_of_a_protobuf_field_is_no_json_member() -> None:
    sink = FieldSink()
    probe = {"spec": {"containers": [{"livenessProbe": {"handler": {"exec": {}}, "exec": {"command": ["a"]}}}]}}
    pod = json_codec.from_json(pod_pb2.Pod, probe, sink)
    assert sink.unknown == ["spec.containers[0].livenessProbe.handler"]
    assert pod.spec.containers[0].livenessProbe.handler.exec.command == ["a"]


@pytest.mark.parametrize("text", [b"", b"{", b'{"a":', b"nonsense", b"{'a':1}", b"\xff"])
def test_text_that_is_no_json_is_a_bad_request(text: bytes) -> None:
    with pytest.raises(BadRequest):
        json_codec.loads(text, pod_pb2.Pod)


@pytest.mark.parametrize("value", [None, 1, "x", []])
def test_an_object_must_be_an_object(value: Any) -> None:
    with pytest.raises(BadRequest):
        json_codec.from_json(pod_pb2.Pod, value)


def test_input_is_left_as_it_was() -> None:
    value = {"kind": "Pod", "spec": {"containers": [{"name": "a", "resources": {"limits": {"cpu": "1000m"}}}]}}
    before = orjson.dumps(value)
    json_codec.from_json(pod_pb2.Pod, value)
    assert orjson.dumps(value) == before


def test_null_means_unset_also_in_lists_and_maps() -> None:
    value = {
        "metadata": {"labels": {"a": None}, "finalizers": [None], "annotations": None, "deletionTimestamp": None},
        "spec": None,
    }
    pod = json_codec.from_json(pod_pb2.Pod, value)
    assert pod.metadata.labels == {"a": ""}
    assert pod.metadata.finalizers == [""]
    assert not pod.HasField("spec")
    assert not pod.metadata.HasField("deletionTimestamp")


def test_presence_of_an_empty_struct_behind_a_pointer_is_kept() -> None:
    pod = json_codec.from_json(pod_pb2.Pod, {"spec": {"volumes": [{"name": "v", "emptyDir": {}}]}})
    assert pod.spec.volumes[0].volumeSource.HasField("emptyDir")
    assert json_codec.to_json(pod)["spec"]["volumes"] == [{"name": "v", "emptyDir": {}}]


def test_pointer_that_is_zero_is_told_from_unset() -> None:
    zero = json_codec.from_json(apps_pb2.Deployment, {"spec": {"replicas": 0}})
    assert json_codec.to_json(zero)["spec"]["replicas"] == 0
    assert "replicas" not in json_codec.to_json(apps_pb2.Deployment())["spec"]


def test_empty_lists_are_null_except_items() -> None:
    assert json_codec.to_json(rbac_pb2.Role())["rules"] is None
    assert json_codec.to_json(pod_pb2.PodList())["items"] == []


def test_structs_without_pointer_are_written_though_empty() -> None:
    value = json_codec.to_json(service_pb2.Service())
    assert value == {
        "kind": "Service",
        "apiVersion": "v1",
        "metadata": {},
        "spec": {},
        "status": {"loadBalancer": {}},
    }


def test_special_forms() -> None:
    node = json_codec.from_json(
        node_pb2.Node,
        {
            "metadata": {"creationTimestamp": "2026-11-21T12:00:00.9+02:00"},
            "status": {"capacity": {"memory": "1024Ki", "cpu": 2, "pods": "1.5"}},
        },
    )
    value = json_codec.to_json(node)
    assert value["metadata"]["creationTimestamp"] == "2026-11-21T10:00:00Z"
    assert value["status"]["capacity"] == {"cpu": "2", "memory": "1Mi", "pods": "1500m"}
    port = {"spec": {"ports": [{"port": 80, "targetPort": "http"}, {"port": 81, "targetPort": 8080}]}}
    ports = json_codec.to_json(json_codec.from_json(service_pb2.Service, port))["spec"]["ports"]
    assert [port["targetPort"] for port in ports] == ["http", 8080]
    secret = json_codec.from_json(secret_pb2.Secret, {"data": {"b": "AP8=", "a": ""}})
    assert secret.data == {"a": b"", "b": b"\x00\xff"}
    assert list(json_codec.to_json(secret)["data"]) == ["a", "b"]


def test_base64_that_is_none_is_refused() -> None:
    with pytest.raises(BadRequest, match=r"data.a: illegal base64 data"):
        json_codec.from_json(secret_pb2.Secret, {"data": {"a": "!"}})


def test_epoch_is_a_time_and_the_zero_time_is_not() -> None:
    pod = json_codec.from_json(pod_pb2.Pod, {"metadata": {"deletionTimestamp": "1970-01-01T00:00:00Z"}})
    assert json_codec.to_json(pod)["metadata"]["deletionTimestamp"] == "1970-01-01T00:00:00Z"
    zero = json_codec.from_json(pod_pb2.Pod, {"metadata": {"creationTimestamp": "0001-01-01T00:00:00Z"}})
    assert "creationTimestamp" not in json_codec.to_json(zero)["metadata"]


def test_kinds_without_group_of_their_own_say_v1() -> None:
    status = meta_pb2.Status(status="Failure", code=404)
    assert json_codec.to_json(status) == {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "code": 404,
    }


def test_nesting_that_protobuf_could_not_read_back_is_refused() -> None:
    schema: dict[str, Any] = {"type": "object"}
    for _ in range(60):
        schema = {"properties": {"a": schema}}
    crd = {"spec": {"versions": [{"name": "v1", "schema": {"openAPIV3Schema": schema}}]}}
    with pytest.raises(BadRequest, match="exceeded max depth"):
        json_codec.from_json(apiextensions_pb2.CustomResourceDefinition, crd)


def test_deep_text_is_refused_when_read_strictly() -> None:
    text = b'{"x":' + b"[" * 400 + b"]" * 400 + b"}"
    with pytest.raises(BadRequest, match="exceeded max depth"):
        json_codec.loads(text, config_map_pb2.ConfigMap, strict=True)
    with pytest.raises(BadRequest):
        json_codec.loads(b"[" * 3000 + b"]" * 3000, config_map_pb2.ConfigMap)


def test_deep_raw_values_are_refused_not_fatal() -> None:
    value: Any = 1
    for _ in range(500):
        value = [value]
    with pytest.raises(BadRequest, match="exceeded max depth"):
        json_codec.from_json(apps_pb2.ControllerRevision, {"data": value})


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=3),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["metadata", "spec", "data", "name", "labels", "containers", "x"]), inner, max_size=3
            )
        ),
        max_leaves=8,
    )
)
@settings(max_examples=150, deadline=None)
def test_no_input_makes_anything_but_an_object_or_a_bad_request(value: Any) -> None:
    for cls in (pod_pb2.Pod, config_map_pb2.ConfigMap):
        try:
            message = json_codec.from_json(cls, value)
        except BadRequest:
            continue
        text = json_codec.dumps(message)
        assert json_codec.dumps(json_codec.loads(text, cls)) == text
