"""Message to plain JSON values, by a function compiled from the descriptor for each message.

A compiled function reads the fields one after another in Go's order. What it calls for its parts are
names in the compiler's namespace; a name is first bound to a stub, which compiles the part when it
is called and takes its own place, so kinds that nobody writes cost nothing.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any, Final

import orjson
from google.protobuf.descriptor import Descriptor

from tiphys_apimachinery.codec import special
from tiphys_apimachinery.schema import (
    Field,
    Kind,
    descriptor_of,
    fields_of,
    is_union,
    message_kind,
    only_field,
    part_of,
)

Encode = Callable[[Any], Any]

_ENVELOPE: Final = b"k8s\x00"
# Kinds whose JSON form is read from the message's value by one expression.
_EXPRESSIONS: Final = {
    Kind.STRING: "{v}",
    Kind.BOOL: "{v}",
    Kind.INT: "{v}",
    Kind.FLOAT: "_float({v})",
    Kind.BYTES: "_bytes({v})",
    Kind.TIME: "_time({v})",
    Kind.MICRO_TIME: "_micro_time({v})",
    Kind.DURATION: "_duration({v}.duration)",
    Kind.QUANTITY: "_quantity({v}.string)",
    Kind.INT_OR_STRING: "({v}.strVal if {v}.type else {v}.intVal)",
}
_EMPTY: Final = {
    Kind.STRING: "''",
    Kind.BOOL: "False",
    Kind.INT: "0",
    Kind.FLOAT: "0",
    Kind.BYTES: "None",
    Kind.TIME: "None",
    Kind.MICRO_TIME: "None",
    Kind.DURATION: "'0s'",
    Kind.QUANTITY: "'0'",
    Kind.INT_OR_STRING: "0",
    Kind.RAW: "None",
    Kind.LIST_WRAPPER: "None",
    Kind.SCHEMA_OR_BOOL: "False",
    Kind.SCHEMA_OR_LIST: "None",
    Kind.SCHEMA_OR_STRINGS: "None",
}


class EncoderCompiler:
    """Makes and keeps the encoders of one process; `raw` says what becomes of a raw JSON value."""

    def __init__(self, raw: Callable[[bytes], Any]) -> None:
        self._namespace: dict[str, Any] = {
            "_float": _float,
            "_bytes": special.encode_bytes,
            "_time": _time,
            "_micro_time": _micro_time,
            "_duration": special.duration_text,
            "_quantity": special.quantity_text,
            "_index": _index,
        }
        self._namespace["_namespace"] = self._namespace
        self._raw = raw

    def encoder(self, descriptor: Descriptor) -> Encode:
        """The function that turns a message of this type into JSON, without apiVersion and kind."""
        name = _function_name(descriptor)
        found = self._namespace.get(name)
        if found is None or isinstance(found, functools.partial):
            found = self._namespace[name] = self._compile(descriptor, name)
        encode: Encode = found
        return encode

    def _reference(self, descriptor: Descriptor) -> str:
        """The part's name, bound to its function or to a stub."""
        name = _function_name(descriptor)
        if name not in self._namespace:
            self._namespace[name] = functools.partial(_compile_and_call, self, descriptor)
        return name

    def _compile(self, descriptor: Descriptor, name: str) -> Encode:
        kind = message_kind(descriptor)
        if kind is not Kind.STRUCT:
            return self._special(descriptor, kind)
        if is_union(descriptor):
            body = self._union("m", "d", descriptor)
        else:
            body = [line for field in fields_of(descriptor) for line in self._field(field, "m")]
        source = "\n    ".join([f"def {name}(m):", "d = {}", *body, "return d"])
        code = compile(source, f"<encoder of {descriptor.full_name}>", "exec")
        exec(code, self._namespace)
        encode: Encode = self._namespace[name]
        return encode

    def _field(self, field: Field, owner: str) -> Iterator[str]:
        value = f"{owner}.{field.name}" if field.name.isidentifier() else f"getattr({owner}, {field.name!r})"
        if field.name in _KEYWORDS:
            value = f"getattr({owner}, {field.name!r})"
        if field.is_inline and field.message is not None:
            inner = f"i_{field.name}"
            yield f"{inner} = {value}"
            if is_union(field.message):
                yield from self._union(inner, "d", field.message)
                return
            for part in fields_of(field.message):
                yield from self._field(part, inner)
            return
        target = f"d[{field.json!r}]"
        if field.is_list or field.is_map:
            yield f"v = {value}"
            yield f"if v: {target} = {self._collection(field)}"
            if field.is_always_written:
                yield f"else: {target} = {'[]' if field.json == 'items' else 'None'}"
        elif field.message is None:
            yield from self._scalar(field, owner, value, target)
        else:
            yield from self._struct(field, owner, value, target)

    def _union(self, owner: str, target: str, descriptor: Descriptor) -> list[str]:
        """Lines for a message of which one member or another is set: asks upb which, not each in turn."""
        table = f"u_{_function_name(descriptor)}"
        self._namespace[table] = {
            field.name: (field.json, self._reference(field.message))
            for field in fields_of(descriptor)
            if field.message is not None
        }
        return [
            f"p = {owner}.ListFields()",
            "if len(p) > 1: p.sort(key=_index)",
            "for f, v in p:",
            f"    n, e = {table}[f.name]",
            f"    {target}[n] = _namespace[e](v)",
        ]

    def _scalar(self, field: Field, owner: str, value: str, target: str) -> Iterator[str]:
        text = _EXPRESSIONS[field.kind]
        if field.is_pointer or field.kind is Kind.BYTES:
            present = f"{owner}.HasField({field.name!r})"
            written = f"{target} = {text.format(v=value)}"
            if field.kind is Kind.BYTES and not field.is_always_written:
                yield f"if {value}: {written}"
                return
            yield f"if {present}: {written}"
            if field.is_always_written:
                yield f"else: {target} = None"
        elif field.is_always_written:
            yield f"{target} = {text.format(v=value)}"
        else:
            yield f"v = {value}"
            yield f"if v: {target} = {text.format(v='v')}"

    def _struct(self, field: Field, owner: str, value: str, target: str) -> Iterator[str]:
        present = f"{owner}.HasField({field.name!r})"
        if field.kind is Kind.LIST_WRAPPER and not field.is_always_written:
            yield f"v = {self._item(field, value)}"
            yield f"if v: {target} = v"
        elif field.is_pointer:
            yield f"if {present}: {target} = {self._item(field, value)}"
            if field.is_always_written:
                yield f"else: {target} = None"
        elif field.is_omitted_when_zero:
            yield f"if {present}:"
            yield f"    v = {self._item(field, value)}"
            yield f"    if v is not None and v != {self._empty(field)}: {target} = v"
        else:
            yield f"{target} = {self._item(field, value)} if {present} else {self._empty(field)}"

    def _item(self, field: Field, value: str) -> str:
        """Expression for one value of the field's kind."""
        text = _EXPRESSIONS.get(field.kind)
        if text is not None:
            return text.format(v=value)
        assert field.message is not None
        return f"{self._reference(field.message)}({value})"

    def _collection(self, field: Field) -> str:
        if field.is_map:
            return f"{{k: {self._item(field, 'v[k]')} for k in sorted(v)}}"
        if field.kind in (Kind.STRING, Kind.BOOL, Kind.INT):
            return "list(v)"
        return f"[{self._item(field, 'x')} for x in v]"

    def _empty(self, field: Field) -> str:
        """Literal of what an unset struct looks like."""
        text = _EMPTY.get(field.kind)
        if text is not None:
            return text
        assert field.message is not None
        return repr(self._empty_struct(field.message))

    def _empty_struct(self, descriptor: Descriptor) -> dict[str, Any]:
        """Plain JSON of a message without any field set; such values have no structs without end."""
        empty: dict[str, Any] = {}
        for field in fields_of(descriptor):
            if field.is_inline and field.message is not None:
                empty.update(self._empty_struct(field.message))
            elif field.is_list or field.is_map:
                if field.is_always_written:
                    empty[field.json] = [] if field.json == "items" else None
            elif field.is_pointer:
                if field.is_always_written:
                    empty[field.json] = None
            elif field.kind is Kind.LIST_WRAPPER and not field.is_always_written:
                continue
            elif field.kind is Kind.STRUCT and not field.is_omitted_when_zero:
                assert field.message is not None
                empty[field.json] = self._empty_struct(field.message)
            elif field.is_always_written or (field.message is not None and not field.is_omitted_when_zero):
                empty[field.json] = _EMPTY_VALUES[_EMPTY[field.kind]]
        return empty

    def _special(self, descriptor: Descriptor, kind: Kind) -> Encode:
        if kind is Kind.RAW:
            return functools.partial(_encode_raw, self._raw, self, only_field(descriptor))
        if kind is Kind.LIST_WRAPPER:
            return functools.partial(_encode_list_wrapper, only_field(descriptor))
        if kind in (Kind.SCHEMA_OR_BOOL, Kind.SCHEMA_OR_LIST, Kind.SCHEMA_OR_STRINGS):
            schema = self.encoder(part_of(descriptor, "schema"))
            return functools.partial(_SCHEMA_ENCODERS[kind], schema)
        return _VALUE_ENCODERS[kind]


