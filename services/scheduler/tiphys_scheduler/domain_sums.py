"""Sums of counts by domain of a topology, kept while pods come and go."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tiphys_scheduler.columns import Mask
from tiphys_scheduler.pod_groups import Column, Counts
from tiphys_scheduler.topology import NOWHERE, Topology

# Up to so many rows are quicker one by one than as arrays.
_FEW = 4


class DomainSums:
    """What the columns of each row, by weight, add up to in each domain; rows that are not eligible are left out."""

    def __init__(self, topology: Topology, columns: Sequence[tuple[Column, int]], eligible: Mask | None = None) -> None:
        self.domain = topology.domain
        self._columns = columns
        self._eligible = eligible
        seen = np.zeros(len(topology.domain), np.int64)
        for column, weight in columns:
            seen += column.counts * weight
        if eligible is not None:
            seen *= eligible
        self._seen: Counts = seen
        # The last place is that of rows without the label, and stays 0.
        self.sums: Counts = np.zeros(topology.width, np.int64)
        np.add.at(self.sums, self.domain, seen)
        self.sums[NOWHERE] = 0

    def update(self, rows: NDArray[np.intp]) -> list[int]:
        """Takes in what changed on these rows, each named once; returns the domains whose sum is another one."""
        if len(rows) > _FEW:
            return self._update_many(rows)
        moved = []
        for row in rows.tolist():
            domain = int(self.domain[row])
            if domain == NOWHERE or (self._eligible is not None and not self._eligible[row]):
                continue
            now = 0
            for column, weight in self._columns:
                now += int(column.counts[row]) * weight
            difference = now - int(self._seen[row])
            if difference:
                self._seen[row] = now
                self.sums[domain] += difference
                moved.append(domain)
        return moved

    def _update_many(self, rows: NDArray[np.intp]) -> list[int]:
        domains = self.domain[rows]
        now = np.zeros(len(rows), np.int64)
        for column, weight in self._columns:
            now += column.counts[rows] * weight
        difference = now - self._seen[rows]
        counts = (difference != 0) & (domains != NOWHERE)
        if self._eligible is not None:
            counts &= self._eligible[rows]
        if not counts.any():
            return []
        self._seen[rows[counts]] = now[counts]
        np.add.at(self.sums, domains[counts], difference[counts])
        moved: list[int] = np.unique(domains[counts]).tolist()
        return moved

    def by_row(self) -> Counts:
        """The sum of each row's domain; 0 where it has none."""
        return self.sums[self.domain]
