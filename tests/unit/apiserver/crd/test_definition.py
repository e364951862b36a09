"""What a definition must say, and whose names it may have."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from tiphys.api.apiextensions.v1.apiextensions_pb2 import CustomResourceDefinition
from tiphys_apimachinery.codec import json_codec
from tiphys_apimachinery.meta import is_condition_true
from tiphys_apiserver.crd import definition, names

_NOW = datetime(2030, 1, 1, tzinfo=UTC)


def _crd(plural: str = "crontabs", kind: str = "CronTab", **spec: Any) -> Any:
    schema = {"openAPIV3Schema": {"type": "object", "properties": {"spec": {"type": "object"}}}}
    made: Any = json_codec.from_json(
        CustomResourceDefinition,
        {
            "metadata": {"name": f"{plural}.example.com"},
            "spec": {
                "group": "example.com",
                "scope": "Namespaced",
                "names": {"plural": plural, "kind": kind},
                "versions": [{"name": "v1", "served": True, "storage": True, "schema": schema}],
                **spec,
            },
        },
    )
    definition.default(made)
    return made


def _with_schema(schema: dict[str, Any], **version: Any) -> Any:
    whole = {"type": "object", "properties": {"spec": schema}}
    made = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": whole}, **version}
    return _crd(versions=[made])


def test_names_follow_from_the_kind() -> None:
    assert (_crd().spec.names.singular, _crd().spec.names.listKind) == ("crontab", "CronTabList")
    assert list(definition.faults(_crd())) == []


def _rename(crd: Any) -> None:
    crd.metadata.name = "others.example.com"


def _second_storage(crd: Any) -> None:
    crd.spec.versions.add().CopyFrom(crd.spec.versions[0])
    crd.spec.versions[1].name = "v2"


def _no_schema(crd: Any) -> None:
    crd.spec.versions[0].ClearField("schema")


def _protected(crd: Any) -> None:
    crd.spec.group = "example.k8s.io"
    crd.metadata.name = "crontabs.example.k8s.io"


def _bad_short_name(crd: Any) -> None:
    crd.spec.names.shortNames.append("Not A Name")


@pytest.mark.parametrize(
    ("change", "path"),
    [
        pytest.param(_rename, "metadata.name", id="name is not plural and group"),
        pytest.param(_second_storage, "spec.versions", id="two stored versions"),
        pytest.param(_no_schema, "spec.versions[0].schema.openAPIV3Schema", id="no schema"),
        pytest.param(_protected, "metadata.annotations[api-approved.kubernetes.io]", id="protected group"),
        pytest.param(_bad_short_name, "spec.names.shortNames[0]", id="short name"),
    ],
)
def test_A37_a_faulty_definition_is_refused(change: Callable[[Any], None], path: str) -> None:
    crd = _crd()
    change(crd)
    assert {fault.path for fault in definition.faults(crd)} == {path}


@pytest.mark.parametrize(
    ("schema", "path"),
    [
        pytest.param({}, ".type", id="no type"),
        pytest.param({"type": "thing"}, ".type", id="unknown type"),
        pytest.param({"type": "array"}, ".items", id="list without items"),
        pytest.param({"type": "object", "$ref": "#/a"}, ".$ref", id="reference"),
        pytest.param(
            {"type": "object", "properties": {}, "x-kubernetes-list-type": "set"}, ".type", id="list type of an object"
        ),
        pytest.param(
            {"type": "object", "anyOf": [{"type": "object"}]}, ".anyOf[0].type", id="type inside of a logical word"
        ),
        pytest.param(
            {"type": "object", "anyOf": [{"properties": {"a": {"minimum": 1}}}]},
            ".anyOf[0].properties[a]",
            id="member that only a logical word names",
        ),
        pytest.param({"type": "integer", "default": "x"}, ".default", id="default that does not fit"),
        pytest.param(
            {
                "type": "array",
                "items": {"type": "object", "properties": {"a": {"type": "string"}}},
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["a"],
            },
            ".items.properties[a].default",
            id="key that may be absent",
        ),
    ],
)
def test_A37_a_schema_that_is_not_structural_is_refused(schema: dict[str, Any], path: str) -> None:
    base = "spec.versions[0].schema.openAPIV3Schema.properties[spec]"
    assert base + path in {fault.path for fault in definition.faults(_with_schema(schema))}


def test_A22_a_selectable_field_must_be_plain() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "object"}}}
    fields = [{"jsonPath": ".spec.a"}, {"jsonPath": ".spec.b"}, {"jsonPath": ".spec.c"}, {"jsonPath": ""}]
    found = [fault.path for fault in definition.faults(_with_schema(schema, selectableFields=fields))]
    assert found == [f"spec.versions[0].selectableFields[{index}].jsonPath" for index in (1, 2, 3)]


def _accepted(crd: Any) -> Any:
    names.settle(crd, names.Verdict(), _NOW)
    return crd


def test_A37_free_names_are_accepted() -> None:
    crd = _crd()
    verdict = names.judge(crd, [_accepted(_crd("others", "Other")), _accepted(_crd())])
    names.settle(crd, verdict, _NOW)
    assert is_condition_true(crd.status.conditions, "Established")
    assert crd.status.acceptedNames == crd.spec.names


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        pytest.param(
            _crd("crons", names={"plural": "crons", "singular": "cron", "kind": "CronTab"}), "KindConflict", id="kind"
        ),
        pytest.param(_crd("crons", "Crontabs"), "PluralConflict", id="plural is another's singular"),
    ],
)
def test_A37_a_name_in_use_is_not_accepted(other: Any, reason: str) -> None:
    crd = _crd()
    verdict = names.judge(crd, [_accepted(other)])
    names.settle(crd, verdict, _NOW)
    assert verdict.reason == reason
    assert not is_condition_true(crd.status.conditions, "Established")
    assert not crd.status.acceptedNames.plural


def test_stored_versions_are_remembered() -> None:
    crd = _crd()
    definition.remember_stored(crd)
    crd.spec.versions[0].name = "v2"
    definition.remember_stored(crd)
    assert list(crd.status.storedVersions) == ["v1", "v2"]
    assert [fault.path for fault in definition.update_faults(crd, crd)] == ["status.storedVersions[0]"]
