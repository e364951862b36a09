"""What the codecs read from the descriptors, held against the published facts of every struct."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.descriptor import Descriptor

from tiphys_apimachinery.schema import Field, Kind, descriptor_of, fields_of, has_type_meta, message_kind
from tiphys_apimachinery.scheme import load_default

_FACTS = Path(__file__).parents[1] / "contracts" / "json"
_META = "k8s.io.apimachinery.pkg.apis.meta.v1"


def _reachable() -> dict[str, Descriptor]:
    """Every message of the kinds that are written member by member."""
    found: dict[str, Descriptor] = {}
    pending = [descriptor_of(kind.message) for kind in load_default().kinds() if kind.kind != "Unknown"]
    while pending:
        message = pending.pop()
        if message.full_name in found or message_kind(message) is not Kind.STRUCT:
            continue
        found[message.full_name] = message
        pending += [field.message for field in fields_of(message) if field.message is not None]
    return found


_MESSAGES = _reachable()


def _facts_of(message: Descriptor) -> dict[str, Any]:
    package: dict[str, Any] = json.loads((_FACTS / f"{message.file.package}.json").read_text())
    struct: dict[str, Any] = package["structs"][message.name]
    return struct


def _wanted(fact: dict[str, Any]) -> tuple[str, bool, str, bool]:
    presence = "omitzero" if fact.get("omitzero") else "omitempty" if fact.get("omitempty") else "always"
    name = fact.get("pbName", "") if fact.get("inline") else fact["json"]
    return name, bool(fact.get("inline")), presence, bool(fact.get("ptr"))


def _found(field: Field) -> tuple[str, bool, str, bool]:
    presence = "omitzero" if field.is_omitted_when_zero else "always" if field.is_always_written else "omitempty"
    return field.name if field.is_inline else field.json, field.is_inline, presence, field.is_pointer


def _shape(fact: dict[str, Any], field: Field) -> tuple[str, str]:
    # Some named list types are messages of their own in protobuf, others plain repeated fields.
    if fact["kind"] == "list" and field.kind is not Kind.LIST_WRAPPER:
        return "list", fact["elem"]["kind"]
    if fact["kind"] == "map":
        return "map", fact["value"]["kind"]
    return "", fact["kind"]


_KINDS = {
    Kind.STRING: {"string"},
    Kind.BOOL: {"bool"},
    Kind.INT: {"int32", "int64", "uint64", "uint32"},
    Kind.FLOAT: {"float64"},
    Kind.BYTES: {"bytes"},
    Kind.TIME: {"Time"},
    Kind.MICRO_TIME: {"MicroTime"},
    Kind.DURATION: {"Duration"},
    Kind.QUANTITY: {"Quantity"},
    Kind.INT_OR_STRING: {"IntOrString"},
    Kind.RAW: {"RawExtension", "FieldsV1", "JSON"},
    Kind.LIST_WRAPPER: {"list"},
    Kind.STRUCT: {"struct"},
    Kind.SCHEMA_OR_BOOL: {"struct", "JSONSchemaPropsOrBool"},
    Kind.SCHEMA_OR_LIST: {"struct", "JSONSchemaPropsOrArray"},
    Kind.SCHEMA_OR_STRINGS: {"struct", "JSONSchemaPropsOrStringArray"},
}


def test_every_kind_is_looked_at() -> None:
    assert len(_MESSAGES) > 500


@pytest.mark.parametrize("name", sorted(_MESSAGES))
def test_members_order_and_presence_are_those_of_go(name: str) -> None:
    message = _MESSAGES[name]
    facts = [fact for fact in _facts_of(message)["fields"] if fact.get("type") != f"{_META}.TypeMeta" or "pb" in fact]
    facts = [fact for fact in facts if "pb" in fact]
    fields = fields_of(message)
    for field, fact in zip(fields, facts, strict=True):
        wanted, found = _wanted(fact), _found(field)
        if field.is_inline:
            # The fields of an inline struct say for themselves whether they are written.
            assert found[:2] == wanted[:2]
        elif not field.is_singular or field.kind is Kind.BYTES:
            # A list can't be nil in protobuf, so that a pointer says nothing here.
            assert found[:3] == wanted[:3]
        else:
            assert found == wanted
        shape, kind = _shape(fact, field)
        assert (shape == "list", shape == "map") == (field.is_list, field.is_map), field.name
        assert kind in _KINDS[field.kind], field.name


@pytest.mark.parametrize("name", sorted(_MESSAGES))
def test_kind_and_api_version_are_read_where_go_has_them(name: str) -> None:
    message = _MESSAGES[name]
    inlined = any(fact.get("inline") and fact["go"] == "TypeMeta" for fact in _facts_of(message)["fields"])
    assert has_type_meta(message) == inlined
