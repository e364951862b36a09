"""The nodes of the cluster as columns: one numpy array a fact, one row a node.

Plugins compute over all rows at once. Rows are handed out as nodes come and used again when they
go; `present` says which count. Whatever changes a row notes it in `changes`, so that a class of
pods brings only those rows up to date: the row where pods came or went, its complement (~row) where
the node itself changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from tiphys.api.core.v1.node_pb2 import Node
from tiphys_scheduler.images import Images
from tiphys_scheduler.pod_groups import PodGroups
from tiphys_scheduler.pod_info import CPU, MEMORY, PODS, STORAGE, Needs, Port, amount
from tiphys_scheduler.pod_volumes import Disk
from tiphys_scheduler.topology import NOWHERE, Topology

Mask = NDArray[np.bool_]
Amounts = NDArray[np.int64]
# All rows, or the rows of an index array.
Rows = slice | NDArray[np.intp]
ALL_ROWS = slice(None)

Taint = tuple[str, str, str]
_Kind = TypeVar("_Kind", bound=np.generic)
_Key = TypeVar("_Key", Port, Disk)
_FIRST_RESOURCES = (CPU, MEMORY, STORAGE, PODS)
_FIRST_ROWS = 64


@dataclass(frozen=True, slots=True)
class _Facts:
    """What of a node matters to placing, as it was last said."""

    unschedulable: bool
    labels: Mapping[str, str]
    taints: Sequence[Taint]
    capacity: Mapping[str, int]


_NO_FACTS = _Facts(unschedulable=False, labels={}, taints=(), capacity={})


def _facts(node: Node) -> _Facts:
    return _Facts(
        node.spec.unschedulable,
        dict(node.metadata.labels),
        [(t.key, t.value, t.effect) for t in node.spec.taints],
        {resource: amount(resource, quantity.string) for resource, quantity in node.status.allocatable.items()},
    )


class Columns:
    """Facts of nodes and what is requested on them. Not thread-safe; the scheduler's loop owns it."""

    def __init__(self) -> None:
        self._rows = _FIRST_ROWS
        self.names: list[str] = [""] * self._rows
        self.row_of: dict[str, int] = {}
        self._free = list(range(self._rows - 1, -1, -1))
        self.resources: dict[str, int] = {name: i for i, name in enumerate(_FIRST_RESOURCES)}
        self.capacity: Amounts = np.zeros((len(self.resources), self._rows), np.int64)
        self.requested: Amounts = np.zeros((len(self.resources), self._rows), np.int64)
        # CPU millis and memory bytes as scoring counts them.
        self.scored: Amounts = np.zeros((2, self._rows), np.int64)
        self.present: Mask = np.zeros(self._rows, np.bool_)
        self.unschedulable: Mask = np.zeros(self._rows, np.bool_)
        # What was last said of each row.
        self._facts: list[_Facts] = [_NO_FACTS] * self._rows
        self.taints: dict[Taint, Mask] = {}
        self.ports: dict[Port, NDArray[np.int32]] = {}
        self.disks: dict[Disk, NDArray[np.int32]] = {}
        # How many pods of a kind are where, and what value of each label which rows have.
        self.groups = PodGroups(self._rows, self.forget_changes)
        self._topologies: dict[str, Topology] = {}
        self.images = Images(self._rows)
        self.changes: list[int] = []
        # Rises when rows are added: arrays are then new ones, and whoever kept some starts afresh.
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.row_of)

    @property
    def rows(self) -> int:
        """Length of every column, counting free rows."""
        return self._rows

    def set_node(self, node: Node) -> bool:
        """Adds or updates a node; True where anything that matters to placing changed."""
        name = node.metadata.name
        row = self.row_of.get(name)
        if row is None:
            row = self._take_row(name)
        self.images.set(row, {name: image.sizeBytes for image in node.status.images for name in image.names})
        facts = _facts(node)
        if self.present[row] and facts == self._facts[row]:
            return False
        self._facts[row] = facts
        self.unschedulable[row] = facts.unschedulable
        for resource, value in facts.capacity.items():
            index = self.resource(resource)
            self.capacity[index, row] = value
        for resource, index in self.resources.items():
            if resource not in facts.capacity:
                self.capacity[index, row] = 0
        self._set_labels(row, facts.labels)
        self._set_taints(row, facts.taints)
        self.present[row] = True
        self.changes.append(~row)
        return True

    def remove_node(self, name: str) -> None:
        """Removes a node; what pods requested on it is forgotten with it."""
        row = self.row_of.pop(name, None)
        if row is None:
            return
        for column in (self.capacity, self.requested, self.scored):
            column[:, row] = 0
        self.present[row] = self.unschedulable[row] = False
        self._set_labels(row, {})
        self._set_taints(row, [])
        for counts in (*self.ports.values(), *self.disks.values()):
            counts[row] = 0
        self.groups.clear_row(row)
        self.images.set(row, {})
        self.names[row] = ""
        self._facts[row] = _NO_FACTS
        self._free.append(row)
        self.changes.append(~row)

    def add_pod(self, row: int, needs: Needs, *, sign: int = 1) -> None:
        """Counts a pod on a row; sign -1 takes it away."""
        for resource, value in needs.requests:
            # First, since a resource not seen before makes the columns anew.
            index = self.resource(resource)
            self.requested[index, row] += sign * value
        self.scored[0, row] += sign * needs.scored[0]
        self.scored[1, row] += sign * needs.scored[1]
        for port in needs.ports:
            self._count(self.ports, port, row, sign)
        for disk in needs.disks:
            self._count(self.disks, disk, row, sign)
        self.groups.add(row, needs.identity, needs.terms, sign)
        self.changes.append(row)

    def resource(self, name: str) -> int:
        """Index of a resource; one not seen before gets an empty column."""
        found = self.resources.get(name)
        if found is None:
            found = self.resources[name] = len(self.resources)
            empty = np.zeros((1, self._rows), np.int64)
            self.capacity = np.concatenate([self.capacity, empty])
            self.requested = np.concatenate([self.requested, empty])
        return found

    def has_pair(self, key: str, value: str) -> Mask:
        """Rows whose label has that value."""
        return self.topology(key).rows_with(value)

    def has_key(self, key: str) -> Mask:
        """Rows that have the label."""
        found: Mask = self.topology(key).domain != NOWHERE
        return found

    def labels(self, row: int) -> Mapping[str, str]:
        """The labels of the node of a row."""
        return self._facts[row].labels

    def taints_of(self, row: int) -> Sequence[Taint]:
        """The taints of the node of a row, as it lists them."""
        return self._facts[row].taints

    def topology(self, key: str) -> Topology:
        """Which rows have the same value of a label; kept up to date until a node changes."""
        return self._topologies.get(key) or Topology(self._rows)

    def set_namespace(self, name: str, labels: Mapping[str, str] | None) -> bool:
        """Labels of a namespace, None when it is gone; True where they changed."""
        return self.groups.set_namespace(name, labels)

    def forget_changes(self) -> None:
        """Shortens the note of changes; whoever kept a place in it starts afresh."""
        self.changes.clear()
        self.epoch += 1

    def _take_row(self, name: str) -> int:
        if not self._free:
            self._grow()
        row = self._free.pop()
        self.row_of[name] = row
        self.names[row] = name
        return row

    def _grow(self) -> None:
        """Doubles every column."""
        more = self._rows

        def wider(column: NDArray[_Kind]) -> NDArray[_Kind]:
            return np.pad(column, [(0, 0)] * (column.ndim - 1) + [(0, more)])

        self.capacity, self.requested, self.scored = map(wider, (self.capacity, self.requested, self.scored))
        self.present, self.unschedulable = wider(self.present), wider(self.unschedulable)
        self.taints = {key: wider(column) for key, column in self.taints.items()}
        self.ports = {key: wider(counts) for key, counts in self.ports.items()}
        self.disks = {key: wider(counts) for key, counts in self.disks.items()}
        self.names += [""] * more
        self._facts += [_NO_FACTS] * more
        self._free = list(range(self._rows + more - 1, self._rows - 1, -1))
        self._rows += more
        self.groups.grow(self._rows)
        self.images.grow(self._rows)
        for topology in self._topologies.values():
            topology.grow(self._rows)
        self.forget_changes()

    def _set_labels(self, row: int, labels: Mapping[str, str]) -> None:
        for key, value in labels.items():
            topology = self._topologies.get(key)
            if topology is None:
                topology = self._topologies[key] = Topology(self._rows)
            topology.set(row, value)
        for key, topology in self._topologies.items():
            if key not in labels:
                topology.set(row, None)

    def _set_taints(self, row: int, taints: Iterable[Taint]) -> None:
        for mask in self.taints.values():
            mask[row] = False
        for taint in taints:
            self._column(self.taints, taint)[row] = True

    def _count(self, table: dict[_Key, NDArray[np.int32]], key: _Key, row: int, sign: int) -> None:
        counts = table.get(key)
        if counts is None:
            counts = table[key] = np.zeros(self._rows, np.int32)
        counts[row] += sign
        if sign < 0 and not counts.any():
            # Each disk is another one, so columns that nobody needs would grow without end.
            del table[key]

    def _column(self, table: dict, key: object) -> Mask:  # type: ignore[type-arg]  # tables of any key
        found: Mask | None = table.get(key)
        if found is None:
            found = table[key] = np.zeros(self._rows, np.bool_)
        return found
