"""Taints of nodes and what pods tolerate; pure.

Source: kubernetes pkg/controller/nodelifecycle/node_lifecycle_controller.go and component-helpers scheduling/corev1.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from tiphys_controller_manager.pods import Toleration

NOT_READY: Final = "node.kubernetes.io/not-ready"
UNREACHABLE: Final = "node.kubernetes.io/unreachable"
UNSCHEDULABLE: Final = "node.kubernetes.io/unschedulable"
OUT_OF_SERVICE: Final = "node.kubernetes.io/out-of-service"
NO_SCHEDULE: Final = "NoSchedule"
NO_EXECUTE: Final = "NoExecute"
# The taint of each other condition while it is True.
CONDITION_TAINTS: Final = {
    "MemoryPressure": "node.kubernetes.io/memory-pressure",
    "DiskPressure": "node.kubernetes.io/disk-pressure",
    "PIDPressure": "node.kubernetes.io/pid-pressure",
    "NetworkUnavailable": "node.kubernetes.io/network-unavailable",
}


@dataclass(frozen=True, slots=True)
class Taint:
    """One taint; since is when it was put on, in seconds since the epoch."""

    key: str
    value: str
    effect: str
    since: float = 0.0


def tolerates(toleration: Toleration, taint: Taint) -> bool:
    """Whether the toleration covers the taint, for however long."""
    if toleration.effect and toleration.effect != taint.effect:
        return False
    if toleration.key and toleration.key != taint.key:
        return False
    if toleration.operator == "Exists":
        return True
    return bool(toleration.key) and toleration.value == taint.value


def eviction_due(tolerations: Sequence[Toleration], taints: Iterable[Taint]) -> float | None:
    """When a pod must leave a node that has these NoExecute taints: 0 for at once, None for never.

    Each taint is borne for the shortest time that a toleration covering it names, from when it was put on.
    """
    due: float | None = None
    for taint in taints:
        covering = [toleration for toleration in tolerations if tolerates(toleration, taint)]
        if not covering:
            return 0.0
        times = [toleration.seconds for toleration in covering if toleration.seconds is not None]
        if times:
            ends = 0.0 if min(times) <= 0 else taint.since + min(times)
            due = ends if due is None else min(due, ends)
    return due
