"""OpenAPI version 3: an index, and one document a group-version. Pure; JSON dicts."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import orjson
from google.protobuf.descriptor import Descriptor

from tiphys_apimachinery.scheme import ResourceInfo
from tiphys_apiserver.openapi.operations import READ_TYPES, Operation, base_path, operations_of
from tiphys_apiserver.openapi.schemas import JSON, SPECIAL, Comments, definition, definition_name, reachable

_INT_OR_STRING = "k8s.io.apimachinery.pkg.util.intstr.IntOrString"
_QUANTITY = "k8s.io.apimachinery.pkg.api.resource.Quantity"
# Where version 3 can say more than version 2.
_BETTER: Mapping[str, JSON] = {
    _INT_OR_STRING: {"format": "int-or-string", "oneOf": [{"type": "integer"}, {"type": "string"}]},
    _QUANTITY: {"oneOf": [{"type": "string"}, {"type": "number"}]},
}


def reference(message: Descriptor, extras: JSON) -> JSON:
    """A pointer to a schema; facts of the field stand beside it by way of allOf."""
    pointer = {"$ref": f"#/components/schemas/{definition_name(message.full_name)}"}
    return {**extras, "allOf": [pointer]} if extras else pointer


def document(
    group: str,
    version: str,
    resources: Iterable[ResourceInfo],
    *,
    kinds: Mapping[str, Descriptor],
    comments: Comments,
    release: str,
) -> JSON:
    """The document of one group-version. `kinds` has the message of each kind that an operation names."""
    paths: JSON = {}
    roots: dict[str, Descriptor] = {}
    for resource in resources:
        if (resource.group, resource.version) != (group, version):
            continue
        for operation in operations_of(resource):
            paths.setdefault(operation.path, {})[operation.method] = operation_of(operation, kinds, roots)
    for path, item in paths.items():
        item["parameters"] = path_parameters(path)
    schemas = {
        definition_name(name): schema_of(message, comments) for name, message in reachable(roots.values()).items()
    }
    return whole(paths, schemas, release)


def whole(paths: JSON, schemas: JSON, release: str) -> JSON:
    """A document around paths and schemas."""
    return {
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": release},
        "paths": dict(sorted(paths.items())),
        "components": {"schemas": schemas},
    }


def schema_of(message: Descriptor, comments: Comments) -> JSON:
    """The schema of a message."""
    schema = definition(message, comments, reference)
    better = _BETTER.get(message.full_name)
    if better is not None:
        return {k: v for k, v in schema.items() if k not in SPECIAL[message.full_name]} | better
    return schema


def path_parameters(path: str) -> list[JSON]:
    """What stands in braces in a path."""
    names = [part[1:-1] for part in path.split("/") if part.startswith("{")]
    return [
        {"name": n, "in": "path", "required": True, "schema": {"type": "string", "uniqueItems": True}} for n in names
    ]


def operation_of(operation: Operation, kinds: Mapping[str, Descriptor], roots: dict[str, Descriptor]) -> JSON:
    """One call; the messages that it names are added to roots."""

    def content(kind: str, types: tuple[str, ...]) -> JSON:
        message = kinds.get(kind)
        if message is None:
            return {t: {"schema": {"type": "object"}} for t in types}
        roots[message.full_name] = message
        return {t: {"schema": reference(message, {})} for t in types}

    group, version, kind = operation.gvk
    found: JSON = {
        "operationId": operation.operation_id,
        "tags": [operation.operation_id],
        "parameters": [
            {"name": n, "in": "query", "description": d, "schema": {"type": t, "uniqueItems": True}}
            for n, t, d in operation.query
        ],
        "responses": {"200": _answer(operation, content)},
        "x-kubernetes-group-version-kind": {"group": group, "kind": kind, "version": version},
    }
    found["tags"] = [base_path(group, version).strip("/").replace("/", "_")]
    if operation.action:
        found["x-kubernetes-action"] = operation.action
    qualified = f"{group}/{version}/"
    if operation.body:
        found["requestBody"] = {"content": content(qualified + operation.body, ("*/*",)), "required": True}
    elif operation.action == "patch":
        found["requestBody"] = {"content": content("meta/v1/Patch", operation.consumes), "required": True}
    elif operation.action in ("delete", "deletecollection"):
        found["requestBody"] = {"content": content("meta/v1/DeleteOptions", ("*/*",))}
    if not found["parameters"]:
        del found["parameters"]
    return found


def _answer(operation: Operation, content: Any) -> JSON:
    if not operation.answer:
        return {"description": "OK", "content": {"*/*": {"schema": {"type": "string"}}}}
    group, version, _ = operation.gvk
    name = "meta/v1/Status" if operation.answer == "Status" else f"{group}/{version}/{operation.answer}"
    kinds_of_answer = tuple(t for t in operation.produces if t in READ_TYPES)
    return {"description": "OK", "content": content(name, kinds_of_answer)}


def digest(body: bytes) -> str:
    """The hash of a document."""
    return hashlib.sha512(body).hexdigest().upper()


def index(digests: Mapping[tuple[str, str], str]) -> JSON:
    """The document at /openapi/v3: where each group-version's is, with its hash."""
    paths = {}
    for (group, version), found in digests.items():
        base = base_path(group, version).lstrip("/")
        paths[base] = {"serverRelativeURL": f"/openapi/v3/{base}?hash={found}"}
    return {"paths": paths}


def encode(document: JSON) -> bytes:
    """The bytes that are served and hashed."""
    return orjson.dumps(document)
