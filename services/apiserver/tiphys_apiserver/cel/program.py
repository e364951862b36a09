"""Compiling and evaluating expressions. The interpreter is the library's; what Kubernetes adds is in functions.py.

Not there: cel-go's optional types (`.?`, `[?]`), two-variable macros and `cel.bind`, which the library does not parse,
and the authorizer. See docs/adr/0008-cel.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any, Final

from tiphys_apiserver.cel.functions import FUNCTIONS

# Source: apiserver pkg/cel, MaxRequestSizeBytes and the limits of expressions in CRDs and policies.
MAX_EXPRESSION: Final = 4096
# Loops within loops cost the product of their sizes; more is refused, as nothing stops a loop that runs.
MAX_NESTED_LOOPS: Final = 3
_LOOP: Final = re.compile(r"\.(?:all|exists|exists_one|map|filter)\(")
_BOUND: Final = re.compile(r"\.(?:all|exists|exists_one|map|filter)\(\s*([A-Za-z_]\w*)\s*,")
_STRINGS: Final = re.compile(r"r?\"(?:[^\"\\]|\\.)*\"|r?'(?:[^'\\]|\\.)*'")
_KEPT_PROGRAMS: Final = 4096
_BUILT_IN: Final = frozenset(
    {
        "size", "contains", "startsWith", "endsWith", "matches", "int", "uint", "double", "string", "bytes", "bool",
        "type", "dyn", "timestamp", "duration", "has", "getFullYear", "getMonth", "getDate", "getDayOfMonth",
        "getDayOfWeek", "getDayOfYear", "getHours", "getMinutes", "getSeconds", "getMilliseconds",
    }
)  # fmt: skip
_OPERATOR: Final = re.compile(r"^[^A-Za-z]")
# Names that are types or belong to functions with a dot in their name.
_NAMES: Final = frozenset({"int", "uint", "double", "string", "bytes", "bool", "list", "map", "null_type", "type"}) | {
    name.partition(".")[0] for name in FUNCTIONS if "." in name
}


class CelError(Exception):
    """The expression can't be compiled, or has no value for these variables; the text tells why."""


@dataclass(frozen=True, slots=True)
class Program:
    """A compiled expression; variables are those it names."""

    source: str
    variables: frozenset[str]
    compiled: Any

    def evaluate(self, activation: Activation) -> Any:
        """Its value: bool, int, float, str, list, dict, None. Raises CelError."""
        try:
            return self.compiled.execute(activation.context)
        except KeyError as err:
            raise CelError(f"no such key: {err.args[0] if err.args else ''}") from err
        except (RuntimeError, TypeError, ValueError, ArithmeticError) as err:
            raise CelError(str(err).splitlines()[0] if str(err) else type(err).__name__) from err

    def is_true(self, activation: Activation) -> bool:
        """Its value, which must be a bool. Raises CelError."""
        value = self.evaluate(activation)
        if not isinstance(value, bool):
            raise CelError(f"expression {self.source!r} gives {type(value).__name__}, not bool")
        return value


class Activation:
    """The variables that expressions see; made once for many of them, as turning an object into CEL's is what costs."""

    def __init__(self, variables: Mapping[str, Any]) -> None:
        self.context = _library().Context(variables=dict(variables), functions=dict(FUNCTIONS))

    def put(self, name: str, value: Any) -> None:
        """Set one more variable."""
        self.context.add_variable(name, value)


@cache
def _library() -> Any:
    """The library, imported with the first expression: with the command line it has it costs 0.12 s and 10 MB."""
    import cel

    return cel


@lru_cache(maxsize=_KEPT_PROGRAMS)
def compile_expression(source: str, variables: frozenset[str]) -> Program:
    """The expression over these variables. Raises CelError naming what is wrong and where."""
    if len(source) > MAX_EXPRESSION:
        raise CelError(f"expression is longer than {MAX_EXPRESSION} characters")
    if not source.strip():
        raise CelError("expression is empty")
    try:
        compiled = _library().compile(source)
    except ValueError as err:
        raise CelError(f"compilation failed: {_first_error(str(err))}") from err
    bare = _STRINGS.sub("''", source)
    named = set(compiled.variables())
    unknown = sorted(named - variables - _NAMES - set(_BOUND.findall(bare)))
    if unknown:
        raise CelError(f"compilation failed: undeclared reference to '{unknown[0]}'")
    _check_functions(compiled.functions())
    if _nesting(bare) > MAX_NESTED_LOOPS:
        raise CelError(f"expression has more than {MAX_NESTED_LOOPS} loops within each other: its cost has no bound")
    return Program(source, frozenset(named & variables), compiled)


def _check_functions(names: Iterable[str]) -> None:
    for name in names:
        known = name in _BUILT_IN or name in FUNCTIONS or _OPERATOR.match(name)
        if not known and not any(full.endswith(f".{name}") for full in FUNCTIONS):
            raise CelError(f"compilation failed: undeclared reference to '{name}'")


def _nesting(source: str) -> int:
    """How deep macros that loop stand within each other."""
    deepest, open_loops, depth = 0, [], 0
    starts = {match.end() - 1 for match in _LOOP.finditer(source)}
    for place, character in enumerate(source):
        if character == "(":
            depth += 1
            if place in starts:
                open_loops.append(depth)
                deepest = max(deepest, len(open_loops))
        elif character == ")":
            if open_loops and open_loops[-1] == depth:
                open_loops.pop()
            depth -= 1
    return deepest


def _first_error(text: str) -> str:
    """The library's message without the expression, which the caller names."""
    lines = [line for line in text.splitlines() if "ERROR:" in line]
    return lines[0][lines[0].index("ERROR:") :] if lines else text.splitlines()[0]
