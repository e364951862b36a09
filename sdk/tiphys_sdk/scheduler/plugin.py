"""A scheduler plugin as two numpy functions over all nodes at once.

class PreferFastDisks(SchedulerPlugin):
    name = "PreferFastDisks"
    labels = ("disk",)

    def score(self, pod, nodes):
        return np.where(nodes.has("disk", "nvme"), 100, 0)

asyncio.run(serve(PreferFastDisks(), "unix:///run/prefer-fast-disks.sock"))
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from tiphys.api.core.v1.pod_pb2 import Pod

Mask = NDArray[np.bool_]
Amounts = NDArray[np.int64]


class Normalization(Enum):
    """How raw scores become 0 to 100: they are already, the highest becomes 100, or the highest becomes 0."""

    NONE = 0
    HIGHEST = 1
    REVERSED = 2


@dataclass(frozen=True, slots=True)
class Label:
    """One label of all nodes: each value once, and for each node the index of its value, -1 without the label."""

    values: Sequence[str]
    indexes: NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Nodes:
    """Nodes as columns of equal length. CPU is in millis, everything else in whole units."""

    names: Sequence[str]
    capacity: Mapping[str, Amounts]
    requested: Mapping[str, Amounts]
    labels: Mapping[str, Label]

    def __len__(self) -> int:
        return len(self.names)

    def has(self, label: str, value: str | None = None) -> Mask:
        """Nodes with a label, or with one value of it."""
        column = self.labels[label]
        if value is None:
            found: Mask = column.indexes >= 0
            return found
        if value not in column.values:
            return np.zeros(len(self), np.bool_)
        same: Mask = column.indexes == list(column.values).index(value)
        return same

    def free(self, resource: str) -> Amounts:
        """What is left of a resource; for plugins that look at requests."""
        left: Amounts = self.capacity[resource] - self.requested[resource]
        return left


class SchedulerPlugin:
    """Override `filter`, `score` or both. They are asked once for all equal pods, and again for nodes that change.

    The answer for a node may depend on the pod and on this node's columns only. labels and resources are the columns
    that are sent; with looks_at_requests what pods request is sent too, and asked again as nodes fill.
    """

    name = ""
    labels: Sequence[str] = ()
    resources: Sequence[str] = ()
    looks_at_requests = False
    normalization = Normalization.NONE
    # Why nodes are refused, as users read it.
    reason = ""

    def filter(self, pod: Pod, nodes: Nodes) -> Mask:
        """True where the pod may go."""
        return np.ones(len(nodes), np.bool_)

    def score(self, pod: Pod, nodes: Nodes) -> Amounts:
        """How good each node is."""
        return np.zeros(len(nodes), np.int64)
