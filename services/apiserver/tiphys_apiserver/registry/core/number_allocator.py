"""Hands out numbers of a range, each to one owner at a time: cluster addresses and node ports.

The lower part of a range is for numbers that people choose, and is given out by itself only when the upper part is
full. Source: KEP-3070 and KEP-3668, which keep static and dynamic allocations apart.
"""

from __future__ import annotations

from random import Random

# Tries at random before the range is searched from its start.
_GUESSES = 32


class Full(Exception):
    """Every number of the range is taken."""


class Taken(Exception):
    """The number asked for has an owner."""


class NumberAllocator:
    """Numbers 0 to size-1. For one loop; no step awaits, so nothing comes between a look and a reservation.

    static_size numbers at the start are kept for choices of people.
    """

    def __init__(self, size: int, static_size: int, rng: Random) -> None:
        self._size = size
        self._static_size = min(static_size, size)
        self._rng = rng
        self._taken: set[int] = set()

    def __len__(self) -> int:
        return len(self._taken)

    def __contains__(self, number: int) -> bool:
        return number in self._taken

    def reserve(self, number: int) -> None:
        """Take this very number. Raises Taken; the number must lie in the range."""
        if number in self._taken:
            raise Taken(number)
        self._taken.add(number)

    def reserve_next(self) -> int:
        """Take any free number, from the dynamic part if it has one. Raises Full."""
        if len(self._taken) >= self._size:
            raise Full
        number = self._find(self._static_size, self._size)
        if number is None:
            number = self._find(0, self._static_size)
        if number is None:
            raise Full
        self._taken.add(number)
        return number

    def release(self, number: int) -> None:
        """Give a number back; giving it back twice does nothing."""
        self._taken.discard(number)

    def clear(self) -> None:
        """Count nothing as taken."""
        self._taken.clear()

    def _find(self, low: int, high: int) -> int | None:
        """A free number from low to below high, None where there is none."""
        if low >= high:
            return None
        for _ in range(_GUESSES):
            number = self._rng.randrange(low, high)
            if number not in self._taken:
                return number
        start = self._rng.randrange(low, high)
        for offset in range(high - low):
            number = low + (start - low + offset) % (high - low)
            if number not in self._taken:
                return number
        return None


def address_static_size(size: int) -> int:
    """How many addresses of a range are kept for choices of people: a sixteenth, at least 16, at most 256."""
    return 0 if size < 32 else min(max(16, size // 16), 256)


def port_static_size(size: int) -> int:
    """How many ports of a range are kept for choices of people: a thirty-second, at least 16, at most 128."""
    return 0 if size < 32 else min(max(16, size // 32), 128)
