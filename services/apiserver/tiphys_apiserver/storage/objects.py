"""Objects as the watch cache keeps them: protobuf bytes at rest, JSON made once per version and only when asked for."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from google.protobuf.message import DecodeError, Message

from tiphys.api.runtime import runtime_pb2

# What a Kubernetes protobuf body begins with, on the wire and in etcd.
ENVELOPE_MAGIC = b"k8s\x00"
INITIAL_EVENTS_END = "k8s.io/initial-events-end"
_NO_LABELS: Mapping[str, str] = {}


class UnreadableObject(Exception):
    """A stored value is not an object of the resource; the message names the key."""


class CachedObject:
    """One version of one object, immutable and shared by all readers.

    ``raw`` is the message's bytes with metadata.resourceVersion set, without the envelope.
    """

    __slots__ = ("_format", "_json", "field_values", "key", "labels", "name", "namespace", "owner_uids", "raw", "rv")

    def __init__(self, key: str, rv: int, message: Message, object_format: ObjectFormat) -> None:
        metadata: Any = message.metadata  # type: ignore[attr-defined]
        self.key = key
        self.rv = rv
        self.namespace: str = sys.intern(metadata.namespace)
        self.name: str = metadata.name
        # The same few names and values recur in thousands of objects: keep one copy of each.
        self.labels: Mapping[str, str] = (
            {sys.intern(label): sys.intern(value) for label, value in metadata.labels.items()}
            if metadata.labels
            else _NO_LABELS
        )
        self.owner_uids: tuple[str, ...] = tuple(owner.uid for owner in metadata.ownerReferences)
        metadata.resourceVersion = str(rv)
        self.raw: bytes = message.SerializeToString(deterministic=True)
        self._format = object_format
        # In the order of the format's field_names.
        self.field_values: tuple[str, ...] = object_format.field_values(message)
        self._json: bytes | None = None

    @property
    def resource_version(self) -> str:
        """The version as the API writes it."""
        return str(self.rv)

    @property
    def api_version(self) -> str:
        """The version that the object is in."""
        return self._format.api_version

    @property
    def fields(self) -> dict[str, str]:
        """What field selectors may ask for, by path."""
        return dict(zip(self._format.field_names, self.field_values, strict=True))

    def field(self, position: int) -> str:
        """The field at a position of the format's ``field_names``."""
        return self.field_values[position]

    def message(self) -> Any:
        """A message of one's own to read or change."""
        return self._format.parse(self.raw)

    def json(self) -> bytes:
        """The object as JSON with kind and apiVersion, made on the first call."""
        text = self._json
        if text is None:
            # A copy of just the size: what the encoder gives was cut from a piece of twice as much, and the rest of
            # that stays unused for as long as the text is kept.
            text = self._json = b"".join((self._format.to_json(self.raw), b""))
            self._format.hot_json_bytes += len(text)
        return text

    def fleeting_json(self) -> bytes:
        """The same, not kept if it has to be made: for lists so long that keeping it would cost more than it saves."""
        text = self._json
        return self._format.to_json(self.raw) if text is None else text

    def enveloped(self) -> bytes:
        """The object as Kubernetes' protobuf body, k8s and a zero byte in front."""
        return self._format.enveloped(self.raw)

    def drop_json(self) -> None:
        """Forget the JSON of a version that is no longer the newest, or to free memory."""
        if self._json is not None:
            self._format.hot_json_bytes -= len(self._json)
            self._json = None

    def at_revision(self, rv: int) -> CachedObject:
        """The same content under another resourceVersion, as events of deletion show it."""
        return CachedObject(self.key, rv, self.message(), self._format)

    def __repr__(self) -> str:
        return f"<{self.key} at {self.rv}>"


class ObjectFormat:
    """How the objects of one resource are read and written. ``to_json`` gets a whole message.

    ``read_fields`` answers with the text of every path of ``field_names``; a path left out is empty.
    """

    def __init__(
        self,
        message: type[Message],
        *,
        api_version: str,
        kind: str,
        dumps: Callable[[Message], bytes],
        field_names: Sequence[str] = (),
        read_fields: Callable[[Any], Mapping[str, str]] | None = None,
    ) -> None:
        self.api_version = api_version
        self.kind = kind
        # metadata.name and metadata.namespace can be asked of every kind.
        self.field_names: tuple[str, ...] = tuple(dict.fromkeys(("metadata.name", "metadata.namespace", *field_names)))
        self._own_names = self.field_names[2:]
        self.field_positions: Mapping[str, int] = {name: at for at, name in enumerate(self.field_names)}
        # Bytes of JSON that objects of this format hold just now.
        self.hot_json_bytes = 0
        self._message = message
        self._dumps = dumps
        self._read_fields = read_fields
        type_meta = runtime_pb2.TypeMeta(apiVersion=api_version, kind=kind).SerializeToString()
        self._envelope_start = ENVELOPE_MAGIC + b"\x0a" + varint(len(type_meta)) + type_meta + b"\x12"

    def parse(self, raw: bytes) -> Any:
        """A new message from an object's bytes."""
        return self._message.FromString(raw)

    def to_json(self, raw: bytes) -> bytes:
        """JSON of an object's bytes; prefer CachedObject.json, which keeps it."""
        return self._dumps(self.parse(raw))

    def dumps(self, message: Message) -> bytes:
        """JSON of a message of the resource."""
        return self._dumps(message)

    def field_values(self, message: Message) -> tuple[str, ...]:
        """The selectable fields of a message in the order of ``field_names``."""
        metadata: Any = message.metadata  # type: ignore[attr-defined]
        if self._read_fields is None:
            return (metadata.name, metadata.namespace)
        found = self._read_fields(message)
        own = [sys.intern(found.get(name, "")) for name in self._own_names]
        return (metadata.name, metadata.namespace, *own)

    def enveloped(self, raw: bytes) -> bytes:
        """Kubernetes' protobuf body around an object's bytes; both last strings are written, empty as they are."""
        return b"".join((self._envelope_start, varint(len(raw)), raw, b"\x1a\x00\x22\x00"))

    def ingest(self, key: str, value: bytes, revision: int) -> CachedObject:
        """The object in a stored value. Raises UnreadableObject."""
        if not value.startswith(ENVELOPE_MAGIC):
            raise UnreadableObject(f"{key} at revision {revision} does not begin as a stored object does")
        try:
            unknown = runtime_pb2.Unknown.FromString(value[len(ENVELOPE_MAGIC) :])
            return CachedObject(key, revision, self.parse(unknown.raw), self)
        except DecodeError as err:
            raise UnreadableObject(f"{key} at revision {revision} holds no readable {self.kind}: {err}") from err

    def bookmark(self, revision: int, *, initial_events_end: bool = False) -> CachedObject:
        """The empty object that carries the revision of a bookmark."""
        message: Any = self._message()
        if initial_events_end:
            message.metadata.annotations[INITIAL_EVENTS_END] = "true"
        return CachedObject("", revision, message, self)


def varint(value: int) -> bytes:
    """Protobuf's variable-length form of a number that is not negative."""
    if value < 0x80:
        return bytes((value,))
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
