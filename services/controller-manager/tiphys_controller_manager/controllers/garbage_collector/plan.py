"""What to do with an object, once the server has told how its owners are; no I/O.

Source: kubernetes pkg/controller/garbagecollector/garbagecollector.go, attemptToDeleteItem.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Literal

from tiphys_controller_manager.controllers.garbage_collector.graph import (
    FOREGROUND_FINALIZER,
    ORPHAN_FINALIZER,
    Facts,
    OwnerRef,
)

Propagation = Literal["Background", "Foreground", "Orphan"]


class OwnerState(Enum):
    """How an owner is, by the server's own word."""

    SOLID = "solid"
    # It does not exist: nothing of that name, or another object.
    ABSENT = "absent"
    # It is being deleted and waits for its dependents.
    WAITING = "waiting"


@dataclass(frozen=True, slots=True)
class Keep:
    """Nothing is to be done."""


@dataclass(frozen=True, slots=True)
class DropOwners:
    """Take references to owners that are gone, or wait, off an object that has a solid one."""

    uids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete the object; unblock first means that its owners no longer wait for it, which breaks a cycle."""

    propagation: Propagation
    unblock: bool = False


Verdict = Keep | DropOwners | Delete


def judge(live: Facts, owners: Mapping[str, OwnerState], dependents: Sequence[Facts]) -> Verdict:
    """What becomes of an object that is not being deleted, by its owners' states and its dependents in the graph."""
    if not live.owners or live.is_deleting:
        return Keep()
    solid = [owner for owner in live.owners if owners[owner.uid] is OwnerState.SOLID]
    gone = [owner for owner in live.owners if owners[owner.uid] is OwnerState.ABSENT]
    waiting = [owner for owner in live.owners if owners[owner.uid] is OwnerState.WAITING]
    if solid:
        uids = tuple(owner.uid for owner in (*gone, *waiting))
        return DropOwners(uids) if uids else Keep()
    if waiting and dependents:
        # The chain of the foreground deletion goes on. A dependent that waits itself means a cycle: owners then must
        # not wait for this object, or all would wait for each other.
        return Delete("Foreground", unblock=any(item.is_foreground for item in dependents))
    return Delete(_propagation(live))


def owner_state(owner: OwnerRef, found: Facts | None) -> OwnerState:
    """How an owner is, given what the server has under its name; None for nothing."""
    if found is None or found.identity.uid != owner.uid:
        return OwnerState.ABSENT
    return OwnerState.WAITING if found.is_foreground else OwnerState.SOLID


def _propagation(live: Facts) -> Propagation:
    """What somebody has asked for by a finalizer is kept."""
    if ORPHAN_FINALIZER in live.finalizers:
        return "Orphan"
    return "Foreground" if FOREGROUND_FINALIZER in live.finalizers else "Background"
