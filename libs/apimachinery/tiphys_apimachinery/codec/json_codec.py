"""API objects in JSON, exactly as Kubernetes writes and reads them.

The functions keep one set of compiled code for the process; a message's code is made on first use.
"""

from __future__ import annotations

import functools
from typing import Any, TypeVar

import orjson
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message

from tiphys.api.meta.v1 import meta_pb2
from tiphys_apimachinery.codec.json_decode import DecoderCompiler, Unusual
from tiphys_apimachinery.codec.json_encode import EncoderCompiler, load_raw
from tiphys_apimachinery.codec.json_strict import DecodeError, FieldSink, decode_message, duplicate_members
from tiphys_apimachinery.dynamic import TYPE_MEMBERS, DynamicKind, DynamicObject
from tiphys_apimachinery.errors import BadRequest
from tiphys_apimachinery.schema import Kind, descriptor_of, fields_of, is_recursive, type_meta

__all__ = ["DecodeError", "FieldSink", "dumps", "from_json", "loads", "parse", "to_json"]

M = TypeVar("M", bound=Message)

# upb refuses to read messages nested deeper than 100; what is stored must be readable.
_MAX_DEPTH = 90
# Larger parts of a message, in bytes, are checked each time rather than kept.
_MOST_REMEMBERED = 8192


@functools.cache
def _encoders() -> EncoderCompiler:
    return EncoderCompiler(load_raw)


@functools.cache
def _decoders() -> DecoderCompiler:
    return DecoderCompiler()


def to_json(message: Message | DynamicObject, *, with_type_meta: bool = True) -> dict[str, Any]:
    """The message as plain JSON values, members in Go's order, a top-level one with its kind first.

    The caller owns the result.
    """
    if isinstance(message, DynamicObject):
        return _dynamic_to_json(message, with_type_meta)
    descriptor = descriptor_of(message)
    value: dict[str, Any] = _encoders().encoder(descriptor)(message)
    if not with_type_meta:
        return value
    api_version, kind = type_meta(descriptor)
    return {"kind": kind, "apiVersion": api_version, **value} if kind else value


def dumps(message: Message | DynamicObject, *, with_type_meta: bool = True) -> bytes:
    """The message as JSON text without white space."""
    if isinstance(message, DynamicObject):
        return _dynamic_dumps(message)
    return orjson.dumps(to_json(message, with_type_meta=with_type_meta))


def check_sayable(message: Message) -> None:
    """Raise BadRequest for a message that JSON can't say: one such object in the store would break every list in JSON.

    Protobuf carries text that is no UTF-8, quantities that are no numbers and raw JSON that is none. Costs as much as
    writing and reading the message as JSON, some 60 µs for a pod.
    """
    if _is_text(descriptor_of(message)) and not _has_raw(message):
        # What is no text, number or time can't be written; what can be written can be read.
        try:
            orjson.dumps(to_json(message))
            return
        except (TypeError, ValueError, OverflowError, OSError, RecursionError):
            # Told below.
            pass
    parts = _parts(message)
    try:
        for part in parts:
            raw = part.SerializeToString()
            # Specs come again and again: in the pods of one template, and with each write of a status.
            is_kept = len(raw) <= _MOST_REMEMBERED and not isinstance(part, meta_pb2.ObjectMeta)
            cls: Any = type(part)
            (_check_once if is_kept else _check)(cls, raw)
    except BadRequest:
        # Said of the whole: what is wrong is told with its path.
        _check(type(message), message.SerializeToString())
        raise


# Kinds of which JSON takes every value that can be written.
_TEXT = frozenset({Kind.STRING, Kind.BOOL, Kind.INT, Kind.TIME, Kind.MICRO_TIME, Kind.BYTES})


@functools.cache
def _is_text(descriptor: Descriptor) -> bool:
    """Whether a message has nothing but text, whole numbers and times, its metadata's managed fields aside."""
    if is_recursive(descriptor):
        return False
    for field in fields_of(descriptor):
        if field.kind is Kind.STRUCT and field.message is not None:
            if field.message is not meta_pb2.ManagedFieldsEntry.DESCRIPTOR and not _is_text(field.message):
                return False
        elif field.kind not in _TEXT:
            return False
    return True


def _has_raw(message: Any) -> bool:
    return bool(message.metadata.managedFields) if "metadata" in message.DESCRIPTOR.fields_by_name else True


def _parts(message: Message) -> list[Message]:
    """What has to be looked at of a message: metadata, spec and status where it has nothing else, or all of it."""
    structs = _structs(descriptor_of(message))
    found = message.ListFields()
    return [part for _, part in found] if all(field.name in structs for field, _ in found) else [message]


@functools.cache
def _structs(descriptor: Descriptor) -> frozenset[str]:
    """The fields of a message that are one object each."""
    return frozenset(field.name for field in fields_of(descriptor) if field.kind is Kind.STRUCT and field.is_singular)


def _check(cls: type[Message], raw: bytes) -> None:
    message = cls.FromString(raw)
    try:
        document = orjson.loads(orjson.dumps(to_json(message)))
    except (TypeError, ValueError, OverflowError, OSError, RecursionError) as err:
        raise _cannot_be_handled(descriptor_of(message), f"it has a value that JSON can't say: {err}") from err
    from_json(cls, document)


_check_once = functools.lru_cache(maxsize=512)(_check)


