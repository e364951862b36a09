"""What is to be done for the claims of a pod, and for one claim. Pure.

Source: kubernetes pkg/controller/resourceclaim.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tiphys.api.resource.v1.resource_pb2 import ResourceClaim
from tiphys_apimachinery.meta import get_controller_of, has_finalizer, is_being_deleted
from tiphys_apimachinery.resource_claims import (
    ALLOCATED_FINALIZER,
    MOST_RESERVATIONS,
    POD_CLAIM_NAME,
    PodClaim,
    is_reserved_for,
)


@dataclass(frozen=True, slots=True)
class PodPlan:
    """make are names in the pod of claims to be made; names are the claims of all others that have templates."""

    make: tuple[str, ...]
    names: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class User:
    """A pod that may use a claim. has_node says that it was sent somewhere."""

    name: str
    uid: str
    has_node: bool
    is_over: bool


@dataclass(frozen=True, slots=True)
class ClaimPlan:
    """Who may use the claim from now on, whether its devices are free, and whether it may go, or must."""

    reserve: tuple[User, ...] = ()
    release: frozenset[str] = frozenset()
    is_freed: bool = False
    is_let_go: bool = False
    is_deleted: bool = False


def plan_pod(wanted: Iterable[PodClaim], own: Iterable[ResourceClaim], made: Mapping[str, str]) -> PodPlan:
    """wanted are the pod's claims, own the ResourceClaims that it owns, made those that we made and may not see yet."""
    by_name: dict[str, list[str]] = {}
    for claim in own:
        name = claim.metadata.annotations.get(POD_CLAIM_NAME, "")
        if not is_being_deleted(claim):
            by_name.setdefault(name, []).append(claim.metadata.name)
    make, names = [], {}
    for item in wanted:
        if not item.is_generated:
            continue
        found = by_name.get(item.name, [])
        if item.name in made:
            found = [*found, made[item.name]]
        if item.claim in found:
            names[item.name] = item.claim
        elif found:
            # Made before a crash could have it written down: the same one must be found each time.
            names[item.name] = min(found)
        else:
            make.append(item.name)
    return PodPlan(tuple(make), names)


def plan_claim(claim: ResourceClaim, users: Mapping[str, User], pods: Sequence[User]) -> ClaimPlan:
    """users are the pods among those that it is reserved for which exist, by uid; pods those that name it."""
    status = claim.status
    gone = frozenset(
        user.uid
        for user in status.reservedFor
        if _is_pod(user) and ((known := users.get(user.uid)) is None or known.is_over)
    )
    left = [user for user in status.reservedFor if user.uid not in gone]
    ends = is_being_deleted(claim)
    late: list[User] = []
    if status.HasField("allocation") and not ends:
        # Somebody else than a scheduler sent the pod to its node.
        room = MOST_RESERVATIONS - len(left)
        late = [pod for pod in pods if pod.has_node and not pod.is_over and not is_reserved_for(claim, pod.uid)][:room]
    is_unused = not left and not late
    freed = status.HasField("allocation") and is_unused and (bool(gone) or ends)
    return ClaimPlan(
        reserve=tuple(late),
        release=gone,
        is_freed=freed,
        is_let_go=has_finalizer(claim, ALLOCATED_FINALIZER) and is_unused and (freed or ends),
        is_deleted=not ends and _owner_is_over(claim, pods),
    )


def apply(claim: ResourceClaim, plan: ClaimPlan) -> bool:
    """Changes the status as planned; False where nothing changed."""
    if not (plan.reserve or plan.release or plan.is_freed):
        return False
    left = [user for user in claim.status.reservedFor if user.uid not in plan.release]
    del claim.status.reservedFor[:]
    claim.status.reservedFor.extend(left)
    for pod in plan.reserve:
        claim.status.reservedFor.add(resource="pods", name=pod.name, uid=pod.uid)
    if plan.is_freed:
        claim.status.ClearField("allocation")
        del claim.status.devices[:]
    return True


def _owner_is_over(claim: ResourceClaim, pods: Sequence[User]) -> bool:
    """Made for a pod alone that has ended: it goes before its pod does, and its devices with it."""
    owner = get_controller_of(claim)
    if owner is None or owner.kind != "Pod" or POD_CLAIM_NAME not in claim.metadata.annotations:
        return False
    return any(pod.uid == owner.uid and pod.is_over for pod in pods)


def _is_pod(user: Any) -> bool:
    return user.resource == "pods" and not user.apiGroup
