"""What is left of a namespace that is being deleted, in the words of its conditions.

Source: kubernetes pkg/controller/namespace/deletion/status_condition_utils.go.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from tiphys.api.core.v1 import namespace_pb2
from tiphys.api.meta.v1 import meta_pb2

# Long lists help nobody.
_NAMED_ERRORS: Final = 5


@dataclass(slots=True)
class Remains:
    """What one pass over a namespace found: counts and finalizers by resource, and what went wrong."""

    counts: dict[str, int] = field(default_factory=dict)
    finalizers: dict[str, int] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    # Seconds that the longest grace period may still take.
    wait_s: float = 0.0

    @property
    def is_empty(self) -> bool:
        """Whether nothing is left and nothing is unknown."""
        return not self.counts and not self.errors


def conditions(remains: Remains, now: meta_pb2.Time) -> list[namespace_pb2.NamespaceCondition]:
    """The five conditions of a namespace that is being emptied."""
    groups = ("NamespaceDeletionDiscoveryFailure", "ResourcesDiscovered", "All resources successfully discovered")
    parsed = (
        "NamespaceDeletionGroupVersionParsingFailure",
        "ParsedGroupVersions",
        "All legacy kube types successfully parsed",
    )
    made = [_condition(groups, "False", now), _condition(parsed, "False", now)]
    if remains.errors:
        text = "; ".join(sorted(remains.errors)[:_NAMED_ERRORS])
        failed = (
            "NamespaceDeletionContentFailure",
            "ContentDeletionFailed",
            f"Failed to delete all resource types: {text}",
        )
        made.append(_condition(failed, "True", now))
    else:
        done = (
            "NamespaceDeletionContentFailure",
            "ContentDeleted",
            "All content successfully deleted, may be waiting on finalization",
        )
        made.append(_condition(done, "False", now))
    if remains.counts:
        text = _listed(remains.counts, "{name} has {count} resource instances")
        left = ("NamespaceContentRemaining", "SomeResourcesRemain", f"Some resources are remaining: {text}")
        made.append(_condition(left, "True", now))
    else:
        none = ("NamespaceContentRemaining", "ContentRemoved", "All content successfully removed")
        made.append(_condition(none, "False", now))
    if remains.finalizers:
        text = _listed(remains.finalizers, "{name} in {count} resource instances")
        held = (
            "NamespaceFinalizersRemaining",
            "SomeFinalizersRemain",
            f"Some content in the namespace has finalizers remaining: {text}",
        )
        made.append(_condition(held, "True", now))
    else:
        free = (
            "NamespaceFinalizersRemaining",
            "ContentHasNoFinalizers",
            "All content-preserving finalizers finished",
        )
        made.append(_condition(free, "False", now))
    return made


def _listed(counts: Mapping[str, int], form: str) -> str:
    return ", ".join(form.format(name=name, count=counts[name]) for name in sorted(counts))


def _condition(words: tuple[str, str, str], status: str, now: meta_pb2.Time) -> namespace_pb2.NamespaceCondition:
    kind, reason, message = words
    return namespace_pb2.NamespaceCondition(
        type=kind, status=status, reason=reason, message=message, lastTransitionTime=now
    )
