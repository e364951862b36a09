"""JSON schemas of API messages, from their descriptors, options and comments. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from importlib.resources import files
from typing import Any

import orjson
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from tiphys.options.v1 import options_pb2
from tiphys_apimachinery.schema import part_of

JSON = dict[str, Any]
Comments = Mapping[str, tuple[str, Mapping[str, str]]]

_META = "k8s.io.apimachinery.pkg.apis.meta.v1."
_EXTENSIONS = "k8s.io.apiextensions_apiserver.pkg.apis.apiextensions.v1."

# Messages whose JSON is not that of their fields.
SPECIAL: Mapping[str, JSON] = {
    _META + "Time": {"type": "string", "format": "date-time"},
    _META + "MicroTime": {"type": "string", "format": "date-time"},
    _META + "Duration": {"type": "string"},
    _META + "FieldsV1": {"type": "object"},
    "k8s.io.apimachinery.pkg.runtime.RawExtension": {"type": "object"},
    "k8s.io.apimachinery.pkg.api.resource.Quantity": {"type": "string"},
    "k8s.io.apimachinery.pkg.util.intstr.IntOrString": {"type": "string", "format": "int-or-string"},
    _EXTENSIONS + "JSON": {},
    _EXTENSIONS + "JSONSchemaPropsOrBool": {},
    _EXTENSIONS + "JSONSchemaPropsOrArray": {},
    _EXTENSIONS + "JSONSchemaPropsOrStringArray": {},
}
_SCALARS: Mapping[int, JSON] = {
    FieldDescriptor.TYPE_STRING: {"type": "string"},
    FieldDescriptor.TYPE_BOOL: {"type": "boolean"},
    FieldDescriptor.TYPE_INT32: {"type": "integer", "format": "int32"},
    FieldDescriptor.TYPE_INT64: {"type": "integer", "format": "int64"},
    FieldDescriptor.TYPE_DOUBLE: {"type": "number", "format": "double"},
    FieldDescriptor.TYPE_BYTES: {"type": "string", "format": "byte"},
}
_TYPE_META: Mapping[str, JSON] = {
    "apiVersion": {"type": "string", "description": "Group and version of the object, such as apps/v1."},
    "kind": {"type": "string", "description": "What the object is, such as Deployment."},
}
_LIST_TYPES = {
    options_pb2.LIST_TYPE_ATOMIC: "atomic",
    options_pb2.LIST_TYPE_SET: "set",
    options_pb2.LIST_TYPE_MAP: "map",
}


@cache
def load_comments() -> Comments:
    """{message: (doc, {field: doc})} as the build gathered them from the .proto files."""
    found: Comments = orjson.loads(files("tiphys").joinpath("comments.json").read_bytes())
    return found


def definition_name(full_name: str) -> str:
    """The name of a message in OpenAPI: k8s.io.api.core.v1.Pod -> io.k8s.api.core.v1.Pod.

    A name that begins with a dot is OpenAPI's already.
    """
    if full_name.startswith("."):
        return full_name[1:]
    return "io.k8s." + full_name.removeprefix("k8s.io.").replace("_", "-")


Reference = Callable[[Descriptor, JSON], JSON]


def reachable(roots: Iterable[Descriptor]) -> dict[str, Descriptor]:
    """The roots and every message below them that has a schema of its own, by full name, sorted."""
    found: dict[str, Descriptor] = {}
    todo = list(roots)
    while todo:
        message = todo.pop()
        if message.full_name in found or _is_list_wrapper(message):
            continue
        found[message.full_name] = message
        if message.full_name not in SPECIAL:
            todo += [carrier for field in message.fields if (carrier := _value_message(field)) is not None]
    return {name: found[name] for name in sorted(found)}


def _value_message(field: FieldDescriptor) -> Descriptor | None:
    target = field.message_type
    if target is not None and target.GetOptions().map_entry:
        target = target.fields_by_name["value"].message_type
    return target


def _is_list_wrapper(message: Descriptor) -> bool:
    return bool(message.GetOptions().Extensions[options_pb2.part].list_wrapper)


def definition(message: Descriptor, comments: Comments, reference: Reference) -> JSON:
    """The schema of one message. `reference` makes the pointer to another one, with the field's facts."""
    doc = comments.get(message.full_name, ("", {}))[0]
    schema: JSON = {"description": doc} if doc else {}
    if message.full_name in SPECIAL:
        return schema | SPECIAL[message.full_name]
    properties: JSON = {}
    required: list[str] = []
    facts = message.GetOptions().Extensions[options_pb2.object]
    if facts.role:
        properties |= _TYPE_META
    for field, field_facts, field_doc in _members(message, comments):
        properties[field.json_name] = _property(field, field_facts, field_doc, reference)
        if _is_required(field_facts):
            required.append(field.json_name)
    if required:
        schema["required"] = sorted(required)
    schema["type"] = "object"
    if properties:
        schema["properties"] = dict(sorted(properties.items()))
    if message.GetOptions().Extensions[options_pb2.part].atomic:
        schema["x-kubernetes-map-type"] = "atomic"
    if facts.role:
        kind = {"group": facts.group, "kind": message.name, "version": facts.version}
        schema["x-kubernetes-group-version-kind"] = [kind]
    return schema


