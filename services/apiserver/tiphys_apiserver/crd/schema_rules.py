"""What makes a schema structural, and what one may not use. Pure.

Source: apiextensions pkg/apiserver/schema/validation.go and kubernetes.io's page on structural schemas.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import orjson

from tiphys_apimachinery.errors import FieldError
from tiphys_apiserver.cel import rule_schema
from tiphys_apiserver.crd import structural, validation

_TYPES: Final = frozenset({"object", "array", "string", "integer", "number", "boolean"})
_FORBIDDEN: Final = ("definitions", "dependencies", "patternProperties", "$ref", "id", "$schema", "additionalItems")
# What a schema inside of a logical word may not say, as it would shape the object.
_NOT_IN_LOGIC: Final = ("description", "type", "default", "additionalProperties", "nullable")
_LOGIC: Final = ("allOf", "anyOf", "oneOf")
_LIST_TYPES: Final = ("atomic", "set", "map")
_MAP_TYPES: Final = ("granular", "atomic")
_INT_OR_STRING: Final = ({"type": "integer"}, {"type": "string"})

JSON = Mapping[str, Any]


def schema_faults(schema: JSON, path: str) -> Iterator[FieldError]:
    """Every fault of a schema; path is that of the schema in its definition."""
    found = list(_structure(schema, path, is_root=True))
    yield from found
    if found:
        return
    try:
        validator = validation.compile_schema(schema)
    except (validation.BadPattern, ValueError) as err:
        yield FieldError.invalid(path, "<omitted>", f"can't be compiled: {err}")
        return
    del validator
    yield from _default_faults(schema, path)
    yield from rule_schema.rule_faults(schema, path)


def _structure(schema: JSON, path: str, *, is_root: bool = False) -> Iterator[FieldError]:
    for name in _FORBIDDEN:
        if schema.get(name):
            yield FieldError.forbidden(f"{path}.{name}", f"{name} is not supported")
    if schema.get("uniqueItems"):
        yield FieldError.forbidden(f"{path}.uniqueItems", "uniqueItems cannot be set to true since the runtime complexity becomes quadratic")  # fmt: skip  # noqa: E501
    yield from _type_faults(schema, path, is_root=is_root)
    yield from _extension_faults(schema, path)
    if schema.get("properties") and schema.get("additionalProperties") is not None:
        yield FieldError.forbidden(f"{path}.additionalProperties", "additionalProperties and properties are mutual exclusive")  # fmt: skip  # noqa: E501
    for name, part in (schema.get("properties") or {}).items():
        below = f"{path}.properties[{name}]"
        if is_root and name == "metadata":
            yield from _metadata_faults(part, below)
        else:
            yield from _structure(part, below)
    additional = schema.get("additionalProperties")
    if isinstance(additional, Mapping):
        yield from _structure(additional, f"{path}.additionalProperties")
    items = schema.get("items")
    if isinstance(items, list):
        yield FieldError.forbidden(f"{path}.items", "items must be a schema object and not an array")
    elif isinstance(items, Mapping):
        yield from _structure(items, f"{path}.items")
    elif schema.get("type") == "array":
        yield FieldError.required(f"{path}.items", "must be specified")
    yield from _logic_faults(schema, path)


def _type_faults(schema: JSON, path: str, *, is_root: bool) -> Iterator[FieldError]:
    kind = schema.get("type", "")
    is_free = schema.get("x-kubernetes-int-or-string") or schema.get("x-kubernetes-preserve-unknown-fields")
    if not kind and (is_root or not is_free):
        yield FieldError.required(f"{path}.type", "must not be empty for specified object fields" if not is_root else "must not be empty at the root")  # fmt: skip  # noqa: E501
    elif kind and kind not in _TYPES:
        yield FieldError.not_supported(f"{path}.type", kind, sorted(_TYPES))
    elif is_root and kind != "object":
        yield FieldError.invalid(f"{path}.type", kind, "must be object at the root")
    if kind and schema.get("x-kubernetes-int-or-string"):
        yield FieldError.invalid(f"{path}.type", kind, "must be empty if x-kubernetes-int-or-string is true")
    if is_root and schema.get("nullable"):
        yield FieldError.forbidden(f"{path}.nullable", "nullable cannot be true at the root")


def _extension_faults(schema: JSON, path: str) -> Iterator[FieldError]:
    kind = schema.get("type", "")
    if schema.get("x-kubernetes-embedded-resource"):
        if kind != "object":
            yield FieldError.invalid(f"{path}.type", kind, "must be object if x-kubernetes-embedded-resource is true")
        if not schema.get("properties") and not schema.get("x-kubernetes-preserve-unknown-fields"):
            yield FieldError.required(f"{path}.properties", "must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields")  # fmt: skip  # noqa: E501
    list_type = schema.get("x-kubernetes-list-type")
    if list_type is not None:
        if kind != "array":
            yield FieldError.invalid(f"{path}.type", kind, "must be array if x-kubernetes-list-type is specified")
        if list_type not in _LIST_TYPES:
            yield FieldError.not_supported(f"{path}.x-kubernetes-list-type", list_type, _LIST_TYPES)
    map_type = schema.get("x-kubernetes-map-type")
    if map_type is not None:
        if kind != "object":
            yield FieldError.invalid(f"{path}.type", kind, "must be object if x-kubernetes-map-type is specified")
        if map_type not in _MAP_TYPES:
            yield FieldError.not_supported(f"{path}.x-kubernetes-map-type", map_type, _MAP_TYPES)
    yield from _list_map_faults(schema, path)


def _list_map_faults(schema: JSON, path: str) -> Iterator[FieldError]:
    keys = schema.get("x-kubernetes-list-map-keys") or []
    is_map = schema.get("x-kubernetes-list-type") == "map"
    if keys and not is_map:
        yield FieldError.invalid(f"{path}.x-kubernetes-list-type", schema.get("x-kubernetes-list-type"), "must be map if x-kubernetes-list-map-keys is non-empty")  # fmt: skip  # noqa: E501
    if not is_map:
        return
    if not keys:
        yield FieldError.required(f"{path}.x-kubernetes-list-map-keys", "must not be empty if x-kubernetes-list-type is map")  # fmt: skip  # noqa: E501
    items = schema.get("items") or {}
    properties = items.get("properties") or {}
    for index, key in enumerate(keys):
        part = properties.get(key)
        if part is None:
            yield FieldError.invalid(f"{path}.x-kubernetes-list-map-keys[{index}]", key, "entries must all be names of item properties")  # fmt: skip  # noqa: E501
        elif key not in items.get("required", ()) and "default" not in part:
            yield FieldError.required(f"{path}.items.properties[{key}].default", "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property")  # fmt: skip  # noqa: E501


def _metadata_faults(schema: JSON, path: str) -> Iterator[FieldError]:
    if schema.get("type", "object") != "object":
        yield FieldError.invalid(f"{path}.type", schema.get("type"), "must be object")
    for name in schema.get("properties") or {}:
        if name not in ("name", "generateName"):
            yield FieldError.forbidden(f"{path}", "must not specify anything other than name and generateName, but metadata is implicitly specified")  # fmt: skip  # noqa: E501
            return


def _logic_faults(schema: JSON, path: str) -> Iterator[FieldError]:
    for name in _LOGIC:
        parts = schema.get(name) or []
        if schema.get("x-kubernetes-int-or-string") and all(part in _INT_OR_STRING for part in parts):
            continue
        for index, part in enumerate(parts):
            yield from _in_logic(part, schema, f"{path}.{name}[{index}]")
    if isinstance(schema.get("not"), Mapping):
        yield from _in_logic(schema["not"], schema, f"{path}.not")


def _in_logic(part: JSON, outer: JSON, path: str) -> Iterator[FieldError]:
    for name in _NOT_IN_LOGIC:
        if name in part and not (name == "type" and _is_int_or_string(part, outer)):
            yield FieldError.forbidden(f"{path}.{name}", "must be empty to be structural")
    for name, below in (part.get("properties") or {}).items():
        known = (outer.get("properties") or {}).get(name)
        if known is None and not outer.get("x-kubernetes-preserve-unknown-fields"):
            yield FieldError.required(f"{path}.properties[{name}]", "because it is defined in the logical junctor")
        else:
            yield from _in_logic(below, known or {}, f"{path}.properties[{name}]")
    for name in _LOGIC:
        for index, below in enumerate(part.get(name) or []):
            yield from _in_logic(below, outer, f"{path}.{name}[{index}]")


def _is_int_or_string(part: JSON, outer: JSON) -> bool:
    return bool(outer.get("x-kubernetes-int-or-string")) and part in _INT_OR_STRING


def _default_faults(schema: JSON, path: str) -> Iterator[FieldError]:
    """Defaults must fit their own schema, and nothing of them may be pruned."""
    if "default" in schema:
        unknown: list[str] = []
        node = structural.build(schema)
        structural.prune(node, schema["default"], "", unknown)
        for name in unknown:
            yield FieldError.invalid(f"{path}.default", orjson.dumps(schema["default"]).decode(), f"must not have unknown fields: {name}")  # fmt: skip  # noqa: E501
        filled = orjson.loads(orjson.dumps(schema["default"]))
        structural.fill(node, filled)
        for fault in validation.check(validation.compile_schema(schema), filled):
            below = f".{fault.path}" if fault.path else ""
            yield FieldError(f"{path}.default{below}", fault.type, fault.value, fault.detail)
    for name, part in (schema.get("properties") or {}).items():
        yield from _default_faults(part, f"{path}.properties[{name}]")
    for name in ("items", "additionalProperties"):
        if isinstance(schema.get(name), Mapping):
            yield from _default_faults(schema[name], f"{path}.{name}")
