"""The operators, each as what makes a closure of the closures of its sides."""

from __future__ import annotations

import datetime
import math
from collections.abc import Callable
from typing import Any, Final

from tiphys_apimachinery.cel.steps import CostExceeded, Evaluate, Frame
from tiphys_apimachinery.cel.syntax import CelError
from tiphys_apimachinery.cel.values import UInt, checked_int, checked_uint, contains, equals, less, no_overload

_Make = Callable[[list[Evaluate]], Evaluate]
_TIME = datetime.datetime
_SPAN = datetime.timedelta
_LONG: Final = 10


def _bool(value: Any, operator: str) -> bool:
    if value is True or value is False:
        return value is True
    raise no_overload(operator, value)


def _not(sides: list[Evaluate]) -> Evaluate:
    only = sides[0]

    def evaluate(frame: Frame) -> bool:
        frame.left -= 1
        return not _bool(only(frame), "!_")

    return evaluate


def _logic(decides: bool, operator: str) -> _Make:
    """&& (False decides) and || (True decides): what one side decides, an error of the other one does not change."""

    def make(sides: list[Evaluate]) -> Evaluate:
        left, right = sides

        def evaluate(frame: Frame) -> bool:
            frame.left -= 1
            try:
                first = _bool(left(frame), operator)
            except CostExceeded:
                raise
            except CelError as err:
                if _bool(right(frame), operator) is decides:
                    return decides
                raise err from None
            return decides if first is decides else _bool(right(frame), operator)

        return evaluate

    return make


def _choose(sides: list[Evaluate]) -> Evaluate:
    test, yes, no = sides

    def evaluate(frame: Frame) -> Any:
        frame.left -= 1
        return yes(frame) if _bool(test(frame), "_?_:_") else no(frame)

    return evaluate


def _binary(work: Callable[[Any, Any], Any]) -> _Make:
    def make(sides: list[Evaluate]) -> Evaluate:
        left, right = sides

        def evaluate(frame: Frame) -> Any:
            frame.left -= 1
            one, other = left(frame), right(frame)
            if type(one) in _SIZED:
                # Comparing and joining costs a tenth of the length. Source: cel-go StringTraversalCostFactor.
                frame.spend(max(len(one), len(other) if type(other) in _SIZED else 0) // _LONG)
            return work(one, other)

        return evaluate

    return make


_SIZED: Final = frozenset({str, bytes, list})


def _add(one: Any, other: Any) -> Any:
    kind = type(one)
    if kind is type(other):
        if kind is int:
            return checked_int(one + other)
        if kind is UInt:
            return checked_uint(int(one) + int(other))
        if kind in (str, float, bytes, list):
            return one + other
        if kind is _SPAN:
            return _in_range(lambda: one + other)
    if {kind, type(other)} == {_TIME, _SPAN}:
        return _in_range(lambda: one + other)
    raise no_overload("_+_", one, other)


def _in_range(work: Callable[[], Any]) -> Any:
    try:
        return work()
    except OverflowError as err:
        raise CelError("timestamp overflow") from err


def _subtract(one: Any, other: Any) -> Any:
    kind = type(one)
    if kind is type(other):
        if kind is int:
            return checked_int(one - other)
        if kind is UInt:
            return checked_uint(int(one) - int(other))
        if kind is float or kind in (_TIME, _SPAN):
            return _in_range(lambda: one - other)
    if kind is _TIME and type(other) is _SPAN:
        return _in_range(lambda: one - other)
    raise no_overload("_-_", one, other)


def _multiply(one: Any, other: Any) -> Any:
    kind = type(one)
    if kind is type(other):
        if kind is int:
            return checked_int(one * other)
        if kind is UInt:
            return checked_uint(int(one) * int(other))
        if kind is float:
            return one * other
    raise no_overload("_*_", one, other)


def _divide(one: Any, other: Any) -> Any:
    kind = type(one)
    if kind is type(other):
        if kind in (int, UInt):
            if other == 0:
                raise CelError("division by zero")
            quotient = abs(int(one)) // abs(int(other))
            if kind is UInt:
                return UInt(quotient)
            return checked_int(quotient if (one < 0) == (other < 0) else -quotient)
        if kind is float:
            if other == 0:
                return (
                    math.nan if one == 0 or math.isnan(one) else math.copysign(math.inf, one * math.copysign(1, other))
                )
            return one / other
    raise no_overload("_/_", one, other)


def _rest(one: Any, other: Any) -> Any:
    kind = type(one)
    if kind is type(other) and kind in (int, UInt):
        if other == 0:
            raise CelError("modulus by zero")
        rest = abs(int(one)) % abs(int(other))
        return UInt(rest) if kind is UInt else (-rest if one < 0 else rest)
    raise no_overload("_%_", one, other)


def _negate(sides: list[Evaluate]) -> Evaluate:
    only = sides[0]

    def evaluate(frame: Frame) -> Any:
        frame.left -= 1
        value = only(frame)
        if type(value) is int:
            return checked_int(-value)
        if type(value) is float:
            return -value
        raise no_overload("-_", value)

    return evaluate


def _in(sides: list[Evaluate]) -> Evaluate:
    left, right = sides

    def evaluate(frame: Frame) -> bool:
        frame.left -= 1
        item, values = left(frame), right(frame)
        if isinstance(values, list):
            frame.spend(len(values))
        return contains(values, item)

    return evaluate


OPERATORS: Final[dict[str, _Make]] = {
    "!_": _not,
    "-_": _negate,
    "_&&_": _logic(False, "_&&_"),
    "_||_": _logic(True, "_||_"),
    "_?_:_": _choose,
    "_+_": _binary(_add),
    "_-_": _binary(_subtract),
    "_*_": _binary(_multiply),
    "_/_": _binary(_divide),
    "_%_": _binary(_rest),
    "_==_": _binary(equals),
    "_!=_": _binary(lambda one, other: not equals(one, other)),
    "_<_": _binary(lambda one, other: less(one, other, "_<_")),
    "_>_": _binary(lambda one, other: less(other, one, "_>_")),
    "_<=_": _binary(lambda one, other: less(one, other, "_<=_") or equals(one, other)),
    "_>=_": _binary(lambda one, other: less(other, one, "_>=_") or equals(one, other)),
    "@in": _in,
}
