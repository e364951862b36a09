"""What a plugin is. Kubernetes' names for the points; columns instead of one node at a time.

A plugin has only the points it needs. Those up to the choice of a node (PreEnqueue, QueueSort, PreFilter, Filter,
PreScore, Score) are pure: same pod and columns, same answer. Order of the points in the life of a pod:
PreEnqueue, QueueSort, PreFilter, Filter, then either PostFilter (no node fits), or PreScore, Score, Normalize,
Reserve, Permit, PreBind, Bind, PostBind. Unreserve undoes Reserve where a later point fails.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from tiphys_scheduler.columns import Columns, Mask, Rows
from tiphys_scheduler.framework.status import FitError
from tiphys_scheduler.pod_info import PodInfo

Scores = NDArray[np.int64]
MAX_SCORE = 100


class Event(Enum):
    """What may make a pod fit that did not fit before."""

    NODE_ADDED = auto()
    NODE_REMOVED = auto()
    NODE_LABELS = auto()
    NODE_TAINTS = auto()
    NODE_CAPACITY = auto()
    # A pod got a node.
    POD_ADDED = auto()
    POD_DELETED = auto()
    POD_CHANGED = auto()
    CLAIM = auto()
    VOLUME = auto()
    STORAGE_CLASS = auto()
    CSI_NODE = auto()
    CSI_DRIVER = auto()
    # Room for volumes was told, or is more than before.
    STORAGE_CAPACITY = auto()
    # What nodes were measured to use.
    USE = auto()
    # Labels of a namespace.
    NAMESPACE = auto()
    # Devices of a claim are free again.
    RESOURCE_CLAIM = auto()
    RESOURCE_SLICE = auto()
    DEVICE_CLASS = auto()

    @property
    def told(self) -> str:
        """The name of it in metrics."""
        return _TOLD[self]


# Source: kube-scheduler pkg/scheduler/framework/events.go; what it does not know is named alike.
_TOLD = {
    Event.NODE_ADDED: "NodeAdd",
    Event.NODE_REMOVED: "NodeDelete",
    Event.NODE_LABELS: "NodeLabelChange",
    Event.NODE_TAINTS: "NodeTaintChange",
    Event.NODE_CAPACITY: "NodeAllocatableChange",
    Event.POD_ADDED: "AssignedPodAdd",
    Event.POD_DELETED: "AssignedPodDelete",
    Event.POD_CHANGED: "AssignedPodUpdate",
    Event.CLAIM: "PersistentVolumeClaimUpdate",
    Event.VOLUME: "PersistentVolumeUpdate",
    Event.STORAGE_CLASS: "StorageClassUpdate",
    Event.CSI_NODE: "CSINodeUpdate",
    Event.CSI_DRIVER: "CSIDriverUpdate",
    Event.STORAGE_CAPACITY: "CSIStorageCapacityUpdate",
    Event.USE: "NodeUseMeasured",
    Event.NAMESPACE: "NamespaceUpdate",
    Event.RESOURCE_CLAIM: "ResourceClaimUpdate",
    Event.RESOURCE_SLICE: "ResourceSliceUpdate",
    Event.DEVICE_CLASS: "DeviceClassUpdate",
}


class Normalize(Enum):
    """How a plugin's raw scores become 0 to 100: not at all, most is best, or most is worst."""

    NONE = auto()
    HIGHEST = auto()
    REVERSED = auto()


class Plugin(Protocol):
    """Every plugin has its Kubernetes name, and the events after which a pod that it refused is tried again."""

    name: str
    events: frozenset[Event]


def concerns(plugin: Plugin, pod: PodInfo) -> bool:
    """Whether a plugin has anything to do for a pod once its node is chosen; one that doesn't say is always asked."""
    asked = getattr(plugin, "concerns", None)
    return asked is None or bool(asked(pod))


class PreFilterPlugin(Plugin, Protocol):
    """Says that a pod can go nowhere, whatever the nodes are like. Asked of every pod, so it must be quick."""

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


@runtime_checkable
class CountingPlugin(Protocol):
    """A filter that says its reasons for all rows at once; without this each refused row is asked for its own."""

    def reason_masks(self, pod: PodInfo, nodes: Columns) -> Sequence[tuple[str, Mask]]:
        """Each reason with the rows that it is said of; rows that pass are in none."""
        ...


class ScorePlugin(Plugin, Protocol):
    """Says how good each node is."""

    normalize: Normalize

    def score(self, pod: PodInfo, nodes: Columns, rows: Rows) -> Scores:
        """Raw scores for each of the rows; 0 to 100 where nothing is normalized."""
        ...


@runtime_checkable
class NodePlugin(Protocol):
    """A filter or score that looks at nodes alone, not at their pods; it is asked again only when a node changes."""

    looks_at_nodes_alone: bool


@runtime_checkable
class RowFilterPlugin(Protocol):
    """A filter that also judges a single row, which it does quicker than an array of one."""

    def passes(self, pod: PodInfo, nodes: Columns, row: int) -> bool:
        """What `filter` says of the row."""
        ...


