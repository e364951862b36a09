"""Exact resource amounts: 100m, 1.5Gi, 2e3.

An amount is a whole number of nanos, which is the finest step that Kubernetes knows, so sums and
comparisons are exact. Rules: apimachinery pkg/api/resource/quantity.go and the tables in
tests/conformance/contracts/json/special.json.
"""

from __future__ import annotations

import enum
import functools
import re
from dataclasses import dataclass
from typing import Final

_NANO: Final = 10**9
# Amounts of the binary family stop here; Source: maxAllowed in quantity.go.
_MAX_BINARY: Final = (2**63 - 1) * _NANO
# An exponent beyond this is refused before a number with as many digits is built.
_MAX_EXPONENT: Final = 64
_MAX_TEXT: Final = 256

_PATTERN: Final = re.compile(r"([+-]?)([0-9]*)(?:\.([0-9]*))?(?:([numkMGTPE]|[KMGTPE]i)|[eE]([+-]?[0-9]+))?", re.ASCII)
_SHAPE: Final = re.compile(r"[+-]?[0-9.]+[eEinumkKMGTP]*[-+]?[0-9]*", re.ASCII)
_WRONG_SHAPE: Final = "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
_DECIMAL: Final = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_DECIMAL_SUFFIX: Final = {power: suffix for suffix, power in _DECIMAL.items()}
_BINARY: Final = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}


class Format(enum.Enum):
    """Family of suffixes in which an amount is written."""

    DECIMAL = "decimal"
    BINARY = "binary"
    EXPONENT = "exponent"


class QuantityError(ValueError):
    """The text is no quantity."""


@functools.total_ordering
@dataclass(frozen=True, slots=True, eq=False)
class Quantity:
    """An exact amount and the family it is written in; equal when the amounts are.

    Sums take the family of the left side, or of the right where the left is zero.
    """

    nanos: int
    format: Format = Format.DECIMAL

    @classmethod
    def parse(cls, text: str) -> Quantity:
        """The amount that the text stands for; finer than 1n is rounded away from zero.

        Raises QuantityError, with the words of Kubernetes.
        """
        return _parse(text)

    @classmethod
    def of(cls, value: int, format: Format = Format.DECIMAL) -> Quantity:
        """A whole number of units."""
        return cls(value * _NANO, format)

    @classmethod
    def of_millis(cls, millis: int, format: Format = Format.DECIMAL) -> Quantity:
        """A whole number of thousandths."""
        return cls(millis * 1_000_000, format)

    def value(self) -> int:
        """Whole units, rounded away from zero."""
        return _divide_up(self.nanos, _NANO)

    def milli_value(self) -> int:
        """Thousandths, rounded away from zero."""
        return _divide_up(self.nanos, 1_000_000)

    def __add__(self, other: Quantity) -> Quantity:
        return Quantity(self.nanos + other.nanos, self.format if self.nanos else other.format)

    def __sub__(self, other: Quantity) -> Quantity:
        return Quantity(self.nanos - other.nanos, self.format if self.nanos else other.format)

    def __neg__(self) -> Quantity:
        return Quantity(-self.nanos, self.format)

    def __eq__(self, other: object) -> bool:
        return self.nanos == other.nanos if isinstance(other, Quantity) else NotImplemented

    def __lt__(self, other: Quantity) -> bool:
        return self.nanos < other.nanos

    def __hash__(self) -> int:
        return hash(self.nanos)

    def __bool__(self) -> bool:
        return self.nanos != 0

    def __str__(self) -> str:
        """Canonical text: no fraction digits, the largest suffix of the family that loses nothing."""
        if not self.nanos:
            return "0"
        if self.format is Format.BINARY and abs(self.nanos) >= 1024 * _NANO and self.nanos % _NANO == 0:
            return _binary_text(self.nanos // _NANO)
        if self.format is Format.EXPONENT:
            number, power = _strip_thousands(self.nanos, _MAX_EXPONENT)
            return f"{number}e{power}" if power else str(number)
        number, power = _strip_thousands(self.nanos, 18)
        return f"{number}{_DECIMAL_SUFFIX[power]}"


@functools.lru_cache(maxsize=8192)
def canonical(text: str) -> str:
    """The canonical text of a quantity's text; raises QuantityError."""
    return str(_parse(text))


@functools.lru_cache(maxsize=8192)
def cpu_millis(text: str) -> int:
    """Thousandths of a CPU in a quantity's text, rounded up; raises QuantityError."""
    return _parse(text).milli_value()


@functools.lru_cache(maxsize=8192)
def bytes_value(text: str) -> int:
    """Whole units (bytes, pods, devices) in a quantity's text, rounded up; raises QuantityError."""
    return _parse(text).value()


@functools.lru_cache(maxsize=8192)
def _parse(text: str) -> Quantity:
    if not text or len(text) > _MAX_TEXT:
        raise QuantityError(_WRONG_SHAPE)
    match = _PATTERN.fullmatch(text)
    if match is None:
        if _SHAPE.fullmatch(text) is None:
            raise QuantityError(_WRONG_SHAPE)
        raise QuantityError(
            "unable to parse numeric part of quantity" if text.count(".") > 1 else "unable to parse quantity's suffix"
        )
    sign, whole, fraction, suffix, exponent = match.groups()
    digits = whole + (fraction or "")
    if not digits:
        raise QuantityError(_WRONG_SHAPE)
    form, power, shift = _scale(suffix or "", exponent)
    power += 9 - len(fraction or "")
    nanos = int(digits) << shift
    nanos = nanos * 10**power if power >= 0 else _divide_up(nanos, 10**-power)
    if form is Format.BINARY:
        nanos = min(nanos, _MAX_BINARY)
    return Quantity(-nanos if sign == "-" else nanos, form)


def _scale(suffix: str, exponent: str | None) -> tuple[Format, int, int]:
    """The family, the power of ten and the power of two that a suffix stands for."""
    if exponent is not None:
        power = int(exponent)
        if abs(power) > _MAX_EXPONENT:
            raise QuantityError("unable to parse quantity's suffix")
        return Format.EXPONENT, power, 0
    if suffix in _BINARY:
        return Format.BINARY, 0, _BINARY[suffix]
    return Format.DECIMAL, _DECIMAL[suffix], 0


def _divide_up(number: int, divisor: int) -> int:
    """Quotient rounded away from zero; the divisor is positive."""
    return -(-number // divisor) if number > 0 else number // divisor


def _binary_text(value: int) -> str:
    for suffix, shift in reversed(_BINARY.items()):
        if value % (1 << shift) == 0:
            return f"{value >> shift}{suffix}"
    return str(value)


def _strip_thousands(nanos: int, max_power: int) -> tuple[int, int]:
    """The number without groups of three zeros, and the power of ten that was taken out."""
    power = -9
    while power < max_power and nanos % 1000 == 0:
        nanos //= 1000
        power += 3
    return nanos, power
