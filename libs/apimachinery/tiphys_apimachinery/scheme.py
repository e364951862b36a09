"""Which kinds and resources there are, read from the options of the published contracts.

The descriptor set that is made with the protos is read whole, some 5 ms; Python classes of messages
are imported when they are first asked for.
"""

from __future__ import annotations

import datetime
import functools
import importlib
import importlib.resources
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from google.protobuf import descriptor_pb2
from google.protobuf.message import Message

from tiphys.options.v1 import options_pb2
from tiphys_apimachinery.schema import descriptor_of, type_meta

Column = options_pb2.Column
# Keys that do not follow the plural. Source: kube-apiserver pkg/kubeapiserver default_storage_factory_builder.go.
_STORAGE_PREFIXES: Final = {
    ("", "replicationcontrollers"): "/registry/controllers",
    ("", "endpoints"): "/registry/services/endpoints",
    ("", "nodes"): "/registry/minions",
    ("", "services"): "/registry/services/specs",
    ("networking.k8s.io", "ingresses"): "/registry/ingress",
    # Never stored; the names are taken by what is.
    ("metrics.k8s.io", "nodes"): "/registry/metrics.k8s.io/nodes",
    ("metrics.k8s.io", "pods"): "/registry/metrics.k8s.io/pods",
    ("apiregistration.k8s.io", "apiservices"): "/registry/apiregistration.k8s.io/apiservices",
    ("apiextensions.k8s.io", "customresourcedefinitions"): "/registry/apiextensions.k8s.io/customresourcedefinitions",
}
# Kinds of core/v1. Source: their APILifecycleDeprecated in k8s.io/api.
_DEPRECATED: Final = {
    "endpoints": "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice",
    "componentstatuses": "v1 ComponentStatus is deprecated in v1.19+",
}
_META_GROUP: Final = "meta.k8s.io"


@dataclass(frozen=True, slots=True)
class KindInfo:
    """One top-level kind, whether a resource serves it or not; role is object, list or typed."""

    group: str
    version: str
    kind: str
    role: str
    full_name: str
    file: str

    @property
    def api_version(self) -> str:
        """Group and version as objects name them."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def message(self) -> type[Message]:
        """The Python class; imported on first use."""
        return _import_message(self.file, self.kind)


@dataclass(frozen=True, slots=True)
class Subresource:
    """One subresource; group and version are empty where they are the resource's own."""

    name: str
    kind: str
    group: str = ""
    version: str = ""
    verbs: tuple[str, ...] = ()
    # Streams and proxies take raw connections, by these HTTP methods.
    connect: bool = False
    methods: tuple[str, ...] = ()
    trailing_path: bool = False


@dataclass(frozen=True, slots=True)
class ResourceInfo:
    """One resource as discovery shows it and as the registry needs it."""

    group: str
    version: str
    plural: str
    singular: str
    kind: str
    namespaced: bool
    kind_info: KindInfo
    list_info: KindInfo | None
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    verbs: tuple[str, ...] = ()
    subresources: Mapping[str, Subresource] = field(default_factory=dict)
    columns: tuple[Column, ...] = ()
    selectable_fields: tuple[str, ...] = ()

    @property
    def api_version(self) -> str:
        """Group and version as objects name them."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def group_resource(self) -> str:
        """The plural with its group behind it, as in deployments.apps."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def is_custom(self) -> bool:
        """Whether the kind was defined at run time: no contract has its message, and it has no protobuf form."""
        return False

    @property
    def deprecation(self) -> str:
        """What every caller is warned of; empty for most."""
        return "" if self.group else _DEPRECATED.get(self.plural, "")

    @property
    def stored_version(self) -> str:
        """The version that objects are stored in, where one kind is served in several."""
        return self.version

    @property
    def list_kind(self) -> str:
        """Kind of a list of the objects."""
        return f"{self.kind}List"

    @property
    def cells(self) -> Callable[[Any, datetime.datetime], list[Any]] | None:
        """What makes the cells of a Table's row; None where the table of the codec knows."""
        return None

    @property
    def message(self) -> type[Message]:
        """The object's Python class; imported on first use."""
        return self.kind_info.message

    @property
    def list_message(self) -> type[Message] | None:
        """The list's Python class; None for a resource that can't be listed."""
        return self.list_info.message if self.list_info is not None else None

    @property
    def storage_key_prefix(self) -> str:
        """Where objects are stored, without a slash at the end; the same as in Kubernetes."""
        return _STORAGE_PREFIXES.get((self.group, self.plural), f"/registry/{self.plural}")


