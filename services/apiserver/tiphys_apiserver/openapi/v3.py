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
            paths.setdefault(operation.path, {})[operation.method] = _operation(operation, kinds, roots)
    for path, item in paths.items():
        item["parameters"] = _path_parameters(path)
    schemas = {definition_name(name): _schema(message, comments) for name, message in reachable(roots.values()).items()}
    return {
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": release},
        "paths": dict(sorted(paths.items())),
        "components": {"schemas": schemas},
    }


def _schema(message: Descriptor, comments: Comments) -> JSON:
    schema = definition(message, comments, reference)
    better = _BETTER.get(message.full_name)
    if better is not None:
        return {k: v for k, v in schema.items() if k not in SPECIAL[message.full_name]} | better
    return schema


def _path_parameters(path: str) -> list[JSON]:
    names = [part[1:-1] for part in path.split("/") if part.startswith("{")]
    return [
        {"name": n, "in": "path", "required": True, "schema": {"type": "string", "uniqueItems": True}} for n in names
    ]


def _operation(operation: Operation, kinds: Mapping[str, Descriptor], roots: dict[str, Descriptor]) -> JSON:
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
    return {"description": "OK", "content": content(name, READ_TYPES)}


def index(documents: Mapping[tuple[str, str], bytes]) -> JSON:
    """The document at /openapi/v3: where each group-version's is, with the hash of its bytes."""
    paths = {}
    for (group, version), body in documents.items():
        base = base_path(group, version).lstrip("/")
        digest = hashlib.sha512(body).hexdigest().upper()
        paths[base] = {"serverRelativeURL": f"/openapi/v3/{base}?hash={digest}"}
    return {"paths": paths}


def encode(document: JSON) -> bytes:
    """The bytes that are served and hashed."""
    return orjson.dumps(document)
