"""Which devices fit best together. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from tiphys_sdk.device.plugin import Device


def nearest(
    devices: Mapping[str, Device], available: Sequence[str], must_include: Sequence[str], size: int
) -> tuple[str, ...]:
    """`size` of the available devices on as few NUMA nodes as can be, and of these the node with the least to spare."""

    def node_of(device: str) -> int:
        nodes = devices[device].numa_nodes if device in devices else ()
        return nodes[0] if nodes else -1

    free = Counter(node_of(device) for device in available)
    taken = Counter(node_of(device) for device in must_include)
    needed = size - len(must_include)

    def order(node: int) -> tuple[int, bool, int, int]:
        fits = free[node] - taken[node] >= needed
        # What is needed whole from the fullest node that can give it, else from those that can give most.
        return (-taken[node], not fits, free[node] if fits else -free[node], node)

    ranks = {node: rank for rank, node in enumerate(sorted(free, key=order))}
    rest = sorted((d for d in available if d not in must_include), key=lambda d: (ranks[node_of(d)], d))
    return (*must_include, *rest)[:size]
