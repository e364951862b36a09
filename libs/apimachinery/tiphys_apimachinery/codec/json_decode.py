"""Plain JSON values to what a message's constructor takes, by a function compiled for each message.

upb builds a whole object from nested dicts in C, several times faster than Python can set fields one
by one, and checks the types of text and numbers on the way. So a compiled function only rewrites what
differs: renamed and inline members, times, quantities, bytes; and checks what upb would let pass,
such as text given for a list. It copies before it changes: the input belongs to the caller.

Whatever is unusual (an unknown member, null in a list, a wrong type) raises Unusual, and the caller
takes the slow road of json_strict, which knows paths and words. So the fast road needs no paths.
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
    fields_by_json,
    fields_of,
    has_type_meta,
    message_kind,
    only_field,
    part_of,
)

Decode = Callable[[Any], Any]


class Unusual(Exception):
    """The value needs the slow road."""


# Beyond so many members that need work, looking at the present ones beats asking for each.
_LOOP_FROM: Final = 12
_BY_UPB: Final = frozenset({Kind.STRING, Kind.INT})
_CHECKED_LIST: Final = frozenset({Kind.STRING, Kind.INT})
_VALUES: Final = {
    Kind.BYTES: "_bytes(v)",
    Kind.TIME: "_time(v)",
    Kind.MICRO_TIME: "_micro_time(v)",
    Kind.DURATION: "{'duration': _duration(v)}",
    Kind.QUANTITY: "_quantity(v)",
    Kind.INT_OR_STRING: "_int_or_string(v)",
}


class DecoderCompiler:
    """Makes and keeps the decoders of one process."""

    def __init__(self) -> None:
        self._namespace: dict[str, Any] = {
            "Unusual": Unusual,
            "_bytes": special.decode_bytes,
            "_time": special.time_init,
            "_micro_time": special.micro_time_init,
            "_duration": special.parse_duration,
            "_quantity": special.quantity_init,
            "_int_or_string": special.int_or_string_init,
        }

    def decoder(self, descriptor: Descriptor) -> Decode:
        """The function that turns JSON into the constructor's arguments; it raises for the unusual."""
        name = _function_name(descriptor)
        found = self._namespace.get(name)
        if found is None or isinstance(found, functools.partial):
            found = self._namespace[name] = self._compile(descriptor, name)
        decode: Decode = found
        return decode

    def _reference(self, descriptor: Descriptor) -> str:
        name = _function_name(descriptor)
        if name not in self._namespace:
            self._namespace[name] = functools.partial(_compile_and_call, self, descriptor)
        return name

    def _compile(self, descriptor: Descriptor, name: str) -> Decode:
        kind = message_kind(descriptor)
        if kind is not Kind.STRUCT:
            return self._special(descriptor, kind)
        fields = fields_of(descriptor)
        if any(field.is_inline for field in fields):
            return self._compile_inline(descriptor, name)
        work = [field for field in fields if self._needs_work(field)]
        known = f"k_{name}"
        self._namespace[known] = frozenset(field.json for field in fields)
        body = ["if type(j) is not dict: raise Unusual"]
        if has_type_meta(descriptor):
            # Embedded objects name their kind too; protobuf has no place for it.
            body += ["j = j.copy()", "j.pop('kind', None)", "j.pop('apiVersion', None)"]
        if any(field.name != field.json for field in fields) or has_type_meta(descriptor):
            # A proto name must not pass for a JSON name, so upb can't be trusted with unknown members.
            body.append(f"if not {known}.issuperset(j): raise Unusual")
        if not work:
            return self._define(name, descriptor, [*body, "return j"])
        if len(work) > _LOOP_FROM:
            body += self._loop(name, work)
        else:
            body += ["o = j.copy()", *(line for field in work for line in self._member(field))]
        return self._define(name, descriptor, [*body, "return o"])

    def _define(self, name: str, descriptor: Descriptor, body: list[str]) -> Decode:
        source = "\n    ".join([f"def {name}(j):", *body])
        exec(compile(source, f"<decoder of {descriptor.full_name}>", "exec"), self._namespace)
        decode: Decode = self._namespace[name]
        return decode

    def _needs_work(self, field: Field) -> bool:
        return field.name != field.json or not field.is_singular or field.kind not in _BY_UPB

    def _member(self, field: Field) -> Iterator[str]:
        """Lines that put one member, if it is there, into `o`."""
        yield f"if {field.json!r} in j:"
        yield f"    v = j[{field.json!r}]"
        yield from (f"    {line}" for line in self._convert(field))
        if field.name != field.json:
            yield f"    del o[{field.json!r}]"
            yield f"    if v is not None: o[{field.name!r}] = v"
        elif not self._is_checked_only(field):
            yield f"    o[{field.name!r}] = v"

    def _is_checked_only(self, field: Field) -> bool:
        return field.kind is Kind.BOOL or (not field.is_singular and field.kind in _CHECKED_LIST)

    def _convert(self, field: Field) -> Iterator[str]:
        """Lines that turn `v` into what the constructor takes; null stays None, which means unset."""
        if field.is_list:
            yield "if type(v) is list:"
            if field.kind in _CHECKED_LIST:
                yield "    pass"
            elif field.kind in (Kind.BOOL, Kind.FLOAT):
                yield "    raise Unusual"
            else:
                yield f"    v = [{self._value(field, 'x')} for x in v]"
            yield "elif v is not None: raise Unusual"
        elif field.is_map:
            yield "if type(v) is dict:"
            if field.kind in _CHECKED_LIST:
                yield "    pass"
            elif field.kind in (Kind.BOOL, Kind.FLOAT):
                yield "    raise Unusual"
            else:
                yield f"    v = {{k: {self._value(field, 'x')} for k, x in v.items()}}"
            yield "elif v is not None: raise Unusual"
        elif field.kind is Kind.BOOL:
            yield "if v is not True and v is not False and v is not None: raise Unusual"
        elif field.kind is Kind.FLOAT:
            yield "if type(v) is not float and type(v) is not int and v is not None: raise Unusual"
        elif field.kind in _BY_UPB:
            yield "pass"
        else:
            yield f"if v is not None: v = {self._value(field, 'v')}"

    def _value(self, field: Field, name: str) -> str:
        """Expression for one value of the field's kind, null excepted."""
        text = _VALUES.get(field.kind)
        if text is not None:
            return text.replace("(v)", f"({name})")
        assert field.message is not None
        return f"{self._reference(field.message)}({name})"

    def _loop(self, name: str, work: list[Field]) -> list[str]:
        table = f"t_{name}"
        self._namespace[table] = {field.json: self._converter(name, field) for field in work}
        return [
            "o = {}",
            "for k, v in j.items():",
            f"    f = {table}.get(k)",
            "    if f is None: o[k] = v",
            "    elif v is not None: o[f[0]] = f[1](v)",
        ]

    def _converter(self, owner: str, field: Field) -> tuple[str, Decode]:
        """The field's proto name, and a function for its value alone."""
        name = f"c_{owner}_{field.name}"
        source = "\n    ".join([f"def {name}(v):", *self._convert(field), "return v"])
        exec(compile(source, f"<decoder of {owner}.{field.name}>", "exec"), self._namespace)
        return field.name, self._namespace[name]

    def _compile_inline(self, descriptor: Descriptor, name: str) -> Decode:
        """A message with inline members: sorts the members by the message that holds them."""
        places: dict[str, tuple[str, str, Decode | None]] = {}
        parts: list[str] = []
        nested: dict[str, Decode] = {}
        for field in fields_of(descriptor):
            if field.is_inline and field.message is not None:
                parts.append(field.name)
                nested[field.name] = self.decoder(field.message)
                for json_name in fields_by_json(field.message):
                    places[json_name] = (field.name, json_name, None)
            elif self._needs_work(field):
                places[field.json] = ("", *self._converter(name, field))
            else:
                places[field.json] = ("", field.name, None)
        return functools.partial(_decode_inline, places, nested)

    def _special(self, descriptor: Descriptor, kind: Kind) -> Decode:
        if kind is Kind.RAW:
            return functools.partial(_decode_raw, only_field(descriptor))
        if kind is Kind.LIST_WRAPPER:
            return functools.partial(_decode_list_wrapper, only_field(descriptor))
        if kind in (Kind.SCHEMA_OR_BOOL, Kind.SCHEMA_OR_LIST, Kind.SCHEMA_OR_STRINGS):
            schema = functools.partial(_compile_and_call, self, part_of(descriptor, "schema"))
            return functools.partial(_SCHEMA_DECODERS[kind], schema)
        return _VALUE_DECODERS[kind]


