"""What the descriptors say about a message, in the shape that codecs, defaults, patches and checks read.

Everything is read once per message and kept; descriptors never change.
"""

from __future__ import annotations

import enum
import functools
from dataclasses import dataclass
from typing import Any, Final, cast

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from tiphys.options.v1 import options_pb2

_META: Final = "k8s.io.apimachinery.pkg.apis.meta.v1."
_EXTENSIONS: Final = "k8s.io.apiextensions_apiserver.pkg.apis.apiextensions.v1."


class Kind(enum.Enum):
    """How a value looks in JSON."""

    STRING = "string"
    BOOL = "bool"
    INT = "int"
    FLOAT = "float"
    BYTES = "bytes"
    STRUCT = "struct"
    TIME = "time"
    MICRO_TIME = "microTime"
    DURATION = "duration"
    QUANTITY = "quantity"
    INT_OR_STRING = "intOrString"
    # Any JSON value, kept as its text: RawExtension, FieldsV1, JSON.
    RAW = "raw"
    # A message that stands for the list in its only field.
    LIST_WRAPPER = "listWrapper"
    SCHEMA_OR_BOOL = "schemaOrBool"
    SCHEMA_OR_LIST = "schemaOrList"
    SCHEMA_OR_STRINGS = "schemaOrStrings"


_SPECIAL: Final = {
    f"{_META}Time": Kind.TIME,
    f"{_META}MicroTime": Kind.MICRO_TIME,
    f"{_META}Duration": Kind.DURATION,
    f"{_META}FieldsV1": Kind.RAW,
    "k8s.io.apimachinery.pkg.api.resource.Quantity": Kind.QUANTITY,
    "k8s.io.apimachinery.pkg.util.intstr.IntOrString": Kind.INT_OR_STRING,
    "k8s.io.apimachinery.pkg.runtime.RawExtension": Kind.RAW,
    f"{_EXTENSIONS}JSON": Kind.RAW,
    f"{_EXTENSIONS}JSONSchemaPropsOrBool": Kind.SCHEMA_OR_BOOL,
    f"{_EXTENSIONS}JSONSchemaPropsOrArray": Kind.SCHEMA_OR_LIST,
    f"{_EXTENSIONS}JSONSchemaPropsOrStringArray": Kind.SCHEMA_OR_STRINGS,
}
_SCALARS: Final = {
    FieldDescriptor.TYPE_STRING: (Kind.STRING, "string"),
    FieldDescriptor.TYPE_BOOL: (Kind.BOOL, "bool"),
    FieldDescriptor.TYPE_INT32: (Kind.INT, "int32"),
    FieldDescriptor.TYPE_INT64: (Kind.INT, "int64"),
    FieldDescriptor.TYPE_UINT32: (Kind.INT, "uint32"),
    FieldDescriptor.TYPE_UINT64: (Kind.INT, "uint64"),
    FieldDescriptor.TYPE_DOUBLE: (Kind.FLOAT, "float64"),
    FieldDescriptor.TYPE_FLOAT: (Kind.FLOAT, "float32"),
    FieldDescriptor.TYPE_BYTES: (Kind.BYTES, "[]uint8"),
}
INT_RANGES: Final = {
    "int32": (-(2**31), 2**31 - 1),
    "int64": (-(2**63), 2**63 - 1),
    "uint32": (0, 2**32 - 1),
    "uint64": (0, 2**64 - 1),
}


@dataclass(frozen=True, slots=True)
class Field:
    """One field. `kind`, `go_type` and `message` are those of the item or map value."""

    name: str
    json: str
    kind: Kind
    go_type: str
    message: Descriptor | None
    is_list: bool
    is_map: bool
    options: options_pb2.FieldOptions

    @property
    def is_pointer(self) -> bool:
        """Unset is told from zero."""
        return self.options.pointer

    @property
    def is_inline(self) -> bool:
        """The message's members stand in place of the field."""
        return self.options.inline

    @property
    def is_always_written(self) -> bool:
        """JSON has the field also when it is empty."""
        return self.options.presence == options_pb2.PRESENCE_ALWAYS

    @property
    def is_omitted_when_zero(self) -> bool:
        """JSON leaves out even a struct that is empty."""
        return self.options.presence == options_pb2.PRESENCE_OMITZERO

    @property
    def is_singular(self) -> bool:
        """Neither list nor map."""
        return not (self.is_list or self.is_map)

    @property
    def full_go_type(self) -> str:
        """The type as Go's messages name it, such as []v1.Container."""
        if self.is_map:
            return f"map[string]{self.go_type}"
        return f"[]{self.go_type}" if self.is_list else self.go_type


