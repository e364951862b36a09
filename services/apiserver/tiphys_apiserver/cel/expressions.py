"""Compiling expressions of the API server. See docs/adr/0009-cel-of-our-own.md."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final

from tiphys_apimachinery.cel.program import Program, compile_program

if TYPE_CHECKING:
    from tiphys_apimachinery.cel.functions import Library

_KEPT_PROGRAMS: Final = 4096


@lru_cache(maxsize=_KEPT_PROGRAMS)
def compile_expression(source: str, variables: frozenset[str], *, constructs: bool = False) -> Program:
    """The expression over these variables. Raises CelError naming what is wrong and where.

    With constructs it may make objects: Object{...}, JSONPatch{...}.
    """
    return compile_program(source, variables, _library, constructs=constructs)


def _library() -> Library:
    """All functions, imported with the first expression: most servers start without one."""
    from tiphys_apiserver.cel.catalog import LIBRARY

    return LIBRARY
