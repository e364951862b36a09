"""What is known of a value before there is one: its type, its schema, how large it can be. Pure.

Sizes are those that a request of 3 MiB can hold where the schema does not say less. Source: apiserver pkg/cel,
SchemaDeclType and estimateMaxSizeJSON.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

MAX_REQUEST: Final = 3 * 1024 * 1024
_FORMATTED: Final = {"date-time": "timestamp", "date": "timestamp", "duration": "duration", "byte": "bytes"}
_IMPLICIT: Final = ("apiVersion", "kind", "metadata")
_TEXT: Final[Mapping[str, Any]] = {"type": "string"}
_NAME: Final[Mapping[str, Any]] = {"type": "string", "maxLength": 253}
_METADATA: Final[Mapping[str, Any]] = {"type": "object", "properties": {"name": _NAME, "generateName": _NAME}}


@dataclass(frozen=True, slots=True)
class Static:
    """kind is a word of the function tables, dyn where nothing is known; size counts characters or items."""

    kind: str
    size: int = MAX_REQUEST
    schema: Mapping[str, Any] | None = None
    # Of a list or map without schema.
    item: Static | None = None


DYN: Final = Static("dyn")
BOOL: Final = Static("bool", 1)
INT: Final = Static("int", 1)
STRING: Final = Static("string")


def of_schema(schema: Mapping[str, Any]) -> Static:
    """What a schema says of its values."""
    if schema.get("x-kubernetes-int-or-string"):
        return DYN
    kind = schema.get("type", "")
    if kind == "string":
        limit = schema.get("maxLength", MAX_REQUEST - 2)
        if schema.get("enum"):
            limit = max(len(str(option)) for option in schema["enum"])
        return Static(_FORMATTED.get(schema.get("format", ""), "string"), limit, schema)
    if kind == "array":
        return Static("list", schema.get("maxItems", _most(schema.get("items") or {})), schema)
    if kind == "object":
        return _of_object(schema)
    return {"integer": INT, "boolean": BOOL, "number": Static("double", 1)}.get(kind, DYN)


def _of_object(schema: Mapping[str, Any]) -> Static:
    extra = schema.get("additionalProperties")
    if isinstance(extra, Mapping) and not schema.get("properties"):
        return Static("map", schema.get("maxProperties", _most(extra, key=4)), schema)
    if schema.get("x-kubernetes-preserve-unknown-fields") and not schema.get("properties"):
        return Static("dyn", MAX_REQUEST)
    return Static("object", len(schema.get("properties") or ()), schema)


def _most(item: Mapping[str, Any], key: int = 0) -> int:
    """How many such items a request can hold."""
    return MAX_REQUEST // (least_size(item) + 1 + key)


def least_size(schema: Mapping[str, Any]) -> int:
    """Bytes of the smallest JSON that fits."""
    kind = schema.get("type", "")
    if kind == "string":
        return 2 + int(schema.get("minLength", 0))
    if kind == "boolean":
        return 4
    if kind == "object":
        properties = schema.get("properties") or {}
        needed = [name for name in schema.get("required") or () if name in properties]
        return 2 + sum(len(name) + 4 + least_size(properties[name]) for name in needed)
    return 2 if kind == "array" else 1


def member(of: Static, name: str) -> Static | None:
    """What is known of a field; None where there can be none."""
    if of.kind == "map":
        return item_of(of)
    if of.kind != "object" or of.schema is None:
        return DYN
    properties = of.schema.get("properties") or {}
    if name in properties:
        part = properties[name]
        return of_schema({**_METADATA, **part} if name == "metadata" and _is_whole(of.schema) else part)
    if name in _IMPLICIT and _is_whole(of.schema):
        return of_schema(_METADATA if name == "metadata" else _TEXT)
    return None


def _is_whole(schema: Mapping[str, Any]) -> bool:
    return bool(schema.get("x-kubernetes-embedded-resource") or schema.get("@root"))


def item_of(of: Static) -> Static:
    """What is known of the items of a list, or the values of a map."""
    if of.item is not None:
        return of.item
    if of.schema is None:
        return DYN
    below = of.schema.get("items" if of.kind == "list" else "additionalProperties")
    return of_schema(below) if isinstance(below, Mapping) else DYN
