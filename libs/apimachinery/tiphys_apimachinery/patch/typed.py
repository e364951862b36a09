"""How values merge in server-side apply, read from the schema: what is one value, and what has parts with own owners.

A shape describes one position in an object: a leaf (also every list and struct that the schema calls atomic), an
object with members, a list whose items are told apart by keys, or a list that is a set of values. Where the schema
says nothing, objects have members and lists are leaves.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from google.protobuf.descriptor import Descriptor

from tiphys.options.v1 import options_pb2
from tiphys_apimachinery.schema import Field, Kind, fields_by_json


def _none(_name: str) -> Shape | None:
    return None


@dataclass(frozen=True, slots=True)
class Shape:
    """One position.

    is_leaf: it has one owner as a whole. is_list: items have owners, told apart by keys (names in order, each with the
    value it has where an item leaves it out) or, without keys, as plain values. declared gives the members that the
    schema names; part is the shape of a list's items and of a map's values.
    """

    is_leaf: bool = False
    is_list: bool = False
    keys: tuple[tuple[str, Any], ...] = ()
    part: Shape | None = None
    declared: Callable[[str], Shape | None] = _none

    def declares(self, name: str) -> bool:
        """Whether the schema names the member; those of a map are named by the user."""
        return self.declared(name) is not None

    def member(self, name: str) -> Shape:
        """The shape of a member of an object."""
        return self.declared(name) or self.part or UNKNOWN

    @property
    def item(self) -> Shape:
        """The shape of a list's items."""
        return self.part or UNKNOWN


LEAF: Final = Shape(is_leaf=True)
UNKNOWN: Final = Shape()


@functools.cache
def shape_of(descriptor: Descriptor) -> Shape:
    """The shape of a message."""
    if descriptor.GetOptions().Extensions[options_pb2.part].atomic:
        return LEAF
    return Shape(declared=lambda name: _members(descriptor).get(name))


# What every object has beside the fields of its message.
_TYPE_META: Final[dict[str, Shape]] = {"apiVersion": LEAF, "kind": LEAF}


@functools.cache
def _members(descriptor: Descriptor) -> dict[str, Shape]:
    return _TYPE_META | {name: _shape(field) for name, field in fields_by_json(descriptor).items()}


def _shape(field: Field) -> Shape:
    if field.options.atomic:
        return LEAF
    value = shape_of(field.message) if field.kind is Kind.STRUCT and field.message is not None else LEAF
    if field.is_map:
        return Shape(part=value)
    if not field.is_list:
        return value
    if field.options.list_type == options_pb2.LIST_TYPE_SET:
        return Shape(is_list=True, part=LEAF)
    if field.options.list_type == options_pb2.LIST_TYPE_MAP and field.message is not None:
        keys = _keys(field.message, tuple(field.options.list_map_keys))
        return Shape(is_list=True, keys=keys, part=value)
    return LEAF


def _keys(item: Descriptor, names: tuple[str, ...]) -> tuple[tuple[str, Any], ...]:
    """The key fields, each with its default: ports are told apart by protocol, which most leave out."""
    fields = fields_by_json(item)
    return tuple((name, _default(fields[name])) for name in sorted(names))


def _default(field: Field) -> Any:
    text = field.options.default if field.options.HasField("default") else ""
    if not text:
        return None
    return int(text) if field.kind is Kind.INT else text
