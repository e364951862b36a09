"""Server-side apply over plain JSON: what a configuration owns, merging it in, what changed, removing what it let go.

Pure; shapes come from typed.py, sets of fields from field_set.py. Who owns what is managed_fields.py's matter.
Source of the rules: structured-merge-diff typed/merge.go, typed/tofieldset.go, typed/remove.go and merge/update.go.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from tiphys_apimachinery.errors import BadRequest
from tiphys_apimachinery.patch.field_set import FieldSet, Path, key_step, member_step, shown, value_step
from tiphys_apimachinery.patch.typed import Shape

_ABSENT: Final = object()


def fields_of(config: Any, shape: Shape) -> FieldSet:
    """Every path that a manager owns who applies this: leaves, items, entries of maps.

    Raises BadRequest for items of a list that can't be told apart.
    """
    _check_items(config, shape, ())
    return frozenset(_walk(config, shape))


def _walk(value: Any, shape: Shape) -> dict[Path, Any]:
    """Each path that is owned with its value; items and entries that have parts come with None."""
    found: dict[Path, Any] = {}
    _collect(value, shape, (), found)
    return found


def _collect(value: Any, shape: Shape, path: Path, found: dict[Path, Any]) -> None:
    if isinstance(value, dict) and not shape.is_leaf:
        for name, part in value.items():
            here = (*path, member_step(name))
            if not shape.declares(name) or part in ({}, None):
                # Entries of maps are owned as such, and so is what was set to nothing.
                found[here] = None
            _collect(part, shape.member(name), here, found)
    elif isinstance(value, list) and shape.is_list:
        for item in value:
            here = (*path, _step(item, shape))
            if not shape.keys:
                found[here] = item
            elif here not in found:
                found[here] = None
                _collect(item, shape.item, here, found)
    elif path and not (value is None and shape.is_list):
        found[path] = value


def _step(item: Any, shape: Shape) -> str:
    """The step to an item; one without its keys, which no configuration may have but a bad object may, is a value."""
    if shape.keys and isinstance(item, dict):
        keys = {name: item.get(name, default) for name, default in shape.keys}
        known = {name: value for name, value in keys.items() if value is not None}
        if known:
            return key_step(known)
    return value_step(item)


def _check_items(value: Any, shape: Shape, path: Path) -> None:
    """Raises BadRequest for two items with one key, and for an item without any."""
    if isinstance(value, dict) and not shape.is_leaf:
        for name, part in value.items():
            _check_items(part, shape.member(name), (*path, member_step(name)))
    elif isinstance(value, list) and shape.is_list:
        seen: set[str] = set()
        for item in value:
            step = _step(item, shape)
            if shape.keys and not step.startswith("k:"):
                names = ", ".join(name for name, _ in shape.keys)
                raise BadRequest(
                    f"{shown(path)}: associative list with keys has an element that omits all key fields [{names}]"
                )
            if step in seen:
                raise BadRequest(f"{shown(path)}: duplicate entries for key {shown((step,))}")
            seen.add(step)
            _check_items(item, shape.item, (*path, step))


def merge(live: Any, applied: Any, shape: Shape) -> Any:
    """The live value with the applied one in it: members and items of both, the applied one's values for both.

    Items keep the order of the configuration; those it does not name come before the next item of live's that it does.
    """
    if isinstance(live, dict) and isinstance(applied, dict) and not shape.is_leaf:
        result = dict(live)
        for name, part in applied.items():
            result[name] = merge(live[name], part, shape.member(name)) if name in live else part
        return result
    if isinstance(live, list) and isinstance(applied, list) and shape.is_list:
        return _merge_items(live, applied, shape)
    return applied


def _merge_items(live: list[Any], applied: list[Any], shape: Shape) -> list[Any]:
    mine = {_step(item, shape): item for item in applied}
    theirs: dict[str, Any] = {}
    for item in live:
        # Stored lists may hold what no configuration may: the first of two with one key counts.
        theirs.setdefault(_step(item, shape), item)
    shared = [step for step in mine if step in theirs]
    result: list[Any] = []
    coming = list(theirs)
    for step, item in mine.items():
        # What the configuration does not name comes before the next item that both have, where it was.
        while coming and coming[0] != step:
            if coming[0] in mine:
                if shared and coming[0] == shared[0]:
                    break
                coming.pop(0)
            else:
                result.append(theirs[coming.pop(0)])
        if step in theirs:
            result.append(merge(theirs[step], item, shape.item))
            shared.remove(step)
            coming = [other for other in coming if other != step]
        else:
            result.append(item)
    result += [theirs[step] for step in coming if step not in mine]
    return result


@dataclass(frozen=True, slots=True)
class Comparison:
    """Paths that one object has and the other has not, or with another value."""

    added: FieldSet
    modified: FieldSet
    removed: FieldSet

    @property
    def is_same(self) -> bool:
        """Whether nothing differs."""
        return not (self.added or self.modified or self.removed)


def compare(old: Any, new: Any, shape: Shape) -> Comparison:
    """What the way from old to new adds, modifies and removes."""
    before, after = _walk(old, shape), _walk(new, shape)
    return Comparison(
        added=_beyond(after, before),
        modified=frozenset(path for path in after.keys() & before.keys() if after[path] != before[path]),
        removed=_beyond(before, after),
    )


def _beyond(these: dict[Path, Any], those: dict[Path, Any]) -> FieldSet:
    """What is here and not there. A struct that is empty here and has members there is in both."""
    found = these.keys() - those.keys()
    if any(these[path] is None for path in found):
        parts = {path[:length] for path in those for length in range(1, len(path))}
        found = {path for path in found if these[path] is not None or path not in parts}
    return frozenset(found)


def without(value: Any, shape: Shape, gone: FieldSet, owned: FieldSet) -> Any:
    """The value without the paths in gone, none of which is in owned; a part that holds owned paths stays.

    With an item or entry goes what nobody owns in it, such as defaults; a struct left without members goes too.
    """
    kept = {path[:length] for path in owned for length in range(1, len(path) + 1)}
    result = _without(value, shape, (), (gone, frozenset(kept)))
    return {} if result is _ABSENT else result


def _without(value: Any, shape: Shape, path: Path, sets: tuple[FieldSet, frozenset[Path]]) -> Any:
    gone, kept = sets
    if path in gone and path not in kept:
        return _ABSENT
    if isinstance(value, dict) and not shape.is_leaf:
        steps = [(member_step(name), name, part, shape.member(name)) for name, part in value.items()]
        parts = {name: _without(part, of, (*path, step), sets) for step, name, part, of in steps}
        left = {name: part for name, part in parts.items() if part is not _ABSENT}
        return _ABSENT if value and not left and path not in kept else left
    if isinstance(value, list) and shape.is_list:
        found = [_without(item, shape.item, (*path, _step(item, shape)), sets) for item in value]
        items = [item for item in found if item is not _ABSENT]
        return _ABSENT if value and not items and path not in kept else items
    return value