def _members(
    message: Descriptor, comments: Comments
) -> Iterator[tuple[FieldDescriptor, options_pb2.FieldOptions, str]]:
    """Each field that JSON shows in the message, those of inlined messages in place, with its facts and doc."""
    docs = comments.get(message.full_name, ("", {}))[1]
    for field in message.fields:
        facts = field.GetOptions().Extensions[options_pb2.field]
        if facts.inline:
            yield from _members(part_of(message, field.name), comments)
        else:
            yield field, facts, docs.get(field.name, "")


def _is_required(facts: options_pb2.FieldOptions) -> bool:
    if facts.requirement:
        return bool(facts.requirement == options_pb2.REQUIREMENT_REQUIRED)
    return bool(facts.presence == options_pb2.PRESENCE_ALWAYS)


def _property(field: FieldDescriptor, facts: options_pb2.FieldOptions, doc: str, reference: Reference) -> JSON:
    extras: JSON = ({"description": doc} if doc else {}) | _merge_facts(facts)
    target = field.message_type
    if target is not None and target.GetOptions().map_entry:
        value = target.fields_by_name["value"]
        extras |= {"type": "object", "additionalProperties": _plain(value, reference)}
        return extras | ({"x-kubernetes-map-type": "atomic"} if facts.atomic else {})
    if field.is_repeated:
        items = _plain(field, reference)
        if facts.enum:
            items = items | {"enum": list(facts.enum)}
        return extras | {"type": "array", "items": items}
    if facts.enum:
        extras["enum"] = list(facts.enum)
    if facts.HasField("default"):
        extras["default"] = _default(field, facts.default)
    if facts.atomic:
        extras["x-kubernetes-map-type"] = "atomic"
    if target is not None and not _is_list_wrapper(target):
        return reference(target, extras)
    return extras | _plain(field, reference)


def _default(field: FieldDescriptor, text: str) -> Any:
    if field.type in (FieldDescriptor.TYPE_INT32, FieldDescriptor.TYPE_INT64):
        return int(text)
    return text == "true" if field.type == FieldDescriptor.TYPE_BOOL else text


def _plain(field: FieldDescriptor, reference: Reference) -> JSON:
    """The schema of a field's single value."""
    if field.message_type is None:
        return dict(_SCALARS[field.type])
    if _is_list_wrapper(field.message_type):
        return {"type": "array", "items": _plain(field.message_type.fields[0], reference)}
    return reference(field.message_type, {})


def _merge_facts(facts: options_pb2.FieldOptions) -> JSON:
    found: JSON = {}
    if facts.list_type:
        found["x-kubernetes-list-type"] = _LIST_TYPES[facts.list_type]
    if facts.list_map_keys:
        found["x-kubernetes-list-map-keys"] = list(facts.list_map_keys)
    if facts.patch_strategy:
        found["x-kubernetes-patch-strategy"] = ",".join(facts.patch_strategy)
    if facts.patch_merge_key:
        found["x-kubernetes-patch-merge-key"] = facts.patch_merge_key
    return found
