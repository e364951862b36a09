"""What a node's conditions and heartbeats mean: its taints, and when it counts as lost; pure.

Source: kubernetes pkg/controller/nodelifecycle/node_lifecycle_controller.go.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from tiphys.api.core.v1 import node_pb2, scheduling_pb2
from tiphys.api.meta.v1 import meta_pb2
from tiphys_apimachinery.meta import find_condition
from tiphys_controller_manager.taints import (
    CONDITION_TAINTS,
    NO_EXECUTE,
    NO_SCHEDULE,
    NOT_READY,
    UNREACHABLE,
    UNSCHEDULABLE,
)

# The taints that are ours to put on and to take off.
_NO_SCHEDULE_KEYS: Final = frozenset([NOT_READY, UNREACHABLE, UNSCHEDULABLE, *CONDITION_TAINTS.values()])
_NO_EXECUTE_KEYS: Final = frozenset([NOT_READY, UNREACHABLE])
# Conditions that nobody knows any more once the kubelet is silent.
_KUBELET_CONDITIONS: Final = ("Ready", "MemoryPressure", "DiskPressure", "PIDPressure")
# Fewer lost nodes than this never make a zone unhealthy.
_FEW_NODES: Final = 2


class Zone(Enum):
    """How a zone is."""

    NORMAL = "Normal"
    PARTIAL = "PartialDisruption"
    FULL = "FullDisruption"


@dataclass(frozen=True, slots=True)
class Rates:
    """How fast nodes may lose their pods, in nodes a second."""

    normal: float
    secondary: float
    large_cluster: int


def ready_status(node: node_pb2.Node) -> str:
    """True, False or Unknown; empty when the kubelet has said nothing yet."""
    condition: Any = find_condition(node.status.conditions, "Ready")
    return str(condition.status) if condition is not None else ""


def no_schedule_keys(node: node_pb2.Node) -> set[str]:
    """The taints with effect NoSchedule that the node should have of ours."""
    keys = {
        CONDITION_TAINTS[condition.type]
        for condition in node.status.conditions
        if condition.status == "True" and condition.type in CONDITION_TAINTS
    }
    ready = ready_status(node)
    if ready == "Unknown":
        keys.add(UNREACHABLE)
    elif ready != "True":
        # Also a node that has said nothing: it can't be used yet.
        keys.add(NOT_READY)
    if node.spec.unschedulable:
        keys.add(UNSCHEDULABLE)
    return keys


def no_execute_key(node: node_pb2.Node) -> str:
    """The taint with effect NoExecute that the node's readiness asks for; empty for none."""
    return {"Unknown": UNREACHABLE, "False": NOT_READY}.get(ready_status(node), "")


def has_no_execute(node: node_pb2.Node, key: str) -> bool:
    """Whether the node has one of our taints with effect NoExecute."""
    return any(taint.key == key and taint.effect == NO_EXECUTE for taint in node.spec.taints)


def taints_for(node: node_pb2.Node, *, execute: str, now: meta_pb2.Time) -> list[scheduling_pb2.Taint] | None:
    """The node's whole list of taints, those of others untouched; None when it is right already.

    execute is the key of the NoExecute taint to have, empty for none.
    """
    wanted = {(key, NO_SCHEDULE) for key in no_schedule_keys(node)}
    if execute:
        wanted.add((execute, NO_EXECUTE))
    kept = [taint for taint in node.spec.taints if not _is_ours(taint) or (taint.key, taint.effect) in wanted]
    missing = sorted(wanted - {(taint.key, taint.effect) for taint in kept})
    if not missing and len(kept) == len(node.spec.taints):
        return None
    return [*kept, *(scheduling_pb2.Taint(key=key, effect=effect, timeAdded=now) for key, effect in missing)]


