"""Strategic merge patch: a merge patch that knows from the schema how lists merge.

Pure, over plain JSON. Of each field the options patch_strategy and patch_merge_key are read; a field
without them merges as an object or is replaced. Directives that a patch may carry:

    $patch: replace | delete | merge          in an object, or in an item of a list that merges by key
    $retainKeys: [names]                      members of the object that may stay
    $setElementOrder/LIST: [keys or values]   order of a merged list
    $deleteFromPrimitiveList/LIST: [values]   values to take out of a list

Order of a merged list: what the patch names comes in the patch's order, the rest keeps its order and
its place relative to neighbours. Source of the rules: apimachinery pkg/util/strategicpatch.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message

from tiphys_apimachinery.errors import BadRequest
from tiphys_apimachinery.schema import Field, Kind, descriptor_of, fields_by_json

_DIRECTIVE: Final = "$patch"
_RETAIN: Final = "$retainKeys"
_ORDER: Final = "$setElementOrder/"
_DELETE_FROM: Final = "$deleteFromPrimitiveList/"


def apply_patch(cls: type[Message], target: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    """The target, an object of the message's kind in JSON, with the patch merged in.

    Neither argument is changed. Raises BadRequest for a patch that contradicts itself or the schema.
    """
    try:
        return _merge_object(target, patch, descriptor_of(cls))
    except RecursionError as error:
        raise BadRequest("the patch is nested too deep") from error


@dataclass(frozen=True, slots=True)
class _Rule:
    """How one member merges. A list that does not merge is replaced; one without key has plain values.

    part describes the objects in the member; None where the schema says nothing of their members.
    """

    part: Descriptor | None = None
    is_map: bool = False
    replaces: bool = False
    merges_list: bool = False
    key: str = ""


_NO_RULE: Final = _Rule()


@functools.cache
def _rules(descriptor: Descriptor) -> Mapping[str, _Rule]:
    """The rule of each member; read once, as to ask the options of each field again costs more than the merge."""
    return {name: _rule(field) for name, field in fields_by_json(descriptor).items()}


def _rule(field: Field) -> _Rule:
    options = field.options
    return _Rule(
        part=field.message if field.kind is Kind.STRUCT else None,
        is_map=field.is_map,
        replaces="replace" in options.patch_strategy and field.is_singular,
        merges_list="merge" in options.patch_strategy,
        key=options.patch_merge_key,
    )


def _merge_object(
    target: Mapping[str, Any], patch: Mapping[str, Any], descriptor: Descriptor | None, *, by_name: bool = False
) -> dict[str, Any]:
    """`by_name` says that members are keys of a map, whose values all have the descriptor."""
    directive = patch.get(_DIRECTIVE)
    if directive == "replace":
        return _plain_object(patch)
    if directive == "delete":
        return {}
    if directive not in (None, "merge"):
        raise BadRequest(f"unknown patch type found: {directive} in map")
    result = _retain(target, patch)
    # Looked at all together first: nearly no patch has any.
    directives = [name for name in patch if _is_directive(name)] if "$" in "".join(patch) else ()
    orders = {name[len(_ORDER) :]: patch[name] for name in directives if name.startswith(_ORDER)}
    for name in directives:
        if name.startswith(_DELETE_FROM):
            _delete_values(result, name[len(_DELETE_FROM) :], patch[name])
    rules = {} if descriptor is None or by_name else _rules(descriptor)
    of_all = _Rule(part=descriptor) if by_name else _NO_RULE
    for name, value in patch.items():
        if directives and name in directives:
            continue
        if value is None:
            result.pop(name, None)
        elif isinstance(value, (dict, list)):
            result[name] = _merge_value(result.get(name), value, rules.get(name, of_all), orders.get(name))
        else:
            result[name] = value
    for name, order in orders.items():
        if name not in patch and isinstance(result.get(name), list):
            result[name] = _reorder(result[name], result[name], order, rules.get(name, of_all).key)
    return result


def _merge_value(current: Any, value: dict[str, Any] | list[Any], rule: _Rule, order: Any) -> Any:
    if isinstance(value, list):
        if rule.merges_list:
            return _merge_list(current if isinstance(current, list) else [], value, rule, order)
        return _without_directives(value)
    if rule.replaces:
        return _without_directives(value)
    return _merge_object(current if isinstance(current, dict) else {}, value, rule.part, by_name=rule.is_map)


def _retain(target: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of the target with only the members that $retainKeys, if it is there, lets stay."""
    keep = patch.get(_RETAIN)
    if keep is None:
        return dict(target)
    if not isinstance(keep, list):
        raise BadRequest(f"{_RETAIN} needs a list of names")
    for name, value in patch.items():
        if not _is_directive(name) and value is not None and name not in keep:
            raise BadRequest(f"the patch sets {name}, which {_RETAIN} does not keep")
    return {name: value for name, value in target.items() if name in keep}


def _delete_values(result: dict[str, Any], name: str, values: Any) -> None:
    if not isinstance(values, list):
        raise BadRequest(f"{_DELETE_FROM}{name} needs a list of values")
    if isinstance(result.get(name), list):
        gone = {_identity(value, "") for value in values}
        result[name] = [item for item in result[name] if _identity(item, "") not in gone]


