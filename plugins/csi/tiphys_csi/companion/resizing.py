"""What becomes of a claim that asks for more than its volume has; pure.

The size goes round: the claim's request, the driver's volume, the PersistentVolume's capacity, the file system on the
node (the kubelet's part, announced by the condition FileSystemResizePending), the claim's status.
Source: external-resizer pkg/controller/controller.go.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from tiphys.api.core.v1 import persistent_volume_claim_pb2, persistent_volume_pb2
from tiphys_apimachinery.meta import is_being_deleted, is_condition_true, set_condition, time_now
from tiphys_apimachinery.persistent_volumes import claim_view, volume_view
from tiphys_component.clock import Clock
from tiphys_csi.companion.driver import ControllerRpc, DriverFacts, NodeRpc
from tiphys_csi.companion.requests import size_of, size_text

Claim = persistent_volume_claim_pb2.PersistentVolumeClaim
PersistentVolume = persistent_volume_pb2.PersistentVolume

RESIZING: Final = "Resizing"
NODE_PENDING: Final = "FileSystemResizePending"


class ResizeStep(Enum):
    """The next step of a claim."""

    NOTHING = auto()
    # The driver makes the volume larger; asked again it says what is left for the node.
    EXPAND = auto()
    # The driver leaves it all to the node.
    LEAVE_TO_NODE = auto()


@dataclass(frozen=True, slots=True)
class Grown:
    """What the driver did."""

    size_bytes: int
    needs_node: bool


def plan(claim: Claim, volume: PersistentVolume | None, facts: DriverFacts, *, is_ours: bool) -> ResizeStep:
    """The next step of a claim whose volume is of the driver."""
    if volume is None or not is_ours or is_being_deleted(claim) or claim.status.phase != "Bound":
        return ResizeStep.NOTHING
    if not volume_view(volume).is_for(claim_view(claim)) or "storage" not in claim.status.capacity:
        return ResizeStep.NOTHING
    wanted = size_of(claim.spec.resources.requests)
    if wanted <= size_of(claim.status.capacity):
        return ResizeStep.NOTHING
    is_large_enough = size_of(volume.spec.capacity) >= wanted
    if is_large_enough and is_condition_true(claim.status.conditions, NODE_PENDING):
        return ResizeStep.NOTHING
    if facts.can(ControllerRpc.EXPAND_VOLUME):
        return ResizeStep.EXPAND
    return ResizeStep.LEAVE_TO_NODE if NodeRpc.EXPAND_VOLUME in facts.node else ResizeStep.NOTHING


def with_resizing(claim: Claim, clock: Clock) -> Claim:
    """The claim with the condition that the driver is at work."""
    return _with(claim, {RESIZING: ""}, clock, without="")


def with_outcome(claim: Claim, grown: Grown, clock: Clock) -> Claim:
    """The claim after the driver's part: waiting for the node, or done with its new capacity."""
    if grown.needs_node:
        message = "Waiting for user to (re-)start a pod to finish file system resize of volume on node."
        return _with(claim, {NODE_PENDING: message}, clock, without=RESIZING)
    done = _with(_with(claim, {}, clock, without=RESIZING), {}, clock, without=NODE_PENDING)
    done.status.capacity["storage"].string = size_text(grown.size_bytes)
    return done


def _with(claim: Claim, conditions: Mapping[str, str], clock: Clock, *, without: str) -> Claim:
    changed = Claim()
    changed.CopyFrom(claim)
    kept = [condition for condition in claim.status.conditions if condition.type != without]
    changed.status.ClearField("conditions")
    changed.status.conditions.extend(kept)
    for kind, message in conditions.items():
        condition = persistent_volume_claim_pb2.PersistentVolumeClaimCondition(
            type=kind, status="True", message=message
        )
        condition.lastTransitionTime.CopyFrom(time_now(clock))
        set_condition(changed.status.conditions, condition)
    return changed
