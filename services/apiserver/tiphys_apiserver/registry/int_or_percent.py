"""Fields that hold a number or a percentage."""

from __future__ import annotations

from typing import Any

_INTEGER = 0
_TEXT = 1


def set_percent(value: Any, percent: int) -> None:
    """Make an IntOrString message hold a percentage."""
    value.type = _TEXT
    value.strVal = f"{percent}%"


def set_number(value: Any, number: int) -> None:
    """Make an IntOrString message hold a number."""
    value.type = _INTEGER
    value.intVal = number


def is_zero(value: Any) -> bool:
    """Whether it stands for nothing: 0 or 0%."""
    if value.type == _TEXT:
        return bool(value.strVal.removesuffix("%").strip("0") == "")
    return bool(value.intVal == 0)


def percent_of(value: Any) -> int | None:
    """The percentage, None where it is a number or no percentage at all."""
    if value.type != _TEXT or not value.strVal.endswith("%"):
        return None
    digits = value.strVal[:-1]
    return int(digits) if digits.isdecimal() else None


def shown(value: Any) -> int | str:
    """The value as messages show it."""
    return str(value.strVal) if value.type == _TEXT else int(value.intVal)
