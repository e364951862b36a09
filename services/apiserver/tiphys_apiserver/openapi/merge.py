"""Puts more paths and definitions behind those of a finished document of version 2. Pure.

Piece by piece: as one document those of a thousand custom resources would be the largest thing in memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import orjson

from tiphys.thirdparty.openapi.v2 import openapi_pb2 as pb
from tiphys_apiserver.openapi import v2
from tiphys_apiserver.openapi.schemas import JSON

_REFERENCE: Final = "#/definitions/"
# Definitions that all API servers have: those of this one stand for the others'.
_SHARED: Final = "io.k8s.apimachinery."


def append_json(document: bytes, additions: Iterable[JSON]) -> bytes:
    """The document with what others add. Its members must be swagger, info, paths and definitions, in this order."""
    head, middle, tail = document.partition(b'},"definitions":{')
    paths, definitions = [head], [middle, tail[:-2]]
    for added in additions:
        for target, member in ((paths, added["paths"]), (definitions, added["definitions"])):
            if member:
                target += (b",", orjson.dumps(member)[1:-1])
    return b"".join((*paths, *definitions, b"}}"))


def append_protobuf(document: bytes, additions: Iterable[JSON]) -> bytes:
    """The same in protobuf: messages merge when one is put behind the other."""
    return b"".join((document, *(v2.to_protobuf(added) for added in additions)))


def definitions_of(document: bytes) -> dict[str, Any]:
    """The names of the definitions in a document in protobuf; their content counts as this server's own."""
    read = pb.Document.FromString(document)
    return {entry.name: None for entry in read.definitions.additional_properties}


def of_places(document: JSON, places: Iterable[tuple[str, str]], known: Mapping[str, Any]) -> JSON:
    """What another server's document says of some group-versions, with the definitions that belong to it.

    A definition that this server has too, with other content, is told apart by a number behind its name.
    """
    roots = tuple(f"/apis/{group}/{version}" for group, version in places)
    under = tuple(f"{root}/" for root in roots)
    paths = {
        path: item
        for path, item in (document.get("paths") or {}).items()
        if isinstance(item, dict) and (path in roots or path.startswith(under))
    }
    all_definitions = document.get("definitions") or {}
    wanted: dict[str, Any] = {}
    waiting = list(_references(paths))
    while waiting:
        name = waiting.pop()
        if name not in wanted and isinstance(all_definitions.get(name), dict):
            wanted[name] = all_definitions[name]
            waiting += _references(wanted[name])
    names = {name: _free_name(name, schema, known) for name, schema in wanted.items()}
    kept = {names[name]: schema for name, schema in wanted.items() if names[name] not in known}
    found = {"paths": paths, "definitions": kept}
    renamed = {name: new for name, new in names.items() if name != new}
    info = {"title": "Kubernetes", "version": "unversioned"}
    return {"swagger": "2.0", "info": info, **(_renamed(found, renamed) if renamed else found)}


def _free_name(name: str, schema: Any, known: Mapping[str, Any]) -> str:
    if name not in known or name.startswith(_SHARED) or known[name] == schema:
        return name
    number = 2
    while known.get(f"{name}_v{number}", schema) != schema:
        number += 1
    return f"{name}_v{number}"


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        target = value.get("$ref")
        if isinstance(target, str) and target.startswith(_REFERENCE):
            yield target.removeprefix(_REFERENCE)
        for part in value.values():
            yield from _references(part)
    elif isinstance(value, list):
        for part in value:
            yield from _references(part)


def _renamed(value: Any, names: Mapping[str, str]) -> Any:
    if isinstance(value, list):
        return [_renamed(part, names) for part in value]
    if not isinstance(value, dict):
        return value
    found = {name: _renamed(part, names) for name, part in value.items()}
    target = found.get("$ref")
    if isinstance(target, str):
        name = target.removeprefix(_REFERENCE)
        found["$ref"] = _REFERENCE + names.get(name, name)
    return found
