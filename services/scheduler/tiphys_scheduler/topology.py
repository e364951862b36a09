"""Values of one label by row. To rules about places, all nodes with the same value are a domain."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

Domains = NDArray[np.intp]
# Domain of rows without the label: arrays by domain have one place more, at their end, for these.
NOWHERE = -1


class Topology:
    """Domains of one label, as small numbers that are used again when the last node of a domain goes."""

    def __init__(self, rows: int) -> None:
        self.domain: Domains = np.full(rows, NOWHERE, np.intp)
        self._ids: dict[str, int] = {}
        self._values: list[str] = []
        self._sizes: list[int] = []
        self._free: list[int] = []

    @property
    def width(self) -> int:
        """Length of an array by domain, counting the place for rows without the label."""
        return len(self._values) + 1

    def set(self, row: int, value: str | None) -> None:
        """The label of a row; None where it has none."""
        old = int(self.domain[row])
        if old != NOWHERE:
            if self._values[old] == value:
                return
            self._sizes[old] -= 1
            if not self._sizes[old]:
                del self._ids[self._values[old]]
                self._free.append(old)
        self.domain[row] = NOWHERE if value is None else self._join(value)

    def values(self) -> Iterator[str]:
        """Every value that a row has."""
        return iter(self._ids)

    def rows_with(self, value: str) -> NDArray[np.bool_]:
        """Rows that have a value."""
        found = self._ids.get(value)
        if found is None:
            return np.zeros(len(self.domain), np.bool_)
        rows: NDArray[np.bool_] = self.domain == found
        return rows

    def rows_of(self, domains: Sequence[int], likely: Domains) -> Domains:
        """The rows of some domains; quick where they are among the likely ones."""
        wanted = np.zeros(self.width, np.bool_)
        wanted[domains] = True
        if sum(self._sizes[domain] for domain in domains) <= len(likely):
            # Domains of a single node each, mostly: the rows that changed themselves.
            found: Domains = likely[wanted[self.domain[likely]]]
            if len(found) == sum(self._sizes[domain] for domain in domains):
                return found
        return np.flatnonzero(wanted[self.domain])

    def grow(self, rows: int) -> None:
        """More rows, without the label."""
        more = rows - len(self.domain)
        self.domain = np.concatenate([self.domain, np.full(more, NOWHERE, np.intp)])

    def _join(self, value: str) -> int:
        found = self._ids.get(value)
        if found is None:
            if self._free:
                found = self._free.pop()
                self._values[found] = value
            else:
                found = len(self._values)
                self._values.append(value)
                self._sizes.append(0)
            self._ids[value] = found
        self._sizes[found] += 1
        return found
