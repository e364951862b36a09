"""What an expression gives and what it can cost at most, from what is known of its variables. Pure.

Finds fields that a schema does not have and functions that take no such values before any object is there. Where
nothing is known nothing is found, and where a cost is unsure the lower one counts: what Kubernetes takes must pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from tiphys_apimachinery.cel.overloads import Function
from tiphys_apimachinery.cel.steps import unescaped
from tiphys_apimachinery.cel.syntax import (
    Bind,
    Call,
    CelError,
    Construct,
    Index,
    ListOf,
    Literal,
    Loop,
    MapOf,
    Name,
    Node,
    Select,
    fault,
)
from tiphys_apimachinery.cel.values import type_name
from tiphys_apiserver.cel.catalog import LIBRARY
from tiphys_apiserver.cel.static_types import BOOL, DYN, INT, STRING, Static, item_of, member

_ARITHMETIC: Final = frozenset({"_+_", "_-_", "_*_", "_/_", "_%_"})
_RELATIONS: Final = frozenset({"_<_", "_<=_", "_>_", "_>=_"})
_EQUALITY: Final = frozenset({"_==_", "_!=_"})
_NUMBERS: Final = frozenset({"int", "uint", "double"})
_TIMES: Final = frozenset({"timestamp", "duration"})
# Functions whose price is a product. Source: apiserver pkg/cel/library/cost.go.
_SETS: Final = ("sets.contains", "sets.equivalent", "sets.intersects")
_PATTERNS: Final = ("matches", "find", "findAll")
_CHARACTERS: Final = 10
_TURN: Final = 3


@dataclass(frozen=True, slots=True)
class Estimate:
    """A type, and the cost of the expression at most."""

    type: Static
    cost: int


def analyse(source: str, node: Node, variables: Mapping[str, Static]) -> Estimate:
    """Type and cost of an expression. Raises CelError for what can't have a value."""
    analyser = _Analyser(source, variables)
    try:
        found = analyser.type_of(node)
    except RecursionError as err:
        raise CelError("expression is nested too deeply") from err
    return Estimate(found, analyser.cost)


