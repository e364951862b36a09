"""Documents of version 2 put behind each other: what is taken of another server's, and under which names."""

from __future__ import annotations

from typing import Any

import orjson

from tiphys.thirdparty.openapi.v2 import openapi_pb2
from tiphys_apiserver.openapi import merge, v2

HEAD = {"swagger": "2.0", "info": {"title": "t", "version": "1"}}
OWN: dict[str, Any] = {**HEAD, "paths": {"/a": {}}, "definitions": {"A": {"type": "object"}}}


def pointer(name: str) -> dict[str, str]:
    return {"$ref": f"#/definitions/{name}"}


def answer(name: str) -> dict[str, Any]:
    return {"get": {"responses": {"200": {"description": "OK", "schema": pointer(name)}}}}


OTHER: dict[str, Any] = {
    "paths": {
        "/apis/b.io/v1/things": answer("A"),
        "/apis/b.io/v1beta1/things": answer("Old"),
        "/apis/b.io": answer("Group"),
    },
    "definitions": {
        "A": {"type": "string", "properties": {"c": pointer("C"), "m": pointer("io.k8s.apimachinery.M")}},
        "C": {"type": "array", "items": pointer("A")},
        "Old": {},
        "io.k8s.apimachinery.M": {"type": "object"},
    },
}


def test_A41_only_what_belongs_to_the_group_versions_is_taken() -> None:
    found = merge.of_places(OTHER, [("b.io", "v1")], {})
    assert list(found["paths"]) == ["/apis/b.io/v1/things"]
    assert set(found["definitions"]) == {"A", "C", "io.k8s.apimachinery.M"}


def test_A41_definitions_of_one_name_and_other_content_are_told_apart() -> None:
    known = {**OWN["definitions"], "io.k8s.apimachinery.M": {"type": "object", "description": "ours"}}
    found = merge.of_places(OTHER, [("b.io", "v1")], known)
    assert set(found["definitions"]) == {"A_v2", "C"}
    assert found["definitions"]["C"]["items"] == pointer("A_v2")
    assert found["definitions"]["A_v2"]["properties"]["m"] == pointer("io.k8s.apimachinery.M")
    shown = found["paths"]["/apis/b.io/v1/things"]["get"]["responses"]["200"]["schema"]
    assert shown == pointer("A_v2")
    # The same content needs no other name.
    assert merge.of_places(OTHER, [("b.io", "v1")], OTHER["definitions"])["definitions"] == {}


def test_A41_additions_come_behind_in_both_forms() -> None:
    added = merge.of_places(OTHER, [("b.io", "v1")], OWN["definitions"])
    nothing = {**HEAD, "paths": {}, "definitions": {}}
    document = orjson.loads(merge.append_json(orjson.dumps(OWN), [nothing, added]))
    assert list(document["paths"]) == ["/a", "/apis/b.io/v1/things"]
    assert set(document["definitions"]) == {"A", "A_v2", "C", "io.k8s.apimachinery.M"}
    local = v2.to_protobuf(OWN)
    read = openapi_pb2.Document.FromString(merge.append_protobuf(local, [nothing, added]))
    assert [item.name for item in read.paths.path] == list(document["paths"])
    assert set(merge.definitions_of(local)) == {"A"}
