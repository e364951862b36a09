"""How large each ReplicaSet of a Deployment should be: the arithmetic of a rolling update, of scaling and of Recreate.

Functions take sizes and return the sizes that change, by name. A step never takes the pods in all over replicas plus
surge, nor those available under replicas less maxUnavailable, as far as that is in its hands.

Source: kubernetes pkg/controller/deployment/rolling.go, sync.go and util/deployment_util.go.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tiphys.api.apps.v1 import apps_pb2
from tiphys.api.intstr import intstr_pb2

DEFAULT_PERCENT = "25%"


@dataclass(frozen=True, slots=True)
class SetSize:
    """A ReplicaSet as the arithmetic sees it. max_replicas is what the Deployment allowed when it was last scaled."""

    name: str
    created: float
    replicas: int
    available: int = 0
    actual: int = 0
    desired: int | None = None
    max_replicas: int | None = None


@dataclass(frozen=True, slots=True)
class Limits:
    """A Deployment's numbers, percentages resolved."""

    replicas: int
    surge: int = 0
    unavailable: int = 0
    is_rolling: bool = True

    @property
    def max_total(self) -> int:
        """Most pods at once; none is allowed beyond none wanted."""
        return self.replicas + self.surge

    @property
    def min_available(self) -> int:
        """Fewest available pods."""
        return self.replicas - self.unavailable


def limits_of(deployment: apps_pb2.Deployment) -> Limits:
    """The limits that a spec asks for. Raises ValueError for a percentage that is none."""
    spec = deployment.spec
    if spec.strategy.type == "Recreate":
        return Limits(spec.replicas, is_rolling=False)
    rolling = spec.strategy.rollingUpdate
    surge = scaled(rolling.maxSurge if rolling.HasField("maxSurge") else None, spec.replicas, round_up=True)
    unavailable = scaled(
        rolling.maxUnavailable if rolling.HasField("maxUnavailable") else None, spec.replicas, round_up=False
    )
    if surge == 0 and unavailable == 0:
        # Both round to nothing: without one of them an update could never move.
        unavailable = 1
    return Limits(spec.replicas, surge, min(unavailable, spec.replicas))


def scaled(value: intstr_pb2.IntOrString | None, total: int, *, round_up: bool) -> int:
    """A number, or a percentage of total. Raises ValueError for other text."""
    text = DEFAULT_PERCENT
    if value is not None:
        if value.type == 0:
            return int(value.intVal)
        text = value.strVal
    if not text.endswith("%"):
        raise ValueError(f"neither a number nor a percentage: {text!r}")
    part = int(text[:-1]) * total
    return -(-part // 100) if round_up else part // 100


def grow_new(limits: Limits, new: SetSize, olds: Sequence[SetSize]) -> int:
    """The size of the new ReplicaSet in the next step."""
    if not limits.is_rolling or new.replicas > limits.replicas:
        return limits.replicas
    total = new.replicas + sum(old.replicas for old in olds)
    if total >= limits.max_total:
        return new.replicas
    return new.replicas + min(limits.max_total - total, limits.replicas - new.replicas)


def shrink_old(limits: Limits, new: SetSize, olds: Sequence[SetSize]) -> dict[str, int]:
    """Smaller sizes for old ReplicaSets: first what is broken in them, then what can be spared."""
    total_old = sum(old.replicas for old in olds)
    if total_old == 0:
        return {}
    # A status may be older than the size beside it: pods that are no longer wanted are not counted as available.
    new_available = min(new.replicas, new.available)
    spare = total_old + new_available - limits.min_available
    if spare <= 0:
        return {}
    ordered = sorted(olds, key=lambda old: (old.created, old.name))
    sizes = {old.name: old.replicas for old in ordered}
    # Pods that are not available anyway cost nothing, and a rollback must not wait for them.
    for old in ordered:
        broken = max(0, sizes[old.name] - old.available)
        gone = min(spare, broken)
        sizes[old.name] -= gone
        spare -= gone
    old_available = sum(min(old.replicas, old.available) for old in olds)
    spare = min(spare, new_available + old_available - limits.min_available)
    for old in ordered:
        gone = min(sizes[old.name], max(0, spare))
        sizes[old.name] -= gone
        spare -= gone
    return {old.name: sizes[old.name] for old in ordered if sizes[old.name] != old.replicas}


def stop_old(olds: Sequence[SetSize]) -> dict[str, int]:
    """Recreate's first step: every old ReplicaSet to nothing."""
    return {old.name: 0 for old in olds if old.replicas}


def is_saturated(limits: Limits, new: SetSize | None) -> bool:
    """Whether the new ReplicaSet does the whole work."""
    return new is not None and new.replicas == new.desired == limits.replicas and new.available == limits.replicas


def is_scaling(limits: Limits, sets: Sequence[SetSize]) -> bool:
    """Whether spec.replicas changed since the active ReplicaSets were last sized."""
    return any(item.replicas > 0 and item.desired is not None and item.desired != limits.replicas for item in sets)


def scale(limits: Limits, new: SetSize | None, olds: Sequence[SetSize], status_replicas: int) -> dict[str, int]:
    """Sizes after spec.replicas changed: one active ReplicaSet takes all of it, several share it in proportion.

    Holds every ReplicaSet whose size or annotations may need a write. status_replicas is the Deployment's own count,
    for sets that do not say what they were allowed.
    """
    everyone = [*olds, *([new] if new is not None else [])]
    active = [item for item in everyone if item.replicas > 0]
    only = _only_active(new, olds, active)
    if only is not None:
        return {only.name: limits.replicas}
    if is_saturated(limits, new):
        return {old.name: 0 for old in olds if old.replicas > 0}
    if not limits.is_rolling:
        return {}
    allowed = limits.max_total if limits.replicas > 0 else 0
    to_add = allowed - sum(item.replicas for item in active)
    if to_add >= 0:
        # Newer first where sizes are equal: growth belongs to what is coming.
        ordered = sorted(active, key=lambda item: (-item.replicas, -item.created, item.name))
    else:
        ordered = sorted(active, key=lambda item: (-item.replicas, item.created, item.name))
    sizes: dict[str, int] = {}
    added = 0
    for item in ordered:
        share = _bounded(_fraction(item, limits, status_replicas), to_add - added, grows=to_add > 0)
        sizes[item.name] = item.replicas + share
        added += share
    # What rounding left over goes to the largest, and on to the next where that is used up.
    left = to_add - added
    for item in ordered:
        size = sizes[item.name] + left
        sizes[item.name] = max(0, size)
        left = min(0, size)
        if left == 0:
            break
    return sizes


def _only_active(new: SetSize | None, olds: Sequence[SetSize], active: Sequence[SetSize]) -> SetSize | None:
    """The one active ReplicaSet, or where none is, the newest; None where several are."""
    if len(active) > 1:
        return None
    if active:
        return active[0]
    if new is not None:
        return new
    return max(olds, key=lambda old: (old.created, old.name), default=None)


def _bounded(fraction: int, allowed: int, *, grows: bool) -> int:
    """A share that does not go past what is still to be given or taken."""
    return max(0, min(fraction, allowed)) if grows else min(0, max(fraction, allowed))


def _fraction(item: SetSize, limits: Limits, status_replicas: int) -> int:
    if limits.replicas == 0:
        return -item.replicas
    before = item.max_replicas or status_replicas
    if before == 0:
        return 0
    exact = item.replicas * limits.max_total / before
    return math.floor(exact + 0.5) - item.replicas
