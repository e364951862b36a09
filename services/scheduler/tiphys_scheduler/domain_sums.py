"""Sums of counts by domain of a topology, kept while pods come and go."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tiphys_scheduler.columns import Mask
from tiphys_scheduler.pod_groups import Column, Counts
from tiphys_scheduler.topology import NOWHERE, Topology


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
        """Takes in what changed on these rows; returns the domains whose sum is another one."""
        moved = []
        for row in rows.tolist():
            domain = int(self.domain[row])
            if domain == NOWHERE or (self._eligible is not None and not self._eligible[row]):
                continue
            now = sum(int(column.counts[row]) * weight for column, weight in self._columns)
            difference = now - int(self._seen[row])
            if difference:
                self._seen[row] = now
                self.sums[domain] += difference
                moved.append(domain)
        return moved

    def by_row(self) -> Counts:
        """The sum of each row's domain; 0 where it has none."""
        return self.sums[self.domain]
