"""Syntax to Python closures. A closure takes the frame of one evaluation and gives a value, or raises CelError.

Evaluation is charged as cel-go charges it (a unit a step, more for what looks at whole texts and lists), so that limits
mean the same here; loops and functions whose price depends on their arguments stop where the frame has nothing left.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from tiphys_apimachinery.cel.functions import Library
from tiphys_apimachinery.cel.loops import compile_loop
from tiphys_apimachinery.cel.operators import OPERATORS
from tiphys_apimachinery.cel.overloads import Function
from tiphys_apimachinery.cel.parser import parse, type_name_of
from tiphys_apimachinery.cel.steps import ABSENT, Evaluate, Frame, index, select
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
from tiphys_apimachinery.cel.values import NONE, CelType, ObjectValue, Optional, equals, no_overload, some

TYPES: Final = {
    name: CelType(name)
    for name in ("bool", "int", "uint", "double", "string", "bytes", "list", "map", "null_type", "type")
} | {
    "optional_type": CelType("optional_type"),
    "google.protobuf.Timestamp": CelType("google.protobuf.Timestamp"),
    "google.protobuf.Duration": CelType("google.protobuf.Duration"),
}
# Source: cel-go interpreter/runtimecost.go and common/cost.go.
_LIST_COST: Final = 10
_MAP_COST: Final = 30
_STRUCT_COST: Final = 40


class Compiler:
    """Compiles one expression; names holds what it may refer to, used what it does."""

    def __init__(self, source: str, names: frozenset[str], library: Library, *, constructs: bool) -> None:
        self._source = source
        self._library = library
        self._names = names
        self._constructs = constructs
        self._bound: list[str] = []
        self.used: set[str] = set()

    def compile(self, node: Node) -> Evaluate:
        """The closure of a node. Raises CelError for names and functions that there are none of."""
        return _COMPILERS[type(node)](self, node)

    def knows(self, name: str) -> bool:
        """Whether a name is a variable here."""
        return name in self._bound or name in self._names

    def within(self, names: tuple[str, ...], node: Node) -> Evaluate:
        """The closure of a node that sees more variables."""
        self._bound.extend(names)
        try:
            return self.compile(node)
        finally:
            del self._bound[len(self._bound) - len(names) :]

    # -- values

    def _literal(self, node: Literal) -> Evaluate:
        value = node.value
        return lambda frame: value

    def _name(self, node: Name) -> Evaluate:
        name = node.name
        if not self.knows(name):
            return self._type(name, node)
        if name not in self._bound:
            self.used.add(name)

        def read(frame: Frame) -> Any:
            frame.left -= 1
            try:
                return frame.variables[name]
            except KeyError:
                raise CelError(f"no such attribute(s): {name}") from None

        return read

    def _type(self, name: str, node: Node) -> Evaluate:
        found = TYPES.get(name)
        if found is None:
            raise fault(self._source, node.at, f"undeclared reference to '{name}' (in container '')")
        return lambda frame: found

    def _select(self, node: Select) -> Evaluate:
        full = self._free_name(node)
        if full in TYPES:
            return self._type(full, node)
        dotted = type_name_of(node)
        if dotted in self._names and not node.tests and dotted.partition(".")[0] not in self._bound:
            # Such as authorizer.requestResource, which is a variable with a dot in its name.
            return self._name(Name(node.at, dotted))
        of, name = self.compile(node.of), node.name
        if node.tests:

            def test(frame: Frame) -> bool:
                frame.left -= 1
                return select(of(frame), name) is not ABSENT

            return test
        if node.optional:

            def opted(frame: Frame) -> Optional:
                frame.left -= 1
                return _opted(of(frame), lambda value: select(value, name))

            return opted

        def read(frame: Frame) -> Any:
            frame.left -= 1
            value = of(frame)
            if type(value) is dict:
                try:
                    return value[name]
                except KeyError:
                    pass
            elif type(value) is Optional:
                return _opted(value, lambda held: select(held, name))
            found = select(value, name)
            if found is ABSENT:
                raise CelError(f"no such key: {name}")
            return found

        return read

    def _index(self, node: Index) -> Evaluate:
        of, key = self.compile(node.of), self.compile(node.key)
        if node.optional:

            def opted(frame: Frame) -> Optional:
                frame.left -= 1
                wanted = key(frame)
                return _opted(of(frame), lambda value: index(value, wanted))

            return opted

        def read(frame: Frame) -> Any:
            frame.left -= 1
            value, wanted = of(frame), key(frame)
            if type(value) is Optional:
                return _opted(value, lambda held: index(held, wanted))
            found = index(value, wanted)
            if found is ABSENT:
                what = "no such key" if isinstance(value, dict) else "index out of bounds"
                raise CelError(f"{what}: {wanted}")
            return found

        return read

    def _list(self, node: ListOf) -> Evaluate:
        items = [(self.compile(item), optional) for item, optional in node.items]

        def make(frame: Frame) -> list[Any]:
            frame.left -= _LIST_COST
            found: list[Any] = []
            for item, optional in items:
                value = item(frame)
                if not optional:
                    found.append(value)
                elif not isinstance(value, Optional):
                    raise no_overload("[?]", value)
                elif value.is_there:
                    found.append(value.value)
            return found

        return make

    def _map(self, node: MapOf) -> Evaluate:
        entries = [(self.compile(key), self.compile(value), optional) for key, value, optional in node.entries]

        def make(frame: Frame) -> dict[Any, Any]:
            frame.left -= _MAP_COST
            found: dict[Any, Any] = {}
            for read_key, read_value, optional in entries:
                key, value = read_key(frame), read_value(frame)
                if not isinstance(key, (str, int, bool)):
                    raise CelError(f"unsupported key type: {type(key).__name__}")
                if any(equals(key, known) for known in found):
                    raise CelError(f"Failed with repeated key: {key}")
                if not optional:
                    found[key] = value
                elif not isinstance(value, Optional):
                    raise no_overload("{?:}", value)
                elif value.is_there:
                    found[key] = value.value
            return found

        return make

    def _construct(self, node: Construct) -> Evaluate:
        if not self._constructs or node.type_name.partition(".")[0] not in ("Object", "JSONPatch"):
            raise fault(self._source, node.at, f"undeclared reference to '{node.type_name}' (in container '')")
        name = node.type_name
        fields = [(field, self.compile(value), optional) for field, value, optional in node.fields]

        def make(frame: Frame) -> ObjectValue:
            frame.left -= _STRUCT_COST
            found: dict[str, Any] = {}
            for field, read, optional in fields:
                value = read(frame)
                if not optional:
                    found[field] = value
                elif not isinstance(value, Optional):
                    raise no_overload("{?}", value)
                elif value.is_there:
                    found[field] = value.value
            return ObjectValue(name, found)

        return make

    # -- calls

    def _call(self, node: Call) -> Evaluate:
        operator = OPERATORS.get(node.name) if node.target is None else None
        if operator is not None:
            return operator([self.compile(arg) for arg in node.args])
        function, args = self._resolve(node)
        if not function.takes(len(args)):
            raise fault(self._source, node.at, f"found no matching overload for '{node.name}' applied to {len(args)}")
        return _invoke(function, [self.compile(arg) for arg in args])

    def _resolve(self, node: Call) -> tuple[Function, tuple[Node, ...]]:
        if node.target is None:
            function = self._library.functions.get(node.name)
        else:
            spaced = f"{self._free_name(node.target)}.{node.name}"
            function = self._library.functions.get(spaced)
            if function is None:
                method = self._library.methods.get(node.name)
                if method is not None and self._free_name(node.target) not in self._library.namespaces:
                    return method, (node.target, *node.args)
        if function is None:
            raise fault(self._source, node.at, f"undeclared reference to '{node.name}' (in container '')")
        return function, node.args

    def _free_name(self, node: Node) -> str:
        """The dotted name of a node that begins with no variable; empty for everything else."""
        names: list[str] = []
        while isinstance(node, Select) and not node.optional and not node.tests:
            names.append(node.name)
            node = node.of
        if not isinstance(node, Name) or self.knows(node.name):
            return ""
        return ".".join([node.name, *reversed(names)])

    # -- macros

    def _loop(self, node: Loop) -> Evaluate:
        over = self.compile(node.over)
        parts = [self.within(node.variables, part) for part in node.parts]
        return compile_loop(node.macro, over, node.variables, parts)

    def _bind(self, node: Bind) -> Evaluate:
        value, body, name = self.compile(node.value), self.within((node.name,), node.body), node.name
        if node.macro == "bind":
            return lambda frame: frame.seeing(name, value(frame), body)
        is_flat = node.macro == "optFlatMap"

        def mapped(frame: Frame) -> Any:
            held = value(frame)
            if not isinstance(held, Optional):
                raise no_overload(node.macro, held)
            if not held.is_there:
                return NONE
            found = frame.seeing(name, held.value, body)
            return found if is_flat else some(found)

        return mapped


def compile_source(
    source: str, names: frozenset[str], library: Library, constructs: bool
) -> tuple[Node, frozenset[str], Evaluate]:
    """The syntax of an expression, the variables it uses, and its closure. Raises CelError."""
    syntax = parse(source)
    compiler = Compiler(source, names, library, constructs=constructs)
    compiled = compiler.compile(syntax)
    return syntax, frozenset(compiler.used), compiled


def _opted(value: Any, read: Callable[[Any], Any]) -> Optional:
    """What is read of a value, or of the one that an optional holds, as an optional."""
    if isinstance(value, Optional):
        if not value.is_there:
            return NONE
        value = value.value
    if value is None:
        return NONE
    found = read(value)
    return NONE if found is ABSENT else some(found)


def _invoke(function: Function, args: list[Evaluate]) -> Evaluate:
    if len(args) == 1:
        only = args[0]

        def call_one(frame: Frame) -> Any:
            value = only(frame)
            return function.call(frame, (value,))

        return call_one

    def call(frame: Frame) -> Any:
        return function.call(frame, tuple([arg(frame) for arg in args]))

    return call


_COMPILERS: Final[dict[type[Node], Callable[[Any, Any], Evaluate]]] = {
    Literal: Compiler._literal,
    Name: Compiler._name,
    Select: Compiler._select,
    Index: Compiler._index,
    ListOf: Compiler._list,
    MapOf: Compiler._map,
    Construct: Compiler._construct,
    Call: Compiler._call,
    Loop: Compiler._loop,
    Bind: Compiler._bind,
}