_KEYWORDS: Final = frozenset({"from", "continue", "not", "except"})
_EMPTY_VALUES: Final[dict[str, Any]] = {"''": "", "False": False, "0": 0, "None": None, "'0s'": "0s", "'0'": "0"}


def _function_name(descriptor: Descriptor) -> str:
    return "e_" + descriptor.full_name.replace(".", "_")


def _compile_and_call(compiler: EncoderCompiler, descriptor: Descriptor, message: Any) -> Any:
    return compiler.encoder(descriptor)(message)


def _index(present: tuple[Any, Any]) -> int:
    """Place of a listed field in the declaration; ListFields goes by number."""
    index: int = present[0].index
    return index


def _float(value: float) -> float | int:
    """Go writes a whole number without a point."""
    return int(value) if value.is_integer() and abs(value) < 1e21 else value


def _time(value: Any) -> str | None:
    return special.time_text(value.seconds) if value.HasField("seconds") or value.HasField("nanos") else None


def _micro_time(value: Any) -> str | None:
    if value.HasField("seconds") or value.HasField("nanos"):
        return special.micro_time_text(value.seconds, value.nanos)
    return None


def _encode_raw(load: Callable[[bytes], Any], compiler: EncoderCompiler, name: str, message: Any) -> Any:
    raw: bytes = getattr(message, name)
    if not raw:
        return None
    return _encode_enveloped(compiler, raw) if raw.startswith(_ENVELOPE) else load(raw)


