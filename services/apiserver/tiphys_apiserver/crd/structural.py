"""A structural schema as a tree: what is pruned, what is filled in, and how values merge. Pure.

Source of the rules: apiextensions pkg/apiserver/schema (structural schemas, pruning, defaulting).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from tiphys_apimachinery.patch.typed import LEAF, UNKNOWN, Shape

JSON = dict[str, Any]
_EMBEDDED: Final = ("apiVersion", "kind", "metadata")


class _Missing:
    """Stands for no default: None is one."""


MISSING: Final = _Missing()


@dataclass(slots=True)
class Node:
    """One position of a schema."""

    properties: dict[str, Node] = field(default_factory=dict)
    # Of the members that properties does not name: True takes anything, None nothing.
    additional: Node | bool | None = None
    items: Node | None = None
    preserves: bool = False
    embedded: bool = False
    nullable: bool = False
    # The text of the default, so that each object gets a value of its own.
    default: bytes | _Missing = MISSING
    # Whether anything below, or this, has a default or drops null.
    fills: bool = False
    list_type: str = ""
    list_keys: tuple[str, ...] = ()
    map_type: str = ""
    is_object: bool = False


def build(schema: Mapping[str, Any]) -> Node:
    """The tree of a schema in its JSON form."""
    node = Node(
        preserves=bool(schema.get("x-kubernetes-preserve-unknown-fields")),
        embedded=bool(schema.get("x-kubernetes-embedded-resource")),
        nullable=bool(schema.get("nullable")),
        list_type=schema.get("x-kubernetes-list-type", ""),
        list_keys=tuple(schema.get("x-kubernetes-list-map-keys", ())),
        map_type=schema.get("x-kubernetes-map-type", ""),
        is_object=schema.get("type") == "object",
    )
    if "default" in schema:
        node.default = orjson.dumps(schema["default"])
    for name, part in schema.get("properties", {}).items():
        node.properties[name] = build(part)
    additional = schema.get("additionalProperties")
    if isinstance(additional, Mapping):
        node.additional = build(additional)
    elif additional:
        node.additional = True
    items = schema.get("items")
    if isinstance(items, Mapping):
        node.items = build(items)
    node.fills = _fills(node)
    return node


def _fills(node: Node) -> bool:
    if any(part.default is not MISSING or part.fills or not part.nullable for part in node.properties.values()):
        return True
    if isinstance(node.additional, Node):
        return True
    return node.items is not None


def prune(node: Node, value: Any, path: str, unknown: list[str]) -> Any:
    """A copy of the value without what the schema does not know; the paths of that are added to unknown."""
    if isinstance(value, dict):
        kept = {}
        for name, given in value.items():
            where = f"{path}.{name}" if path else name
            member = _prune_member(node, name, given, path=where, unknown=unknown)
            if member is not MISSING:
                kept[name] = member
        return kept
    if isinstance(value, list):
        if node.items is None:
            # A list without schema of its items lies below unknown fields that are kept.
            return orjson.loads(orjson.dumps(value))
        return [prune(node.items, item, f"{path}[{index}]", unknown) for index, item in enumerate(value)]
    return value


def _prune_member(node: Node, name: str, value: Any, *, path: str, unknown: list[str]) -> Any:
    known = node.properties.get(name)
    if known is not None:
        return prune(known, value, path, unknown)
    if isinstance(node.additional, Node):
        return prune(node.additional, value, path, unknown)
    if node.additional or node.preserves or (node.embedded and name in _EMBEDDED):
        return orjson.loads(orjson.dumps(value))
    unknown.append(path)
    return MISSING


def fill(node: Node, value: Any) -> None:
    """Set defaults in place, and drop null where it may not stand and nothing takes its place."""
    if isinstance(value, dict):
        for name, part in node.properties.items():
            if name in value and (value[name] is not None or part.nullable):
                continue
            if not isinstance(part.default, _Missing):
                value[name] = orjson.loads(part.default)
            elif name in value:
                del value[name]
        for name, member in list(value.items()):
            known = node.properties.get(name)
            if known is None and isinstance(node.additional, Node):
                known = node.additional
                if member is None and not known.nullable:
                    if isinstance(known.default, _Missing):
                        del value[name]
                    else:
                        member = value[name] = orjson.loads(known.default)
            if known is not None and known.fills:
                fill(known, member)
    elif isinstance(value, list) and node.items is not None:
        for index, item in enumerate(value):
            if item is None and not node.items.nullable and not isinstance(node.items.default, _Missing):
                value[index] = orjson.loads(node.items.default)
            elif node.items.fills:
                fill(node.items, item)


def shape(node: Node) -> Shape:
    """How values at the position merge in server-side apply."""
    if node.map_type == "atomic":
        return LEAF
    if node.items is not None:
        return _list_shape(node, node.items)
    if node.properties or node.additional is not None:
        members = {name: shape(part) for name, part in node.properties.items()}
        if node.embedded:
            members = dict.fromkeys(_EMBEDDED, UNKNOWN) | members
        part = shape(node.additional) if isinstance(node.additional, Node) else None
        return Shape(declared=members.get, part=part)
    return UNKNOWN if node.is_object or node.preserves else LEAF


def _list_shape(node: Node, items: Node) -> Shape:
    if node.list_type == "set":
        return Shape(is_list=True, part=LEAF)
    if node.list_type == "map":
        keys = tuple((name, _default_of(items, name)) for name in sorted(node.list_keys))
        return Shape(is_list=True, keys=keys, part=shape(items))
    return LEAF


def _default_of(items: Node, name: str) -> Any:
    part = items.properties.get(name)
    return None if part is None or isinstance(part.default, _Missing) else orjson.loads(part.default)
