"""What a plugin is. Kubernetes' names for the points; columns instead of one node at a time.

A plugin has only the points it needs. All of them are pure: same pod and columns, same answer.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tiphys_scheduler.columns import Columns, Mask, Rows
from tiphys_scheduler.pod_info import PodInfo

Scores = NDArray[np.int64]
MAX_SCORE = 100


class Event(Enum):
    """What may make a pod fit that did not fit before."""

    NODE_ADDED = auto()
    NODE_LABELS = auto()
    NODE_TAINTS = auto()
    NODE_CAPACITY = auto()
    POD_DELETED = auto()
    POD_CHANGED = auto()
    CLAIM = auto()
    VOLUME = auto()
    STORAGE_CLASS = auto()
    CSI_NODE = auto()


class Normalize(Enum):
    """How a plugin's raw scores become 0 to 100: not at all, most is best, or most is worst."""

    NONE = auto()
    HIGHEST = auto()
    REVERSED = auto()


class Plugin(Protocol):
    """Every plugin has its Kubernetes name, and the events after which a pod that it refused is tried again."""

    name: str
    events: frozenset[Event]


class PreFilterPlugin(Plugin, Protocol):
    """Says that a pod can go nowhere, whatever the nodes are like. Asked only of pods with claims."""

    def pre_filter(self, pod: PodInfo) -> str:
        """Why not, in Kubernetes' words; empty where nodes are to be looked at."""
        ...


class FilterPlugin(Plugin, Protocol):
    """Says where a pod can't go."""

    def is_needed(self, pod: PodInfo, nodes: Columns) -> bool:
        """False where every node passes without a look."""
        ...

    def filter(self, pod: PodInfo, nodes: Columns, rows: Rows) -> Mask:
        """True where the pod may go, for each of the rows."""
        ...

    def reasons(self, pod: PodInfo, nodes: Columns, row: int) -> tuple[str, ...]:
        """Why a refused row was refused, in Kubernetes' words."""
        ...


class ScorePlugin(Plugin, Protocol):
    """Says how good each node is."""

    normalize: Normalize

    def score(self, pod: PodInfo, nodes: Columns, rows: Rows) -> Scores:
        """Raw scores for each of the rows; 0 to 100 where nothing is normalized."""
        ...
