"""Sets of fields: which parts of an object a manager owns, and their form in managedFields (FieldsV1).

A path is a tuple of steps, each written as FieldsV1 writes it:

    f:NAME               a member of an object
    k:{"name":"web"}     an item of a list, by its keys (sorted, compact JSON)
    v:"x"                an item of a list that is a set

A set holds the paths of all that is owned: leaves, and items and map entries as such. In FieldsV1 it is a trie in
which an inner node that is itself in the set has the member ".".
Source of the form: structured-merge-diff fieldpath/serialize.go.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import orjson

Path = tuple[str, ...]
FieldSet = frozenset[Path]

EMPTY: Final[FieldSet] = frozenset()
_SELF: Final = "."
_STEPS: Final = ("f:", "k:", "v:", "i:")


def member_step(name: str) -> str:
    """The step to a member of an object."""
    return f"f:{name}"


def key_step(keys: dict[str, Any]) -> str:
    """The step to an item by its keys."""
    return "k:" + orjson.dumps(keys, option=orjson.OPT_SORT_KEYS).decode()


def value_step(value: Any) -> str:
    """The step to a value of a set."""
    return "v:" + orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()


def decode(trie: Any) -> FieldSet:
    """The set that FieldsV1 holds, given as JSON. Raises ValueError for what is none."""
    found: set[Path] = set()
    if not isinstance(trie, dict):
        raise ValueError("fieldsV1 is not an object")
    _collect(trie, (), found)
    return frozenset(found)


def _collect(node: dict[str, Any], path: Path, found: set[Path]) -> None:
    for step, below in node.items():
        if step == _SELF:
            found.add(path)
            continue
        if not step.startswith(_STEPS) or not isinstance(below, dict):
            raise ValueError(f"fieldsV1 has no step {step!r}")
        here = (*path, step)
        if below:
            _collect(below, here, found)
        else:
            found.add(here)


def encode(fields: Iterable[Path]) -> dict[str, Any]:
    """FieldsV1 of a set, as JSON; equal for equal sets, steps in order."""
    trie: dict[str, Any] = {}
    paths = sorted(fields)
    for path in paths:
        node = trie
        for step in path:
            node = node.setdefault(step, {})
    return _marked(trie, (), frozenset(paths))


def _marked(node: dict[str, Any], path: Path, fields: FieldSet) -> dict[str, Any]:
    """The trie in which inner nodes that are in the set themselves have their dot, in front."""
    own: dict[str, Any] = {_SELF: {}} if node and path in fields else {}
    return own | {step: _marked(below, (*path, step), fields) for step, below in node.items()}


def shown(path: Path) -> str:
    """The path as messages name it: .spec.containers[name="web"].image."""
    return "".join(_shown_step(step) for step in path)


def _shown_step(step: str) -> str:
    kind, text = step[:2], step[2:]
    if kind == "f:":
        return f".{text}"
    if kind == "k:":
        keys = orjson.loads(text)
        return "[" + ",".join(f"{name}={orjson.dumps(value).decode()}" for name, value in keys.items()) + "]"
    return f"[={text}]" if kind == "v:" else f"[{text}]"
