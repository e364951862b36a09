"""How full a node would be, as a score: the strategies of NodeResourcesFit.

Source of the arithmetic: kube-scheduler pkg/scheduler/framework/plugins/noderesources, whole numbers throughout.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from tiphys_scheduler.columns import Amounts
from tiphys_scheduler.framework.interface import MAX_SCORE, Scores

# Scores of a shape go from 0 to this.
MAX_SHAPE_SCORE = 10


@dataclass(frozen=True, slots=True)
class Share:
    """One resource of some nodes: what they have, what would be used of it, and how much it weighs."""

    capacity: Amounts
    wanted: Amounts
    weight: int


# The same of one node: capacity, wanted and weight.
OneShare = tuple[int, int, int]


class Strategy(Protocol):
    """Makes a score of the shares."""

    def score_one(self, shares: Sequence[OneShare]) -> int:
        """The same for one node, without arrays."""
        ...

    def score(self, shares: Sequence[Share]) -> Scores:
        """0 to 100 for each node."""
        ...


@dataclass(frozen=True, slots=True)
class LeastAllocated:
    """The emptier, the better."""

    def score(self, shares: Sequence[Share]) -> Scores:
        """The mean of what stays free, in percent."""
        return _mean(shares, [_percent(np.maximum(s.capacity - s.wanted, 0), s.capacity) for s in shares])

    def score_one(self, shares: Sequence[OneShare]) -> int:
        """The same for one node."""
        return _mean_of_one((max(has - wanted, 0) * MAX_SCORE // has, weight) for has, wanted, weight in shares if has)


@dataclass(frozen=True, slots=True)
class MostAllocated:
    """The fuller, the better: fewer nodes are used."""

    def score(self, shares: Sequence[Share]) -> Scores:
        """The mean of what is used, in percent."""
        return _mean(shares, [_percent(np.minimum(s.wanted, s.capacity), s.capacity) for s in shares])

    def score_one(self, shares: Sequence[OneShare]) -> int:
        """The same for one node."""
        return _mean_of_one((min(wanted, has) * MAX_SCORE // has, weight) for has, wanted, weight in shares if has)


@dataclass(frozen=True, slots=True)
class RequestedToCapacityRatio:
    """A score for each degree of use, by a line through points (percent used, 0 to 10)."""

    shape: tuple[tuple[int, int], ...] = field(default=((0, 0), (100, MAX_SHAPE_SCORE)))

    def score(self, shares: Sequence[Share]) -> Scores:
        """The mean over resources whose score is not 0, rounded."""
        total = np.zeros(shares[0].capacity.shape, np.int64) if shares else np.zeros(0, np.int64)
        weights = np.zeros(total.shape, np.int64)
        for share in shares:
            overfull = (share.capacity == 0) | (share.wanted > share.capacity)
            used = np.where(overfull, 100, _percent(share.wanted, share.capacity))
            score = np.where(share.capacity == 0, 0, self._line(used))
            total += score * share.weight
            weights += np.where(score > 0, share.weight, 0)
        quotient = total / np.maximum(weights, 1)
        floor = np.floor(quotient)
        found: Scores = (floor + (quotient - floor >= 0.5)).astype(np.int64)
        return found

    def score_one(self, shares: Sequence[OneShare]) -> int:
        """The same for one node."""
        arrays = [Share(np.array([has]), np.array([wanted]), weight) for has, wanted, weight in shares]
        return int(self.score(arrays)[0]) if arrays else 0

    def _line(self, used: Amounts) -> Amounts:
        points = [(percent, score * (MAX_SCORE // MAX_SHAPE_SCORE)) for percent, score in self.shape]
        found = np.full(used.shape, points[-1][1], np.int64)
        for (x0, y0), (x1, y1) in reversed(list(itertools.pairwise(points))):
            rise = (y1 - y0) * (used - x0)
            # Kubernetes' division drops the fraction, of negative numbers too.
            steps = np.where(rise >= 0, rise // (x1 - x0), -(-rise // (x1 - x0)))
            found = np.where(used <= x1, y0 + steps, found)
        return np.where(used <= points[0][0], points[0][1], found)


def _percent(part: Amounts, capacity: Amounts) -> Amounts:
    found: Amounts = part * MAX_SCORE // np.maximum(capacity, 1)
    return found


def _mean_of_one(scores: Iterable[tuple[int, int]]) -> int:
    total, weights = 0, 0
    for score, weight in scores:
        total += score * weight
        weights += weight
    return total // weights if weights else 0


def _mean(shares: Sequence[Share], scores: Sequence[Amounts]) -> Scores:
    """By weight, over the resources that a node has."""
    total = np.zeros(shares[0].capacity.shape, np.int64)
    weights = np.zeros(total.shape, np.int64)
    for share, score in zip(shares, scores, strict=True):
        has = share.capacity > 0
        total += np.where(has, score * share.weight, 0)
        weights += has * share.weight
    found: Scores = total // np.maximum(weights, 1)
    return found
