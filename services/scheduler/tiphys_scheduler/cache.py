"""Which pods are where: bound pods as the API says, and assumed ones that are on their way there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tiphys.api.core.v1.node_pb2 import Node
from tiphys_scheduler.columns import Columns
from tiphys_scheduler.framework.interface import Event
from tiphys_scheduler.pod_info import PodInfo
from tiphys_scheduler.volumes import Volumes


@dataclass(slots=True)
class _Placed:
    pod: PodInfo
    node: str
    is_assumed: bool


class Cache:
    """Keeps the columns true. A pod counts once, whatever order assume, bind and watch events come in."""

    def __init__(self, columns: Columns, volumes: Volumes | None = None) -> None:
        self.columns = columns
        self._volumes = volumes or Volumes()
        self._placed: dict[str, _Placed] = {}
        # Pods of nodes that are not known (yet): counted when the node appears.
        self._by_node: dict[str, dict[str, _Placed]] = {}

    def node_of(self, key: str) -> str:
        """Node that a pod is placed or assumed on; empty without."""
        placed = self._placed.get(key)
        return placed.node if placed else ""

    def pod_of(self, key: str) -> PodInfo | None:
        """A pod that is placed or assumed, as it was seen last."""
        placed = self._placed.get(key)
        return placed.pod if placed else None

    def pods_on(self, node: str) -> list[PodInfo]:
        """Pods that are placed or assumed on a node."""
        return [placed.pod for placed in self._by_node.get(node, {}).values()]

    def __len__(self) -> int:
        return len(self._placed)

    def assumed(self) -> int:
        """How many pods are counted that the API has not said to be bound."""
        return sum(placed.is_assumed for placed in self._placed.values())

    def placed(self) -> Iterator[PodInfo]:
        """All pods that have a place, in the order in which they got it."""
        return (placed.pod for placed in self._placed.values())

    def assume(self, pod: PodInfo, node: str) -> None:
        """Counts a pod that is about to be bound."""
        self._place(_Placed(pod, node, is_assumed=True))

    def forget(self, pod: PodInfo) -> None:
        """Takes an assumption back; a pod that the API has bound meanwhile stays."""
        placed = self._placed.get(pod.key)
        if placed is not None and placed.is_assumed and placed.pod.uid == pod.uid:
            self._take(pod.key)

    def set_pod(self, pod: PodInfo) -> bool:
        """A bound pod as the API says; True where room became free by it."""
        placed = self._placed.get(pod.key)
        if pod.is_finished or not pod.node:
            return self.remove_pod(pod.key)
        if (
            placed is not None
            and placed.node == pod.node
            and (placed.pod.needs is pod.needs or placed.pod.needs == pod.needs)
        ):
            placed.pod, placed.is_assumed = pod, False
            return False
        had_place = placed is not None
        self._place(_Placed(pod, pod.node, is_assumed=False))
        return had_place

    def remove_pod(self, key: str) -> bool:
        """A pod that is gone or finished; True where it had a place. An assumed one is the binder's to forget."""
        placed = self._placed.get(key)
        if placed is None:
            return False
        self._take(key)
        return True

    def set_node(self, node: Node) -> frozenset[Event]:
        """Adds or updates a node; says what pods may profit from."""
        name = node.metadata.name
        known = name in self.columns.row_of
        changed = self.columns.set_node(node)
        if not known:
            row = self.columns.row_of[name]
            for placed in self._by_node.get(name, {}).values():
                self.columns.add_pod(row, placed.pod.needs)
            return frozenset({Event.NODE_ADDED})
        if not changed:
            return frozenset()
        return frozenset({Event.NODE_LABELS, Event.NODE_TAINTS, Event.NODE_CAPACITY})

    def remove_node(self, name: str) -> None:
        """A node that is gone; its pods are kept in mind until they go too."""
        self.columns.remove_node(name)

    def _place(self, placed: _Placed) -> None:
        self._take(placed.pod.key)
        self._placed[placed.pod.key] = placed
        self._by_node.setdefault(placed.node, {})[placed.pod.key] = placed
        self._volumes.use(placed.pod.key, placed.node, placed.pod.needs.claims)
        row = self.columns.row_of.get(placed.node)
        if row is not None:
            self.columns.add_pod(row, placed.pod.needs)

    def _take(self, key: str) -> None:
        placed = self._placed.pop(key, None)
        if placed is None:
            return
        self._volumes.leave(key, placed.node, placed.pod.needs.claims)
        on_node = self._by_node[placed.node]
        del on_node[key]
        if not on_node:
            del self._by_node[placed.node]
        row = self.columns.row_of.get(placed.node)
        if row is not None:
            self.columns.add_pod(row, placed.pod.needs, sign=-1)
