"""Patches for the fake server."""

from __future__ import annotations

from typing import Any

import jsonpatch
import orjson

from tiphys.apiserver.v1 import wire_pb2
from tiphys_apimachinery.codec import json_codec
from tiphys_apimachinery.errors import BadRequest


def patched(old: Any, patch_type: int, patch: bytes) -> Any:
    """The object that the patch makes of old."""
    change = _load(patch)
    current = json_codec.to_json(old)
    if patch_type == wire_pb2.PATCH_TYPE_JSON:
        result = jsonpatch.apply_patch(current, change)
    else:
        result = merged(current, change)
    return json_codec.from_json(type(old), result)


def applied(cls: type[Any], patch: bytes, name: str) -> Any:
    """The object that an apply creates where there is none."""
    obj = json_codec.from_json(cls, _load(patch))
    obj.metadata.name = obj.metadata.name or name
    return obj


def merged(target: Any, patch: Any) -> Any:
    """RFC 7386: members of the patch replace those of the target, null removes."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merged(result.get(key), value)
    return result


def _load(patch: bytes) -> Any:
    try:
        return orjson.loads(patch)
    except orjson.JSONDecodeError as err:
        raise BadRequest(f"error decoding patch: {err}") from err
