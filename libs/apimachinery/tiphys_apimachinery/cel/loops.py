"""The macros that look at each item of a list or a map. Source: cel-go common/stdlib and ext/comprehensions."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cmp_to_key
from typing import Any, Final

from tiphys_apimachinery.cel.steps import ABSENT, CostExceeded, Evaluate, Frame
from tiphys_apimachinery.cel.syntax import CelError
from tiphys_apimachinery.cel.values import less, no_overload

# Each turn pays for the variable, the condition and the accumulation. Source: cel-go's unrolled comprehension.
_TURN: Final = 3
_OVER: Final = 1

_Each = Callable[[Frame, Any], Iterable[None]]


def compile_loop(macro: str, over: Evaluate, variables: tuple[str, ...], parts: list[Evaluate]) -> Evaluate:
    """The closure of a macro; parts are its arguments behind the variables."""
    return _MACROS[macro](_Turns(over, variables, macro), parts)


class _Turns:
    """Goes over a list or a map, its variables set for each turn and as before afterwards."""

    __slots__ = ("_macro", "_over", "_variables")

    def __init__(self, over: Evaluate, variables: tuple[str, ...], macro: str) -> None:
        self._over = over
        self._variables = variables
        self._macro = macro

    def range(self, frame: Frame) -> Any:
        """What is gone over. Raises CelError where that is neither list nor map."""
        values = self._over(frame)
        if not isinstance(values, (list, dict)):
            raise no_overload(self._macro, values)
        frame.spend(_OVER)
        return values

    def run(self, frame: Frame, values: Any, turn: Callable[[Any, Any], bool]) -> None:
        """Call turn with each key and value until it gives True."""
        seen = frame.variables
        names = self._variables
        before = [seen.get(name, ABSENT) for name in names]
        first = names[0]
        second = names[1] if len(names) > 1 else ""
        pairs: Iterable[tuple[Any, Any]] = values.items() if isinstance(values, dict) else enumerate(values)
        by_key = isinstance(values, dict) and not second
        try:
            for key, value in pairs:
                frame.left -= _TURN
                if frame.left < 0:
                    raise CostExceeded
                if second:
                    seen[first], seen[second] = key, value
                else:
                    seen[first] = key if by_key else value
                if turn(key, value):
                    return
        finally:
            for name, value in zip(names, before, strict=True):
                if value is ABSENT:
                    seen.pop(name, None)
                else:
                    seen[name] = value


def _bool(value: Any, macro: str) -> bool:
    if value is True or value is False:
        return value is True
    raise no_overload(macro, value)


def _quantified(turns: _Turns, parts: list[Evaluate], *, wanted: bool, macro: str) -> Evaluate:
    """all (wanted is False) and exists (True): the answer is sure once it is found, whatever other items raise."""
    test = parts[0]

    def evaluate(frame: Frame) -> bool:
        values = turns.range(frame)
        failure: list[CelError] = []
        found = False

        def turn(_key: Any, _value: Any) -> bool:
            nonlocal found
            try:
                found = _bool(test(frame), macro) is wanted
            except CostExceeded:
                raise
            except CelError as err:
                failure.append(err)
            return found

        turns.run(frame, values, turn)
        if failure and not found:
            raise failure[0]
        return found is wanted

    return evaluate


def _all(turns: _Turns, parts: list[Evaluate]) -> Evaluate:
    return _quantified(turns, parts, wanted=False, macro="all")


def _exists(turns: _Turns, parts: list[Evaluate]) -> Evaluate:
    return _quantified(turns, parts, wanted=True, macro="exists")


def _exists_one(turns: _Turns, parts: list[Evaluate]) -> Evaluate:
    test = parts[0]

    def evaluate(frame: Frame) -> bool:
        values, count = turns.range(frame), 0

        def turn(_key: Any, _value: Any) -> bool:
            nonlocal count
            count += _bool(test(frame), "exists_one")
            return False

        turns.run(frame, values, turn)
        return count == 1

    return evaluate


def _filter(turns: _Turns, parts: list[Evaluate]) -> Evaluate:
    test = parts[0]

    def evaluate(frame: Frame) -> list[Any]:
        values = turns.range(frame)
        by_key = isinstance(values, dict)
        found: list[Any] = []

        def turn(key: Any, value: Any) -> bool:
            if _bool(test(frame), "filter"):
                found.append(key if by_key else value)
            return False

        turns.run(frame, values, turn)
        return found

    return evaluate


def _collect(turns: _Turns, parts: list[Evaluate]) -> Evaluate:
    """map and transformList: with two parts the first one chooses."""
    test = parts[0] if len(parts) > 1 else None
    make = parts[-1]

    def evaluate(frame: Frame) -> list[Any]:
        values = turns.range(frame)
        found: list[Any] = []

        def turn(_key: Any, _value: Any) -> bool:
            if test is None or _bool(test(frame), "map"):
                found.append(make(frame))
            return False

        turns.run(frame, values, turn)
        return found

    return evaluate


def _transform_map(turns: _Turns, parts: list[Evaluate]) -> Evaluate:
    test = parts[0] if len(parts) > 1 else None
    make = parts[-1]

    def evaluate(frame: Frame) -> dict[Any, Any]:
        values = turns.range(frame)
        found: dict[Any, Any] = {}

        def turn(key: Any, _value: Any) -> bool:
            if test is None or _bool(test(frame), "transformMap"):
                found[key] = make(frame)
            return False

        turns.run(frame, values, turn)
        return found

    return evaluate


def _transform_entries(turns: _Turns, parts: list[Evaluate]) -> Evaluate:
    pieces = _collect(turns, parts)

    def evaluate(frame: Frame) -> dict[Any, Any]:
        found: dict[Any, Any] = {}
        for piece in pieces(frame):
            if not isinstance(piece, dict):
                raise no_overload("transformMapEntry", piece)
            for key, value in piece.items():
                if key in found:
                    raise CelError(f"insert failed: key {key} already exists")
                found[key] = value
        return found

    return evaluate


def _sort_by(turns: _Turns, parts: list[Evaluate]) -> Evaluate:
    read = parts[0]

    def evaluate(frame: Frame) -> list[Any]:
        values = turns.range(frame)
        if not isinstance(values, list):
            raise no_overload("sortBy", values)
        pairs: list[tuple[Any, Any]] = []

        def turn(_key: Any, value: Any) -> bool:
            pairs.append((read(frame), value))
            return False

        turns.run(frame, values, turn)
        frame.spend(len(pairs))
        return [value for _, value in sorted(pairs, key=_BY_FIRST)]

    return evaluate


def _compare_first(one: tuple[Any, Any], other: tuple[Any, Any]) -> int:
    return compare(one[0], other[0])


_BY_FIRST: Final = cmp_to_key(_compare_first)


def compare(one: Any, other: Any) -> int:
    """-1, 0 or 1. Raises CelError where the values have no order."""
    return -1 if less(one, other, "sort") else int(less(other, one, "sort"))


_MACROS: Final[dict[str, Callable[[_Turns, list[Evaluate]], Evaluate]]] = {
    "all": _all,
    "exists": _exists,
    "exists_one": _exists_one,
    "existsOne": _exists_one,
    "filter": _filter,
    "map": _collect,
    "transformList": _collect,
    "transformMap": _transform_map,
    "transformMapEntry": _transform_entries,
    "sortBy": _sort_by,
}
