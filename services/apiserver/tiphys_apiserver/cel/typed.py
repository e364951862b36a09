"""JSON as its schema means it: a text with the format date-time is a timestamp for expressions, a number is a double.

Source: apiserver pkg/cel/common/values.go.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping
from typing import Any, Final

from tiphys_apimachinery.cel.library.standard import parse_duration, parse_timestamp
from tiphys_apimachinery.cel.syntax import CelError

Convert = Callable[[Any], Any]


def converter(schema: Mapping[str, Any]) -> Convert | None:
    """What converts values of a schema, not in place; None where all of them are what they seem."""
    if schema.get("x-kubernetes-int-or-string"):
        return None
    kind = schema.get("type")
    if kind == "number":
        return _double
    if kind == "string":
        return _BY_FORMAT.get(schema.get("format", ""))
    if kind == "array":
        items = schema.get("items")
        return _list(converter(items)) if isinstance(items, Mapping) else None
    parts = {name: made for name, part in (schema.get("properties") or {}).items() if (made := converter(part))}
    extra = schema.get("additionalProperties")
    rest = converter(extra) if isinstance(extra, Mapping) else None
    return _map(parts, rest) if parts or rest is not None else None


def _double(value: Any) -> Any:
    return float(value) if type(value) is int else value


def _text(read: Convert) -> Convert:
    def convert(value: Any) -> Any:
        try:
            return read(value) if isinstance(value, str) else value
        except (CelError, binascii.Error, ValueError):
            # That it has not its format is the schema's finding.
            return value

    return convert


_BY_FORMAT: Final[Mapping[str, Convert]] = {
    "date-time": _text(parse_timestamp),
    "date": _text(lambda text: parse_timestamp(f"{text}T00:00:00Z")),
    "duration": _text(parse_duration),
    "byte": _text(lambda text: base64.b64decode(text, validate=True)),
}


def _list(item: Convert | None) -> Convert | None:
    if item is None:
        return None
    return lambda value: [item(part) for part in value] if isinstance(value, list) else value


def _map(parts: Mapping[str, Convert], rest: Convert | None) -> Convert:
    def convert(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        found = dict(value)
        for name, part in value.items():
            made = parts.get(name, rest)
            if made is not None:
                found[name] = made(part)
        return found

    return convert
