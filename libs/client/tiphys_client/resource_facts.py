"""What the schema says of a message class that a client must know: its service, resource and scope."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, Protocol, Self

from tiphys.options.v1 import options_pb2
from tiphys_apimachinery.dynamic import DynamicKind, DynamicObject


class Stored(Protocol):
    """What a client carries: a message, or an object of a kind that was defined at run time."""

    @classmethod
    def FromString(cls, s: bytes, /) -> Self:
        """The object in these bytes."""
        ...

    def SerializeToString(self) -> bytes:
        """Its bytes."""
        ...


@dataclass(frozen=True, slots=True)
class ResourceFacts:
    """Facts of the first resource that serves a kind; plural is empty for kinds that are never stored."""

    service: str
    group: str
    version: str
    kind: str
    plural: str
    namespaced: bool
    subresources: frozenset[str]
    selectable_fields: tuple[str, ...]

    @property
    def api_version(self) -> str:
        """The group and version as objects have it, such as apps/v1 or v1."""
        return f"{self.group}/{self.version}" if self.group else self.version


def service_name(file: str, version: str, kind: str) -> str:
    """The full name of a kind's service, from the path of the .proto file that has its message.

    tiphys/api/core/v1/pod.proto, message Pod, is served by tiphys.apiserver.core.v1.PodService.
    """
    _, _, folder, *_rest = file.split("/")
    return f"tiphys.apiserver.{folder}.{version}.{kind}Service"


def facts_of(cls: type[Stored]) -> ResourceFacts:
    """The facts of an API message class; raises TypeError for a message that is no API object."""
    made: Any = cls
    if issubclass(made, DynamicObject):
        return _of_custom(made.KIND)
    return _read(made.DESCRIPTOR)


def _of_custom(kind: DynamicKind) -> ResourceFacts:
    """The facts of a kind that was defined at run time."""
    return ResourceFacts(
        service=kind.service,
        group=kind.group,
        version=kind.version,
        kind=kind.kind,
        plural=kind.plural,
        namespaced=kind.namespaced,
        subresources=frozenset({"status"} if kind.has_status else ()),
        selectable_fields=(),
    )


@functools.cache
def _read(descriptor: Any) -> ResourceFacts:
    options = descriptor.GetOptions().Extensions[options_pb2.object]
    if not options.HasField("role"):
        raise TypeError(f"{descriptor.full_name} is not an API object")
    resource = options.resources[0] if options.resources else options_pb2.Resource()
    return ResourceFacts(
        service=service_name(descriptor.file.name, options.version, descriptor.name),
        group=options.group,
        version=options.version,
        kind=descriptor.name,
        plural=resource.plural,
        namespaced=resource.namespaced,
        subresources=frozenset(item.name for item in resource.subresources),
        selectable_fields=tuple(resource.selectable_fields),
    )


def read_field(obj: Stored, path: str) -> str:
    """The text of a field by its path, as field selectors compare it; empty where it is unset."""
    value: Any = obj
    for name in path.split("."):
        value = getattr(value, name, "")
    return ("true" if value else "false") if isinstance(value, bool) else str(value)