def _encode_enveloped(compiler: EncoderCompiler, raw: bytes) -> Any:
    """A whole object inside another, as watch events and admission reviews carry it in protobuf."""
    # Imported here because the scheme needs the codec's neighbours when it loads.
    from tiphys_apimachinery.codec import proto_codec
    from tiphys_apimachinery.scheme import load_default

    api_version, kind, body = proto_codec.decode_envelope(raw)
    found = load_default().kind(api_version, kind)
    if found is None:
        raise ValueError(f'no kind "{kind}" is registered for version "{api_version}"')
    message = found.message.FromString(body)
    return {"kind": kind, "apiVersion": api_version, **compiler.encoder(descriptor_of(message))(message)}


def _encode_list_wrapper(name: str, message: Any) -> Any:
    items = getattr(message, name)
    return list(items) if items else None


def _encode_schema_or_bool(encode: Encode, message: Any) -> Any:
    return encode(message.schema) if message.HasField("schema") else message.allows


def _encode_schema_or_list(encode: Encode, message: Any) -> Any:
    if message.jSONSchemas:
        return [encode(item) for item in message.jSONSchemas]
    return encode(message.schema) if message.HasField("schema") else None


def _encode_schema_or_strings(encode: Encode, message: Any) -> Any:
    if message.property:
        return list(message.property)
    return encode(message.schema) if message.HasField("schema") else None


_SCHEMA_ENCODERS: Final[dict[Kind, Callable[[Encode, Any], Any]]] = {
    Kind.SCHEMA_OR_BOOL: _encode_schema_or_bool,
    Kind.SCHEMA_OR_LIST: _encode_schema_or_list,
    Kind.SCHEMA_OR_STRINGS: _encode_schema_or_strings,
}
_VALUE_ENCODERS: Final[dict[Kind, Encode]] = {
    Kind.TIME: _time,
    Kind.MICRO_TIME: _micro_time,
    Kind.DURATION: lambda message: special.duration_text(message.duration),
    Kind.QUANTITY: lambda message: special.quantity_text(message.string),
    Kind.INT_OR_STRING: lambda message: message.strVal if message.type else message.intVal,
}


def load_raw(raw: bytes) -> Any:
    """The plain value of raw JSON text."""
    return orjson.loads(raw)
