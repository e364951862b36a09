"""How many pods of a budget must be healthy, how many are, and the status that says how many may go; pure.

Source: kubernetes pkg/controller/disruption/disruption.go.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from tiphys.api.meta.v1 import meta_pb2
from tiphys.api.policy.v1 import policy_pb2
from tiphys_apimachinery.labels import Selector, SelectorError, from_label_selector
from tiphys_apimachinery.meta import join_key, set_condition
from tiphys_controller_manager.controllers.deployment.rolling import scaled
from tiphys_controller_manager.pods import PodView

Budget = policy_pb2.PodDisruptionBudget
ALLOWED: Final = "DisruptionAllowed"
# A pod whose eviction was granted must be gone by then, or it counts again.
DELETION_TIMEOUT_S: Final = 120.0


@dataclass(frozen=True, slots=True)
class BudgetView:
    """One budget, as far as it says which pods it covers; a selector that can't be meant covers none."""

    key: str
    selector: Selector


@dataclass(frozen=True, slots=True)
class Demand:
    """How many pods there should be, and how many of these healthy."""

    expected: int
    healthy: int


@dataclass(frozen=True, slots=True)
class Disrupted:
    """Pods that were granted to go and are still there, with the time of the grant, and those that did not go."""

    waiting: Mapping[str, meta_pb2.Time]
    overdue: tuple[PodView, ...]
    # When the next one is overdue; None when none is waited for.
    next_due: float | None


def budget_view(budget: Budget) -> BudgetView:
    """The view of a budget."""
    spec = budget.spec
    try:
        selector = from_label_selector(spec.selector if spec.HasField("selector") else None)
    except SelectorError:
        selector = Selector.nothing()
    return BudgetView(join_key(budget.metadata.namespace, budget.metadata.name), selector)


def needs_scale(budget: Budget) -> bool:
    """Whether a budget speaks of the wanted number of pods, which only their owners know."""
    spec = budget.spec
    if spec.HasField("maxUnavailable"):
        return True
    return spec.HasField("minAvailable") and spec.minAvailable.type != 0


def demand_of(budget: Budget, *, pods: int, wanted: int) -> Demand:
    """The demand of a budget that covers so many pods, of which their owners want so many."""
    spec = budget.spec
    if spec.HasField("maxUnavailable"):
        away = scaled(spec.maxUnavailable, wanted, round_up=True)
        return Demand(wanted, max(wanted - away, 0))
    if spec.HasField("minAvailable"):
        if spec.minAvailable.type == 0:
            return Demand(pods, spec.minAvailable.intVal)
        return Demand(wanted, scaled(spec.minAvailable, wanted, round_up=True))
    return Demand(0, 0)


def disrupted_of(budget: Budget, pods: Sequence[PodView], *, known_since: Mapping[str, float], now: float) -> Disrupted:
    """What is still to be waited for; a pod that is going, or gone, has done what was granted.

    known_since is when each grant was first heard of, by the clock of now: the stamp in the budget is of another
    process's clock, and one that is wrong by two minutes would free what was just spent.
    """
    waiting: dict[str, meta_pb2.Time] = {}
    overdue: list[PodView] = []
    dues: list[float] = []
    granted = budget.status.disruptedPods
    for pod in pods:
        if pod.is_deleting or pod.name not in granted:
            continue
        due = known_since[pod.name] + DELETION_TIMEOUT_S
        if due <= now:
            overdue.append(pod)
            continue
        waiting[pod.name] = granted[pod.name]
        dues.append(due)
    return Disrupted(waiting, tuple(overdue), min(dues, default=None))


def healthy_count(pods: Sequence[PodView], disrupted: Disrupted) -> int:
    """How many pods do their work, and are not about to go."""
    return sum(1 for pod in pods if pod.is_ready and not pod.is_deleting and pod.name not in disrupted.waiting)


def status_of(
    budget: Budget, demand: Demand, disrupted: Disrupted, *, healthy: int, now: float
) -> policy_pb2.PodDisruptionBudgetStatus:
    """The status of a budget. Where no pod is expected none may go: the first ones are safe as they appear."""
    allowed = max(healthy - demand.healthy, 0) if demand.expected > 0 else 0
    status = policy_pb2.PodDisruptionBudgetStatus()
    status.conditions.extend(budget.status.conditions)
    for name, time in disrupted.waiting.items():
        status.disruptedPods[name].CopyFrom(time)
    status.observedGeneration = budget.metadata.generation
    status.expectedPods, status.currentHealthy = demand.expected, healthy
    status.desiredHealthy, status.disruptionsAllowed = demand.healthy, allowed
    reason = "SufficientPods" if allowed else "InsufficientPods"
    _say(status, is_allowed=bool(allowed), reason=reason, generation=budget.metadata.generation, now=now)
    return status


def failed_status(budget: Budget, why: str, *, now: float) -> policy_pb2.PodDisruptionBudgetStatus:
    """The status of a budget that could not be counted: nothing may go until it can be."""
    status = policy_pb2.PodDisruptionBudgetStatus()
    status.CopyFrom(budget.status)
    status.disruptionsAllowed = 0
    generation = budget.status.observedGeneration
    _say(status, is_allowed=False, reason="SyncFailed", message=why, generation=generation, now=now)
    return status


def _say(
    status: policy_pb2.PodDisruptionBudgetStatus,
    *,
    is_allowed: bool,
    reason: str,
    generation: int,
    now: float,
    message: str = "",
) -> None:
    condition = meta_pb2.Condition(
        type=ALLOWED,
        status="True" if is_allowed else "False",
        reason=reason,
        message=message,
        observedGeneration=generation,
    )
    condition.lastTransitionTime.seconds = int(now)
    set_condition(status.conditions, condition)
