"""What expressions are made of. A node knows its place in the source, which errors name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


class CelError(Exception):
    """The expression can't be compiled, or has no value for these variables; the text tells why."""


@dataclass(frozen=True, slots=True)
class Node:
    """One position of an expression."""

    at: int


@dataclass(frozen=True, slots=True)
class Literal(Node):
    """A number, text, bytes, true, false or null."""

    value: Any


@dataclass(frozen=True, slots=True)
class Name(Node):
    """A variable, or a type."""

    name: str


@dataclass(frozen=True, slots=True)
class Select(Node):
    """`of.name`; optional is `of.?name`, tests is `has(of.name)`."""

    of: Node
    name: str
    optional: bool = False
    tests: bool = False


@dataclass(frozen=True, slots=True)
class Index(Node):
    """`of[key]`; optional is `of[?key]`."""

    of: Node
    key: Node
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Call(Node):
    """A function, an operator, or a method of target."""

    name: str
    args: tuple[Node, ...]
    target: Node | None = None


@dataclass(frozen=True, slots=True)
class ListOf(Node):
    """`[a, ?b]`: items, and whether each is optional."""

    items: tuple[tuple[Node, bool], ...]


@dataclass(frozen=True, slots=True)
class MapOf(Node):
    """`{k: v, ?k: v}`."""

    entries: tuple[tuple[Node, Node, bool], ...]


@dataclass(frozen=True, slots=True)
class Construct(Node):
    """`Type.name{field: v, ?field: v}`."""

    type_name: str
    fields: tuple[tuple[str, Node, bool], ...]


@dataclass(frozen=True, slots=True)
class Loop(Node):
    """A macro over a list or a map: its variables, and what is asked of each item."""

    macro: str
    over: Node
    variables: tuple[str, ...]
    parts: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Bind(Node):
    """`cel.bind(name, value, body)`, and optMap and optFlatMap, whose value is an optional."""

    macro: str
    name: str
    value: Node
    body: Node


def place(source: str, at: int) -> str:
    """Line and column as cel-go writes them."""
    line = source.count("\n", 0, at) + 1
    return f"{line}:{at - source.rfind(chr(10), 0, at)}"


def fault(source: str, at: int, why: str) -> CelError:
    """An error of compiling that names its place."""
    return CelError(f"compilation failed: ERROR: <input>:{place(source, at)}: {why}")
