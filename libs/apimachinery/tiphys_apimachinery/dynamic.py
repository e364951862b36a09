"""Objects of kinds that are defined at run time, in the shape of a message so that generic code treats all kinds alike.

A custom object is a real ObjectMeta and, beside it, plain JSON values; on the wire and at rest it is a
tiphys.apiserver.v1.CustomObject. Each kind and version has a Python class of its own, made by ``new_class``: code that
asks an object for its class, makes an empty one, copies, compares or writes bytes finds what a protobuf message has.
There are no attributes but ``metadata`` and ``content``: code that knows kinds by their fields never gets one of these.

Tried before: a descriptor for each kind. Descriptors can't be taken out of the pool again, so every kind ever defined
would have stayed in memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, ClassVar, Protocol, Self

import orjson

from tiphys.api.meta.v1 import meta_pb2
from tiphys.apiserver.v1 import custom_pb2
from tiphys_apimachinery.patch.typed import UNKNOWN, Shape

_FIELDS: Mapping[str, None] = MappingProxyType({"metadata": None, "spec": None, "status": None})
# Behind it come version, plural and group of a custom resource.
SERVICES = "tiphys.apiserver.custom."
TYPE_MEMBERS = frozenset({"apiVersion", "kind", "metadata"})


class Unchecked:
    """The schema of a client that leaves it to the server to check."""

    shape = UNKNOWN

    def read(self, content: Mapping[str, Any], unknown: list[str]) -> dict[str, Any]:
        """The content as it is."""
        return dict(content)


class Schema(Protocol):
    """What a definition says about the members of its objects beside metadata."""

    @property
    def shape(self) -> Shape:
        """How values merge in server-side apply; of the whole object."""
        ...

    def read(self, content: Mapping[str, Any], unknown: list[str]) -> dict[str, Any]:
        """A copy of the content without members that the schema does not know; their paths are added to unknown."""
        ...


@dataclass(frozen=True, slots=True)
class DynamicKind:
    """One version of a kind. has_status: status is written by its own subresource."""

    group: str
    version: str
    kind: str
    schema: Schema
    has_status: bool = False
    plural: str = ""
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        """Group and version as objects name them."""
        return f"{self.group}/{self.version}"

    @property
    def service(self) -> str:
        """Full name of the gRPC service of the resource, whose messages are those of tiphys.apiserver.v1."""
        return f"{SERVICES}{self.version}.{self.plural}.{self.group}"


@dataclass(frozen=True, slots=True)
class DynamicDescriptor:
    """What is asked of a message's DESCRIPTOR. The name is qualified, so that nobody takes it for a built-in kind."""

    name: str
    full_name: str
    fields_by_name: Mapping[str, None] = field(default_factory=lambda: _FIELDS)


class DynamicObject:
    """One object. ``content`` may be changed in place, as ``metadata`` may."""

    __slots__ = ("_content", "_wire")

    KIND: ClassVar[DynamicKind]
    DESCRIPTOR: ClassVar[DynamicDescriptor]

    def __init__(self, metadata: meta_pb2.ObjectMeta | None = None, content: dict[str, Any] | None = None) -> None:
        self._wire: Any = custom_pb2.CustomObject(metadata=metadata)
        self._wire.metadata.SetInParent()
        self._content: dict[str, Any] | None = {} if content is None else content

    @property
    def metadata(self) -> Any:
        """The ObjectMeta."""
        return self._wire.metadata

    @property
    def content(self) -> dict[str, Any]:
        """Every member but apiVersion, kind and metadata."""
        if self._content is None:
            self._content = orjson.loads(self._wire.json)
        return self._content

    @content.setter
    def content(self, value: dict[str, Any]) -> None:
        self._content = value

    def content_json(self) -> bytes:
        """The content as JSON text, members sorted."""
        if self._content is None:
            return bytes(self._wire.json)
        return orjson.dumps(self._content, option=orjson.OPT_SORT_KEYS)

    @classmethod
    def FromString(cls, raw: bytes, /) -> Self:
        """The object in a CustomObject's bytes. Raises DecodeError."""
        made = cls.__new__(cls)
        made._wire = custom_pb2.CustomObject.FromString(raw)
        made._content = None if made._wire.json else {}
        return made

    def SerializeToString(self, *, deterministic: bool = False) -> bytes:
        """The bytes of a CustomObject."""
        wire, kind = self._wire, self.KIND
        wire.json = self.content_json()
        wire.api_version, wire.kind = kind.api_version, kind.kind
        return bytes(wire.SerializeToString(deterministic=deterministic))

    def CopyFrom(self, other: DynamicObject) -> None:
        """Become a copy of the other object; the class, and so the version, stays."""
        text = other.content_json()
        self._wire.CopyFrom(other._wire)
        self._wire.json = text
        self._content = None

    def HasField(self, name: str) -> bool:
        """Whether a member is there."""
        return name == "metadata" or name in self.content

    def ClearField(self, name: str) -> None:
        """Take a member away."""
        self.content.pop(name, None)

    def changed_members(self, old: DynamicObject) -> list[str]:
        """Which members differ, as the count of generations asks: status counts as wanted where it has no door."""
        new_content, old_content = self.content, old.content
        changed = ["metadata"] if self.metadata != old.metadata else []
        for name in sorted({*new_content, *old_content}):
            if new_content.get(name) != old_content.get(name) or (name in new_content) != (name in old_content):
                changed.append(name if name != "status" or self.KIND.has_status else "spec")
        return changed

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, DynamicObject):
            return NotImplemented
        return self.KIND is other.KIND and self.metadata == other.metadata and self.content == other.content

    __hash__ = None  # type: ignore[assignment]  # as every object that may change

    def __repr__(self) -> str:
        return f"<{self.KIND.kind} {self.metadata.namespace}/{self.metadata.name}>"


def new_class(kind: DynamicKind) -> type[DynamicObject]:
    """The class of one version of a kind."""
    qualified = f"{kind.kind}.{kind.version}.{kind.group}"
    descriptor = DynamicDescriptor(qualified, qualified)
    return type(kind.kind, (DynamicObject,), {"__slots__": (), "KIND": kind, "DESCRIPTOR": descriptor})
