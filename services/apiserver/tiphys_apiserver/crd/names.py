"""Whether the names of a definition are free, and what its status says about that. Pure.

Source: apiextensions pkg/controller/status/naming_controller.go.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tiphys.api.apiextensions.v1 import apiextensions_pb2 as pb
from tiphys_apimachinery.meta import find_condition, set_condition, to_time


@dataclass(frozen=True, slots=True)
class Verdict:
    """reason is empty where all names are free."""

    reason: str = ""
    message: str = ""


def judge(crd: Any, others: Iterable[Any]) -> Verdict:
    """Whether the definition may have its names, beside the others of its group, which keep what they have."""
    taken: set[str] = set()
    kinds: set[str] = set()
    for other in others:
        if other.spec.group != crd.spec.group or other.metadata.name == crd.metadata.name:
            continue
        accepted = other.status.acceptedNames
        taken |= {accepted.plural, accepted.singular, *accepted.shortNames} - {""}
        kinds |= {accepted.kind, accepted.listKind} - {""}
    names = crd.spec.names
    for reason, wanted, used in (
        ("PluralConflict", names.plural, taken),
        ("SingularConflict", names.singular, taken),
        *(("ShortNamesConflict", short, taken) for short in names.shortNames),
        ("KindConflict", names.kind, kinds),
        ("ListKindConflict", names.listKind, kinds),
    ):
        if wanted and wanted in used:
            return Verdict(reason, f'"{wanted}" is already in use')
    return Verdict()


def settle(crd: Any, verdict: Verdict, now: datetime) -> None:
    """Write a verdict into the status: accepted names, NamesAccepted and Established."""
    status = crd.status
    if not verdict.reason:
        status.acceptedNames.CopyFrom(crd.spec.names)
        _set(crd, "NamesAccepted", "True", "NoConflicts", message="no conflicts found", now=now)
        _set(
            crd, "Established", "True", "InitialNamesAccepted", message="the initial names have been accepted", now=now
        )
        return
    _set(crd, "NamesAccepted", "False", verdict.reason, message=verdict.message, now=now)
    if find_condition(status.conditions, "Established") is None:
        _set(crd, "Established", "False", "NotAccepted", message="not all names are accepted", now=now)


def set_terminating(crd: Any, reason: str, message: str, now: datetime) -> None:
    """Say how far the deletion is."""
    is_done = reason == "InstanceDeletionCompleted"
    _set(crd, "Terminating", "False" if is_done else "True", reason, message=message, now=now)


def _set(crd: Any, kind: str, status: str, reason: str, *, message: str, now: datetime) -> None:
    condition = pb.CustomResourceDefinitionCondition(type=kind, status=status, reason=reason, message=message)
    condition.lastTransitionTime.CopyFrom(to_time(now))
    set_condition(crd.status.conditions, condition)