@functools.cache
def fields_of(descriptor: Descriptor) -> tuple[Field, ...]:
    """The message's fields in the order in which JSON has them."""
    return tuple(_read_field(field) for field in descriptor.fields)


@functools.cache
def fields_by_json(descriptor: Descriptor) -> dict[str, Field]:
    """The fields by JSON name, those of inline messages in place of the message."""
    found: dict[str, Field] = {}
    for field in fields_of(descriptor):
        if field.is_inline and field.message is not None:
            found.update(fields_by_json(field.message))
        else:
            found[field.json] = field
    return found


@functools.cache
def has_type_meta(descriptor: Descriptor) -> bool:
    """Whether JSON has apiVersion and kind on this message, which protobuf has not."""
    return descriptor.GetOptions().HasExtension(options_pb2.object)


@functools.cache
def object_options(descriptor: Descriptor) -> options_pb2.ObjectOptions:
    """The place of the message among the kinds; empty for a part."""
    return descriptor.GetOptions().Extensions[options_pb2.object]


@functools.cache
def type_meta(descriptor: Descriptor) -> tuple[str, str]:
    """apiVersion and kind of a top-level message; both empty for a part."""
    if not has_type_meta(descriptor):
        return "", ""
    options = object_options(descriptor)
    # Status, DeleteOptions and their like belong to no group of their own: they say v1.
    group = "" if options.group == "meta.k8s.io" and descriptor.name not in _META_KINDS else options.group
    return f"{group}/{options.version}" if group else options.version, descriptor.name


_META_KINDS = frozenset({"PartialObjectMetadata", "PartialObjectMetadataList", "TableOptions"})


def descriptor_of(message: Message | type[Message]) -> Descriptor:
    """The message's descriptor, of the one type that stubs of both protobuf back ends agree on."""
    return cast(Descriptor, message.DESCRIPTOR)


def part_of(descriptor: Descriptor, name: str) -> Descriptor:
    """Descriptor of the message in a field."""
    return cast(Descriptor, descriptor.fields_by_name[name].message_type)


@functools.cache
def is_union(descriptor: Descriptor) -> bool:
    """Whether the message is a choice among many: pointers to structs and nothing else."""
    fields = fields_of(descriptor)
    return len(fields) > 3 and all(
        field.is_singular
        and field.is_pointer
        and field.message is not None
        and not field.is_always_written
        and not field.is_inline
        for field in fields
    )


def message_kind(descriptor: Descriptor) -> Kind:
    """How the message looks in JSON."""
    special = _SPECIAL.get(descriptor.full_name)
    if special is not None:
        return special
    options = descriptor.GetOptions()
    if options.HasExtension(options_pb2.part) and options.Extensions[options_pb2.part].list_wrapper:
        return Kind.LIST_WRAPPER
    return Kind.STRUCT


def only_field(descriptor: Descriptor) -> str:
    """Name of the single field of a message that stands for its value."""
    return str(descriptor.fields[0].name)


@functools.cache
def is_recursive(descriptor: Descriptor) -> bool:
    """Whether a message of this type can hold, at any depth, one of a type that holds itself."""
    seen: set[str] = set()
    stack: list[str] = []

    def visit(message: Descriptor) -> bool:
        if message.full_name in stack:
            return True
        if message.full_name in seen:
            return False
        seen.add(message.full_name)
        stack.append(message.full_name)
        found = any(visit(field.message_type) for field in message.fields if field.message_type is not None)
        stack.pop()
        return found

    return visit(descriptor)


def _read_field(field: FieldDescriptor) -> Field:
    value: Any = field
    message = field.message_type
    is_map = message is not None and message.GetOptions().map_entry
    if message is not None and is_map:
        value = message.fields_by_name["value"]
        message = value.message_type
    if message is None:
        kind, go_type = _SCALARS[value.type]
    else:
        kind, go_type = message_kind(message), _go_type(message)
    return Field(
        name=field.name,
        json=field.json_name,
        kind=kind,
        go_type=go_type,
        message=message,
        is_list=field.is_repeated and not is_map,
        is_map=is_map,
        options=field.GetOptions().Extensions[options_pb2.field],
    )


def _go_type(message: Descriptor) -> str:
    package = message.file.package.rpartition(".")[2]
    return f"{package}.{message.name}"
