"""The values of expressions that Python has no type for, and what holds for all values: equality, order, names.

int is int, uint a UInt, double float, text str; bytes, list, dict, None and bool are themselves; a timestamp is an
aware datetime and a duration a timedelta, both exact to the microsecond.
"""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from tiphys_apimachinery.cel.syntax import CelError
from tiphys_apimachinery.quantity import Quantity

INT_MIN: Final = -(2**63)
INT_MAX: Final = 2**63 - 1
UINT_MAX: Final = 2**64 - 1


class UInt(int):
    """A uint."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Optional:
    """A value, or none. Make one by `some`, or take NONE."""

    value: Any = None
    is_there: bool = False


NONE: Final = Optional()


def some(value: Any) -> Optional:
    """The optional that holds a value."""
    return Optional(value, True)


@dataclass(frozen=True, slots=True)
class CelType:
    """A type as a value."""

    name: str


@dataclass(frozen=True, slots=True)
class Url:
    """A parsed URL; text is as it was written."""

    text: str


@dataclass(frozen=True, slots=True)
class NamedFormat:
    """A format of names."""

    name: str


@dataclass(frozen=True, slots=True)
class SemVer:
    """A semantic version."""

    major: int
    minor: int
    patch: int
    pre: tuple[tuple[int, int, str], ...] = ()


class ObjectValue(dict[str, Any]):
    """A constructed object, such as Object.spec{...}; its fields are its members."""

    __slots__ = ("type_name",)

    def __init__(self, type_name: str, fields: Mapping[str, Any]) -> None:
        super().__init__(fields)
        self.type_name = type_name


_NAMES: Final[tuple[tuple[type | tuple[type, ...], str], ...]] = (
    (bool, "bool"),
    (UInt, "uint"),
    (int, "int"),
    (float, "double"),
    (str, "string"),
    (bytes, "bytes"),
    (list, "list"),
    (ObjectValue, "object"),
    (dict, "map"),
    (type(None), "null_type"),
    (datetime.datetime, "google.protobuf.Timestamp"),
    (datetime.timedelta, "google.protobuf.Duration"),
    (Optional, "optional_type"),
    (CelType, "type"),
    (Quantity, "kubernetes.Quantity"),
    ((ipaddress.IPv4Interface, ipaddress.IPv6Interface), "net.CIDR"),
    ((ipaddress.IPv4Address, ipaddress.IPv6Address), "net.IP"),
    (Url, "kubernetes.URL"),
    (NamedFormat, "kubernetes.NamedFormat"),
    (SemVer, "kubernetes.Semver"),
)


def type_name(value: Any) -> str:
    """The name of a value's type."""
    if isinstance(value, ObjectValue):
        return value.type_name
    for cls, name in _NAMES:
        if isinstance(value, cls):
            return name
    return str(getattr(value, "cel_type", type(value).__name__))


def equals(one: Any, other: Any) -> bool:
    """Whether two values are equal; those of different types are not, but for numbers."""
    first, second = type(one), type(other)
    if first is second and first not in (list, dict, Optional):
        return bool(one == other)
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, (int, float)) and isinstance(other, (int, float)):
        return one == other
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(equals, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return len(one) == len(other) and all(key in other and equals(value, other[key]) for key, value in one.items())
    if isinstance(one, Optional) and isinstance(other, Optional):
        return one.is_there == other.is_there and equals(one.value, other.value)
    return False


def contains(values: Any, item: Any) -> bool:
    """`item in values`: an item of a list, or a key of a map."""
    if isinstance(values, list):
        # Python takes true for 1.
        return item in values if type(item) is str else any(equals(item, value) for value in values)
    if isinstance(values, dict):
        try:
            return not isinstance(item, bool) and item in values
        except TypeError:
            return False
    raise no_overload("@in", item, values)


def less(one: Any, other: Any, operator: str) -> bool:
    """`one < other`. Raises CelError where the values have no order."""
    first, second = type(one), type(other)
    if first is not second and not (isinstance(one, (int, float)) and isinstance(other, (int, float))):
        raise no_overload(operator, one, other)
    if first not in _ORDERED or second not in _ORDERED or (first is not second and bool in (first, second)):
        raise no_overload(operator, one, other)
    return bool(one < other)


_ORDERED: Final = frozenset({bool, int, UInt, float, str, bytes, datetime.datetime, datetime.timedelta})


def no_overload(name: str, *args: Any) -> CelError:
    """The error for values that a function does not take."""
    shown = ", ".join(type_name(arg) for arg in args)
    return CelError(f"no such overload: {name}({shown})")


def checked_int(value: int) -> int:
    """The number, if it is an int of CEL. Raises CelError."""
    if not INT_MIN <= value <= INT_MAX:
        raise CelError("integer overflow")
    return value


def checked_uint(value: int) -> UInt:
    """The number, if it is a uint of CEL. Raises CelError."""
    if not 0 <= value <= UINT_MAX:
        raise CelError("unsigned integer overflow")
    return UInt(value)
