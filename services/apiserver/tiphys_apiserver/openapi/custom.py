"""OpenAPI of custom resources, in both versions, from the schemas of their definitions. Pure; JSON dicts.

Source: apiextensions pkg/controller/openapi/builder and pkg/controller/openapi/v2/conversion.go.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from google.protobuf.descriptor import Descriptor

from tiphys.api.meta.v1 import meta_pb2
from tiphys_apimachinery.schema import descriptor_of
from tiphys_apiserver.crd.info import CustomInfo
from tiphys_apiserver.openapi import v2, v3
from tiphys_apiserver.openapi.operations import operations_of
from tiphys_apiserver.openapi.schemas import JSON, Comments, definition_name, reachable

_APIVERSION = {"type": "string", "description": "Group and version of the object."}
_KIND = {"type": "string", "description": "What the object is."}
# What clients of version 2 can't read.
_NOT_IN_V2 = ("nullable", "allOf", "anyOf", "oneOf", "not")


@dataclass(frozen=True, slots=True)
class _Named:
    """A schema that no message describes, told to those who write operations as if one did."""

    full_name: str


def schema_name(info: CustomInfo) -> str:
    """Name of the schema: the group backwards, the version and the kind, as in com.example.v1.CronTab."""
    return ".".join((*reversed(info.group.split(".")), info.version, info.kind))


def facts_of(infos: Iterable[CustomInfo]) -> str:
    """Changes with anything that the document of these resources shows."""
    found = hashlib.sha512()
    for info in infos:
        facts = [info.group, info.version, info.plural, info.kind, info.list_kind, info.namespaced]
        found.update(orjson.dumps([*facts, sorted(info.subresources)]))
        found.update(info.schema.text)
    return found.hexdigest().upper()


class CustomDocuments:
    """Writes the documents. `kinds` has the message of each kind that operations name beside the custom ones."""

    def __init__(self, kinds: Mapping[str, Descriptor], comments: Comments, *, release: str) -> None:
        self._kinds = kinds
        self._comments = comments
        self._release = release
        # Schemas of messages that every document has: metadata, Status, DeleteOptions.
        self._schemas: dict[str, JSON] = {}

    def v2(self, infos: Iterable[CustomInfo]) -> JSON:
        """What the resources add to the document of version 2."""
        paths: JSON = {}
        definitions: JSON = {}
        for info in infos:
            known = {**self._kinds, **_names(info)}
            for operation in operations_of(info):
                paths.setdefault(operation.path, {})[operation.method] = v2.operation_of(operation, known)
            definitions |= _schemas(info, _as_v2(orjson.loads(info.schema.text)), "#/definitions/", is_v3=False)
        for path, item in paths.items():
            item["parameters"] = v2.path_parameters(path)
        head = {"swagger": "2.0", "info": {"title": "Kubernetes", "version": self._release}}
        return {**head, "paths": paths, "definitions": definitions}

    def v3(self, infos: Iterable[CustomInfo]) -> JSON:
        """The document of one group-version of version 3."""
        paths: JSON = {}
        schemas: JSON = {}
        roots: dict[str, Any] = {}
        for info in infos:
            known = {**self._kinds, **_names(info)}
            for operation in operations_of(info):
                paths.setdefault(operation.path, {})[operation.method] = v3.operation_of(operation, known, roots)
            schemas |= _schemas(info, orjson.loads(info.schema.text), "#/components/schemas/", is_v3=True)
        for path, item in paths.items():
            item["parameters"] = v3.path_parameters(path)
        for message in (meta_pb2.ObjectMeta, meta_pb2.ListMeta):
            roots[message.DESCRIPTOR.full_name] = descriptor_of(message)
        described = [root for root in roots.values() if not isinstance(root, _Named)]
        for full_name, descriptor in reachable(described).items():
            if full_name not in self._schemas:
                self._schemas[full_name] = v3.schema_of(descriptor, self._comments)
            schemas[definition_name(full_name)] = self._schemas[full_name]
        return v3.whole(paths, dict(sorted(schemas.items())), self._release)


def _names(info: CustomInfo) -> dict[str, Any]:
    """The schemas of the kind and its list, as operations name them. A leading dot: the name is OpenAPI's already."""
    prefix, name = f"{info.group}/{info.version}/", schema_name(info)
    listed = name.removesuffix(info.kind) + info.list_kind
    # Operations say kind and List, whatever the definition calls its lists.
    return {prefix + info.kind: _Named(f".{name}"), f"{prefix}{info.kind}List": _Named(f".{listed}")}


def _schemas(info: CustomInfo, schema: JSON, pointer: str, *, is_v3: bool) -> JSON:
    def reference(message: Any, doc: str) -> JSON:
        target = {"$ref": pointer + definition_name(message.DESCRIPTOR.full_name)}
        return {"description": doc, "allOf": [target]} if is_v3 else {"description": doc, **target}

    name = schema_name(info)
    prefix = name.removesuffix(info.kind)
    schema.setdefault("type", "object")
    schema["properties"] = {
        **(schema.get("properties") or {}),
        "apiVersion": _APIVERSION,
        "kind": _KIND,
        "metadata": reference(meta_pb2.ObjectMeta, "Standard facts of the object."),
    }
    kind = {"group": info.group, "version": info.version}
    schema["x-kubernetes-group-version-kind"] = [{**kind, "kind": info.kind}]
    listed: JSON = {
        "description": f"A list of {info.kind} objects.",
        "type": "object",
        "required": ["items"],
        "properties": {
            "apiVersion": _APIVERSION,
            "kind": _KIND,
            "metadata": reference(meta_pb2.ListMeta, "Standard facts of the list."),
            "items": {"type": "array", "items": {"$ref": pointer + name}},
        },
        "x-kubernetes-group-version-kind": [{**kind, "kind": info.list_kind}],
    }
    return {name: schema, prefix + info.list_kind: listed}


def _as_v2(schema: JSON) -> JSON:
    """What clients of version 2 can work with: where they can't say it, they are told less."""
    found = {name: value for name, value in schema.items() if name not in _NOT_IN_V2}
    if found.pop("x-kubernetes-int-or-string", False):
        found.pop("type", None)
        found["format"] = "int-or-string"
    if schema.get("nullable") or schema.get("x-kubernetes-preserve-unknown-fields"):
        for name in ("properties", "items", "additionalProperties"):
            found.pop(name, None)
        if schema.get("nullable"):
            found.pop("type", None)
            found.pop("enum", None)
    if "properties" in found:
        found["properties"] = {name: _as_v2(part) for name, part in found["properties"].items()}
    for name in ("items", "additionalProperties"):
        if isinstance(found.get(name), dict):
            found[name] = _as_v2(found[name])
        elif name in found:
            # A plain true: any value.
            found.pop(name)
    return found
