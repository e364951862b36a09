"""The reference pages of the contracts, in Markdown, made of descriptors and the comments beside them.

A page holds one proto package: services with their methods, messages with their fields, enums with their values. The
typed services of resources share one wire layout; their pages link to it where a message has exactly its fields.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
    MethodDescriptorProto,
    ServiceDescriptorProto,
)

from tiphys.options.v1 import options_pb2

WIRE = "tiphys.apiserver.v1"
# Contracts that only our own processes speak, with programs that publish their references themselves.
INTERNAL = ("tiphys/thirdparty/etcd/", "tiphys/thirdparty/containerd/", "tiphys/thirdparty/openapi/")
# Messages of typed services that go by another name in the shared layout.
_ALIASES = {"Result": "BatchResult", "UpdateStatusRequest": "UpdateRequest", "UpdateStatusResponse": "UpdateResponse"}
_SCALARS = {
    number: name.removeprefix("TYPE_").lower()
    for name, number in FieldDescriptorProto.Type.items()
    if name not in ("TYPE_MESSAGE", "TYPE_ENUM", "TYPE_GROUP")
}


@dataclass(frozen=True, slots=True)
class Item:
    """A message or enum with its full name, the package it is in, and the comments by path below its own."""

    full_name: str
    package: str
    proto: DescriptorProto | EnumDescriptorProto
    comments: dict[tuple[int, ...], str]

    @property
    def name(self) -> str:
        """The name inside the package; dots where it is nested."""
        return self.full_name.removeprefix(f"{self.package}.")


@dataclass(frozen=True, slots=True)
class Package:
    """What one page holds, in the order of the files."""

    name: str
    page: str
    files: list[FileDescriptorProto] = field(default_factory=list)
    services: list[tuple[ServiceDescriptorProto, dict[tuple[int, ...], str]]] = field(default_factory=list)
    items: list[Item] = field(default_factory=list)

    @property
    def folder(self) -> str:
        """Where the .proto files lie."""
        return str(PurePosixPath(self.files[0].name).parent)


@dataclass(frozen=True, slots=True)
class Contracts:
    """Every package that has a page, every type by its full name, and the maps' entry types."""

    packages: dict[str, Package]
    items: dict[str, Item]
    entries: dict[str, DescriptorProto]


def read(descriptors: FileDescriptorSet) -> Contracts:
    """Sorts what protoc said (with source info) into packages, which are told apart by their folder."""
    contracts = Contracts({}, {}, {})
    for file in descriptors.file:
        folder = str(PurePosixPath(file.name).parent)
        if not folder.startswith("tiphys/") or file.name.startswith(INTERNAL):
            continue
        page = f"{folder.removeprefix('tiphys/').removeprefix('thirdparty/').replace('/', '.')}.md"
        package = contracts.packages.setdefault(folder, Package(file.package, page))
        package.files.append(file)
        comments = {tuple(place.path): place.leading_comments for place in file.source_code_info.location}
        for i, service in enumerate(file.service):
            package.services.append((service, _below(comments, (6, i))))
        for i, message in enumerate(file.message_type):
            full_name, own = f"{file.package}.{message.name}", _below(comments, (4, i))
            _add_message(contracts, package, message, full_name=full_name, comments=own)
        for i, enum in enumerate(file.enum_type):
            full_name, own = f"{file.package}.{enum.name}", _below(comments, (5, i))
            _add(contracts, package, enum, full_name=full_name, comments=own)
    return contracts


def _below(comments: dict[tuple[int, ...], str], path: tuple[int, ...]) -> dict[tuple[int, ...], str]:
    size = len(path)
    return {key[size:]: " ".join(text.split()) for key, text in comments.items() if key[:size] == path and text}


def _add(
    contracts: Contracts,
    package: Package,
    proto: DescriptorProto | EnumDescriptorProto,
    *,
    full_name: str,
    comments: dict[tuple[int, ...], str],
) -> None:
    item = Item(full_name, package.name, proto, comments)
    contracts.items[full_name] = item
    package.items.append(item)