def mark_unknown(node: node_pb2.Node, now: meta_pb2.Time) -> bool:
    """Turn the kubelet's conditions to Unknown; whether anything changed."""
    changed = False
    for kind in _KUBELET_CONDITIONS:
        condition: Any = find_condition(node.status.conditions, kind)
        if condition is None:
            node.status.conditions.add(
                type=kind,
                status="Unknown",
                reason="NodeStatusNeverUpdated",
                message="Kubelet never posted node status.",
                lastHeartbeatTime=node.metadata.creationTimestamp,
                lastTransitionTime=now,
            )
            changed = True
        elif condition.status != "Unknown":
            condition.status = "Unknown"
            condition.reason = "NodeStatusUnknown"
            condition.message = "Kubelet stopped posting node status."
            condition.lastTransitionTime.CopyFrom(now)
            changed = True
    return changed


def heartbeat_of(node: node_pb2.Node) -> tuple[int, int]:
    """What changes when the kubelet writes the node's status."""
    condition: Any = find_condition(node.status.conditions, "Ready")
    if condition is None:
        return (0, 0)
    return (condition.lastHeartbeatTime.seconds, condition.lastHeartbeatTime.nanos)


def zone_state(ready: int, lost: int, unhealthy_share: float) -> Zone:
    """How a zone with so many ready and lost nodes is."""
    if ready == 0 and lost > 0:
        return Zone.FULL
    if lost > _FEW_NODES and lost / (lost + ready) >= unhealthy_share:
        return Zone.PARTIAL
    return Zone.NORMAL


def eviction_rate(state: Zone, size: int, rates: Rates) -> float:
    """Nodes a second of a zone that may get a NoExecute taint. A zone that is lost whole is emptied like any other."""
    if state is Zone.PARTIAL:
        return rates.secondary if size > rates.large_cluster else 0.0
    return rates.normal


class Census:
    """Ready and lost nodes of each zone, kept as nodes come, change and go."""

    def __init__(self, unhealthy_share: float) -> None:
        self._unhealthy_share = unhealthy_share
        self._nodes: dict[str, tuple[str, bool]] = {}
        # The counts of a zone are those of its nodes: ready, lost. No zone without nodes is kept.
        self._zones: dict[str, tuple[int, int]] = {}

    def put(self, node: str, zone: str, *, is_ready: bool) -> None:
        """A node is in this zone, ready or not."""
        self.drop(node)
        self._nodes[node] = (zone, is_ready)
        self._count(zone, is_ready, 1)

    def drop(self, node: str) -> None:
        """A node is gone."""
        known = self._nodes.pop(node, None)
        if known is not None:
            self._count(*known, -1)

    def zone(self, node: str) -> str:
        """The zone of a node."""
        return self._nodes[node][0]

    def size(self, zone: str) -> int:
        """How many nodes a zone has."""
        return sum(self._zones.get(zone, (0, 0)))

    def state(self, zone: str) -> Zone:
        """How a zone is."""
        return zone_state(*self._zones.get(zone, (0, 0)), self._unhealthy_share)

    def states(self) -> dict[str, Zone]:
        """How every zone is."""
        return {zone: self.state(zone) for zone in self._zones}

    def counts(self) -> dict[str, tuple[int, int]]:
        """For every zone its ready and its lost nodes."""
        return dict(self._zones)

    def is_all_lost(self) -> bool:
        """Whether no zone has a ready node: then rather we are cut off than they are gone, and nothing is evicted."""
        return all(state is Zone.FULL for state in self.states().values())

    def lost(self) -> list[str]:
        """The nodes that are not ready."""
        return [node for node, (_, is_ready) in self._nodes.items() if not is_ready]

    def _count(self, zone: str, is_ready: bool, change: int) -> None:
        ready, lost = self._zones.get(zone, (0, 0))
        counts = (ready + change, lost) if is_ready else (ready, lost + change)
        if counts == (0, 0):
            self._zones.pop(zone, None)
        else:
            self._zones[zone] = counts


def _is_ours(taint: scheduling_pb2.Taint) -> bool:
    if taint.effect == NO_SCHEDULE:
        return taint.key in _NO_SCHEDULE_KEYS
    return taint.effect == NO_EXECUTE and taint.key in _NO_EXECUTE_KEYS
