"""The scheduler alone: pods placed a second, on 5,000 nodes that are all scored. Run: -m tests.bench.scheduler"""

from __future__ import annotations

from collections.abc import Callable
from time import process_time

from tests.bench.figures import Figure, median, print_figures, print_heading
from tests.unit.scheduler.objects import node, pod
from tiphys_scheduler.cache import Cache
from tiphys_scheduler.columns import Columns
from tiphys_scheduler.framework.registry import DEFAULT_PROFILE
from tiphys_scheduler.framework.runtime import Framework, Placement
from tiphys_scheduler.pod_info import PodInfo

NODES = 5000
SHAPES = 50
_PODS = 5000
_ROUNDS = 3


def measure_scheduler() -> list[Figure]:
    """Equal pods, and pods of many shapes that take turns."""
    equal = _placed_per_s(lambda number: pod(f"p{number}", cpu="100m", memory="128Mi"))
    shapes = _placed_per_s(lambda number: pod(f"p{number}", cpu=f"{100 + number % SHAPES}m", memory="128Mi"))
    return [
        Figure(f"scheduler alone, {NODES:,} nodes: equal pods", equal, "per s", note="10,000 wanted in the end"),
        Figure(f"scheduler alone, {NODES:,} nodes: {SHAPES} shapes in turn", shapes, "per s"),
    ]


def _placed_per_s(made: Callable[[int], PodInfo]) -> float:
    """By CPU time of this process; the middle of the rounds."""
    rates: list[float] = []
    for _ in range(_ROUNDS):
        cache = Cache(Columns())
        for number in range(NODES):
            cache.set_node(node(f"n{number}", cpu="32", memory="128Gi"))
        framework = Framework(DEFAULT_PROFILE, cache.columns)
        pods = [made(number) for number in range(_PODS)]
        began = process_time()
        for info in pods:
            found = framework.place(info)
            if not isinstance(found, Placement):
                raise TypeError(f"no node for {info.key}: {found.message}")
            cache.assume(info, found.node)
        rates.append(_PODS / (process_time() - began))
    return median(rates)


if __name__ == "__main__":
    print_heading()
    print_figures(measure_scheduler())
