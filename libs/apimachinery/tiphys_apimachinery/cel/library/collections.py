"""Lists, sets, numbers, optionals: Kubernetes' lists library, cel-go's ext/lists, ext/sets, ext/math and optionals."""

from __future__ import annotations

import datetime
import math
import operator
from collections.abc import Callable
from functools import cmp_to_key
from itertools import pairwise
from typing import Any, Final

from tiphys_apimachinery.cel.loops import compare
from tiphys_apimachinery.cel.overloads import Entry
from tiphys_apimachinery.cel.syntax import CelError
from tiphys_apimachinery.cel.values import (
    NONE,
    Optional,
    UInt,
    checked_int,
    checked_uint,
    contains,
    equals,
    less,
    no_overload,
    some,
)

_MAX_RANGE: Final = 1_000_000


def _length(values: Any, *_rest: Any) -> int:
    return len(values)


def _product(one: Any, other: Any) -> int:
    return len(one) * len(other)


# -- lists


def _is_sorted(values: list[Any]) -> bool:
    return all(not less(other, one, "isSorted") for one, other in pairwise(values))


def _sum(values: list[Any]) -> Any:
    if not values:
        return 0
    total = values[0]
    for value in values[1:]:
        if type(value) is not type(total):
            raise no_overload("sum", total, value)
        total = total + value
        if type(values[0]) is UInt:
            total = checked_uint(total)
        elif type(total) is int:
            checked_int(total)
    if not isinstance(total, (int, float, datetime.timedelta)) or isinstance(total, bool):
        raise no_overload("sum", values)
    return total


def _extreme(values: list[Any], *, greatest: bool) -> Any:
    if not values:
        raise CelError(f"{'max' if greatest else 'min'} called on empty list")
    found = values[0]
    for value in values[1:]:
        if less(found, value, "max") if greatest else less(value, found, "min"):
            found = value
    return found


def _index_of(values: list[Any], item: Any) -> int:
    return next((at for at, value in enumerate(values) if equals(value, item)), -1)


def _last_index_of(values: list[Any], item: Any) -> int:
    return next((at for at in range(len(values) - 1, -1, -1) if equals(values[at], item)), -1)


def _slice(values: list[Any], start: int, end: int) -> list[Any]:
    if start < 0 or end < 0:
        raise CelError(f"cannot slice({start}, {end}), negative indexes not supported")
    if start > end:
        raise CelError(f"cannot slice({start}, {end}), start index must be less than or equal to end index")
    if end > len(values):
        raise CelError(f"cannot slice({start}, {end}), list is length {len(values)}")
    return values[start:end]


def _distinct(values: list[Any]) -> list[Any]:
    found: list[Any] = []
    for value in values:
        if not contains(found, value):
            found.append(value)
    return found


def _flatten(values: list[Any], depth: int = 1) -> list[Any]:
    if depth < 0:
        raise CelError("level must be non-negative")
    found: list[Any] = []
    for value in values:
        found += _flatten(value, depth - 1) if isinstance(value, list) and depth > 0 else [value]
    return found


def _range(count: int) -> list[int]:
    if count > _MAX_RANGE:
        raise CelError(f"lists.range({count}) is too long")
    return list(range(count))


def _sorted(values: list[Any]) -> list[Any]:
    return sorted(values, key=cmp_to_key(compare))


# -- sets


def _has_all(values: list[Any], wanted: list[Any]) -> bool:
    return all(contains(values, item) for item in wanted)


# -- numbers


def _numbers(*values: Any) -> list[Any]:
    found = values[0] if len(values) == 1 and isinstance(values[0], list) else list(values)
    if not found:
        raise CelError("math function called on empty list")
    for value in found:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise no_overload("math.greatest", *found)
    return list(found)


def _round(value: float) -> float:
    if math.isnan(value) or math.isinf(value):
        return value
    return math.copysign(math.floor(abs(value) + 0.5), value)


def _sign(value: Any) -> Any:
    found = (value > 0) - (value < 0)
    if isinstance(value, float):
        return value if math.isnan(value) else float(found)
    return type(value)(found)


def _abs(value: Any) -> Any:
    return checked_int(abs(value)) if type(value) is int else abs(value)


def _whole(value: float, work: Any) -> float:
    return value if math.isnan(value) or math.isinf(value) else float(work(value))


def _shifted(value: Any, bits: int, *, left: bool) -> Any:
    if bits < 0:
        raise CelError(f"math.bitShift{'Left' if left else 'Right'}() negative offset: {bits}")
    if bits > 63:
        return type(value)(0)
    masked = (int(value) << bits if left else (int(value) & (2**64 - 1)) >> bits) & (2**64 - 1)
    if type(value) is UInt:
        return UInt(masked)
    return masked - 2**64 if masked >= 2**63 else masked


