"""Which custom options and standard docs a message or field of the Kubernetes API gets."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from hack.protogen.facts import Package, Record

_SCALARS = {"string", "bool", "int32", "int64", "float64", "bytes"}
_FIELD_DOCS = {
    "metadata": "Name, labels and the other standard facts of the object.",
    "spec": "What is wanted.",
    "status": "What was last seen; written by the system.",
    "items": "The objects of the list.",
    "conditions": "What holds at the moment, each with reason and time.",
    "observedGeneration": "The generation that the status speaks of.",
}


def quote(text: Any) -> str:
    """A proto string literal."""
    return json.dumps(str(text), ensure_ascii=False)


def standard_doc(message: str, struct: Record | None) -> str | None:
    """The doc of messages that need no words of their own."""
    if struct and struct.get("role") == "list":
        return f"A list of {re.sub(r'List$', '', message)} objects."
    return None


def standard_field_doc(message: str, field: str) -> str | None:
    """The doc of fields that mean the same everywhere."""
    if field == "metadata" and message.endswith("List"):
        return "Resource version and paging of the list."
    return _FIELD_DOCS.get(field)


def of_field(package: Package, fact: Record, golang: Record | None, rules: Mapping[str, Any]) -> list[str]:
    """The bracketed options of one field."""
    found: list[str] = []
    derived = re.sub(r"_(\w)", lambda m: m[1].upper(), fact["name"])
    # Go keeps some fields out of JSON; what stands for them there is special, and has no name.
    name = (golang.get("json") or derived) if golang else fact.get("json", derived)
    if name != derived and package.is_kubernetes:
        found.append(f"json_name = {quote(name)}")
    if fact.get("packed") is False and package.syntax == "proto3":
        found.append("packed = false")
    if fact.get("deprecated"):
        found.append("deprecated = true")
    if fact.get("debug_redact") or fact.get("csi_secret"):
        found.append("debug_redact = true")
    if golang is None or not package.is_kubernetes:
        return found
    members = [*_json_facts(golang), *_merge_facts(golang), *_value_rules(package, golang, rules)]
    if members:
        found.append(f"(tiphys.options.v1.field) = {{{', '.join(members)}}}")
    return found


def _json_facts(golang: Record) -> list[str]:
    found = []
    if golang.get("inline"):
        return ["inline: true"]
    if golang.get("omitzero"):
        found.append("presence: PRESENCE_OMITZERO")
    elif not golang.get("omitempty"):
        found.append("presence: PRESENCE_ALWAYS")
    if golang.get("ptr"):
        found.append("pointer: true")
    written = not (golang.get("omitempty") or golang.get("omitzero"))
    if written and golang.get("optional"):
        found.append("requirement: REQUIREMENT_OPTIONAL")
    elif golang.get("required") and not (written and not golang.get("optional")):
        found.append("requirement: REQUIREMENT_REQUIRED")
    return found


def _merge_facts(golang: Record) -> list[str]:
    found = []
    if golang.get("patchStrategy"):
        values = ", ".join(quote(s) for s in golang["patchStrategy"].split(","))
        found.append(f"patch_strategy: [{values}]")
    if golang.get("patchMergeKey"):
        found.append(f"patch_merge_key: {quote(golang['patchMergeKey'])}")
    if golang.get("listType"):
        found.append(f"list_type: LIST_TYPE_{golang['listType'].upper()}")
    if golang.get("listMapKeys"):
        found.append(f"list_map_keys: [{', '.join(quote(k) for k in golang['listMapKeys'])}]")
    if "atomic" in (golang.get("mapType"), golang.get("structType")):
        found.append("atomic: true")
    return found


def _value_rules(package: Package, golang: Record, rules: Mapping[str, Any]) -> list[str]:
    found = []
    default = rules.get("default", golang.get("default"))
    if default is not None and not isinstance(default, (dict, list)):
        text = str(default).lower() if isinstance(default, bool) else str(default)
        found.append(f"default: {quote(text)}")
    values = rules.get("enum") or _enum_values(package, golang)
    if values:
        found.append(f"enum: [{', '.join(quote(v) for v in values)}]")
    for bound in ("minimum", "maximum"):
        if bound in rules:
            found.append(f"{bound}: {int(rules[bound])}")
    if "format" in rules:
        found.append(f"format: {quote(rules['format'])}")
    found += [f"{flag}: true" for flag in ("required", "immutable") if rules.get(flag)]
    return found


def _enum_values(package: Package, golang: Record) -> list[str]:
    assert package.json is not None
    carrier = golang.get("elem", golang) if golang["kind"] == "list" else golang
    kind = package.json["types"].get(carrier.get("type", ""), {})
    return list(kind["values"].values()) if kind.get("enum") else []


def of_message(
    package: Package,
    name: str,
    struct: Record | None,
    resources: Mapping[tuple[str, str, str], Sequence[Record]],
    *,
    indent: str,
) -> list[str]:
    """The option statements at the head of a message."""
    if not package.is_kubernetes:
        return []
    assert package.json is not None
    if struct is None:
        wrapper = package.json["types"].get(name, {})
        return [f"{indent}option (tiphys.options.v1.part).list_wrapper = true;", ""] if wrapper.get("message") else []
    if not struct.get("role"):
        atomic = struct.get("structType") == "atomic"
        return [f"{indent}option (tiphys.options.v1.part).atomic = true;", ""] if atomic else []
    group, version = package.json["group"], package.json["version"]
    members = [f"version: {quote(version)}"] if version else []
    members.append(f"role: ROLE_{struct['role'].upper()}")
    if group:
        members.insert(0, f"group: {quote(group)}")
    served = resources.get((group, version, name), ())
    if not served:
        return [f"{indent}option (tiphys.options.v1.object) = {{{', '.join(members)}}};", ""]
    lines = [f"{indent}option (tiphys.options.v1.object) = {{", *(f"{indent}  {m}" for m in members)]
    for resource in served:
        lines += _resource(resource, indent + "  ")
    return [*lines, f"{indent}}};", ""]


def _strings(values: Sequence[str]) -> str:
    return f"[{', '.join(quote(v) for v in values)}]"


def _resource(resource: Record, indent: str) -> list[str]:
    lines = [
        f"{indent}resources: {{",
        f"{indent}  plural: {quote(resource['resource'])}",
        f"{indent}  singular: {quote(resource.get('singular', ''))}",
        f"{indent}  namespaced: {str(resource['namespaced']).lower()}",
        f"{indent}  verbs: {_strings(resource['verbs'])}",
    ]
    for option, key in (("short_names", "shortNames"), ("categories", "categories")):
        if resource.get(key):
            lines.append(f"{indent}  {option}: {_strings(resource[key])}")
    if resource.get("selectable"):
        lines.append(f"{indent}  selectable_fields: {_strings(resource['selectable'])}")
    for name, sub in (resource.get("subresources") or {}).items():
        parts = [f"name: {quote(name)}", f"kind: {quote(sub['kind'])}"]
        parts += [f"{key}: {quote(sub[key])}" for key in ("group", "version") if sub.get(key)]
        parts.append(f"verbs: {_strings(sub['verbs'])}")
        if sub.get("connect"):
            parts += ["connect: true", f"methods: {_strings(sub['methods'])}"]
        if sub.get("trailing_path"):
            parts.append("trailing_path: true")
        lines.append(f"{indent}  subresources: {{{', '.join(parts)}}}")
    for column in resource.get("columns") or []:
        parts = [f"name: {quote(column['name'])}", f"type: {quote(column['type'])}"]
        if column.get("format"):
            parts.append(f"format: {quote(column['format'])}")
        if column.get("priority"):
            parts.append(f"priority: {column['priority']}")
        parts.append(f"description: {quote(column['shows'])}")
        lines.append(f"{indent}  columns: {{{', '.join(parts)}}}")
    return [*lines, f"{indent}}}"]
