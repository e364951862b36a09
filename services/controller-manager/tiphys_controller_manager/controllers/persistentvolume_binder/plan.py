"""What becomes of a claim and of a volume; pure.

The two sides are bound in an order that survives a crash at any point: the volume names the claim, then the claim
names the volume, then the claim's status says so. A volume names one claim at a time, and the server refuses the
second of two writers, so no two claims ever get one volume.
Source: kubernetes pkg/controller/volume/persistentvolume/pv_controller.go, syncClaim and syncVolume.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from tiphys_apimachinery.persistent_volumes import (
    ClaimView,
    ClassView,
    VolumeView,
    best_first,
    is_candidate,
    reserved_for,
    satisfies,
)


@dataclass(frozen=True, slots=True)
class Note:
    """An event to tell; kind is Normal or Warning."""

    kind: Literal["Normal", "Warning"]
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Bind:
    """Bring the claim and this volume together, or finish what was begun."""

    volume: str


@dataclass(frozen=True, slots=True)
class Provision:
    """Ask the provisioner for a volume."""

    provisioner: str


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing to do until something changes; note says what for, where there is something to say."""

    note: Note | None = None


@dataclass(frozen=True, slots=True)
class Lose:
    """The bound volume is gone, and the data with it."""

    note: Note


ClaimStep = Bind | Provision | Wait | Lose


@dataclass(frozen=True, slots=True)
class SetPhase:
    """The phase that the volume's status should have; message and note go with a failure."""

    phase: str
    message: str = ""
    note: Note | None = None


@dataclass(frozen=True, slots=True)
class Unbind:
    """Take the claim's mark off the volume; a reservation that a user made stays, without the uid."""

    keep_reservation: bool


VolumeStep = SetPhase | Unbind | None


def plan_claim(
    claim: ClaimView, *, named: VolumeView | None, volumes: Iterable[VolumeView], storage_class: ClassView | None
) -> ClaimStep:
    """The next step of a claim. named is the volume of spec.volumeName; volumes those of its class or reserved for it.

    storage_class is None where the claim names none, or one that is not there.
    """
    if claim.is_bind_completed:
        return _plan_bound(claim, named)
    if claim.is_deleting:
        return Wait()
    if claim.volume:
        return _plan_asked(claim, named)
    known = list(volumes)
    reserved = reserved_for(claim, known)
    if reserved is not None:
        return Bind(reserved.name)
    if storage_class is not None and storage_class.waits_for_consumer:
        if not claim.selected_node:
            text = "waiting for first consumer to be created before binding"
            return Wait(Note("Normal", "WaitForFirstConsumer", text))
        # The scheduler looked for a volume that its node can reach, and found none.
        return _plan_provisioning(claim, storage_class)
    found = best_first(volume for volume in known if is_candidate(volume, claim))
    return Bind(found[0].name) if found else _plan_provisioning(claim, storage_class)


def plan_volume(volume: VolumeView, claim: ClaimView | None) -> VolumeStep:
    """The next step of a volume, None for none; claim is the one of claimRef, if it is there."""
    if not volume.claim or not volume.claim_uid:
        # A reservation is free until its claim comes.
        return _phase(volume, "Available")
    if claim is None or claim.uid != volume.claim_uid:
        return _plan_released(volume)
    if claim.volume == volume.name:
        return _phase(volume, "Bound")
    if not claim.volume:
        # Half way: the claim's own step writes the other half.
        return None
    if volume.is_provisioned and volume.reclaim_policy == "Delete":
        # Made for this claim, which took another one meanwhile: the provisioner removes it.
        return _phase(volume, "Released")
    return Unbind(keep_reservation=not volume.is_claim_chosen)


def _plan_bound(claim: ClaimView, named: VolumeView | None) -> ClaimStep:
    if not claim.volume:
        text = "Bound claim has lost reference to PersistentVolume. Data on the volume is lost!"
        return Lose(Note("Warning", "ClaimLost", text))
    if named is None:
        text = "Bound claim has lost its PersistentVolume. Data on the volume is lost!"
        return Lose(Note("Warning", "ClaimLost", text))
    if named.claim and not named.is_for(claim):
        text = "Two claims are bound to the same volume, this one is bound incorrectly"
        return Lose(Note("Warning", "ClaimMisbound", text))
    return Bind(named.name)


def _plan_asked(claim: ClaimView, named: VolumeView | None) -> ClaimStep:
    """The claim names a volume, by its user's choice or by ours."""
    if named is None:
        return Wait()
    if named.is_for(claim):
        return Bind(named.name)
    if named.claim:
        text = f'volume "{named.name}" already bound to a different claim.'
        return Wait(Note("Warning", "FailedBinding", text))
    fault = satisfies(named, claim)
    if fault:
        text = f'Cannot bind to requested volume "{named.name}": {fault}'
        return Wait(Note("Warning", "VolumeMismatch", text))
    return Bind(named.name)


def _plan_provisioning(claim: ClaimView, storage_class: ClassView | None) -> ClaimStep:
    if not claim.storage_class:
        text = "no persistent volumes available for this claim and no storage class is set"
        return Wait(Note("Normal", "FailedBinding", text))
    if storage_class is None:
        text = f'storageclass.storage.k8s.io "{claim.storage_class}" not found'
        return Wait(Note("Warning", "ProvisioningFailed", text))
    if not storage_class.can_provision:
        text = f"no volume plugin matched name: {storage_class.provisioner}"
        return Wait(Note("Warning", "ProvisioningFailed", text))
    return Provision(storage_class.provisioner)


def _plan_released(volume: VolumeView) -> VolumeStep:
    """The claim is gone. Delete of a CSI volume is its provisioner's work, which it begins at this phase."""
    if volume.phase == "Failed":
        return None
    if volume.reclaim_policy == "Recycle":
        text = "No recycler plugin found for the volume!"
        return SetPhase("Failed", text, Note("Warning", "VolumeFailedRecycle", text))
    if volume.reclaim_policy == "Delete" and not volume.is_provisioned and not volume.driver:
        text = f'error getting deleter volume plugin for volume "{volume.name}": no deletable volume plugin matched'
        return SetPhase("Failed", text, Note("Warning", "VolumeFailedDelete", text))
    return _phase(volume, "Released")


def _phase(volume: VolumeView, phase: str) -> VolumeStep:
    return None if volume.phase == phase else SetPhase(phase)