class _Analyser:
    """Adds up the cost while it finds types."""

    def __init__(self, source: str, variables: Mapping[str, Static]) -> None:
        self._source = source
        self._variables = dict(variables)
        self.cost = 0
        self._times = 1

    @contextmanager
    def _loop(self, times: int, variables: Mapping[str, Static]) -> Iterator[None]:
        before, seen = self._times, self._variables
        self._times = before * max(times, 0)
        self._variables = {**seen, **variables}
        try:
            yield
        finally:
            self._times, self._variables = before, seen

    def _spend(self, cost: int) -> None:
        self.cost += cost * self._times

    def type_of(self, node: Node) -> Static:
        """The type of a node; its cost is added."""
        return _RULES[type(node)](self, node)

    def _literal(self, node: Literal) -> Static:
        value = node.value
        kind = type_name(value).removesuffix("_type")
        return Static(kind, len(value) if isinstance(value, (str, bytes)) else 1)

    def _name(self, node: Name) -> Static:
        self._spend(1)
        return self._variables.get(node.name, DYN)

    def _select(self, node: Select) -> Static:
        of = self.type_of(node.of)
        self._spend(1)
        found = member(of, node.name)
        if found is None:
            found = member(of, unescaped(node.name))
        if found is None:
            raise fault(self._source, node.at, f"undefined field '{node.name}'")
        if of.kind in ("int", "double", "bool", "string", "list", "bytes") and not node.optional:
            raise fault(self._source, node.at, f"type '{of.kind}' does not support field selection")
        if node.tests:
            return BOOL
        return Static("optional", item=found) if node.optional else found

    def _index(self, node: Index) -> Static:
        of, key = self.type_of(node.of), self.type_of(node.key)
        self._spend(1)
        if of.kind == "list" and key.kind in ("string", "bool"):
            raise fault(self._source, node.at, f"found no matching overload for '_[_]' applied to '(list, {key.kind})'")
        found = item_of(of) if of.kind in ("list", "map") else DYN
        return Static("optional", item=found) if node.optional else found

    def _list(self, node: ListOf) -> Static:
        self._spend(10)
        types = [self.type_of(item) for item, _ in node.items]
        is_one = len({found.kind for found in types}) == 1
        return Static("list", len(types), item=types[0] if is_one else DYN)

    def _map(self, node: MapOf) -> Static:
        self._spend(30)
        for key, value, _ in node.entries:
            self.type_of(key)
            self.type_of(value)
        return Static("map", len(node.entries), item=DYN)

    def _construct(self, node: Construct) -> Static:
        self._spend(40)
        for _, value, _optional in node.fields:
            self.type_of(value)
        return DYN

    # -- calls

    def _call(self, node: Call) -> Static:
        if node.target is None and (node.name.startswith(("_", "!", "-")) or node.name == "@in"):
            return self._operator(node)
        function = LIBRARY.functions.get(node.name) if node.target is None else LIBRARY.methods.get(node.name)
        args = [self.type_of(arg) for arg in node.args]
        if node.target is not None:
            spaced = LIBRARY.functions.get(f"{_dotted(node.target)}.{node.name}")
            if spaced is not None and _root(node.target) not in self._variables:
                function = spaced
            else:
                args.insert(0, self.type_of(node.target))
        if function is None:
            return DYN
        self._spend(1 + _price(function.name, args))
        return self._result(node, function, args)

    def _result(self, node: Call, function: Function, args: list[Static]) -> Static:
        fitting = [form for form in function.overloads if _fits(form.params, args)]
        if not fitting:
            shown = ", ".join(arg.kind for arg in args)
            raise fault(self._source, node.at, f"found no matching overload for '{node.name}' applied to '({shown})'")
        results = {form.result for form in fitting}
        kind = results.pop() if len(results) == 1 else "dyn"
        if kind == "any" or kind == "dyn":
            return DYN
        if kind == "string":
            return Static(kind, max((arg.size for arg in args if arg.kind in ("string", "list")), default=STRING.size))
        return Static(kind, max((arg.size for arg in args), default=1)) if kind in ("list", "map") else Static(kind, 1)

    def _operator(self, node: Call) -> Static:
        sides = [self.type_of(arg) for arg in node.args]
        self._spend(1)
        name = node.name
        if name == "_?_:_":
            self._wants_bool(node, sides[:1])
            return sides[1] if sides[1].kind == sides[2].kind else DYN
        if name in ("_&&_", "_||_", "!_"):
            self._wants_bool(node, sides)
            return BOOL
        if name == "@in":
            if sides[1].kind == "list":
                self._spend(sides[1].size)
            elif sides[1].kind in _NUMBERS | {"string", "bool"}:
                self._mismatch(node, sides)
            return BOOL
        if name == "-_":
            return sides[0] if sides[0].kind in ("int", "double") else DYN
        return self._binary(node, sides)

    def _binary(self, node: Call, sides: list[Static]) -> Static:
        one, other = (side.kind for side in sides)
        is_known = "dyn" not in (one, other)
        sized = [side.size for side in sides if side.kind in ("string", "bytes")]
        if len(sized) == len(sides):
            self._spend((sum(sized) if node.name == "_+_" else min(sized)) // _CHARACTERS)
        if node.name in _EQUALITY:
            if is_known and one != other and not _may_be_equal(one, other):
                self._mismatch(node, sides)
            return BOOL
        if node.name in _RELATIONS:
            is_ordered = (one == other and one not in ("list", "map", "object", "null")) or {one, other} <= _NUMBERS
            if is_known and not is_ordered:
                self._mismatch(node, sides)
            return BOOL
        return self._sum(node, sides) if is_known else DYN

    def _sum(self, node: Call, sides: list[Static]) -> Static:
        one, other = (side.kind for side in sides)
        if one == other and (one in _NUMBERS or (node.name == "_+_" and one in ("string", "bytes", "list"))):
            return Static(one, sides[0].size + sides[1].size, item=sides[0].item)
        if {one, other} <= _TIMES and node.name in ("_+_", "_-_"):
            return Static("timestamp" if (one == "timestamp") != (other == "timestamp") else "duration", 1)
        self._mismatch(node, sides)
        return DYN

    def _wants_bool(self, node: Call, sides: list[Static]) -> None:
        if any(side.kind not in ("bool", "dyn") for side in sides):
            self._mismatch(node, sides)

    def _mismatch(self, node: Call, sides: list[Static]) -> None:
        shown = ", ".join(side.kind for side in sides)
        raise fault(self._source, node.at, f"found no matching overload for '{node.name}' applied to '({shown})'")

    # -- macros

    def _macro(self, node: Loop) -> Static:
        over = self.type_of(node.over)
        if over.kind not in ("list", "map", "object", "dyn"):
            why = f"expression of type '{over.kind}' cannot be range of a comprehension (must be list, map, or dynamic)"
            raise fault(self._source, node.at, why)
        is_list = over.kind == "list"
        item = item_of(over) if over.kind in ("list", "map") else DYN
        key = STRING if over.kind == "map" else INT if is_list else DYN
        known = (key, item) if len(node.variables) > 1 else (item if is_list else key,)
        # Of a value without type nobody knows how long it is; the limit of evaluation holds it.
        times = over.size if over.kind in ("list", "map") else 1
        self._spend(1)
        with self._loop(times, dict(zip(node.variables, known, strict=True))):
            self._spend(_TURN)
            parts = [self.type_of(part) for part in node.parts]
        if node.macro in ("all", "exists", "exists_one", "existsOne"):
            if parts[0].kind not in ("bool", "dyn"):
                raise fault(self._source, node.at, f"expected type 'bool' but found '{parts[0].kind}'")
            return BOOL
        if node.macro == "filter":
            return Static("list", over.size, item=item if is_list else key)
        if node.macro in ("map", "transformList"):
            return Static("list", over.size, item=parts[-1])
        return over if node.macro == "sortBy" else Static("map", over.size, item=DYN)

    def _bind(self, node: Bind) -> Static:
        value = self.type_of(node.value)
        if node.macro != "bind":
            value = value.item or DYN
        with self._loop(1, {node.name: value}):
            body = self.type_of(node.body)
        return Static("optional", item=body) if node.macro == "optMap" else body


def _price(name: str, args: list[Static]) -> int:
    """What a call costs beyond one."""
    if not args:
        return 0
    size = args[0].size if args[0].kind in ("string", "bytes", "list", "map") else 0
    if name in _SETS:
        return size * args[1].size
    if name == "check":
        return 350_000
    if name == "size":
        return 0
    if name in _PATTERNS and len(args) > 1:
        return (size // _CHARACTERS + 1) * (min(args[1].size, 4096) // 4 + 1)
    if name in ("startsWith", "endsWith") and len(args) > 1:
        return min(size, args[1].size) // _CHARACTERS
    return size // _CHARACTERS if args[0].kind in ("string", "bytes") else size


def _fits(params: tuple[str, ...], args: list[Static]) -> bool:
    return len(params) == len(args) and all(map(_takes, params, args))


def _takes(wanted: str, arg: Static) -> bool:
    options = wanted.split("|")
    if arg.kind in ("dyn", *options) or "any" in options:
        return True
    return ("map" in options and arg.kind == "object") or ("number" in options and arg.kind in _NUMBERS)


def _may_be_equal(one: str, other: str) -> bool:
    kinds = {one, other}
    return "null" in kinds or kinds <= _NUMBERS or kinds <= {"map", "object"} or "optional" in kinds


def _dotted(node: Node) -> str:
    if isinstance(node, Select):
        return f"{_dotted(node.of)}.{node.name}"
    return node.name if isinstance(node, Name) else ""


def _root(node: Node) -> str:
    while isinstance(node, Select):
        node = node.of
    return node.name if isinstance(node, Name) else ""


_RULES: Final[dict[type[Node], Callable[[Any, Any], Static]]] = {
    Literal: _Analyser._literal,
    Name: _Analyser._name,
    Select: _Analyser._select,
    Index: _Analyser._index,
    ListOf: _Analyser._list,
    MapOf: _Analyser._map,
    Construct: _Analyser._construct,
    Call: _Analyser._call,
    Loop: _Analyser._macro,
    Bind: _Analyser._bind,
}
