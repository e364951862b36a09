"""Which parts of an object an update really changes.

A part that a client leaves out and one that it sends empty (resources: {}) are different messages
and the same object. So messages that differ are compared as the JSON they stand for; where that is
equal the stored form is kept, and a write that changes nothing is none.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from google.protobuf.descriptor import Descriptor

from tiphys_apimachinery.codec import json_codec
from tiphys_apimachinery.dynamic import DynamicObject
from tiphys_apimachinery.schema import descriptor_of, fields_of
from tiphys_apiserver.registry.strategy import copy_field


def settle(new: Any, old: Any) -> list[str]:
    """Names of the fields of the object that differ. Those that only look different become old's.

    Costs a comparison for each field, and 10 to 30 µs for each that differs.
    """
    if isinstance(new, DynamicObject):
        return new.changed_members(old)
    changed = []
    for name, is_pointer, is_list, is_message in _members(descriptor_of(new)):
        before, after = getattr(old, name), getattr(new, name)
        if is_message and not is_list:
            present_before, present_after = old.HasField(name), new.HasField(name)
            if present_before == present_after and before == after:
                continue
            if is_pointer and present_before != present_after:
                changed.append(name)
                continue
            same = json_codec.to_json(before) == json_codec.to_json(after)
        elif before == after and (not is_pointer or old.HasField(name) == new.HasField(name)):
            continue
        else:
            same = is_message and is_list and _same_items(before, after)
        if same:
            copy_field(new, old, name)
        else:
            changed.append(name)
    return changed


def _same_items(before: Any, after: Any) -> bool:
    if len(before) != len(after):
        return False
    return all(
        one == other or json_codec.to_json(one) == json_codec.to_json(other)
        for one, other in zip(before, after, strict=True)
    )


@cache
def _members(descriptor: Descriptor) -> tuple[tuple[str, bool, bool, bool], ...]:
    """Name, is a pointer, is a list, is made of messages (maps are compared as they are)."""
    return tuple(
        (field.name, field.is_pointer, field.is_list, field.message is not None and not field.is_map)
        for field in fields_of(descriptor)
    )
