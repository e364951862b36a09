"""Pods for which room is being made on a node: until they are there, pods of no higher priority may not have it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from tiphys_scheduler.columns import Columns, Mask
from tiphys_scheduler.framework.interface import FilterPlugin
from tiphys_scheduler.pod_info import PODS, Needs, PodInfo
from tiphys_scheduler.pod_terms import NO_TERMS

_MOST_KEPT = 64


@dataclass(slots=True)
class _Kept:
    """What is known for pods of one class and priority; seen is how much of the columns' notes it has read."""

    epoch: int
    seen: int
    blocked: Mask


class Nominations:
    """Owned by the scheduler's loop. A nomination is noted as a change of its row, so that others look again."""

    def __init__(self, nodes: Columns) -> None:
        self._nodes = nodes
        self._node_of: dict[str, str] = {}
        self._on: dict[str, dict[str, PodInfo]] = {}
        self._kept: OrderedDict[tuple[Needs, int], _Kept] = OrderedDict()

    def __len__(self) -> int:
        return len(self._node_of)

    def node_of(self, key: str) -> str:
        """Where room is being made for a pod; empty without."""
        return self._node_of.get(key, "")

    def on(self, node: str) -> list[PodInfo]:
        """Pods that are meant for a node."""
        return list(self._on.get(node, {}).values())

    def add(self, pod: PodInfo, node: str) -> None:
        """Keeps room for a pod; an older nomination of it ends."""
        self.remove(pod.key)
        self._node_of[pod.key] = node
        self._on.setdefault(node, {})[pod.key] = pod
        self._touch(node)

    def remove(self, key: str) -> str:
        """A pod that needs no room any more; the node on which it had some, or empty."""
        node = self._node_of.pop(key, "")
        if node:
            del self._on[node][key]
            if not self._on[node]:
                del self._on[node]
            self._touch(node)
        return node

    def rivals(self, pod: PodInfo, node: str) -> list[PodInfo]:
        """Others that are meant for the node and may not be passed over by this pod."""
        return [p for p in self._on.get(node, {}).values() if p.priority >= pod.priority and p.key != pod.key]

    def blocked(self, pod: PodInfo, filters: Iterable[FilterPlugin]) -> Mask | None:
        """Rows that would not take the pod beside those for which room is kept there; None where there are none."""
        if not self._on:
            return None
        nodes = self._nodes
        kept = self._kept.get((pod.needs, pod.priority))
        if kept is None or kept.epoch != nodes.epoch:
            kept = _Kept(nodes.epoch, len(nodes.changes), np.zeros(nodes.rows, np.bool_))
            self._kept[pod.needs, pod.priority] = kept
            if len(self._kept) > _MOST_KEPT:
                self._kept.popitem(last=False)
            rows: Iterable[int] = [nodes.row_of[name] for name in self._on if name in nodes.row_of]
        else:
            rows = {max(row, ~row) for row in nodes.changes[kept.seen :]}
        for row in rows:
            # For any pod of the class: one that is meant for the node itself is looked at apart.
            kept.blocked[row] = self._is_blocked(pod, self._beside(pod, row), row, filters)
        kept.seen = len(nodes.changes)
        own = nodes.row_of.get(self._node_of.get(pod.key, ""))
        if own is not None:
            mask = kept.blocked.copy()
            mask[own] = self._is_blocked(pod, self.rivals(pod, nodes.names[own]), own, filters)
            return mask
        return kept.blocked

    def _touch(self, node: str) -> None:
        row = self._nodes.row_of.get(node)
        if row is not None:
            self._nodes.changes.append(row)

    def _beside(self, pod: PodInfo, row: int) -> list[PodInfo]:
        return [p for p in self._on.get(self._nodes.names[row], {}).values() if p.priority >= pod.priority]

    def _is_blocked(self, pod: PodInfo, rivals: list[PodInfo], row: int, filters: Iterable[FilterPlugin]) -> bool:
        if not rivals:
            return False
        if not fits_beside(pod.needs, [p.needs for p in rivals], self._nodes, row):
            return True
        if pod.needs.terms == NO_TERMS and all(p.needs.terms == NO_TERMS for p in rivals):
            return False
        # Rules about other pods: see what they say with the others in place.
        seen = len(self._nodes.changes)
        for rival in rivals:
            self._nodes.add_pod(row, rival.needs)
        rows = np.array([row], np.intp)
        fits = all(not f.is_needed(pod, self._nodes) or bool(f.filter(pod, self._nodes, rows)[0]) for f in filters)
        for rival in rivals:
            self._nodes.add_pod(row, rival.needs, sign=-1)
        # The row is as it was: nobody needs to look.
        del self._nodes.changes[seen:]
        return not fits


def short_of(needs: Needs, others: Iterable[Needs], nodes: Columns, row: int) -> list[str]:
    """Resources of which a row has too little for a pod beside others."""
    taken: dict[str, int] = {}
    for other in others:
        for resource, value in other.requests:
            taken[resource] = taken.get(resource, 0) + value
    found = []
    for resource, value in needs.requests:
        index = nodes.resource(resource)
        free = int(nodes.capacity[index, row]) - int(nodes.requested[index, row]) - taken.get(resource, 0)
        if free < value:
            found.append("Too many pods" if resource == PODS else f"Insufficient {resource}")
    return found


def fits_beside(needs: Needs, others: Iterable[Needs], nodes: Columns, row: int) -> bool:
    """Whether a row has resources and ports for a pod beside others that are not counted there yet."""
    others = list(others)
    if short_of(needs, others, nodes, row):
        return False
    return not any(clash(port, other_port) for port in needs.ports for other in others for other_port in other.ports)


def clash(port: tuple[str, str, int], other: tuple[str, str, int]) -> bool:
    """Whether two host ports can't be had side by side; every address clashes with each single one."""
    return (port[0], port[2]) == (other[0], other[2]) and (port[1] == other[1] or "0.0.0.0" in (port[1], other[1]))