def _add_message(
    contracts: Contracts,
    package: Package,
    message: DescriptorProto,
    *,
    full_name: str,
    comments: dict[tuple[int, ...], str],
) -> None:
    """The message, and those inside it; a map's entry is no message of its own to readers."""
    if message.options.map_entry:
        contracts.entries[full_name] = message
        return
    _add(contracts, package, message, full_name=full_name, comments=comments)
    for i, nested in enumerate(message.nested_type):
        inner = f"{full_name}.{nested.name}"
        _add_message(contracts, package, nested, full_name=inner, comments=_below(comments, (3, i)))
    for i, enum in enumerate(message.enum_type):
        inner = f"{full_name}.{enum.name}"
        _add(contracts, package, enum, full_name=inner, comments=_below(comments, (4, i)))


def pages(contracts: Contracts) -> dict[str, str]:
    """Every page by its file name, and README.md, which lists them."""
    writer = _Writer(contracts)
    made = {package.page: writer.page(package) for package in contracts.packages.values()}
    made["README.md"] = writer.index()
    return made


class _Writer:
    """Writes pages; knows where each type is described."""

    def __init__(self, contracts: Contracts) -> None:
        self._contracts = contracts
        self._pages = {
            item.full_name: package.page for package in contracts.packages.values() for item in package.items
        }
        self._wire = {item.name: item for item in next(p for p in contracts.packages.values() if p.name == WIRE).items}

    def index(self) -> str:
        """README.md of the folder."""
        groups: dict[str, list[str]] = {"api": [], "own": [], "apiserver": [], "plugins": []}
        for package in sorted(self._contracts.packages.values(), key=lambda package: package.page):
            groups[_group_of(package)].append(
                f"| [{package.page[:-3]}]({package.page}) | `{package.name}` | {_gist(package)} |"
            )
        parts = [_INDEX_HEAD]
        for key, title in _GROUPS.items():
            parts += [f"## {title}", "", "| page | proto package | what it holds |", "|---|---|---|", *groups[key], ""]
        return "\n".join(parts)

    def page(self, package: Package) -> str:
        """The page of one package."""
        shown = [item for item in package.items if self._wire_of(package, item.full_name) is None]
        _demand_unique_anchors(package, shown)
        lines = [f"# {package.page[:-3]}", "", *_head(package)]
        if package.services:
            lines += ["## Services", ""]
        for service, comments in package.services:
            lines += self._service(package, service, comments)
        if shown:
            lines += ["## Messages and enums", ""]
        for item in sorted(shown, key=lambda item: item.name):
            lines += self._message(item) if isinstance(item.proto, DescriptorProto) else _enum(item)
        return "\n".join(lines).rstrip() + "\n"

    def _service(
        self, package: Package, service: ServiceDescriptorProto, comments: dict[tuple[int, ...], str]
    ) -> Iterator[str]:
        yield from (f"### {service.name}", "")
        if comments.get(()):
            yield from (_text(comments[()]), "")
        yield from ("| method | asks | answers | what it does |", "|---|---|---|---|")
        for i, method in enumerate(service.method):
            yield self._method(package, method, comments.get((2, i), ""))
        yield ""

    def _method(self, package: Package, method: MethodDescriptorProto, comment: str) -> str:
        asks = self._link(method.input_type, package, is_stream=method.client_streaming)
        answers = self._link(method.output_type, package, is_stream=method.server_streaming)
        return f"| `{method.name}` | {asks} | {answers} | {_text(comment)} |"

    def _link(self, type_name: str, package: Package, *, is_stream: bool) -> str:
        full_name = type_name.removeprefix(".")
        wire = self._wire_of(package, full_name)
        target = wire.full_name if wire is not None else full_name
        return f"{'stream of ' if is_stream else ''}{self._reference(target, package.page)}"

    def _wire_of(self, package: Package, full_name: str) -> Item | None:
        """The message of the shared layout that this one of a typed service has every field of, and no other."""
        if not package.name.startswith("tiphys.apiserver.") or package.name == WIRE:
            return None
        name = full_name.removeprefix(f"{package.name}.").partition("Service")[2]
        wire = self._wire.get(_ALIASES.get(name, name))
        item = self._contracts.items.get(full_name)
        return wire if wire is not None and item is not None and _layout(item) <= _layout(wire) else None

    def _reference(self, full_name: str, page: str) -> str:
        item = self._contracts.items.get(full_name)
        if item is None:
            return f"`{full_name}`"
        target = self._pages[full_name]
        return f"[{item.name}]({'' if target == page else target}#{_anchor(item.name)})"

    def _message(self, item: Item) -> Iterator[str]:
        message = item.proto
        assert isinstance(message, DescriptorProto)
        yield from (f"### {item.name}", "")
        for text in (_text(item.comments.get((), "")), _resource(message)):
            if text:
                yield from (text, "")
        if not message.field:
            yield from ("No fields.", "")
            return
        yield from ("| field | number | type | default and rules | what it is |", "|---|---|---|---|---|")
        for i, entry in enumerate(message.field):
            rules = "; ".join(_rules(message, entry))
            comment = _text(item.comments.get((2, i), ""))
            yield f"| `{entry.name}` | {entry.number} | {self._type(entry, item)} | {rules} | {comment} |"
        yield ""

    def _type(self, entry: FieldDescriptorProto, item: Item) -> str:
        page = self._pages[item.full_name]
        full_name = entry.type_name.removeprefix(".")
        if full_name in self._contracts.entries:
            key, value = self._contracts.entries[full_name].field
            return f"map of {self._type(key, item)} to {self._type(value, item)}"
        name = _SCALARS.get(entry.type) or self._reference(full_name, page)
        return f"list of {name}" if entry.label == FieldDescriptorProto.LABEL_REPEATED else name


