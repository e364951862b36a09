"""Patches for the fake server, by the functions that the real one uses."""

from __future__ import annotations

from typing import Any

from tiphys.apiserver.v1 import wire_pb2
from tiphys_apimachinery.codec import json_codec
from tiphys_apimachinery.patch import json_patch, merge, strategic


def patched(old: Any, patch_type: int, patch: bytes) -> Any:
    """The object that the patch makes of old. An apply is taken for a strategic merge: nobody owns fields here."""
    cls = type(old)
    change = json_codec.parse(patch)
    current = json_codec.to_json(old)
    if patch_type == wire_pb2.PATCH_TYPE_JSON:
        result = json_patch.apply_patch(current, change)
    elif patch_type == wire_pb2.PATCH_TYPE_MERGE:
        result = merge.apply_patch(current, change)
    else:
        result = strategic.apply_patch(cls, current, change)
    return json_codec.from_json(cls, result)


def applied(cls: type[Any], patch: bytes, name: str) -> Any:
    """The object that an apply creates where there is none."""
    obj = json_codec.from_json(cls, json_codec.parse(patch))
    obj.metadata.name = obj.metadata.name or name
    return obj
