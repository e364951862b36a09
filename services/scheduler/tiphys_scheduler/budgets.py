"""PodDisruptionBudgets as preemption looks at them: kept where possible, broken where nothing else makes room."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from tiphys.api.policy.v1.policy_pb2 import PodDisruptionBudget
from tiphys_apimachinery.labels import Selector, from_label_selector
from tiphys_client.client import Client
from tiphys_client.informer import Informer
from tiphys_component.clock import Clock
from tiphys_scheduler.pod_info import PodInfo


@dataclass(frozen=True, slots=True)
class BudgetView:
    """What counts of one budget; disrupted are pods whose end it has allowed already."""

    namespace: str
    selector: Selector
    allowed: int
    disrupted: frozenset[str]

    def covers(self, pod: PodInfo) -> bool:
        """Whether the end of the pod is the budget's business. Pods without labels are nobody's, as upstream."""
        if not pod.labels or pod.namespace != self.namespace or not self.selector:
            return False
        return pod.name not in self.disrupted and self.selector.matches(pod.labels)


def budget_view(budget: PodDisruptionBudget) -> BudgetView:
    """Reads a budget."""
    selector = budget.spec.selector if budget.spec.HasField("selector") else None
    return BudgetView(
        budget.metadata.namespace,
        from_label_selector(selector),
        budget.status.disruptionsAllowed,
        frozenset(budget.status.disruptedPods),
    )


def budget_informer(
    client: Client, clock: Clock, rng: random.Random | None = None
) -> Informer[PodDisruptionBudget, BudgetView]:
    """An informer of this process; the caller runs it."""
    return Informer(client, PodDisruptionBudget, clock=clock, projection=budget_view, rng=rng)


class Budgets:
    """All budgets; version rises with each change."""

    def __init__(self) -> None:
        self._budgets: dict[str, BudgetView] = {}
        self.version = 0

    def __len__(self) -> int:
        return len(self._budgets)

    def set(self, key: str, view: BudgetView | None) -> None:
        """A budget as the API says, None when it is gone."""
        if self._budgets.get(key) == view:
            return
        self._budgets.pop(key, None)
        if view is not None:
            self._budgets[key] = view
        self.version += 1

    def split(self, pods: Iterable[PodInfo]) -> tuple[list[PodInfo], list[PodInfo]]:
        """The pods, in order, whose end breaks a budget, and the others. Each uses up what budgets still allow."""
        if not self._budgets:
            return [], list(pods)
        allowed = {key: view.allowed for key, view in self._budgets.items()}
        breaking: list[PodInfo] = []
        others: list[PodInfo] = []
        for pod in pods:
            breaks = False
            for key, view in self._budgets.items():
                if view.covers(pod):
                    allowed[key] -= 1
                    breaks = breaks or allowed[key] < 0
            (breaking if breaks else others).append(pod)
        return breaking, others


def follow_budgets(
    informer: Informer[PodDisruptionBudget, BudgetView], note: Callable[[str, BudgetView | None], None]
) -> None:
    """Has each change noted."""

    def put(budget: PodDisruptionBudget) -> None:
        key = f"{budget.metadata.namespace}/{budget.metadata.name}"
        note(key, informer.projection(key))

    informer.add_handler(
        put, lambda _, new: put(new), lambda gone: note(f"{gone.metadata.namespace}/{gone.metadata.name}", None)
    )