class Scheme:
    """All kinds and resources of a set of contracts. Lookups return None for what is not there."""

    def __init__(self, files: Iterable[descriptor_pb2.FileDescriptorProto]) -> None:
        self._kinds: dict[tuple[str, str], KindInfo] = {}
        self._resources: dict[tuple[str, str, str], ResourceInfo] = {}
        self._by_kind: dict[tuple[str, str], ResourceInfo] = {}
        self._by_message: dict[str, ResourceInfo] = {}
        found = list(_objects(files))
        for info, _ in found:
            self._kinds[info.api_version, info.kind] = info
            if info.group == _META_GROUP:
                self._kinds.setdefault(("v1", info.kind), info)
        for info, options in found:
            for resource in options.resources:
                self._add(_resource(info, resource, self._kinds.get((info.api_version, f"{info.kind}List"))))

    def _add(self, resource: ResourceInfo) -> None:
        self._resources[resource.group, resource.version, resource.plural] = resource
        self._by_kind[resource.api_version, resource.kind] = resource
        self._by_message[resource.kind_info.full_name] = resource

    def resources(self) -> tuple[ResourceInfo, ...]:
        """Every resource, ordered by group, version and plural."""
        return tuple(self._resources[key] for key in sorted(self._resources))

    def kinds(self) -> tuple[KindInfo, ...]:
        """Every top-level kind once, ordered by apiVersion and kind."""
        found = {info.full_name: info for info in self._kinds.values()}
        return tuple(sorted(found.values(), key=lambda info: (info.api_version, info.kind)))

    def by_resource(self, group: str, version: str, plural: str) -> ResourceInfo | None:
        """The resource behind a path."""
        return self._resources.get((group, version, plural))

    def by_kind(self, api_version: str, kind: str) -> ResourceInfo | None:
        """The resource that serves a kind."""
        return self._by_kind.get((api_version, kind))

    def by_message(self, message: type[Message] | Message) -> ResourceInfo | None:
        """The resource that a message class, or an object of it, belongs to."""
        return self._by_message.get(message.DESCRIPTOR.full_name)

    def kind(self, api_version: str, kind: str) -> KindInfo | None:
        """A kind, served or not, such as Status, DeleteOptions or a list.

        Kinds of every group, like DeleteOptions, are found under each apiVersion.
        """
        return self._kinds.get((api_version, kind)) or self._meta_kind(kind)

    def _meta_kind(self, kind: str) -> KindInfo | None:
        found = self._kinds.get((f"{_META_GROUP}/v1", kind))
        return found if found is not None and (found.role == "typed" or kind == "List") else None


def gvk(message: Message | type[Message]) -> tuple[str, str, str]:
    """Group, version and kind of a top-level message; raises ValueError for a part of one."""
    api_version, kind = type_meta(descriptor_of(message))
    if not kind:
        raise ValueError(f"{message.DESCRIPTOR.full_name} is no top-level kind")
    group, _, version = api_version.rpartition("/")
    return group, version, kind


@functools.cache
def load_default() -> Scheme:
    """The scheme of the contracts that are installed; made once, read only."""
    data = importlib.resources.files("tiphys").joinpath("descriptors.binpb").read_bytes()
    files = descriptor_pb2.FileDescriptorSet.FromString(data).file
    return Scheme(file for file in files if file.name.startswith("tiphys/api/"))


def _objects(
    files: Iterable[descriptor_pb2.FileDescriptorProto],
) -> Iterable[tuple[KindInfo, options_pb2.ObjectOptions]]:
    for file in files:
        for message in file.message_type:
            if not message.options.HasExtension(options_pb2.object):
                continue
            options = message.options.Extensions[options_pb2.object]
            role = options_pb2.Role.Name(options.role).removeprefix("ROLE_").lower()
            full_name = f"{file.package}.{message.name}"
            yield KindInfo(options.group, options.version, message.name, role, full_name, file.name), options


def _resource(info: KindInfo, resource: options_pb2.Resource, list_info: KindInfo | None) -> ResourceInfo:
    subresources = {
        sub.name: Subresource(
            name=sub.name,
            kind=sub.kind,
            group=sub.group,
            version=sub.version,
            verbs=tuple(sub.verbs),
            connect=sub.connect,
            methods=tuple(sub.methods),
            trailing_path=sub.trailing_path,
        )
        for sub in resource.subresources
    }
    return ResourceInfo(
        group=info.group,
        version=info.version,
        plural=resource.plural,
        singular=resource.singular,
        kind=info.kind,
        namespaced=resource.namespaced,
        kind_info=info,
        list_info=list_info,
        short_names=tuple(resource.short_names),
        categories=tuple(resource.categories),
        verbs=tuple(resource.verbs),
        subresources=subresources,
        columns=tuple(resource.columns),
        selectable_fields=tuple(resource.selectable_fields),
    )


@functools.cache
def _import_message(file: str, name: str) -> type[Message]:
    module: Any = importlib.import_module(file.removesuffix(".proto").replace("/", ".") + "_pb2")
    found: type[Message] = getattr(module, name)
    return found
