"""How fast the number of pods may change: by what was wanted lately, and by what was changed lately. Pure.

Source: kubernetes pkg/controller/podautoscaler/horizontal.go, the functions with behaviors, and the defaults of
autoscaling/v2.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from tiphys_apimachinery.quantity import Quantity
from tiphys_controller_manager.controllers.horizontal_pod_autoscaler.replicas import Tolerance

_MOST: Final = 2**31 - 1
_DISABLED, _MIN, _MAX = "Disabled", "Min", "Max"


@dataclass(frozen=True, slots=True)
class Policy:
    """Most change in a period: a number of pods, or a share in percent."""

    value: int
    period_s: int
    is_percent: bool = False


@dataclass(frozen=True, slots=True)
class Rules:
    """What holds in one direction."""

    window_s: int
    policies: tuple[Policy, ...]
    select: str = _MAX


@dataclass(frozen=True, slots=True)
class Behavior:
    """What holds in both, with the defaults filled in."""

    up: Rules
    down: Rules
    tolerance: Tolerance = field(default_factory=Tolerance)

    @property
    def memory_s(self) -> int:
        """How long wishes are kept."""
        return max(self.up.window_s, self.down.window_s)

    @property
    def longest_period_s(self) -> int:
        """How long changes are kept."""
        return max((policy.period_s for rules in (self.up, self.down) for policy in rules.policies), default=0)


@dataclass(frozen=True, slots=True)
class Defaults:
    """What the flags say where the object does not."""

    downscale_stabilization_s: int = 300
    tolerance: float = 0.1


_UP: Final = (Policy(4, 15), Policy(100, 15, is_percent=True))
_DOWN: Final = (Policy(100, 15, is_percent=True),)


def behavior_of(spec: Any, defaults: Defaults) -> Behavior:
    """The behavior that a spec asks for."""
    behavior = spec.behavior
    return Behavior(
        up=_rules(behavior.scaleUp, 0, _UP),
        down=_rules(behavior.scaleDown, defaults.downscale_stabilization_s, _DOWN),
        tolerance=Tolerance(
            down=_tolerance(behavior.scaleDown, defaults.tolerance), up=_tolerance(behavior.scaleUp, defaults.tolerance)
        ),
    )


def _rules(rules: Any, window_s: int, policies: tuple[Policy, ...]) -> Rules:
    found = tuple(Policy(one.value, one.periodSeconds, one.type == "Percent") for one in rules.policies)
    window = rules.stabilizationWindowSeconds if rules.HasField("stabilizationWindowSeconds") else window_s
    return Rules(window, found or policies, rules.selectPolicy or _MAX)


def _tolerance(rules: Any, default: float) -> float:
    return Quantity.parse(rules.tolerance.string).nanos / 1e9 if rules.tolerance.string else default


@dataclass(frozen=True, slots=True)
class Wish:
    """How many replicas the measures asked for at a time."""

    at_s: float
    replicas: int


@dataclass(frozen=True, slots=True)
class Change:
    """By how much the number was changed at a time; below zero it went down."""

    at_s: float
    by: int


@dataclass(frozen=True, slots=True)
class History:
    """What one autoscaler wished and did."""

    wishes: tuple[Wish, ...] = ()
    changes: tuple[Change, ...] = ()

    def wished(self, wish: Wish, memory_s: float) -> History:
        """With one wish more, and without those too old to matter."""
        kept = tuple(one for one in self.wishes if one.at_s > wish.at_s - memory_s)
        return History((*kept, wish), self.changes)

    def changed(self, change: Change, memory_s: float) -> History:
        """With one change more, and without those too old to matter."""
        kept = tuple(one for one in self.changes if one.at_s > change.at_s - memory_s)
        return History(self.wishes, (*kept, change))


def stabilized(history: History, behavior: Behavior, *, current: int, wanted: int, now_s: float) -> int:
    """The wish that the recent ones bear out: going up the least of its window, going down the most."""
    up = min([wanted, *_since(history.wishes, now_s - behavior.up.window_s)])
    down = max([wanted, *_since(history.wishes, now_s - behavior.down.window_s)])
    return min(max(current, up), down)


def _since(wishes: Iterable[Wish], cutoff_s: float) -> Iterable[int]:
    return (wish.replicas for wish in wishes if wish.at_s > cutoff_s)


@dataclass(frozen=True, slots=True)
class Limited:
    """How many replicas there may be now, and why no more or no fewer."""

    replicas: int
    reason: str = "DesiredWithinRange"
    message: str = "the desired count is within the acceptable range"


@dataclass(frozen=True, slots=True)
class Bounds:
    """Fewest and most replicas."""

    least: int
    most: int


def limited(
    history: History, behavior: Behavior, bounds: Bounds, *, current: int, wanted: int, now_s: float
) -> Limited:
    """As many of the wanted replicas as bounds and policies allow."""
    if wanted > current:
        fastest = max(current, _fastest(history, behavior.up, current, now_s, direction=1))
        most = min(bounds.most, fastest)
        if wanted > most:
            if fastest < bounds.most:
                return Limited(
                    most, "ScaleUpLimit", "the desired replica count is increasing faster than the maximum scale rate"
                )
            return Limited(most, "TooManyReplicas", "the desired replica count is more than the maximum replica count")
    elif wanted < current:
        fastest = min(current, _fastest(history, behavior.down, current, now_s, direction=-1))
        least = max(bounds.least, fastest)
        if wanted < least:
            if fastest > bounds.least:
                return Limited(
                    least,
                    "ScaleDownLimit",
                    "the desired replica count is decreasing faster than the maximum scale rate",
                )
            return Limited(least, "TooFewReplicas", "the desired replica count is less than the minimum replica count")
    return Limited(wanted)


def _fastest(history: History, rules: Rules, current: int, now_s: float, *, direction: int) -> int:
    """How far the policies let it go. What was changed within a policy's period counts towards it."""
    if rules.select == _DISABLED:
        return current
    reached = [_reach(policy, current - _changed(history, policy, now_s), direction) for policy in rules.policies]
    # The most change is the highest number upwards and the lowest downwards.
    return (max if (rules.select == _MAX) == (direction > 0) else min)(reached)


def _changed(history: History, policy: Policy, now_s: float) -> int:
    return sum(change.by for change in history.changes if change.at_s > now_s - policy.period_s)


def _reach(policy: Policy, start: int, direction: int) -> int:
    """From where the period began. Going up a share is rounded up, as else a few pods could never grow."""
    if not policy.is_percent:
        return min(start + direction * policy.value, _MOST)
    if direction > 0:
        return min(math.ceil(start * (100 + policy.value) / 100), _MOST)
    return int(start * (100 - policy.value) / 100)
