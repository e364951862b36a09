"""The slow road from JSON to a message: the same result as json_decode, with paths and words.

Taken when something is unusual. Unknown members go to the sink, wrong types raise DecodeError with
what Go's decoder would say, nulls count as absent.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import orjson
from google.protobuf.descriptor import Descriptor

from tiphys_apimachinery.codec import special
from tiphys_apimachinery.errors import BadRequest
from tiphys_apimachinery.field_error import quote
from tiphys_apimachinery.schema import (
    INT_RANGES,
    Field,
    Kind,
    fields_of,
    has_type_meta,
    only_field,
    part_of,
)


class DecodeError(ValueError):
    """A value does not fit its field; the message names path and value."""


# Source: sigs.k8s.io/json, which keeps as many strict errors.
_MOST_TOLD: Final = 100


@dataclass(slots=True)
class FieldSink:
    """Collects what strict reading objects to; paths are as in spec.containers[0].foo."""

    unknown: list[str] = field(default_factory=list)
    duplicate: list[str] = field(default_factory=list)

    def messages(self) -> list[str]:
        """One message a finding, as warnings and strict errors show them; of very many the first hundred."""
        found = [f"unknown field {quote(path)}" for path in self.unknown[:_MOST_TOLD]]
        return found + [f"duplicate field {quote(path)}" for path in self.duplicate[: _MOST_TOLD - len(found)]]


@dataclass(frozen=True, slots=True)
class _Place:
    """Where the walk is: the path with indices for the sink, without for Go's messages."""

    path: str
    go_path: str
    struct: str

    def member(self, name: str, struct: str) -> _Place:
        return _Place(_join(self.path, name), _join(self.go_path, name), struct)

    def item(self, index: int) -> _Place:
        return _Place(f"{self.path}[{index}]", self.go_path, self.struct)

    def key(self, name: str) -> _Place:
        return _Place(_join(self.path, name), self.go_path, self.struct)

    def mismatch(self, value: Any, go_type: str) -> DecodeError:
        target = f"Go struct field {self.struct}.{self.go_path}" if self.go_path else "Go value"
        return DecodeError(f"json: cannot unmarshal {_describe(value)} into {target} of type {go_type}")


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _describe(value: Any) -> str:
    """What Go calls the JSON value."""
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, str):
        return "string"
    if isinstance(value, (int, float)):
        return "number"
    return "array" if isinstance(value, list) else "object"


def decode_message(descriptor: Descriptor, value: Any, sink: FieldSink) -> dict[str, Any]:
    """Constructor's arguments for a message; raises DecodeError."""
    place = _Place("", "", "")
    if type(value) is not dict:
        raise place.mismatch(value, f"{descriptor.file.package.rpartition('.')[2]}.{descriptor.name}")
    try:
        return _struct(descriptor, value, place, sink)
    except RecursionError as error:
        raise DecodeError("exceeded max depth") from error


def _struct(descriptor: Descriptor, value: dict[str, Any], place: _Place, sink: FieldSink) -> dict[str, Any]:
    out: dict[str, Any] = {}
    taken: set[str] = {"kind", "apiVersion"} if has_type_meta(descriptor) else set()
    if taken:
        for name in ("kind", "apiVersion"):
            if not isinstance(value.get(name), str | None):
                raise place.member(name, descriptor.name).mismatch(value[name], "string")
    _fill(descriptor, value, place, _Target(out, taken, sink))
    sink.unknown.extend(_join(place.path, name) for name in value if name not in taken)
    return out


@dataclass(frozen=True, slots=True)
class _Target:
    out: dict[str, Any]
    taken: set[str]
    sink: FieldSink


def _fill(descriptor: Descriptor, value: dict[str, Any], place: _Place, target: _Target) -> None:
    for known in fields_of(descriptor):
        if known.is_inline and known.message is not None:
            inner: dict[str, Any] = {}
            _fill(known.message, value, place, _Target(inner, target.taken, target.sink))
            if inner:
                target.out[known.name] = inner
            continue
        target.taken.add(known.json)
        item = value.get(known.json)
        if item is not None:
            target.out[known.name] = _field(known, item, place.member(known.json, descriptor.name), target.sink)


