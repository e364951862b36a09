"""Why a pod was not placed, as people read it in `kubectl describe`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Refusal:
    """One node that could not take the pod: the first plugin that refused it, and its words."""

    node: str
    plugin: str
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FitError:
    """No node fits. `plugins` are those that refused at least one node."""

    node_count: int
    refusals: tuple[Refusal, ...]
    # What refused the pod before any node was looked at: a plugin and its words.
    rejected_by: str = ""
    rejection: str = ""
    # What making room for it came to.
    post_filter: str = ""
    # Instead of refusals: how many nodes each reason is said of, and by which plugins.
    counts: Mapping[str, int] | None = None
    refused_by: frozenset[str] = frozenset()

    @property
    def plugins(self) -> frozenset[str]:
        """Plugins whose refusal an event may lift."""
        if self.rejected_by:
            return frozenset({self.rejected_by})
        return self.refused_by or frozenset(r.plugin for r in self.refusals)

    @property
    def message(self) -> str:
        """As kube-scheduler says it: each reason with the number of nodes, sorted; then what preemption says."""
        if not self.node_count:
            return "no nodes available to schedule pods"
        suffix = f" {self.post_filter}" if self.post_filter else ""
        return self.verdict + suffix

    @property
    def verdict(self) -> str:
        """The message without what preemption says."""
        if self.rejection:
            return f"0/{self.node_count} nodes are available: {self.rejection}."
        counts = self.counts or Counter(reason for refusal in self.refusals for reason in refusal.reasons)
        parts = sorted(f"{count} {reason}" for reason, count in counts.items())
        return f"0/{self.node_count} nodes are available: {', '.join(parts)}."


def summary(refusals: Iterable[Refusal], node_count: int) -> FitError:
    """The error of a pod that no node takes."""
    return FitError(node_count, tuple(refusals))
