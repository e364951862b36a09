"""Which of a ReplicaSet's pods go first when there are too many.

Source: kubernetes pkg/controller/controller_utils.go, ActivePodsWithRanks, with the logarithmic comparison of ages.
"""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Sequence
from typing import Final

from tiphys_controller_manager.pods import PodView

_PHASE_RANK: Final = {"Pending": 0, "Unknown": 1, "Running": 2}


def choose_for_deletion(
    pods: Sequence[PodView], related: Sequence[PodView], count: int, *, now: float
) -> tuple[PodView, ...]:
    """The count pods that matter least, of active pods.

    related are all active pods of the same deployment: of two equal pods, the one on the fuller node goes. now is in
    seconds since the epoch.
    """
    if count >= len(pods):
        return tuple(pods)
    on_node = Counter(pod.node for pod in related if pod.is_active)

    def compare(one: PodView, other: PodView) -> int:
        return _compare(one, other, on_node, now)

    ordered = sorted(pods, key=functools.cmp_to_key(compare))
    return tuple(ordered[:count])


def _compare(one: PodView, other: PodView, on_node: Counter[str], now: float) -> int:
    """Negative when one goes before other."""
    first_that_differs = (
        _sign(bool(one.node) - bool(other.node)),
        _sign(_PHASE_RANK.get(one.phase, 0) - _PHASE_RANK.get(other.phase, 0)),
        _sign(one.is_ready - other.is_ready),
        _sign(one.deletion_cost - other.deletion_cost),
        # Fuller nodes first. Without a node nothing is shared.
        _sign(on_node[other.node] - on_node[one.node]) if one.node and other.node else 0,
    )
    for difference in first_that_differs:
        if difference:
            return difference
    if one.ready_since is not None and other.ready_since is not None and one.ready_since != other.ready_since:
        return _younger_first((one.ready_since, one.uid), (other.ready_since, other.uid), now)
    if one.restarts != other.restarts:
        return _sign(other.restarts - one.restarts)
    if one.created != other.created:
        return _younger_first((one.created, one.uid), (other.created, other.uid), now)
    return 0


def _younger_first(one: tuple[float, str], other: tuple[float, str], now: float) -> int:
    """Younger before older, where ages within a factor of two count as equal and the uid decides.

    So that not always the newest go, which would undo a spread over zones step by step.
    """
    difference = _age_rank(one[0], now) - _age_rank(other[0], now)
    if difference:
        return _sign(difference)
    return -1 if one[1] < other[1] else 1 if one[1] > other[1] else 0


def _age_rank(moment: float, now: float) -> int:
    age_ns = int((now - moment) * 1e9)
    return int(math.log2(age_ns)) if age_ns > 0 else -1


def _sign(value: int) -> int:
    return (value > 0) - (value < 0)
