"""OpenAPI version 2 (swagger): one document of everything, as JSON dict and as openapi.v2 protobuf.

kubectl before 1.30 reads nothing else, and in protobuf only; later ones still read it to apply.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import orjson
from google.protobuf.descriptor import Descriptor

from tiphys.thirdparty.openapi.v2 import openapi_pb2 as pb
from tiphys_apimachinery.scheme import ResourceInfo
from tiphys_apiserver.openapi.operations import Operation, base_path, operations_of
from tiphys_apiserver.openapi.schemas import JSON, Comments, definition, definition_name, reachable


def reference(message: Descriptor, extras: JSON) -> JSON:
    """A pointer to a definition; version 2 lets facts of the field stand beside it."""
    return {**extras, "$ref": f"#/definitions/{definition_name(message.full_name)}"}


def document(
    resources: Iterable[ResourceInfo], kinds: Mapping[str, Descriptor], comments: Comments, *, release: str
) -> JSON:
    """The whole document. `kinds` has the message of each kind by "group/version/Kind"."""
    paths: JSON = {}
    roots = {m.full_name: m for m in kinds.values()}
    for resource in resources:
        for operation in operations_of(resource):
            paths.setdefault(operation.path, {})[operation.method] = operation_of(operation, kinds)
    for path, item in paths.items():
        item["parameters"] = path_parameters(path)
    definitions = {
        definition_name(name): definition(message, comments, reference)
        for name, message in reachable(roots.values()).items()
    }
    return {
        "swagger": "2.0",
        "info": {"title": "Kubernetes", "version": release},
        "paths": dict(sorted(paths.items())),
        "definitions": definitions,
    }


def path_parameters(path: str) -> list[JSON]:
    """What stands in braces in a path."""
    names = [part[1:-1] for part in path.split("/") if part.startswith("{")]
    return [{"name": n, "in": "path", "required": True, "type": "string", "uniqueItems": True} for n in names]


def operation_of(operation: Operation, kinds: Mapping[str, Descriptor]) -> JSON:
    """One call. `kinds` has the message of each kind by "group/version/Kind"."""
    group, version, kind = operation.gvk
    parameters: list[JSON] = []
    body = _body_kind(operation)
    if body:
        target = kinds.get(body)
        schema = reference(target, {}) if target is not None else {"type": "object"}
        required = operation.action in ("post", "put", "patch")
        parameters.append({"name": "body", "in": "body", "schema": schema} | ({"required": True} if required else {}))
    parameters += [
        {"name": n, "in": "query", "description": d, "type": t, "uniqueItems": True} for n, t, d in operation.query
    ]
    answer: JSON = {"description": "OK"}
    if operation.answer:
        name = "meta/v1/Status" if operation.answer == "Status" else f"{group}/{version}/{operation.answer}"
        if name in kinds:
            answer["schema"] = reference(kinds[name], {})
    else:
        answer["schema"] = {"type": "string"}
    return {
        "operationId": operation.operation_id,
        "tags": [base_path(group, version).strip("/").replace("/", "_")],
        "consumes": list(operation.consumes),
        "produces": list(operation.produces),
        "parameters": parameters,
        "responses": {"200": answer},
        "x-kubernetes-action": operation.action,
        "x-kubernetes-group-version-kind": {"group": group, "kind": kind, "version": version},
    }


def _body_kind(operation: Operation) -> str:
    group, version, _ = operation.gvk
    if operation.body:
        return f"{group}/{version}/{operation.body}"
    return {
        "patch": "meta/v1/Patch",
        "delete": "meta/v1/DeleteOptions",
        "deletecollection": "meta/v1/DeleteOptions",
    }.get(operation.action, "")


_METHODS = frozenset({"get", "put", "post", "delete", "options", "head", "patch"})


def to_protobuf(document: JSON) -> bytes:
    """The same document as a serialized openapi.v2.Document."""
    message = pb.Document(swagger=document["swagger"])
    message.info.title = document["info"]["title"]
    message.info.version = document["info"]["version"]
    for path, item in document["paths"].items():
        target = message.paths.path.add(name=path).value
        for method, operation in item.items():
            if method == "parameters":
                for parameter in operation:
                    if "in" not in parameter:
                        continue
                    _fill_parameter(target.parameters.add().parameter, parameter)
            elif method in _METHODS:
                _fill_operation(getattr(target, method), operation)
    for name, schema in document["definitions"].items():
        _fill_schema(message.definitions.additional_properties.add(name=name).value, schema)
    return message.SerializeToString()


def _fill_operation(target: pb.Operation, operation: JSON) -> None:
    # Those of other servers say less.
    target.operation_id = operation.get("operationId", "")
    for name in ("tags", "consumes", "produces"):
        getattr(target, name).extend(operation.get(name) or ())
    for parameter in operation.get("parameters") or ():
        if "in" in parameter:
            _fill_parameter(target.parameters.add().parameter, parameter)
    for code, answer in (operation.get("responses") or {}).items():
        response = target.responses.response_code.add(name=code).value.response
        response.description = answer.get("description", "")
        if "schema" in answer:
            _fill_schema(response.schema.schema, answer["schema"])
    _fill_extensions(target, operation)


def _fill_parameter(target: pb.Parameter, parameter: JSON) -> None:
    if parameter["in"] == "body":
        body = target.body_parameter
        body.name = parameter.get("name", "body")
        setattr(body, "in", "body")
        body.required = parameter.get("required", False)
        _fill_schema(body.schema, parameter.get("schema") or {})
        return
    plain = target.non_body_parameter
    carrier: Any = plain.path_parameter_sub_schema if parameter["in"] == "path" else plain.query_parameter_sub_schema
    setattr(carrier, "in", parameter["in"])
    carrier.name = parameter.get("name", "")
    carrier.type = parameter.get("type", "string")
    carrier.required = parameter.get("required", False)
    carrier.description = parameter.get("description", "")
    carrier.unique_items = parameter.get("uniqueItems", False)


def _fill_schema(target: pb.Schema, schema: JSON) -> None:
    target.description = schema.get("description", "")
    if "$ref" in schema:
        target._ref = schema["$ref"]
    if "type" in schema:
        kind = schema["type"]
        target.type.value.extend([kind] if isinstance(kind, str) else kind)
    target.format = schema.get("format", "")
    target.required.extend(schema.get("required", ()))
    if "default" in schema:
        target.default.yaml = _yaml(schema["default"])
    for value in schema.get("enum", ()):
        target.enum.add().yaml = _yaml(value)
    if "items" in schema:
        _fill_schema(target.items.schema.add(), schema["items"])
    if isinstance(schema.get("additionalProperties"), dict):
        _fill_schema(target.additional_properties.schema, schema["additionalProperties"])
    for name, inner in schema.get("properties", {}).items():
        _fill_schema(target.properties.additional_properties.add(name=name).value, inner)
    _fill_extensions(target, schema)


def _fill_extensions(target: pb.Schema | pb.Operation, source: JSON) -> None:
    for key, value in source.items():
        if key.startswith("x-"):
            target.vendor_extension.add(name=key).value.yaml = _yaml(value)


def _yaml(value: Any) -> str:
    """JSON text is YAML; readers parse the field as YAML."""
    return orjson.dumps(value).decode() + "\n"
