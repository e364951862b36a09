"""The simple JSON paths of definitions: printer columns, selectable fields, replicas of scale.

.spec.names[0].a, .status.conditions[?(@.type=="Ready")].status, .metadata.annotations.example\\.com/x, ['key'], [*].
The PyPI libraries for JSONPath speak a later dialect, where a path begins with $ and a dot is not escaped.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

_NAME: Final = re.compile(r"\.((?:\\.|[^.\[\]\\])+)")
_INDEX: Final = re.compile(r"\[(-?\d+|\*)\]")
_KEY: Final = re.compile(r"""\[(?:'([^']*)'|"([^"]*)")\]""")
_FILTER: Final = re.compile(
    r"""\[\?\(\s*@((?:\.[^.\[\]=!<>\s]+)+)\s*(==|!=)\s*(?:"([^"]*)"|'([^']*)'|(-?\d+(?:\.\d+)?|true|false))\s*\)\]"""
)
_ALL: Final = "*"


class BadPath(ValueError):
    """The text is no path; the message says why."""


@dataclass(frozen=True, slots=True)
class _Filter:
    """Items of a list whose member equals a value, or does not."""

    path: tuple[str, ...]
    equal: bool
    value: Any


Step = str | int | _Filter | tuple[()]
# A step over every item.
_EVERY: Final[tuple[()]] = ()


def parse(text: str) -> tuple[Step, ...]:
    """The steps of a path. Raises BadPath."""
    if text.startswith("{") and text.endswith("}"):
        text = text[1:-1]
    if not text.startswith((".", "[")):
        raise BadPath("must be a simple json path starting with .")
    steps: list[Step] = []
    at = 0
    while at < len(text):
        for pattern, read in _READERS:
            found = pattern.match(text, at)
            if found is not None:
                steps.append(read(found))
                at = found.end()
                break
        else:
            raise BadPath(f"unexpected {text[at:]!r}")
    return tuple(steps)


def _read_name(found: re.Match[str]) -> Step:
    name = re.sub(r"\\(.)", r"\1", found[1])
    return _EVERY if name == _ALL else name


def _read_index(found: re.Match[str]) -> Step:
    return _EVERY if found[1] == _ALL else int(found[1])


def _read_key(found: re.Match[str]) -> Step:
    return found[1] if found[1] is not None else found[2]


def _read_filter(found: re.Match[str]) -> Step:
    path, operator, double, single, bare = found.groups()
    text = double if double is not None else single
    value: Any = text
    if text is None:
        value = bare == "true" if bare in ("true", "false") else float(bare)
    return _Filter(tuple(path[1:].split(".")), operator == "==", value)


_READERS: Final = ((_FILTER, _read_filter), (_INDEX, _read_index), (_KEY, _read_key), (_NAME, _read_name))


def members(steps: Sequence[Step]) -> tuple[str, ...] | None:
    """The names of a path that has nothing but names; None for others."""
    names = tuple(step for step in steps if isinstance(step, str))
    return names if len(names) == len(steps) else None


def find(steps: Sequence[Step], value: Any) -> Iterator[Any]:
    """What a path leads to, in order."""
    if not steps:
        yield value
        return
    step, rest = steps[0], steps[1:]
    for below in _step(step, value):
        yield from find(rest, below)


def _step(step: Step, value: Any) -> Iterator[Any]:
    if isinstance(step, str):
        if isinstance(value, dict) and step in value:
            yield value[step]
    elif isinstance(step, int):
        if isinstance(value, list) and -len(value) <= step < len(value):
            yield value[step]
    elif isinstance(step, _Filter):
        for item in value if isinstance(value, list) else ():
            found = next(find(step.path, item), None)
            if (found == step.value) is step.equal:
                yield item
    elif isinstance(value, list):
        yield from value
    elif isinstance(value, dict):
        yield from value.values()


def first(steps: Sequence[Step], value: Any) -> Any:
    """The first thing that a path leads to, None where there is none."""
    return next(find(steps, value), None)


def put(names: Sequence[str], value: dict[str, Any], wanted: Any) -> None:
    """Set what a path of names leads to, making the objects on the way."""
    for name in names[:-1]:
        below = value.get(name)
        if not isinstance(below, dict):
            below = value[name] = {}
        value = below
    value[names[-1]] = wanted
