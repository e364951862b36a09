"""Kinds of one's own, declared as a Python class over a dataclass, and the definition that makes a cluster serve them.

    @dataclass(frozen=True)
    class SiteSpec:
        text: str
        replicas: int = 1

    class Site(Custom[SiteSpec], group="example.com"):
        "A page that is served."

A Site has metadata as every object has, and its spec as a SiteSpec; what the server stores is checked against the
schema that is read from the dataclass.
"""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from collections.abc import Mapping
from typing import Any, ClassVar, Generic, TypeVar

from tiphys.api.apiextensions.v1.apiextensions_pb2 import CustomResourceDefinition
from tiphys_apimachinery.dynamic import DynamicDescriptor, DynamicKind, DynamicObject, Unchecked

SpecT = TypeVar("SpecT")
_SIMPLE: Mapping[Any, str] = types.MappingProxyType({str: "string", int: "integer", float: "number", bool: "boolean"})


class Custom(DynamicObject, Generic[SpecT]):
    """An object of a kind of one's own; its class says which. `content` has the plain values of everything."""

    __slots__ = ()

    SPEC: ClassVar[type]

    def __init_subclass__(
        cls, *, group: str = "", version: str = "v1", plural: str = "", namespaced: bool = True, **more: Any
    ) -> None:
        super().__init_subclass__(**more)
        if not group:
            raise TypeError(f"{cls.__name__} needs a group, such as group='example.com'")
        kind = cls.__name__
        plural = plural or f"{kind.lower()}s"
        cls.KIND = DynamicKind(group, version, kind, Unchecked(), True, plural, namespaced)
        qualified = f"{kind}.{version}.{group}"
        cls.DESCRIPTOR = DynamicDescriptor(qualified, qualified)
        # The argument of Custom[...], as the class statement has it.
        cls.SPEC = typing.get_args(cls.__orig_bases__[0])[0]  # type: ignore[attr-defined]

    @property
    def spec(self) -> SpecT:
        """What is wanted. Made anew at each call."""
        found: SpecT = build(self.SPEC, self.content.get("spec") or {})
        return found

    @property
    def status(self) -> Mapping[str, Any]:
        """What was told of it last."""
        found: Mapping[str, Any] = self.content.get("status") or {}
        return found


def build(cls: Any, value: Any) -> Any:
    """A value of a type from plain JSON values; members that a dataclass does not have are left out."""
    origin, arguments = typing.get_origin(cls), typing.get_args(cls)
    if dataclasses.is_dataclass(cls):
        known = _hints(typing.cast(Any, cls))
        return cls(**{name: build(known[name], value[name]) for name in known if name in value})  # type: ignore[operator]
    if origin in (list, tuple):
        return origin(build(arguments[0], item) for item in value)
    if origin is dict:
        return {key: build(arguments[1], item) for key, item in value.items()}
    if origin in (typing.Union, types.UnionType):
        inner = next(item for item in arguments if item is not type(None))
        return None if value is None else build(inner, value)
    return float(value) if cls is float else value


def schema_of(cls: Any) -> dict[str, Any]:
    """The structural schema of a type. Raises TypeError for what JSON has no word for."""
    origin, arguments = typing.get_origin(cls), typing.get_args(cls)
    if cls in _SIMPLE:
        return {"type": _SIMPLE[cls]}
    if dataclasses.is_dataclass(cls):
        return _object_schema(cls)
    if origin in (list, tuple):
        return {"type": "array", "items": schema_of(arguments[0])}
    if origin is dict:
        return {"type": "object", "additionalProperties": schema_of(arguments[1])}
    if origin in (typing.Union, types.UnionType):
        inner = [item for item in arguments if item is not type(None)]
        if len(inner) == 1:
            return {**schema_of(inner[0]), "nullable": True}
    if cls is Any:
        return {"x-kubernetes-preserve-unknown-fields": True}
    raise TypeError(f"{cls!r} has no schema: use str, int, float, bool, list, dict, a dataclass or None")


def _object_schema(cls: Any) -> dict[str, Any]:
    """Of a dataclass: what has no default must be given; metadata of a field adds to its schema, as minimum does."""
    hints = _hints(cls)
    properties: dict[str, Any] = {}
    required: list[str] = []
    for field in dataclasses.fields(cls):
        schema = {**schema_of(hints[field.name]), **field.metadata}
        if field.default is not dataclasses.MISSING:
            if field.default is not None:
                schema["default"] = field.default
        elif field.default_factory is dataclasses.MISSING:
            required.append(field.name)
        properties[field.name] = schema
    found: dict[str, Any] = {"type": "object", "properties": properties}
    return {**found, "required": required} if required else found


@functools.cache
def _hints(cls: type) -> Mapping[str, Any]:
    return typing.get_type_hints(cls)


def definition_of(cls: type[Custom[Any]]) -> dict[str, Any]:
    """The CustomResourceDefinition of a kind, as plain values."""
    kind = cls.KIND
    schema = {
        "type": "object",
        "description": (cls.__doc__ or "").strip(),
        "properties": {
            "spec": schema_of(cls.SPEC),
            "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
        },
        "required": ["spec"],
    }
    version = {
        "name": kind.version,
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": schema},
        "subresources": {"status": {}},
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": CustomResourceDefinition.DESCRIPTOR.name,
        "metadata": {"name": f"{kind.plural}.{kind.group}"},
        "spec": {
            "group": kind.group,
            "scope": "Namespaced" if kind.namespaced else "Cluster",
            "names": {
                "kind": kind.kind,
                "listKind": f"{kind.kind}List",
                "plural": kind.plural,
                "singular": kind.kind.lower(),
            },
            "versions": [version],
        },
    }