def _field(known: Field, value: Any, place: _Place, sink: FieldSink) -> Any:
    if known.is_list:
        if type(value) is not list:
            raise place.mismatch(value, known.full_go_type)
        return [_value(known, item, place.item(index), sink) for index, item in enumerate(value)]
    if known.is_map:
        if type(value) is not dict:
            raise place.mismatch(value, known.full_go_type)
        return {key: _value(known, item, place.key(key), sink) for key, item in value.items()}
    return _value(known, value, place, sink)


# What null stands for inside a list or map: the zero value of the type.
_ZERO_VALUES: Final[dict[Kind, Any]] = {
    Kind.STRING: "",
    Kind.BOOL: False,
    Kind.INT: 0,
    Kind.FLOAT: 0.0,
    Kind.BYTES: b"",
}


def _value(known: Field, value: Any, place: _Place, sink: FieldSink) -> Any:
    if value is None:
        return _ZERO_VALUES.get(known.kind, {})
    if known.message is not None and known.kind is Kind.STRUCT:
        if type(value) is not dict:
            raise place.mismatch(value, known.go_type)
        return _struct(known.message, value, place, sink)
    return _CONVERTERS[known.kind](known, value, place, sink)


def _string(known: Field, value: Any, place: _Place, sink: FieldSink) -> str:
    if type(value) is not str:
        raise place.mismatch(value, "string")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise DecodeError(f"{place.path}: invalid UTF-8 in string") from error
    return value


def _bool(known: Field, value: Any, place: _Place, sink: FieldSink) -> bool:
    if type(value) is not bool:
        raise place.mismatch(value, "bool")
    return value


def _int(known: Field, value: Any, place: _Place, sink: FieldSink) -> int:
    low, high = INT_RANGES[known.go_type]
    if type(value) is int and low <= value <= high:
        return value
    if type(value) in (int, float):
        where = f"Go struct field {place.struct}.{place.go_path}"
        raise DecodeError(f"json: cannot unmarshal number {value} into {where} of type {known.go_type}")
    raise place.mismatch(value, known.go_type)


def _float(known: Field, value: Any, place: _Place, sink: FieldSink) -> float:
    if type(value) not in (int, float):
        raise place.mismatch(value, known.go_type)
    return float(value)


def _bytes(known: Field, value: Any, place: _Place, sink: FieldSink) -> bytes:
    if type(value) is not str:
        raise place.mismatch(value, "[]uint8")
    found: bytes = _named(place, special.decode_bytes, value)
    return found


def _text_value(convert: Callable[[str], Any]) -> Callable[[Field, Any, _Place, FieldSink], Any]:
    def run(known: Field, value: Any, place: _Place, sink: FieldSink) -> Any:
        if type(value) is not str:
            raise DecodeError(f"json: cannot unmarshal {_describe(value)} into Go value of type string")
        return _named(place, convert, value)

    return run


def _named(place: _Place, convert: Callable[[str], Any], value: str) -> Any:
    """The converted value; the path is added, which Go's own words lack."""
    try:
        return convert(value)
    except ValueError as error:
        raise DecodeError(f"{place.path}: {error}") from error


def _quantity(known: Field, value: Any, place: _Place, sink: FieldSink) -> dict[str, str]:
    try:
        return special.quantity_init(value)
    except ValueError as error:
        shown = quote(value) if isinstance(value, str) else str(value)
        raise DecodeError(f"{place.path}: {shown}: {error}") from error


def _int_or_string(known: Field, value: Any, place: _Place, sink: FieldSink) -> dict[str, Any]:
    if type(value) is int:
        low, high = INT_RANGES["int32"]
        if not low <= value <= high:
            raise place.mismatch(value, "int32")
    elif type(value) is not str:
        raise place.mismatch(value, "intstr.IntOrString")
    return special.int_or_string_init(value)


def _raw(known: Field, value: Any, place: _Place, sink: FieldSink) -> dict[str, bytes]:
    assert known.message is not None
    try:
        return {only_field(known.message): orjson.dumps(value)}
    except orjson.JSONEncodeError as error:
        raise DecodeError(f"{place.path}: exceeded max depth") from error


