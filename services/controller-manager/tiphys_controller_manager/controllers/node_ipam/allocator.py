"""Ranges of pod addresses, one of a family for each node: which are taken, and the next that is free.

Held in memory and rebuilt from the nodes at each start; the API has the truth.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
# Source: kubernetes pkg/controller/nodeipam/ipam/cidrset, which refuses more than 2^16 ranges of one cluster range.
_MAX_BITS = 16


class NothingLeft(Exception):
    """Every range is taken."""


@dataclass(frozen=True, slots=True)
class Pool:
    """One range of the cluster, cut into equal ranges of nodes."""

    cluster: Network
    mask: int

    def __post_init__(self) -> None:
        bits = self.mask - self.cluster.prefixlen
        if bits < 0 or self.mask > self.cluster.max_prefixlen:
            raise ValueError(f"range {self.cluster} has no parts of size /{self.mask}")
        if bits > _MAX_BITS:
            raise ValueError(f"range {self.cluster} has more than 2^{_MAX_BITS} parts of size /{self.mask}")

    @property
    def count(self) -> int:
        """How many nodes it serves."""
        return 1 << (self.mask - self.cluster.prefixlen)

    def part(self, index: int) -> str:
        """The range of one index."""
        size = 1 << (self.cluster.max_prefixlen - self.mask)
        first = self.cluster.network_address + index * size
        return f"{first}/{self.mask}"

    def indexes(self, text: str) -> range:
        """The indexes that a range touches; empty for one outside of the cluster's. Raises ValueError for no range."""
        network = ipaddress.ip_network(text, strict=False)
        if network.version != self.cluster.version or not network.overlaps(self.cluster):
            return range(0)
        size = 1 << (self.cluster.max_prefixlen - self.mask)
        origin = int(self.cluster.network_address)
        first = max(0, (int(network.network_address) - origin) // size)
        last = min(self.count - 1, (int(network.broadcast_address) - origin) // size)
        return range(first, last + 1)


class Allocator:
    """All families of a cluster. For one owner: its methods never wait, so no two nodes get one range."""

    def __init__(self, pools: Iterable[Pool], reserved: Iterable[str] = ()) -> None:
        self._pools = tuple(pools)
        # For each pool, the holder of each index that is taken; the empty name holds what is never given.
        self._taken: tuple[dict[int, str], ...] = tuple({} for _ in self._pools)
        # Where the search goes on, so that a range just freed is the last to be given again.
        self._next = [0] * len(self._pools)
        self._held: dict[str, set[tuple[int, int]]] = {}
        for text in reserved:
            self.occupy("", (text,))

    @property
    def families(self) -> int:
        """How many ranges a node gets."""
        return len(self._pools)

    def occupy(self, node: str, ranges: Iterable[str]) -> Mapping[str, str]:
        """Note the ranges that a node has; returns those that another had first, with its name."""
        clashes: dict[str, str] = {}
        for text in ranges:
            for number, pool in enumerate(self._pools):
                for index in pool.indexes(text):
                    holder = self._taken[number].setdefault(index, node)
                    if holder != node:
                        clashes[text] = holder
                    else:
                        self._held.setdefault(node, set()).add((number, index))
        return clashes

    def allocate(self, node: str) -> tuple[str, ...]:
        """A free range of each family, held by the node from now on. Raises NothingLeft and then holds none."""
        found: list[tuple[int, int]] = []
        for number, pool in enumerate(self._pools):
            taken = self._taken[number]
            start = self._next[number]
            order = (offset % pool.count for offset in range(start, start + pool.count))
            index = next((index for index in order if index not in taken), None)
            if index is None:
                raise NothingLeft(f"no range of size /{pool.mask} is left in {pool.cluster}")
            found.append((number, index))
        for number, index in found:
            self._taken[number][index] = node
            self._next[number] = (index + 1) % self._pools[number].count
        self._held.setdefault(node, set()).update(found)
        return tuple(self._pools[number].part(index) for number, index in found)

    def release(self, node: str) -> None:
        """The node is gone, or what it was given was not written: its ranges are free."""
        for number, index in self._held.pop(node, set()):
            self._taken[number].pop(index, None)


def pools(cluster_ranges: Iterable[str], *, mask_ipv4: int, mask_ipv6: int) -> tuple[Pool, ...]:
    """The pools of a cluster, by its ranges. Raises ValueError for a range that can't be cut so."""
    made = []
    for text in cluster_ranges:
        network = ipaddress.ip_network(text, strict=False)
        made.append(Pool(network, mask_ipv4 if network.version == 4 else mask_ipv6))
    return tuple(made)
