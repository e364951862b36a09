"""Which parts of an object an update really changes.

A part that a client leaves out and one that it sends empty (resources: {}) are different messages
and the same object. So messages that differ are compared as the JSON they stand for; where that is
equal the stored form is kept, and a write that changes nothing is none.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

from google.protobuf.descriptor import Descriptor

from tiphys_apimachinery.codec import json_codec
from tiphys_apimachinery.dynamic import DynamicObject
from tiphys_apimachinery.schema import Kind, descriptor_of, fields_of
from tiphys_apiserver.registry.strategy import copy_field


def settle(new: Any, old: Any) -> list[str]:
    """Names of the fields of the object that differ. Those that only look different become old's.

    Costs a comparison for each field; within one that differs, as far as the first real difference.
    """
    if isinstance(new, DynamicObject):
        return new.changed_members(old)
    changed = []
    for member in _members(descriptor_of(new)):
        if _is_identical(member, new, old):
            continue
        if _says_same(member, new, old):
            copy_field(new, old, member.name)
        else:
            changed.append(member.name)
    return changed


@dataclass(frozen=True, slots=True)
class _Member:
    """What comparing one field needs to know of it.

    is_pointer: unset is another value than empty. is_message: made of messages, alone or in a list; maps are compared
    as they are. has_parts: those messages are objects in JSON, and not texts or numbers.
    """

    name: str
    is_pointer: bool
    is_list: bool
    is_message: bool
    has_parts: bool


@cache
def _members(descriptor: Descriptor) -> tuple[_Member, ...]:
    """The fields of a message; texts and numbers first, as they are quick to compare and one difference is enough."""
    fields = sorted(fields_of(descriptor), key=lambda field: (field.message is not None, field.is_map))
    return tuple(
        _Member(
            name=field.name,
            is_pointer=field.is_pointer,
            is_list=field.is_list,
            is_message=field.message is not None and not field.is_map,
            has_parts=field.kind is Kind.STRUCT and not field.is_map,
        )
        for field in fields
    )


def _is_identical(member: _Member, new: Any, old: Any) -> bool:
    name = member.name
    if getattr(new, name) != getattr(old, name):
        return False
    is_told = member.is_pointer or (member.is_message and not member.is_list)
    return not is_told or new.HasField(name) == old.HasField(name)


def _says_same(member: _Member, new: Any, old: Any) -> bool:
    """Whether a field of two messages that is not identical stands for the same JSON in both."""
    name = member.name
    if not member.is_message or (member.is_pointer and new.HasField(name) != old.HasField(name)):
        return False
    after, before = getattr(new, name), getattr(old, name)
    if not member.is_list:
        return _is_same_value(member, after, before)
    return len(after) == len(before) and all(
        one == other or _is_same_value(member, one, other) for one, other in zip(after, before, strict=True)
    )


def _is_same_value(member: _Member, new: Any, old: Any) -> bool:
    if not member.has_parts:
        return bool(json_codec.to_json(new) == json_codec.to_json(old))
    return all(_is_identical(part, new, old) or _says_same(part, new, old) for part in _members(descriptor_of(new)))