@runtime_checkable
class RowScorePlugin(Protocol):
    """A score that is also given for a single row, quicker than for an array of one."""

    def score_row(self, pod: PodInfo, nodes: Columns, row: int) -> int:
        """What `score` says of the row."""
        ...


class Relation(Protocol):
    """What a plugin keeps for a class of pods where one pod that is placed changes its verdict on many nodes."""

    # Rows that are not refused; None refuses none.
    mask: Mask | None

    def update(self, rows: NDArray[np.intp]) -> NDArray[np.intp]:
        """Takes in that pods came or went on these rows; returns the rows on which the mask changed by it."""
        ...

    def scores(self, feasible: Mask) -> Scores | None:
        """0 to 100 for every row, meant for the feasible ones; None where all are equal and count nothing.

        Whoever returns the same array as before says that nothing in it changed.
        """
        ...


@runtime_checkable
class RelationPlugin(Protocol):
    """A filter and score about pods and where other pods are. It replaces the points filter and score for a class."""

    name: str

    def relate(self, pod: PodInfo, nodes: Columns) -> Relation | None:
        """What to keep for pods like this one; None where the plugin says nothing of them."""
        ...

    def related(self, pod: PodInfo, nodes: Columns) -> object:
        """What a relation hangs on beside pods by row: when this is another value, relate is asked again."""
        ...


class PreEnqueuePlugin(Plugin, Protocol):
    """Holds pods back before they are tried; one that is held costs nothing but memory."""

    def pre_enqueue(self, pod: PodInfo) -> str:
        """Why the pod waits outside; empty lets it in. Asked again when the pod changes, or at one of `events`."""
        ...


class QueueSortPlugin(Plugin, Protocol):
    """Says which waiting pod is tried first. A scheduler has exactly one."""

    def sort_key(self, pod: PodInfo, order: int) -> tuple[float, ...]:
        """The smallest goes first; order counts up as pods come."""
        ...


class PostFilterPlugin(Plugin, Protocol):
    """Makes room for a pod that fits nowhere."""

    def post_filter(self, pod: PodInfo, error: FitError) -> PostFilterResult:
        """What was done about it. Never waits: writes happen later."""
        ...


@dataclass(frozen=True, slots=True)
class PostFilterResult:
    """node is the one on which room is being made, empty without; message says why none is."""

    node: str = ""
    message: str = ""


class PreScorePlugin(Plugin, Protocol):
    """Hears which rows are to be scored, before any is."""

    def pre_score(self, pod: PodInfo, nodes: Columns, rows: Rows) -> None:
        """Takes note of what scoring will need."""
        ...


@runtime_checkable
class NormalizePlugin(Plugin, Protocol):
    """A scoring plugin that brings its scores to 0 to 100 itself, instead of by `normalize`."""

    def normalize_scores(self, pod: PodInfo, scores: Scores) -> Scores:
        """Final scores of the feasible rows, from the raw scores of these."""
        ...


class ReservePlugin(Plugin, Protocol):
    """Keeps what a pod will use on its node until it is bound."""

    def reserve(self, pod: PodInfo, node: str) -> str:
        """Takes it; a text says why it can't be had."""
        ...

    def unreserve(self, pod: PodInfo, node: str) -> None:
        """Gives it back; called also where reserve failed or never was called, and may be repeated."""
        ...


@dataclass(frozen=True, slots=True)
class Permission:
    """Go on (neither is set), refused with a reason, or wait so long for somebody to allow it."""

    refusal: str = ""
    wait_s: float = 0.0


class PermitPlugin(Plugin, Protocol):
    """The last who may stop a pod, or have it wait, before anything is written."""

    def permit(self, pod: PodInfo, node: str) -> Permission:
        """Whether to bind now."""
        ...


class PreBindPlugin(Plugin, Protocol):
    """Work that must be done before a pod is bound."""

    async def pre_bind(self, pod: PodInfo, node: str) -> str:
        """Does it; a text says why it failed."""
        ...


class BindPlugin(Plugin, Protocol):
    """Binds pods of some kind itself, instead of the batches of the default binder."""

    def is_mine(self, pod: PodInfo) -> bool:
        """False leaves the pod to the next."""
        ...

    async def bind(self, pod: PodInfo, node: str) -> str:
        """Writes the binding; a text says why it failed."""
        ...


class PostBindPlugin(Plugin, Protocol):
    """Hears of pods that are bound."""

    def post_bind(self, pod: PodInfo, node: str) -> None:
        """Cleans up, or counts."""
        ...


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that happened. node names the node it happened on; empty where it is no node's.

    subject is the storage class that it is about; empty where it is about none, or any.
    """

    event: Event
    node: str = ""
    pod: PodInfo | None = None
    subject: str = ""


@runtime_checkable
class HintPlugin(Plugin, Protocol):
    """Says more exactly than `events` whether a change may help a pod that the plugin refused."""

    def is_helped(self, pod: PodInfo, change: Change, nodes: Columns) -> bool:
        """False leaves the pod where it waits. The columns have the change already."""
        ...
