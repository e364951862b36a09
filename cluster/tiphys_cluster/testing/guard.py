"""Who watches over a world: looks at every change, and names the promises that it breaks.

Bounds that a user may move count from the moment since when they hold: a set that was told to shrink has its old size
until it says that it has seen the new one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from tiphys.api.apps.v1 import apps_pb2
from tiphys.api.core.v1 import pod_pb2
from tiphys.api.policy.v1 import policy_pb2
from tiphys_apimachinery.labels import from_label_selector
from tiphys_apimachinery.meta import get_controller_of, is_condition_true
from tiphys_cluster.testing.world import World, is_active, is_ready

# Longer than any view of a controller lags, its restart included.
_LAG_S: Final = 90.0
_SETS: Final = (apps_pb2.Deployment, apps_pb2.ReplicaSet, apps_pb2.StatefulSet)


@dataclass(frozen=True, slots=True)
class Breach:
    """A promise that did not hold."""

    name: str
    what: str
    revision: int


@dataclass(frozen=True, slots=True)
class Promise:
    """What may not be, of changes of some kinds. check names what the change breaks."""

    kinds: tuple[type[Any], ...]
    check: Callable[[Guard, Any, Any], Iterator[str]]


@dataclass(slots=True)
class Guard:
    """Looks at every change of a world.

    running are the pods that run on nodes, by namespace/name; now is in seconds.
    """

    world: World
    running: Mapping[str, set[str]]
    now: Callable[[], float]
    promises: Mapping[str, Promise]
    breaches: list[Breach] = field(default_factory=list)
    # The most replicas that an object may still be acting upon, by its uid.
    ceilings: dict[str, int] = field(default_factory=dict)
    # Names of pods that there were, each behind its owner's uid.
    seen: set[str] = field(default_factory=set)
    # Pods that a budget lost otherwise than by eviction, with the moment, by the budget's uid: it may not know yet.
    losses: dict[str, dict[str, float]] = field(default_factory=dict)

    def look(self, before: Any, after: Any) -> None:
        """Check every promise that the change may have broken."""
        self._note_ceiling(before, after)
        self._note_loss(before, after)
        owner = get_controller_of(after) if isinstance(after, pod_pb2.Pod) else None
        if owner is not None:
            self.seen.add(f"{owner.uid}/{after.metadata.name}")
        kind = type(after if after is not None else before)
        for name, promise in self.promises.items():
            if kind in promise.kinds:
                for what in promise.check(self, before, after):
                    self.breaches.append(Breach(name, what, self.world.revision))

    def ceiling(self, owner: Any) -> int:
        """The most replicas of an owner that are in order now."""
        return self.ceilings.get(owner.metadata.uid, int(owner.spec.replicas))

    def budgets_of(self, pod: pod_pb2.Pod) -> Iterator[policy_pb2.PodDisruptionBudget]:
        """The budgets that cover a pod."""
        for budget in self.world.of(policy_pb2.PodDisruptionBudget).values():
            if budget.metadata.namespace == pod.metadata.namespace and from_label_selector(
                budget.spec.selector
            ).matches(pod.metadata.labels):
                yield budget

    def owner_of(self, obj: Any, kind: Any) -> Any:
        """The controller of an object if it is of that kind, and there."""
        reference = get_controller_of(obj)
        if reference is None or reference.kind != kind.DESCRIPTOR.name:
            return None
        found = self.world.of(kind).get(f"{obj.metadata.namespace}/{reference.name}")
        return found if found is not None and found.metadata.uid == reference.uid else None

    def new_pods_owner(self, before: Any, after: Any, kind: Any) -> Any:
        """The controller of a pod that has just come, or was just taken over; None for any other change."""
        if after is None or not is_active(after):
            return None
        if before is not None and get_controller_of(before) == get_controller_of(after):
            return None
        return self.owner_of(after, kind)

    def _note_ceiling(self, before: Any, after: Any) -> None:
        if isinstance(after, _SETS):
            status, spec, uid = after.status, after.spec, after.metadata.uid
            has_seen = status.observedGeneration >= after.metadata.generation and status.replicas <= spec.replicas
            known = spec.replicas if has_seen else max(self.ceilings.get(uid, 0), spec.replicas)
            self.ceilings[uid] = known
        elif isinstance(before, _SETS):
            self.ceilings.pop(before.metadata.uid, None)

    def _note_loss(self, before: Any, after: Any) -> None:
        if isinstance(before, pod_pb2.Pod) and is_ready(before) and not was_evicted(before, after):
            if after is None or not is_ready(after):
                for budget in self.budgets_of(before):
                    self.losses.setdefault(budget.metadata.uid, {})[before.metadata.uid] = self.now()
        elif isinstance(after, policy_pb2.PodDisruptionBudget):
            known = self.losses.get(after.metadata.uid, {})
            for uid in [uid for uid, moment in known.items() if self.now() - moment > _LAG_S]:
                del known[uid]


def was_evicted(before: Any, after: Any) -> bool:
    """Whether this change is the end of a pod that was to be evicted."""
    pod = after if after is not None else before
    return not (after is not None and is_active(after)) and any(
        one.type == "DisruptionTarget" and one.reason == "EvictionByEvictionAPI" for one in pod.status.conditions
    )


def is_over(job: Any) -> bool:
    """Whether a Job said that it is done, one way or the other."""
    return any(is_condition_true(job.status.conditions, kind) for kind in ("Complete", "Failed"))