_BITWISE: Final[dict[str, Callable[[int, int], int]]] = {
    "And": operator.and_,
    "Or": operator.or_,
    "Xor": operator.xor,
}


def _bits(name: str) -> tuple[Entry, Entry]:
    work = _BITWISE[name]
    return (
        Entry(f".math.bit{name}(int, int): int", work),
        Entry(f".math.bit{name}(uint, uint): uint", lambda a, b: UInt(work(int(a), int(b)))),
    )


# -- optionals


def _held(value: Optional) -> Any:
    if not value.is_there:
        raise CelError("optional.none() dereference")
    return value.value


def _unwrapped(values: list[Any]) -> list[Any]:
    if not all(isinstance(value, Optional) for value in values):
        raise no_overload("optional.unwrap", values)
    return [value.value for value in values if value.is_there]


def _not_zero(value: Any) -> Optional:
    is_zero = value is None or value is False or (isinstance(value, (int, float, str, bytes, list, dict)) and not value)
    return NONE if is_zero or value == datetime.timedelta() else some(value)


_MANY: Final = range(1, 9)

ENTRIES: Final = (
    Entry("list.isSorted(): bool", _is_sorted, _length),
    Entry("list.sum(): any", _sum, _length),
    Entry("list.max(): any", lambda values: _extreme(values, greatest=True), _length),
    Entry("list.min(): any", lambda values: _extreme(values, greatest=False), _length),
    Entry("list.indexOf(any): int", _index_of, _length),
    Entry("list.lastIndexOf(any): int", _last_index_of, _length),
    Entry("list.slice(int, int): list", _slice, _length),
    Entry("list.distinct(): list", _distinct, lambda values: len(values) ** 2),
    Entry("list.flatten(): list", _flatten, _length),
    Entry("list.flatten(int): list", _flatten, _length),
    Entry("list.reverse(): list", lambda values: values[::-1], _length),
    Entry("list.sort(): list", _sorted, _length),
    Entry("list.first(): optional", lambda values: some(values[0]) if values else NONE),
    Entry("list.last(): optional", lambda values: some(values[-1]) if values else NONE),
    Entry(".lists.range(int): list", _range, lambda count: max(0, count)),
    Entry(".sets.contains(list, list): bool", _has_all, _product),
    Entry(".sets.equivalent(list, list): bool", lambda a, b: _has_all(a, b) and _has_all(b, a), _product),
    Entry(".sets.intersects(list, list): bool", lambda a, b: any(contains(b, item) for item in a), _product),
    *(
        Entry(f".math.greatest({', '.join(['any'] * n)}): any", lambda *v: max(_numbers(*v)), lambda *v: len(v))
        for n in _MANY
    ),
    *(
        Entry(f".math.least({', '.join(['any'] * n)}): any", lambda *v: min(_numbers(*v)), lambda *v: len(v))
        for n in _MANY
    ),
    Entry(".math.ceil(double): double", lambda value: _whole(value, math.ceil)),
    Entry(".math.floor(double): double", lambda value: _whole(value, math.floor)),
    Entry(".math.round(double): double", _round),
    Entry(".math.trunc(double): double", lambda value: _whole(value, math.trunc)),
    Entry(".math.abs(int|double): any", _abs),
    Entry(".math.abs(uint): uint", lambda value: value),
    Entry(".math.sign(number): any", _sign),
    Entry(".math.sqrt(number): double", lambda value: math.sqrt(value) if value >= 0 else math.nan),
    Entry(".math.isNaN(double): bool", math.isnan),
    Entry(".math.isInf(double): bool", math.isinf),
    Entry(".math.isFinite(double): bool", math.isfinite),
    *_bits("And"),
    *_bits("Or"),
    *_bits("Xor"),
    Entry(".math.bitNot(int): int", lambda value: ~value),
    Entry(".math.bitNot(uint): uint", lambda value: UInt(~int(value) & (2**64 - 1))),
    Entry(".math.bitShiftLeft(int|uint, int): any", lambda value, bits: _shifted(value, bits, left=True)),
    Entry(".math.bitShiftRight(int|uint, int): any", lambda value, bits: _shifted(value, bits, left=False)),
    Entry(".optional.of(any): optional", some),
    Entry(".optional.none(): optional", lambda: NONE),
    Entry(".optional.ofNonZeroValue(any): optional", _not_zero),
    Entry(".optional.unwrap(list): list", _unwrapped, _length),
    Entry("list.unwrapOpt(): list", _unwrapped, _length),
    Entry("optional.hasValue(): bool", lambda value: value.is_there),
    Entry("optional.value(): any", _held),
    Entry("optional.or(optional): optional", lambda value, other: value if value.is_there else other),
    Entry("optional.orValue(any): any", lambda value, other: value.value if value.is_there else other),
)
