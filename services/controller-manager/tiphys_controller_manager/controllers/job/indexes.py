"""Sets of completion indexes, kept as ranges: 1,000 indexes of a Job that runs in order are one range.

Source of the text form: kubernetes pkg/controller/job/indexed_job_utils.go; two neighbours are written 1,2 and
more 1-3.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Indexes:
    """Indexes as ranges, first and last included; ordered, and never touching each other."""

    ranges: tuple[tuple[int, int], ...] = ()

    def __len__(self) -> int:
        return sum(last - first + 1 for first, last in self.ranges)

    def __contains__(self, index: int) -> bool:
        place = bisect.bisect_right(self.ranges, index, key=lambda item: item[0]) - 1
        return place >= 0 and index <= self.ranges[place][1]

    def __str__(self) -> str:
        return ",".join(_text(first, last) for first, last in self.ranges)

    def __or__(self, other: Indexes) -> Indexes:
        return _merged(sorted((*self.ranges, *other.ranges)))

    def with_indexes(self, indexes: Iterable[int]) -> Indexes:
        """These and those."""
        return _merged(sorted((*self.ranges, *((index, index) for index in indexes))))

    def first_free(self, count: int, limit: int) -> list[int]:
        """The lowest indexes that are not in the set, at most count, each below limit."""
        found: list[int] = []
        candidate = 0
        for first, last in (*self.ranges, (limit, limit)):
            end = min(first, limit, candidate + count - len(found))
            found.extend(range(candidate, end))
            candidate = max(candidate, last + 1)
            if len(found) >= count:
                break
        return found

    def overlap(self, other: Indexes) -> int:
        """How many indexes are in both."""
        total, mine, theirs = 0, 0, 0
        while mine < len(self.ranges) and theirs < len(other.ranges):
            one, two = self.ranges[mine], other.ranges[theirs]
            total += max(min(one[1], two[1]) - max(one[0], two[0]) + 1, 0)
            mine += one[1] <= two[1]
            theirs += two[1] <= one[1]
        return total


NO_INDEXES: Final = Indexes()


def parse_indexes(text: str, limit: int) -> Indexes:
    """The indexes below limit that the text names; what cannot be read is left out, as a status may be anyone's."""
    return _merged(sorted(_ranges(text, limit)))


def _ranges(text: str, limit: int) -> Iterator[tuple[int, int]]:
    for part in text.split(","):
        first, _, last = part.partition("-")
        if not _is_number(first) or (last and not _is_number(last)):
            continue
        begin, end = int(first), min(int(last or first), limit - 1)
        if begin <= end:
            yield begin, end


def _merged(ranges: Iterable[tuple[int, int]]) -> Indexes:
    found: list[tuple[int, int]] = []
    for first, last in ranges:
        if found and first <= found[-1][1] + 1:
            found[-1] = (found[-1][0], max(found[-1][1], last))
        else:
            found.append((first, last))
    return Indexes(tuple(found))


def _text(first: int, last: int) -> str:
    if first == last:
        return str(first)
    return f"{first},{last}" if last == first + 1 else f"{first}-{last}"


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()
