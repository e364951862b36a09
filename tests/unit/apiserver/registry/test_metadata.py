"""Rules of metadata that hold for every kind."""

from __future__ import annotations

from typing import Any

import pytest

from tiphys.api.apps.v1 import apps_pb2
from tiphys.api.meta.v1 import meta_pb2
from tiphys_apimachinery.errors import BadRequest
from tiphys_apiserver.registry import metadata
from tiphys_apiserver.registry.differences import settle


def owner(name: str = "o", *, controller: bool = False, **changes: str) -> meta_pb2.OwnerReference:
    made = meta_pb2.OwnerReference(apiVersion="v1", kind="Pod", name=name, uid="u", controller=controller)
    for field, value in changes.items():
        setattr(made, field, value)
    return made


FAULTS = [
    pytest.param({"labels": {"a b": "c"}}, 'metadata.labels: Invalid value: "a b"', id="label key"),
    pytest.param({"labels": {"a": "c d"}}, 'metadata.labels: Invalid value: "c d"', id="label value"),
    pytest.param({"annotations": {"a b": ""}}, 'metadata.annotations: Invalid value: "a b"', id="annotation key"),
    pytest.param({"annotations": {"a": "x" * 300_000}}, "metadata.annotations: Too long", id="annotations too long"),
    pytest.param({"finalizers": ["a b"]}, 'metadata.finalizers: Invalid value: "a b"', id="finalizer"),
    pytest.param({"finalizers": ["orphan", "foregroundDeletion"]}, "cannot be both set", id="both propagations"),
    pytest.param({"ownerReferences": [owner(uid="")]}, "metadata.ownerReferences.uid", id="owner without uid"),
    pytest.param(
        {"ownerReferences": [owner("a", controller=True), owner("b", controller=True)]},
        'Only one reference can have Controller set to true. Found "true" in references for Pod/a and Pod/b',
        id="two controllers",
    ),
]


@pytest.mark.parametrize(("fields", "message"), FAULTS)
def test_faults(fields: dict[str, Any], message: str) -> None:
    errors = metadata.validate_metadata(meta_pb2.ObjectMeta(name="a", **fields))
    assert message in "; ".join(str(error) for error in errors)


def test_good_metadata_has_no_faults() -> None:
    good = meta_pb2.ObjectMeta(
        labels={"example.com/a": "b"},
        annotations={"Example.com/A": "anything at all"},
        finalizers=["example.com/f"],
        ownerReferences=[owner("a", controller=True), owner("b")],
    )
    assert metadata.validate_metadata(good) == []


def test_namespace_of_the_request_is_the_objects() -> None:
    made = meta_pb2.ObjectMeta()
    metadata.match_namespace(made, "a")
    assert made.namespace == "a"
    with pytest.raises(BadRequest, match="does not match the namespace sent on the request"):
        metadata.match_namespace(made, "b")


def test_name_must_be_that_of_the_path() -> None:
    metadata.match_name(meta_pb2.ObjectMeta(name="a"), "a", "")
    with pytest.raises(BadRequest, match=r"\(b\) does not match the name on the URL \(a\)"):
        metadata.match_name(meta_pb2.ObjectMeta(name="b"), "a", "")
    with pytest.raises(BadRequest, match="undeterminable"):
        metadata.match_name(meta_pb2.ObjectMeta(), "a", "")


def deployment(**spec: Any) -> Any:
    made: Any = apps_pb2.Deployment()
    made.metadata.name = "d"
    made.metadata.generation = 1
    made.spec.replicas = 1
    for name, value in spec.items():
        setattr(made.spec, name, value)
    return made


def test_part_that_only_looks_different_is_no_change() -> None:
    old, new = deployment(), deployment()
    new.spec.template.spec.SetInParent()
    new.spec.strategy.SetInParent()
    new.status.SetInParent()
    assert new != old
    assert settle(new, old) == []
    assert new == old


def test_generation_rises_with_the_spec_only() -> None:
    old, new = deployment(), deployment(replicas=2)
    assert settle(new, old) == ["spec"]
    metadata.raise_generation(new, old, ["spec"])
    assert new.metadata.generation == 2
    same = deployment()
    same.status.replicas = 4
    same.metadata.labels["a"] = "b"
    assert settle(same, old) == ["metadata", "status"]
    metadata.raise_generation(same, old, ["metadata", "status"])
    assert same.metadata.generation == 1
