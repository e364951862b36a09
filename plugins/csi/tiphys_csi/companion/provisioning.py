"""What becomes of a claim that wants a volume made, and of a volume that may go; pure.

No volume is made twice: it is named for the claim's uid, and the driver gives the same volume for the same name. None
is lost: before the driver is asked the claim gets a finalizer, so whoever finds the claim being deleted with it, and no
PersistentVolume, knows that there may be a volume which nobody else knows of. external-provisioner keeps that in memory
and forgets it when it is killed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from tiphys_apimachinery.persistent_volumes import ClaimView, ClassView, VolumeView

CLAIM_FINALIZER: Final = "csi-companion.tiphys.dev/provisioning"
# The name that Kubernetes' provisioner uses: each of both takes over what the other one made.
# Source: sig-storage-lib-external-provisioner controller/controller.go, finalizerPV.
VOLUME_FINALIZER: Final = "external-provisioner.volume.kubernetes.io/finalizer"


class ClaimStep(Enum):
    """The next step of a claim."""

    NOTHING = auto()
    CHOOSE_NODE = auto()
    PROVISION = auto()
    ABANDON = auto()
    FINISH = auto()
    # The node that was chosen is gone: the scheduler chooses again.
    RESCHEDULE = auto()


class VolumeStep(Enum):
    """The next step of a volume."""

    NOTHING = auto()
    DELETE = auto()
    LET_GO = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class Here:
    """This companion's place as far as one driver goes. leads is for a driver without topology."""

    node: str
    has_topology: bool
    leads: bool
    segments: Mapping[str, str]

    def is_for(self, selected_node: str) -> bool:
        """Whether we act for a claim whose volume is wanted on that node."""
        return selected_node == self.node if self.has_topology else self.leads


def volume_name(claim_uid: str) -> str:
    """The name of the volume made for a claim, and of its PersistentVolume."""
    return f"pvc-{claim_uid}"


def plan_claim(
    claim: ClaimView,
    storage_class: ClassView | None,
    here: Here,
    *,
    has_volume: bool,
    is_node_gone: bool = False,
) -> ClaimStep:
    """The next step of a claim whose provisioner is the driver.

    has_volume says that its PersistentVolume is there, is_node_gone that the node chosen for it is not, nor will be.
    """
    if is_node_gone:
        return _plan_orphan(claim, storage_class, has_volume=has_volume)
    is_ours = here.is_for(claim.selected_node)
    begun = CLAIM_FINALIZER in claim.finalizers
    if has_volume or claim.volume:
        # Not before it is bound: the binder writes the claim just now, and the two would get in each other's way.
        over = claim.is_bound or claim.is_deleting
        return ClaimStep.FINISH if begun and is_ours and over else ClaimStep.NOTHING
    if claim.is_deleting:
        return ClaimStep.ABANDON if begun and is_ours else ClaimStep.NOTHING
    if storage_class is None or storage_class.provisioner != claim.provisioner:
        return ClaimStep.NOTHING
    if not allows(storage_class, here.segments):
        return ClaimStep.NOTHING
    if not claim.selected_node:
        if storage_class.waits_for_consumer:
            return ClaimStep.NOTHING
        if here.has_topology:
            return ClaimStep.CHOOSE_NODE
    return ClaimStep.PROVISION if is_ours else ClaimStep.NOTHING


def _plan_orphan(claim: ClaimView, storage_class: ClassView | None, *, has_volume: bool) -> ClaimStep:
    """What any companion may do for one that went with its node, and with the volume that it may have made there."""
    if has_volume or claim.volume or claim.is_deleting:
        return ClaimStep.FINISH if CLAIM_FINALIZER in claim.finalizers else ClaimStep.NOTHING
    if storage_class is None:
        return ClaimStep.NOTHING
    return ClaimStep.RESCHEDULE if storage_class.waits_for_consumer else ClaimStep.CHOOSE_NODE


def allows(storage_class: ClassView, segments: Mapping[str, str]) -> bool:
    """Whether volumes of the class may be made at this place; a place without segments is everywhere."""
    if not storage_class.topologies or not segments:
        return True
    return any(all(segments.get(key) in values for key, values in term) for term in storage_class.topologies)


def plan_volume(volume: VolumeView, *, is_ours: bool, is_attached: bool) -> VolumeStep:
    """The next step of a volume that the driver made."""
    if not is_ours:
        return VolumeStep.NOTHING
    if volume.reclaim_policy != "Delete":
        # Whoever changed the policy keeps the data; the object may go.
        return VolumeStep.LET_GO if volume.is_deleting and VOLUME_FINALIZER in volume.finalizers else VolumeStep.NOTHING
    is_free = volume.phase in ("Released", "Failed") or (volume.is_deleting and not volume.claim)
    return VolumeStep.DELETE if is_free and not is_attached else VolumeStep.NOTHING
