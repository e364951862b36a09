"""API objects in protobuf: the envelope that names the kind, and the bytes that Go would write.

The envelope is four bytes, k8s and zero, then runtime.Unknown; the object inside has no kind.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Final

from google.protobuf.descriptor import Descriptor
from google.protobuf.message import DecodeError, Message

from tiphys.api.runtime import runtime_pb2
from tiphys_apimachinery.errors import BadRequest
from tiphys_apimachinery.schema import Field, Kind, descriptor_of, fields_of, message_kind, part_of, type_meta

MAGIC: Final = b"k8s\x00"
# contentEncoding and contentType, which Go writes although they are empty.
_TAIL: Final = b"\x1a\x00\x22\x00"


def encode_envelope(api_version: str, kind: str, raw: bytes) -> bytes:
    """The envelope around an object's bytes, as on the wire and in the store."""
    return b"".join((_head(api_version, kind), _varint(len(raw)), raw, _TAIL))


def decode_envelope(data: bytes) -> tuple[str, str, bytes]:
    """apiVersion, kind and the object's bytes; raises BadRequest for what is no envelope."""
    if not data.startswith(MAGIC):
        raise BadRequest("provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]")
    try:
        unknown = runtime_pb2.Unknown.FromString(data[4:])
    except DecodeError as error:
        raise BadRequest(f"unable to decode the protobuf envelope: {error}") from error
    return unknown.typeMeta.apiVersion, unknown.typeMeta.kind, unknown.raw


def encode(message: Message) -> bytes:
    """A top-level object in its envelope. It is not filled as Go fills it; readers don't need that."""
    api_version, kind = type_meta(descriptor_of(message))
    return encode_envelope(api_version, kind, message.SerializeToString())


def encode_like_go(message: Message) -> bytes:
    """A top-level object in its envelope, byte for byte as Go writes it. Fills the message."""
    fill_like_go(message)
    api_version, kind = type_meta(descriptor_of(message))
    return encode_envelope(api_version, kind, message.SerializeToString(deterministic=True))


def fill_like_go(message: Message) -> None:
    """Sets every field that Go writes although it is empty: those that are no pointers.

    With this and deterministic serialization the bytes equal Go's. Readers don't need it.
    """
    _fillers().filler(descriptor_of(message))(message)


@functools.lru_cache(maxsize=1024)
def _head(api_version: str, kind: str) -> bytes:
    version, name = api_version.encode(), kind.encode()
    meta = b"".join((b"\x0a", _varint(len(version)), version, b"\x12", _varint(len(name)), name))
    return b"".join((MAGIC, b"\x0a", _varint(len(meta)), meta, b"\x12"))


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


@functools.cache
def _fillers() -> _FillerCompiler:
    return _FillerCompiler()


_ZERO: Final = {Kind.STRING: '""', Kind.BOOL: "False", Kind.INT: "0", Kind.FLOAT: "0.0"}


class _FillerCompiler:
    """Compiles, per message, the function that sets what Go always writes."""

    def __init__(self) -> None:
        self._namespace: dict[str, Any] = {}

    def filler(self, descriptor: Descriptor) -> Callable[[Any], None]:
        name = "f_" + descriptor.full_name.replace(".", "_")
        found = self._namespace.get(name)
        if found is None or isinstance(found, functools.partial):
            source = "\n    ".join([f"def {name}(m):", *self._body(descriptor), "return"])
            exec(compile(source, f"<filler of {descriptor.full_name}>", "exec"), self._namespace)
            found = self._namespace[name]
        filler: Callable[[Any], None] = found
        return filler

    def _reference(self, descriptor: Descriptor) -> str:
        name = "f_" + descriptor.full_name.replace(".", "_")
        if name not in self._namespace:
            self._namespace[name] = functools.partial(_compile_and_fill, self, descriptor)
        return name

    def _body(self, descriptor: Descriptor) -> list[str]:
        match message_kind(descriptor):
            case Kind.TIME | Kind.MICRO_TIME:
                return ["if m.HasField('seconds') or m.HasField('nanos'): m.seconds = m.seconds; m.nanos = m.nanos"]
            case Kind.QUANTITY:
                return ["if not m.string: m.string = '0'"]
            case Kind.INT_OR_STRING:
                return ["m.type = m.type", "m.intVal = m.intVal", "m.strVal = m.strVal"]
            case Kind.DURATION:
                return ["m.duration = m.duration"]
            case Kind.SCHEMA_OR_BOOL:
                schema = self._reference(part_of(descriptor, "schema"))
                return ["m.allows = m.allows", f"if m.HasField('schema'): {schema}(m.schema)"]
            case Kind.RAW | Kind.LIST_WRAPPER:
                return []
        return [line for field in fields_of(descriptor) for line in self._field(field)]

    def _field(self, field: Field) -> list[str]:
        has, value = f"m.HasField({field.name!r})", f"getattr(m, {field.name!r})"
        if field.message is None:
            if field.is_singular and not field.is_pointer and field.kind is not Kind.BYTES:
                return [f"if not {has}: setattr(m, {field.name!r}, {_ZERO[field.kind]})"]
            return []
        fill = self._reference(field.message)
        if field.is_list:
            return [f"for x in {value}: {fill}(x)"]
        if field.is_map:
            return [f"v = {value}", f"for k in v: {fill}(v[k])"]
        if field.is_pointer or field.kind is Kind.LIST_WRAPPER:
            return [f"if {has}: {fill}({value})"]
        return [f"v = {value}", "v.SetInParent()", f"{fill}(v)"]


def _compile_and_fill(compiler: _FillerCompiler, descriptor: Descriptor, message: Any) -> None:
    compiler.filler(descriptor)(message)
