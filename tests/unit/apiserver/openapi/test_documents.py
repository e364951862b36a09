"""OpenAPI: what kubectl looks for in it, and that every pointer in it leads somewhere."""

from __future__ import annotations

import re
from typing import Any

import orjson
import pytest

from tiphys.thirdparty.openapi.v2 import openapi_pb2
from tiphys_apimachinery.scheme import load_default
from tiphys_apiserver.openapi import v2, v3
from tiphys_apiserver.openapi.schemas import load_comments
from tiphys_apiserver.openapi.service import OpenAPIService, kinds_of

RELEASE = "v1.34.0"


@pytest.fixture(scope="module")
def whole() -> dict[str, Any]:
    scheme = load_default()
    return v2.document(scheme.resources(), kinds_of(scheme), load_comments(), release=RELEASE)


def document(group: str, version: str) -> dict[str, Any]:
    scheme = load_default()
    return v3.document(
        group, version, scheme.resources(), kinds=kinds_of(scheme), comments=load_comments(), release=RELEASE
    )


def pointers(text: bytes) -> set[str]:
    return {found.decode() for found in re.findall(rb'"\$ref":"#/(?:definitions|components/schemas)/([^"]+)"', text)}


def test_A41_every_pointer_of_version_2_is_defined(whole: dict[str, Any]) -> None:
    assert pointers(orjson.dumps(whole)) <= set(whole["definitions"])


@pytest.mark.parametrize(("group", "version"), sorted({(r.group, r.version) for r in load_default().resources()}))
def test_A41_every_pointer_of_version_3_is_defined(group: str, version: str) -> None:
    found = document(group, version)
    assert pointers(orjson.dumps(found)) <= set(found["components"]["schemas"])
    assert found["paths"]


def test_deployment_has_its_kind_and_its_words(whole: dict[str, Any]) -> None:
    found = whole["definitions"]["io.k8s.api.apps.v1.Deployment"]
    assert found["x-kubernetes-group-version-kind"] == [{"group": "apps", "kind": "Deployment", "version": "v1"}]
    assert found["description"]
    assert set(found["properties"]) == {"apiVersion", "kind", "metadata", "spec", "status"}


def test_merge_keys_are_where_clients_look(whole: dict[str, Any]) -> None:
    ports = whole["definitions"]["io.k8s.api.core.v1.Container"]["properties"]["ports"]
    assert ports["x-kubernetes-patch-merge-key"] == "containerPort"
    assert ports["x-kubernetes-list-map-keys"] == ["containerPort", "protocol"]


def test_inlined_members_stand_in_place(whole: dict[str, Any]) -> None:
    volume = whole["definitions"]["io.k8s.api.core.v1.Volume"]
    assert "emptyDir" in volume["properties"]
    assert volume["required"] == ["name"]


def test_special_types_are_what_their_json_is(whole: dict[str, Any]) -> None:
    definitions = whole["definitions"]
    assert definitions["io.k8s.apimachinery.pkg.api.resource.Quantity"]["type"] == "string"
    assert definitions["io.k8s.apimachinery.pkg.apis.meta.v1.Time"]["format"] == "date-time"


def test_A32_patch_says_that_it_takes_field_validation() -> None:
    patch = document("apps", "v1")["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"]
    assert "fieldValidation" in {p["name"] for p in patch["parameters"]}
    assert patch["x-kubernetes-group-version-kind"]["kind"] == "Deployment"


def test_operation_ids_are_unique() -> None:
    for resource_group in {(r.group, r.version) for r in load_default().resources()}:
        paths = document(*resource_group)["paths"].values()
        ids = [o["operationId"] for item in paths for m, o in item.items() if m != "parameters"]
        assert len(ids) == len(set(ids))


def test_protobuf_form_says_the_same(whole: dict[str, Any]) -> None:
    message = openapi_pb2.Document.FromString(v2.to_protobuf(whole))
    names = {d.name for d in message.definitions.additional_properties}
    assert names == set(whole["definitions"])
    assert {p.name for p in message.paths.path} == set(whole["paths"])


async def test_documents_are_built_once() -> None:
    service = OpenAPIService(load_default(), release=RELEASE)
    assert await service.v3("apps", "v1") is await service.v3("apps", "v1")
    index = orjson.loads(await service.v3_index())
    assert index["paths"]["apis/apps/v1"]["serverRelativeURL"].startswith("/openapi/v3/apis/apps/v1?hash=")
    with pytest.raises(KeyError):
        await service.v3("nope", "v1")
