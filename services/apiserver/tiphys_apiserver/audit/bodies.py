"""What a request carried and what it was answered, as JSON for an event; run in the log's thread."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from google.protobuf.message import DecodeError, Message

from tiphys_apimachinery.codec import json_codec, proto_codec, yaml_codec
from tiphys_apimachinery.errors import APIError
from tiphys_apimachinery.scheme import Scheme
from tiphys_apiserver.storage.objects import CachedObject

_PROTOBUF = "application/vnd.kubernetes.protobuf"
_YAML = frozenset({"application/yaml", "application/apply-patch+yaml", "text/yaml"})


@dataclass(frozen=True, slots=True)
class Sent:
    """Bytes as they came or went over HTTP."""

    content_type: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Wire:
    """Objects in bytes as they came over gRPC. cls None is a patch: JSON, or YAML to apply.

    names says of a batch which object each is for; what is for all of them comes once.
    """

    cls: type[Message] | None
    raw: Sequence[bytes]
    names: Sequence[str] | None = None


class Bodies:
    """Turns bodies into values that orjson writes; what can't be read is None."""

    def __init__(self, scheme: Scheme) -> None:
        self._scheme = scheme

    def value(self, body: Any) -> Any:
        """The value of a Sent, a Wire, a message, an object of the cache, or of several of these."""
        try:
            return self._value(body)
        except (APIError, DecodeError, ValueError, UnicodeDecodeError):
            # What the client sent may be anything; the request itself was refused for it.
            return None

    def _value(self, body: Any) -> Any:
        if isinstance(body, Sent):
            return self._sent(body)
        if isinstance(body, Wire):
            return self._wire(body)
        if isinstance(body, Message):
            return json_codec.to_json(body)
        if isinstance(body, CachedObject):
            return orjson.loads(body.json())
        if isinstance(body, APIError):
            return json_codec.to_json(body.to_status())
        if isinstance(body, (list, tuple)):
            items = [self._value(item) for item in body]
            return {"kind": "List", "apiVersion": "v1", "items": items}
        return None

    def _sent(self, body: Sent) -> Any:
        kind = body.content_type.partition(";")[0].strip().lower()
        if not body.data:
            return None
        if kind == _PROTOBUF:
            api_version, name, raw = proto_codec.decode_envelope(body.data)
            info = self._scheme.kind(api_version, name)
            if info is None:
                return None
            value = json_codec.to_json(info.message.FromString(raw))
            return {**value, "kind": name, "apiVersion": api_version}
        return yaml_codec.parse(body.data) if kind in _YAML else orjson.loads(body.data)

    def _wire(self, body: Wire) -> Any:
        if body.names is not None:
            bodies = [self._wire(Wire(body.cls, (raw,))) for raw in body.raw]
            if len(bodies) == 1:
                bodies *= len(body.names)
            items = [{"name": name, "body": value} for name, value in zip(body.names, bodies, strict=True)]
            return {"kind": "List", "apiVersion": "v1", "items": items}
        if body.cls is None:
            return yaml_codec.parse(body.raw[0])
        values = [json_codec.to_json(body.cls.FromString(raw)) for raw in body.raw]
        return values[0] if len(values) == 1 else {"kind": "List", "apiVersion": "v1", "items": values}


def without_managed_fields(value: Any) -> Any:
    """The value without metadata.managedFields, of itself and of its items."""
    if not isinstance(value, Mapping):
        return value
    made = dict(value)
    metadata = made.get("metadata")
    if isinstance(metadata, Mapping) and "managedFields" in metadata:
        made["metadata"] = {key: item for key, item in metadata.items() if key != "managedFields"}
    items = made.get("items")
    if isinstance(items, list):
        made["items"] = [without_managed_fields(item) for item in items]
    return made


def names_of(value: Any, keys: Iterable[str] = ("name", "namespace", "uid", "resourceVersion")) -> dict[str, str]:
    """What metadata says of who the object is."""
    metadata = value.get("metadata") if isinstance(value, Mapping) else None
    if not isinstance(metadata, Mapping):
        return {}
    return {key: str(metadata[key]) for key in keys if metadata.get(key)}


def plain(value: Any) -> Any:
    """For values that JSON has no form for, as orjson asks: bytes as base64."""
    if isinstance(value, (bytes, bytearray)):
        return base64.b64encode(value).decode()
    raise TypeError(type(value).__name__)