def _list_wrapper(known: Field, value: Any, place: _Place, sink: FieldSink) -> dict[str, list[str]]:
    assert known.message is not None
    if type(value) is not list:
        raise place.mismatch(value, known.go_type)
    return {only_field(known.message): [_string(known, item, place, sink) for item in value]}


def _schema_value(known: Field, value: Any, place: _Place, sink: FieldSink) -> dict[str, Any]:
    assert known.message is not None
    schema = part_of(known.message, "schema")
    if known.kind is Kind.SCHEMA_OR_BOOL and type(value) is bool:
        return {"allows": value}
    if known.kind is Kind.SCHEMA_OR_LIST and type(value) is list:
        return {"jSONSchemas": [_checked_schema(schema, item, place, sink) for item in value]}
    if known.kind is Kind.SCHEMA_OR_STRINGS and type(value) is list:
        return {"property": [_string(known, item, place, sink) for item in value]}
    found = {"schema": _checked_schema(schema, value, place, sink)}
    return {"allows": True, **found} if known.kind is Kind.SCHEMA_OR_BOOL else found


def _checked_schema(schema: Descriptor, value: Any, place: _Place, sink: FieldSink) -> dict[str, Any]:
    if type(value) is not dict:
        raise place.mismatch(value, "v1.JSONSchemaProps")
    return _struct(schema, value, place, sink)


_CONVERTERS: Final[dict[Kind, Callable[[Field, Any, _Place, FieldSink], Any]]] = {
    Kind.STRING: _string,
    Kind.BOOL: _bool,
    Kind.INT: _int,
    Kind.FLOAT: _float,
    Kind.BYTES: _bytes,
    Kind.TIME: _text_value(special.time_init),
    Kind.MICRO_TIME: _text_value(special.micro_time_init),
    Kind.DURATION: _text_value(lambda text: {"duration": special.parse_duration(text)}),
    Kind.QUANTITY: _quantity,
    Kind.INT_OR_STRING: _int_or_string,
    Kind.RAW: _raw,
    Kind.LIST_WRAPPER: _list_wrapper,
    Kind.SCHEMA_OR_BOOL: _schema_value,
    Kind.SCHEMA_OR_LIST: _schema_value,
    Kind.SCHEMA_OR_STRINGS: _schema_value,
}


def duplicate_members(data: bytes) -> list[str]:
    """Paths of members that the JSON text names twice; the text is valid JSON.

    Text that comes out the same when it is written again, as that of most clients does, names
    nothing twice, which some 15 µs tell; otherwise the reading costs some 30 µs a KB.
    """
    text = data.strip()
    try:
        if orjson.dumps(orjson.loads(text)) == text:
            return []
    except orjson.JSONEncodeError as error:
        # Writing goes less deep than reading; nothing of the API nests like this.
        raise BadRequest("json: exceeded max depth") from error
    return _DuplicateScan().scan(text)


class _DuplicateScan:
    """Reads with the standard library, whose hook sees each object's members with their repeats."""

    def __init__(self) -> None:
        self._repeats: dict[int, list[str]] = {}
        # The objects are held so that no id is used twice while the scan runs.
        self._held: list[dict[str, Any]] = []

    def scan(self, data: bytes) -> list[str]:
        value = json.loads(data, object_pairs_hook=self._hook)
        return list(self._paths(value, "")) if self._repeats else []

    def _hook(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            seen: set[str] = set()
            repeated: dict[str, None] = {}
            for name, _ in pairs:
                if name in seen:
                    repeated[name] = None
                seen.add(name)
            self._repeats[id(found)] = list(repeated)
            self._held.append(found)
        return found

    def _paths(self, value: Any, path: str) -> list[str]:
        found: list[str] = []
        if isinstance(value, dict):
            found += [_join(path, name) for name in self._repeats.get(id(value), ())]
            for name, item in value.items():
                found += self._paths(item, _join(path, name))
        elif isinstance(value, list):
            for index, item in enumerate(value):
                found += self._paths(item, f"{path}[{index}]")
        return found
