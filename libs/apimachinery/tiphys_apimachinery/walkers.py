"""Compiles, per message, a function that walks only where the schema has something to do.

Defaults and validation share this: each says what a field needs by itself, and the walk into parts,
lists and maps is generated here. A part below which nothing is to be done is never entered.
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from google.protobuf.descriptor import Descriptor

from tiphys_apimachinery.schema import Field, Kind, fields_of, is_union, message_kind

Walker = Callable[..., None]


class WalkerCompiler(ABC):
    """Makes and keeps the walkers of one purpose. Generated functions take the message `m` and `arguments`."""

    # Parameters behind the message, as source, such as ", p, e".
    arguments = ""

    def __init__(self) -> None:
        self.namespace: dict[str, Any] = {}
        self._needed: dict[str, bool] = {}

    @abstractmethod
    def own_lines(self, field: Field, owner: str) -> list[str]:
        """Lines for the field itself; `owner` is the expression of its message."""

    @abstractmethod
    def descend(self, field: Field, owner: str, call: str) -> list[str]:
        """Lines that call `call` for each message in the field."""

    def union_call(self) -> str:
        """Source that calls `w` for part `v` of JSON name `n`; empty to ask each member of a union in turn."""
        return ""

    def concerns(self, field: Field) -> bool:
        """Whether a field may need anything, itself or below; lets a purpose leave parts out."""
        return True

    def walker(self, descriptor: Descriptor) -> Walker:
        """The function for a message; one that does nothing where nothing is to be done."""
        name = _function_name(descriptor)
        found = self.namespace.get(name)
        if found is None or isinstance(found, functools.partial):
            lines = self._body(descriptor, "m")
            source = "\n    ".join([f"def {name}(m{self.arguments}):", *lines, "return"])
            exec(compile(source, f"<{type(self).__name__} of {descriptor.full_name}>", "exec"), self.namespace)
            found = self.namespace[name]
        walker: Walker = found
        return walker

    def _body(self, descriptor: Descriptor, owner: str) -> list[str]:
        lines: list[str] = []
        if self.union_call() and is_union(descriptor) and not self._has_own(descriptor):
            return self._union(descriptor, owner)
        for field in fields_of(descriptor):
            if not self.concerns(field):
                continue
            if field.is_inline and field.message is not None:
                inner = f"i_{field.name}"
                nested = self._body(field.message, inner)
                if nested:
                    lines += [f"{inner} = {read(owner, field)}", *nested]
                continue
            lines += self.own_lines(field, owner)
            if field.message is not None and field.kind is Kind.STRUCT and self._is_needed(field.message):
                lines += self.descend(field, owner, self._reference(field.message))
        return lines

    def _union(self, descriptor: Descriptor, owner: str) -> list[str]:
        """Lines for a choice among many parts: upb is asked which is set."""
        table = f"u_{_function_name(descriptor)}"
        found: dict[str, tuple[str, Walker]] = {}
        for field in fields_of(descriptor):
            if field.message is not None and field.kind is Kind.STRUCT and self._is_needed(field.message):
                later = functools.partial(_compile_in_union, self, found, field)
                found[field.name] = (field.json, later)
        if not found:
            return []
        self.namespace[table] = found
        return [
            f"for f, v in {owner}.ListFields():",
            f"    n, w = {table}.get(f.name, ('', None))",
            f"    if w is not None: {self.union_call()}",
        ]

    def _reference(self, descriptor: Descriptor) -> str:
        name = _function_name(descriptor)
        if name not in self.namespace:
            self.namespace[name] = functools.partial(_compile_and_walk, self, descriptor)
        return name

    def _is_needed(self, descriptor: Descriptor) -> bool:
        """Whether any message that this one can hold has lines of its own."""
        known = self._needed.get(descriptor.full_name)
        if known is None:
            known = any(self._has_own(part) for part in self._reachable(descriptor))
            self._needed[descriptor.full_name] = known
        return known

    def _has_own(self, descriptor: Descriptor) -> bool:
        return any(self.concerns(field) and self.own_lines(field, "m") for field in fields_of(descriptor))

    def _reachable(self, descriptor: Descriptor) -> list[Descriptor]:
        seen: dict[str, Descriptor] = {}
        pending = [descriptor]
        while pending:
            part = pending.pop()
            if part.full_name in seen or message_kind(part) is not Kind.STRUCT:
                continue
            seen[part.full_name] = part
            pending += [
                field.message for field in fields_of(part) if field.message is not None and self.concerns(field)
            ]
        return list(seen.values())


def read(owner: str, field: Field) -> str:
    """Expression for the field's value; four fields are keywords of Python."""
    if field.name in ("from", "continue", "not", "except"):
        return f"getattr({owner}, {field.name!r})"
    return f"{owner}.{field.name}"


def _function_name(descriptor: Descriptor) -> str:
    return "w_" + descriptor.full_name.replace(".", "_")


def _compile_and_walk(compiler: WalkerCompiler, descriptor: Descriptor, message: Any, *arguments: Any) -> None:
    compiler.walker(descriptor)(message, *arguments)


def _compile_in_union(
    compiler: WalkerCompiler, table: dict[str, tuple[str, Walker]], field: Field, message: Any, *arguments: Any
) -> None:
    """As _compile_and_walk, and the walker takes this function's place in the union's table."""
    assert field.message is not None
    walker = compiler.walker(field.message)
    table[field.name] = (field.json, walker)
    walker(message, *arguments)
