"""Whatever is written as an expression, the answer is a value or a CelError: no crash, no hang, no other error."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tiphys_apimachinery.cel.program import Activation, Budget
from tiphys_apimachinery.cel.syntax import CelError
from tiphys_apiserver.cel.analysis import analyse
from tiphys_apiserver.cel.catalog import LIBRARY
from tiphys_apiserver.cel.expressions import compile_expression
from tiphys_apiserver.cel.static_types import of_schema

SELF: dict[str, Any] = {"n": 1, "s": "a", "l": [1, "b", None], "m": {"k": 1.5}}
STATIC = of_schema(
    {
        "type": "object",
        "properties": {
            "n": {"type": "integer"},
            "s": {"type": "string"},
            "l": {"type": "array", "items": {"x-kubernetes-int-or-string": True}},
            "m": {"type": "object", "additionalProperties": {"type": "number"}},
        },
    }
)
TOKENS = [
    "self", "self.n", "self.s", "self.l", "self.m", "1", "-1", "0", "2u", "1.5", "'a'", "b'a'", "true", "null", "[",
    "]", "{", "}", "(", ")", "?", ":", ",", ".", "+", "-", "*", "/", "%", "!", "&&", "||", "==", "<", " in ", "[?",
    ".?",
    ".all(x,", ".map(x,", ".exists(k, v,", "x", "has(", "Object{", "JSONPatch{op:", "optional.of(", "cel.bind(x,",
    *[f"{name}(" for name in LIBRARY.functions], *[f".{name}(" for name in LIBRARY.methods],
]  # fmt: skip


def run(expression: str) -> None:
    with suppress(CelError):
        program = compile_expression(expression, frozenset({"self"}), constructs=True)
        with suppress(CelError):
            analyse(expression, program.syntax, {"self": STATIC})
        program.evaluate(Activation({"self": SELF}, Budget(20_000)))


@settings(max_examples=80, deadline=None)
@given(st.lists(st.sampled_from(TOKENS), max_size=14).map("".join))
def test_A38_any_row_of_tokens(expression: str) -> None:
    run(expression)


@settings(max_examples=40, deadline=None)
@given(st.text(max_size=40))
def test_A38_any_text(expression: str) -> None:
    run(expression)


VALUES = [
    "self", "-1", "3u", "1.5", "'a'", "b'a'", "null", "[1]", "duration('1s')", "timestamp(0)", "optional.none()",
    "quantity('1')", "ip('::1')", "cidr('::/0')",
]  # fmt: skip


@pytest.mark.parametrize("name", [*LIBRARY.functions, *(f".{name}" for name in LIBRARY.methods)])
def test_A38_any_function_of_any_values(name: str) -> None:
    for one in VALUES:
        calls = [f"({one}){name}()"] if name.startswith(".") else [f"{name}({one})", f"{name}()"]
        for other in VALUES:
            calls.append(f"({one}){name}({other})" if name.startswith(".") else f"{name}({one}, {other})")
        for call in calls:
            run(call)


def test_A38_long_chains_are_no_deep_ones() -> None:
    chain = " && ".join(["self.n == 1"] * 600)
    assert compile_expression(chain, frozenset({"self"})).evaluate(Activation({"self": SELF})) is True
    for deep in (" + ".join(["1"] * 2000), "self" + ".a" * 2000, "[" * 90 + "]" * 90, "!" * 500 + "true"):
        run(deep)
