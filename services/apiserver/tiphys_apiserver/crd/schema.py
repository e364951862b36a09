"""What one version of a definition says about its objects. Everything is compiled on first use: most are never used."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import orjson

from tiphys.api.meta.v1 import meta_pb2
from tiphys_apimachinery.codec import json_codec
from tiphys_apimachinery.errors import FieldError
from tiphys_apimachinery.patch.typed import LEAF, Shape, shape_of
from tiphys_apimachinery.schema import descriptor_of
from tiphys_apiserver.cel import rules, typed
from tiphys_apiserver.crd import structural, validation

# Compiled schemas in memory at once.
_KEPT = 128
# What checks the schema, its rules, whether the check looks at metadata, and what makes values of JSON for rules.
_Compiled = tuple[Any, rules.RuleTree | None, bool, Callable[[Any], Any] | None]


class VersionSchema:
    """The schema of one version. text is the OpenAPI schema as JSON; keeps_all is preserveUnknownFields of old."""

    __slots__ = ("_node", "_shape", "_text", "keeps_all")

    def __init__(self, text: bytes, *, keeps_all: bool = False) -> None:
        self._text = text
        self.keeps_all = keeps_all
        self._node: structural.Node | None = None
        self._shape: Shape | None = None

    @property
    def text(self) -> bytes:
        """The OpenAPI schema as JSON."""
        return self._text

    @property
    def node(self) -> structural.Node:
        """The schema as a tree."""
        if self._node is None:
            node = structural.build(orjson.loads(self._text))
            for name in ("apiVersion", "kind", "metadata"):
                node.properties.pop(name, None)
            node.preserves = node.preserves or self.keeps_all
            self._node = node
        return self._node

    @property
    def shape(self) -> Shape:
        """How values merge in server-side apply; of the whole object."""
        if self._shape is None:
            inner = structural.shape(self.node)
            metadata = shape_of(descriptor_of(meta_pb2.ObjectMeta))
            known: Mapping[str, Shape] = {"apiVersion": LEAF, "kind": LEAF, "metadata": metadata}
            self._shape = Shape(declared=lambda name: known.get(name) or inner.declared(name), part=inner.part)
        return self._shape

    def read(self, content: Mapping[str, Any], unknown: list[str]) -> dict[str, Any]:
        """A copy of the content without what the schema does not know; the paths of that are added to unknown."""
        pruned: dict[str, Any] = structural.prune(self.node, dict(content), "", unknown)
        return pruned

    def fill(self, content: dict[str, Any]) -> None:
        """Set defaults in place."""
        if self.node.fills:
            structural.fill(self.node, content)

    def check(self, obj: Any, old: Any | None = None) -> list[FieldError]:
        """Every fault of an object; rules about changes are asked where there is an old one."""
        validator, with_rules, needs_metadata, convert = _compiled(self._text)
        document = json_codec.to_json(obj) if needs_metadata else dict(obj.content)
        errors = validation.check(validator, document)
        if with_rules is None or errors:
            # Rules may take for granted what the schema says.
            return errors
        whole = json_codec.to_json(obj)
        before = json_codec.to_json(old) if old is not None else None
        if convert is not None:
            whole, before = convert(whole), convert(before)
        return rules.check(with_rules, whole) if old is None else rules.check(with_rules, whole, before)


@lru_cache(maxsize=_KEPT)
def _compiled(text: bytes) -> _Compiled:
    """What checks objects against a schema. Those of few definitions are kept: each takes 80 KB, and 1 ms to make."""
    schema = orjson.loads(text)
    properties = schema.get("properties") or {}
    for name in ("apiVersion", "kind"):
        properties.pop(name, None)
    needs_metadata = bool((properties.get("metadata") or {}).get("properties"))
    if not needs_metadata:
        properties.pop("metadata", None)
    schema["required"] = [name for name in schema.get("required", ()) if name not in ("apiVersion", "kind", "metadata")]
    with_rules = rules.build(schema)
    convert = typed.converter(schema) if with_rules is not None else None
    return validation.compile_schema(schema), with_rules, needs_metadata, convert
