"""How much work a piece of code is, in calls of functions, and how that grows: the same on any machine."""

from __future__ import annotations

import gc
import math
import sys
from collections.abc import Awaitable, Callable, Mapping
from types import FrameType
from typing import Any

_CALLS = frozenset({"call", "c_call"})


async def calls(work: Callable[[], Awaitable[object]]) -> int:
    """How many functions, Python's and those in C, are called by the work and by what this thread does meanwhile."""
    count = 0

    def note(_frame: FrameType, event: str, _argument: Any) -> None:
        nonlocal count
        count += event in _CALLS

    before = sys.getprofile()
    # What others left lying is collected whenever memory is asked for, and its finalizers would be counted.
    gc.collect()
    gc.disable()
    sys.setprofile(note)
    try:
        await work()
    finally:
        sys.setprofile(before)
        gc.enable()
    return count


def exponent(costs: Mapping[int, float]) -> float:
    """The p of the c·Nᵖ nearest to what N objects cost more than one: 0 is flat, 1 in proportion, 2 the square.

    costs are by N and have that of one object, so that what there is to do anyway hides nothing. Growth by less than a
    tenth of that is none.
    """
    alone = costs[1]
    if max(costs.values()) < alone * 1.1:
        return 0.0
    points = [(math.log(number), math.log(max(cost - alone, 1.0))) for number, cost in costs.items() if number > 1]
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / sum((x - mean_x) ** 2 for x, _ in points)
