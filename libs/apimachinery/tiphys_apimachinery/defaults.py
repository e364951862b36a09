"""Fills unset fields with the values that the schema's `default` option names.

Compiled per message from the descriptors. Only what the schema can say is here; a default that
depends on another field belongs to the kind's strategy.
"""

from __future__ import annotations

import functools

from google.protobuf.message import Message

from tiphys_apimachinery.schema import Field, Kind, descriptor_of
from tiphys_apimachinery.walkers import WalkerCompiler, read

__all__ = ["apply_defaults"]


def apply_defaults(message: Message) -> None:
    """Sets, in place, every unset field of the message that has a default.

    A pointer is unset when it is absent, any other field when it is zero: zero can't be told from
    unset there, as in Go. Parts behind absent pointers stay absent.
    """
    _compiler().walker(descriptor_of(message))(message)


@functools.cache
def _compiler() -> _DefaultsCompiler:
    return _DefaultsCompiler()


class _DefaultsCompiler(WalkerCompiler):
    def own_lines(self, field: Field, owner: str) -> list[str]:
        if not field.options.HasField("default"):
            return []
        text = field.options.default
        value, absent = read(owner, field), f"not {owner}.HasField({field.name!r})"
        if field.kind is Kind.INT_OR_STRING:
            number = text.lstrip("-").isdecimal()
            part = f"intVal = {int(text)}" if number else f"strVal = {text!r}"
            return [f"if {absent}: {value}.type = {0 if number else 1}; {value}.{part}"]
        if field.kind is Kind.QUANTITY:
            return [f"if {absent}: {value}.string = {text!r}"]
        literal = _literal(field, text)
        if field.is_list:
            return [f"if not {value}: {value}.append({literal})"]
        # A bool that is no pointer could never be false if zero counted as unset.
        unset = absent if field.is_pointer or field.kind is Kind.BOOL else f"not {value}"
        if literal in ("''", "0", "False") and not field.is_pointer:
            return []
        return [f"if {unset}: setattr({owner}, {field.name!r}, {literal})"]

    def union_call(self) -> str:
        """Parts take nothing but the message."""
        return "w(v)"

    def descend(self, field: Field, owner: str, call: str) -> list[str]:
        value = read(owner, field)
        if field.is_list:
            return [f"for x in {value}: {call}(x)"]
        if field.is_map:
            return [f"v = {value}", f"for k in v: {call}(v[k])"]
        if field.is_pointer:
            return [f"if {owner}.HasField({field.name!r}): {call}({value})"]
        return [f"{call}({value})"]


def _literal(field: Field, text: str) -> str:
    """Source of the default; raises ValueError for text that does not fit the field."""
    match field.kind:
        case Kind.STRING:
            return repr(text)
        case Kind.BOOL if text in ("true", "false"):
            return "True" if text == "true" else "False"
        case Kind.INT:
            return str(int(text))
        case Kind.FLOAT:
            return str(float(text))
        case _:
            raise ValueError(f"{field.name}: no default {text!r} for a {field.kind.value}")