_GENERATED = "Made by hack/"
_GROUPS = {
    "own": "Services of the components",
    "apiserver": "Typed services of the resources",
    "api": "API objects",
    "plugins": "Contracts of plugins",
}
_INDEX_HEAD = """# Reference of the contracts

One page for each proto package, written by `python -m hack.update_docs` from the files in `protos` and their comments.
`protos/README.md` tells how to install them; `docs/grpc.md` tells how the services behave.
"""


def _group_of(package: Package) -> str:
    if package.folder.startswith("tiphys/thirdparty/"):
        return "plugins"
    if package.folder.startswith("tiphys/api/") or package.name.startswith("tiphys.options"):
        return "api"
    return "apiserver" if package.name.startswith("tiphys.apiserver.") and package.name != WIRE else "own"


def _gist(package: Package) -> str:
    if package.services:
        return ", ".join(service.name for service, _ in package.services)
    kinds = [item.name for item in package.items if _role(item) == options_pb2.ROLE_OBJECT]
    if kinds:
        return ", ".join(sorted(kinds))
    comment = _file_comment(package.files[0])
    return _text(comment) if comment and _GENERATED not in comment else ", ".join(item.name for item in package.items)


def _head(package: Package) -> Iterator[str]:
    comments = [text for file in package.files if (text := _file_comment(file)) and _GENERATED not in text]
    if len(package.files) == 1 and comments:
        yield from (_text(comments[0]), "")
    if package.name.startswith("tiphys.apiserver.") and package.name != WIRE:
        yield (
            "Asks and answers have the layout of [apiserver.v1](apiserver.v1.md), with the object's own type where"
            " that has bytes."
        )
        yield ""
    names = ", ".join(f"`{PurePosixPath(file.name).name}`" for file in package.files)
    module = package.files[0].name.removesuffix(".proto").replace("/", ".")
    yield f"Proto package `{package.name}`, in `protos/{package.folder}`: {names}."
    yield f"In Python: `{module}_pb2`{' and so on' if len(package.files) > 1 else ''}."
    yield ""