def _function_name(descriptor: Descriptor) -> str:
    return "d_" + descriptor.full_name.replace(".", "_")


def _compile_and_call(compiler: DecoderCompiler, descriptor: Descriptor, value: Any) -> Any:
    return compiler.decoder(descriptor)(value)


def _decode_inline(
    places: dict[str, tuple[str, str, Decode | None]], nested: dict[str, Decode], value: Any
) -> dict[str, Any]:
    if type(value) is not dict:
        raise Unusual
    out: dict[str, Any] = {}
    for key, item in value.items():
        if key not in places:
            raise Unusual
        part, name, convert = places[key]
        if part:
            out.setdefault(part, {})[name] = item
        else:
            out[name] = item if convert is None or item is None else convert(item)
    for part, decode in nested.items():
        if part in out:
            out[part] = decode(out[part])
    return out


def _decode_raw(name: str, value: Any) -> dict[str, bytes]:
    return {name: orjson.dumps(value)}


def _decode_list_wrapper(name: str, value: Any) -> dict[str, list[str]]:
    if type(value) is not list:
        raise Unusual
    return {name: value}


def _decode_schema_or_bool(schema: Decode, value: Any) -> dict[str, Any]:
    if value is True or value is False:
        return {"allows": value}
    return {"allows": True, "schema": schema(value)}


def _decode_schema_or_list(schema: Decode, value: Any) -> dict[str, Any]:
    if type(value) is list:
        return {"jSONSchemas": [schema(item) for item in value]}
    return {"schema": schema(value)}


def _decode_schema_or_strings(schema: Decode, value: Any) -> dict[str, Any]:
    return {"property": value} if type(value) is list else {"schema": schema(value)}


_SCHEMA_DECODERS: Final[dict[Kind, Callable[[Decode, Any], Any]]] = {
    Kind.SCHEMA_OR_BOOL: _decode_schema_or_bool,
    Kind.SCHEMA_OR_LIST: _decode_schema_or_list,
    Kind.SCHEMA_OR_STRINGS: _decode_schema_or_strings,
}
_VALUE_DECODERS: Final[dict[Kind, Decode]] = {
    Kind.TIME: special.time_init,
    Kind.MICRO_TIME: special.micro_time_init,
    Kind.DURATION: lambda value: {"duration": special.parse_duration(value)},
    Kind.QUANTITY: special.quantity_init,
    Kind.INT_OR_STRING: special.int_or_string_init,
}