def _merge_list(current: list[Any], patch: list[Any], rule: _Rule, order: Any) -> list[Any]:
    if not rule.key:
        found = {_identity(item, ""): item for item in [*current, *patch]}
        return _reorder(list(found.values()), current, order if order is not None else patch, "")
    if order is None and _are_the_same(current, patch, rule.key):
        return [_merge_object(before, item, rule.part) for before, item in zip(current, patch, strict=True)]
    items = [_checked_item(item, rule.key) for item in patch]
    if any(item.get(_DIRECTIVE) == "replace" and rule.key not in item for item in items):
        return [_without_directives(item) for item in items if item.get(_DIRECTIVE) != "replace"]
    gone = {_identity(item, rule.key) for item in items if item.get(_DIRECTIVE) == "delete"}
    merged = [item for item in current if _identity(item, rule.key) not in gone]
    places = {_identity(item, rule.key): place for place, item in reversed(list(enumerate(merged)))}
    wanted = [item for item in items if item.get(_DIRECTIVE) != "delete"]
    for item in wanted:
        identity = _identity(item, rule.key)
        place = places.get(identity)
        if place is None:
            places[identity] = len(merged)
            merged.append(_merge_object({}, item, rule.part))
        else:
            before = merged[place] if isinstance(merged[place], dict) else {}
            merged[place] = _merge_object(before, item, rule.part)
    return _reorder(merged, current, order if order is not None else wanted, rule.key)


def _are_the_same(current: list[Any], patch: list[Any], key: str) -> bool:
    """Whether the patch names each item of a list once and in its order, with nothing else to say of the list.

    So do most patches of a status: its conditions, its containers.
    """
    if len(current) != len(patch):
        return False
    names = set()
    for before, item in zip(current, patch, strict=True):
        if not isinstance(item, dict) or not isinstance(before, dict) or _DIRECTIVE in item:
            return False
        name = item.get(key)
        if type(name) is not str or before.get(key) != name:
            return False
        names.add(name)
    return len(names) == len(patch)


def _checked_item(item: Any, key: str) -> dict[str, Any]:
    if not isinstance(item, dict):
        raise BadRequest(f"the list merges by {key}, but the patch has {item!r} in it")
    directive = item.get(_DIRECTIVE)
    if directive not in (None, "replace", "delete", "merge"):
        raise BadRequest(f"unknown patch type found: {directive} in list")
    if key not in item and directive != "replace":
        shown = {name: value for name, value in item.items() if name != _DIRECTIVE}
        raise BadRequest(f"map: {shown} does not contain declared merge key: {key}")
    return item


def _identity(item: Any, key: str) -> tuple[str, Any]:
    """What names an item: its key's value, or the item itself; of a kind that can be looked up."""
    value = item.get(key) if key and isinstance(item, dict) else item
    if isinstance(value, str):
        return "str", value
    if isinstance(value, (dict, list)):
        return "json", orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    return type(value).__name__, value


def _reorder(merged: list[Any], before: list[Any], order: Any, key: str) -> list[Any]:
    """Items named by `order` in its order, the others in theirs, put in before the first named item
    that stood behind them in `before`."""
    if not isinstance(order, list):
        raise BadRequest(f"{_ORDER} needs a list")
    identities = [_identity(item, key) for item in merged]
    if identities == [_identity(item, key) for item in order]:
        return merged
    wanted, old = _ranks(order, key), _ranks(before, key)
    pairs = list(zip(identities, merged, strict=True))
    named = sorted((pair for pair in pairs if pair[0] in wanted), key=lambda pair: wanted[pair[0]])
    others = sorted((pair for pair in pairs if pair[0] not in wanted), key=lambda pair: old.get(pair[0], len(old)))
    result: list[Any] = []
    left = right = 0
    while left < len(others) and right < len(named):
        other_rank, named_rank = old.get(others[left][0]), old.get(named[right][0])
        if other_rank is not None and named_rank is not None and other_rank < named_rank:
            result.append(others[left][1])
            left += 1
        else:
            result.append(named[right][1])
            right += 1
    return [*result, *(item for _, item in named[right:]), *(item for _, item in others[left:])]


def _ranks(items: list[Any], key: str) -> dict[tuple[str, Any], int]:
    """Place of each item, the first where it is there twice."""
    return {_identity(item, key): place for place, item in reversed(list(enumerate(items)))}


def _plain_object(value: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: _without_directives(item) for name, item in value.items() if item is not None and not _is_directive(name)
    }


def _without_directives(value: Any) -> Any:
    """The value of a patch as it is stored where there is nothing to merge with: no nulls, no directives."""
    if isinstance(value, dict):
        return _plain_object(value)
    if isinstance(value, list):
        return [
            _without_directives(item)
            for item in value
            if not (isinstance(item, dict) and item.get(_DIRECTIVE) == "delete")
        ]
    return value


def _is_directive(name: str) -> bool:
    return name in (_DIRECTIVE, _RETAIN) or name.startswith((_ORDER, _DELETE_FROM))