def _file_comment(file: FileDescriptorProto) -> str:
    """What stands above the line of the syntax: field 12 of the file."""
    return next(
        (" ".join(place.leading_comments.split()) for place in file.source_code_info.location if place.path == [12]), ""
    )


def _enum(item: Item) -> Iterator[str]:
    enum = item.proto
    assert isinstance(enum, EnumDescriptorProto)
    yield from (f"### {item.name}", "")
    if item.comments.get(()):
        yield from (_text(item.comments[()]), "")
    yield from ("| value | number | what it means |", "|---|---|---|")
    for i, value in enumerate(enum.value):
        yield f"| `{value.name}` | {value.number} | {_text(item.comments.get((2, i), ''))} |"
    yield ""


def _role(item: Item) -> int:
    if not isinstance(item.proto, DescriptorProto):
        return options_pb2.ROLE_UNSPECIFIED
    role: int = item.proto.options.Extensions[options_pb2.object].role
    return role


def _resource(message: DescriptorProto) -> str:
    facts = message.options.Extensions[options_pb2.object]
    told = []
    for resource in facts.resources:
        scope = "in a namespace" if resource.namespaced else "of the cluster"
        short = f", short {', '.join(f'`{name}`' for name in resource.short_names)}" if resource.short_names else ""
        parts = ", ".join(f"`{sub.name}`" for sub in resource.subresources)
        told.append(f"`{resource.plural}` {scope}{short}{f', with {parts}' if parts else ''}")
    group = "/".join(word for word in (facts.group, facts.version) if word)
    return f"Resource of `{group}`: {'; '.join(told)}." if told else ""


def _rules(message: DescriptorProto, entry: FieldDescriptorProto) -> Iterator[str]:
    """Default, presence and limits of a field, in words; what only patches need to know is left out."""
    facts = entry.options.Extensions[options_pb2.field]
    if facts.HasField("default"):
        yield f"default `{facts.default or 'empty'}`"
    elif entry.HasField("default_value"):
        yield f"default `{entry.default_value}`"
    if facts.required:
        yield "required"
    if facts.immutable:
        yield "can't change"
    if facts.enum:
        yield "one of " + ", ".join(f"`{value}`" for value in facts.enum)
    if facts.HasField("minimum") or facts.HasField("maximum"):
        low = facts.minimum if facts.HasField("minimum") else "…"
        high = facts.maximum if facts.HasField("maximum") else "…"
        yield f"{low} to {high}"
    if facts.format:
        yield f"format {facts.format}"
    if facts.list_map_keys:
        yield "keyed by " + ", ".join(f"`{key}`" for key in facts.list_map_keys)
    if entry.HasField("oneof_index") and not entry.proto3_optional:
        yield f"one of `{message.oneof_decl[entry.oneof_index].name}`"
    if entry.proto3_optional:
        yield "optional"
    if entry.options.deprecated:
        yield "deprecated"


def _layout(item: Item) -> set[tuple[str, int]]:
    assert isinstance(item.proto, DescriptorProto)
    return {(entry.name, entry.number) for entry in item.proto.field}


def _demand_unique_anchors(package: Package, shown: list[Item]) -> None:
    """Raises ValueError where two headings of a page would get one anchor."""
    names = [*(service.name for service, _ in package.services), *(item.name for item in shown)]
    anchors = [_anchor(name) for name in names]
    twice = {anchor for anchor in anchors if anchors.count(anchor) > 1}
    if twice:
        raise ValueError(f"{package.name}: two headings are #{', #'.join(sorted(twice))}")


def _anchor(name: str) -> str:
    """As Markdown on the usual sites makes it from a heading."""
    return re.sub(r"[^\w-]", "", name.lower())


def _text(comment: str) -> str:
    """A comment as Markdown shows it in a cell; words in backquotes stay as they are."""
    parts = comment.replace("|", r"\|").split("`")
    parts[::2] = [part.replace("<", "&lt;").replace("*", r"\*") for part in parts[::2]]
    return "`".join(parts)