def from_json(cls: type[M], data: Any, sink: FieldSink | None = None) -> M:
    """The message that plain JSON values stand for; apiVersion and kind are not looked at.

    Unknown members are reported to the sink and left out. Raises BadRequest for a value that does
    not fit, with the words of Kubernetes; nothing of the input is changed or kept.
    """
    if _is_dynamic(cls):
        return _dynamic_from_json(cls, data, sink)  # type: ignore[no-any-return]
    descriptor = descriptor_of(cls)
    if is_recursive(descriptor) and _depth(data) > _MAX_DEPTH:
        raise _cannot_be_handled(descriptor, "exceeded max depth")
    try:
        return cls(**_decoders().decoder(descriptor)(data))
    except (Unusual, TypeError, ValueError, RecursionError):
        # Not an error yet: the slow road finds out what it was, and takes what is merely rare.
        return _from_unusual(cls, data, sink if sink is not None else FieldSink())


def _from_unusual(cls: type[M], data: Any, sink: FieldSink) -> M:
    try:
        return cls(**decode_message(descriptor_of(cls), data, sink))
    except DecodeError as error:
        raise _cannot_be_handled(descriptor_of(cls), str(error)) from error


def parse(data: bytes) -> Any:
    """Plain values of JSON text; raises BadRequest for what is no JSON."""
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError as error:
        text = str(error)
        if "unexpected end of data" in text or "EOF" in text:
            text = "unexpected end of JSON input"
        raise BadRequest(f"couldn't get version/kind; json parse error: {text}") from error


def loads(data: bytes, cls: type[M], *, strict: bool = False, sink: FieldSink | None = None) -> M:
    """The message in JSON text. With strict, unknown and repeated members are an error; with a sink
    they are reported; with neither they are dropped.

    Raises BadRequest.
    """
    if strict and sink is None:
        sink = FieldSink()
    message = from_json(cls, parse(data), sink)
    if sink is not None:
        sink.duplicate += duplicate_members(data)
    if strict and sink is not None and (findings := sink.messages()):
        raise _cannot_be_handled(descriptor_of(cls), f"strict decoding error: {', '.join(findings)}")
    return message


def strict_error(cls: type[Message], sink: FieldSink) -> BadRequest | None:
    """The error for what a sink collected while an object of this class was read; None if nothing."""
    findings = sink.messages()
    if not findings:
        return None
    why = f"strict decoding error: {', '.join(findings)}"
    if _is_dynamic(cls):
        kind = _kind_of(cls)
        return _not_a_kind(kind.version, kind.kind, why)
    return _cannot_be_handled(descriptor_of(cls), why)


def _cannot_be_handled(descriptor: Descriptor, why: str) -> BadRequest:
    api_version, kind = type_meta(descriptor)
    return _not_a_kind(api_version.rpartition("/")[2], kind, why) if kind else BadRequest(why)


def _not_a_kind(version: str, kind: str, why: str) -> BadRequest:
    return BadRequest(f'{kind} in version "{version}" cannot be handled as a {kind}: {why}')


def _is_dynamic(cls: Any) -> bool:
    return issubclass(cls, DynamicObject)


def _kind_of(cls: Any) -> DynamicKind:
    found: DynamicKind = cls.KIND
    return found


def _dynamic_to_json(obj: DynamicObject, with_type_meta: bool) -> dict[str, Any]:
    head: dict[str, Any] = {"apiVersion": obj.KIND.api_version, "kind": obj.KIND.kind} if with_type_meta else {}
    # A copy: the caller may change what it gets.
    return {**head, "metadata": to_json(obj.metadata), **orjson.loads(obj.content_json())}


def _dynamic_dumps(obj: DynamicObject) -> bytes:
    kind = obj.KIND
    head = orjson.dumps({"apiVersion": kind.api_version, "kind": kind.kind, "metadata": to_json(obj.metadata)})
    content = obj.content_json()
    return head if content in (b"", b"{}") else head[:-1] + b"," + content[1:]


def _dynamic_from_json(cls: Any, data: Any, sink: FieldSink | None) -> Any:
    kind = cls.KIND
    if not isinstance(data, dict):
        raise _not_a_kind(kind.version, kind.kind, "the body is not an object")
    if _depth(data) > _MAX_DEPTH:
        raise _not_a_kind(kind.version, kind.kind, "exceeded max depth")
    found = FieldSink()
    try:
        metadata = from_json(meta_pb2.ObjectMeta, {} if data.get("metadata") is None else data["metadata"], found)
    except BadRequest as err:
        raise _not_a_kind(kind.version, kind.kind, f"metadata: {err.message}") from err
    unknown = [f"metadata.{path}" for path in found.unknown]
    content = kind.schema.read({name: data[name] for name in data if name not in TYPE_MEMBERS}, unknown)
    if sink is not None:
        sink.unknown += unknown
        sink.duplicate += found.duplicate
    return cls(metadata, content)


def _depth(value: Any) -> int:
    """Levels of objects and lists, counted without recursion."""
    deepest = 0
    stack = [(value, 1)]
    while stack:
        item, level = stack.pop()
        deepest = max(deepest, level)
        if isinstance(item, dict):
            stack.extend((child, level + 1) for child in item.values() if isinstance(child, (dict, list)))
        elif isinstance(item, list):
            stack.extend((child, level + 1) for child in item if isinstance(child, (dict, list)))
    return deepest
