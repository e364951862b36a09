"""Conditions on devices, in CEL: `device` has driver, attributes and capacity, the latter two by domain and name.

Source: k8s.io/dynamic-resource-allocation cel/compile.go.
"""

from __future__ import annotations

from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any, Final

from tiphys_apimachinery.cel.program import Activation, Program, compile_program

if TYPE_CHECKING:
    from tiphys_apimachinery.cel.functions import Library

_VARIABLES: Final = frozenset({"device"})
_KEPT: Final = 1024


class Domains(dict[str, Any]):
    """Attributes or capacities by domain; one that the device has nothing of is empty, not absent."""

    __slots__ = ()

    def get(self, key: object, default: Any = None) -> Any:
        """The names and values of a domain."""
        return super().get(key, {}) if isinstance(key, str) else default


@lru_cache(maxsize=_KEPT)
def compiled(expression: str) -> Program:
    """The condition. Raises CelError."""
    return compile_program(expression, _VARIABLES, _library)


def is_met(expression: str, variable: Any) -> bool:
    """Whether a device meets the condition. Raises CelError, also where it asks for what the device lacks."""
    return compiled(expression).is_true(Activation({"device": variable}))


def semver(text: str) -> Any:
    """A version as expressions compare it. Raises CelError."""
    return _semver().evaluate(Activation({"text": text}))


@cache
def _semver() -> Program:
    return compile_program("semver(text)", frozenset({"text"}), _library)


@cache
def _library() -> Library:
    """Imported with the first device: most schedulers never see one."""
    from tiphys_apimachinery.cel.functions import COMMON, library

    return library(*COMMON)
