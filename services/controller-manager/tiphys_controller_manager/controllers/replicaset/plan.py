"""What a ReplicaSet needs: how many pods more or fewer, and the status that says how it stands.

Source: kubernetes pkg/controller/replicaset/replica_set.go and replica_set_utils.go.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from tiphys.api.meta.v1 import meta_pb2
from tiphys_apimachinery.labels import Selector
from tiphys_apimachinery.meta import find_condition
from tiphys_controller_manager.controllers.replicaset.ranking import choose_for_deletion
from tiphys_controller_manager.ownership import matcher
from tiphys_controller_manager.pods import PodView

# Source: replica_set.go, BurstReplicas: most pods created or deleted in one round.
BURST: Final = 500
REPLICA_FAILURE: Final = "ReplicaFailure"


@dataclass(frozen=True, slots=True)
class PodChange:
    """Pods to make and pods to delete; one of the two is empty."""

    create: int = 0
    delete: tuple[PodView, ...] = ()


@dataclass(frozen=True, slots=True)
class Failure:
    """Why pods could not be made or deleted; reason is FailedCreate or FailedDelete."""

    reason: str
    message: str


def plan_pods(wanted: int, active: Sequence[PodView], related: Sequence[PodView], *, now: float) -> PodChange:
    """The next step towards so many pods, from its active ones; related are those of the whole deployment."""
    missing = wanted - len(active)
    if missing > 0:
        return PodChange(create=min(missing, BURST))
    if missing < 0:
        return PodChange(delete=choose_for_deletion(active, related, min(-missing, BURST), now=now))
    return PodChange()


def slow_start(count: int, first: int = 1) -> list[int]:
    """Sizes of the batches in which count pods are made: doubled each time, so that a lasting fault costs few calls."""
    sizes = []
    size = first
    while count > 0:
        sizes.append(min(size, count))
        count -= sizes[-1]
        size *= 2
    return sizes


def status_of(
    replica_set: Any, active: Sequence[PodView], *, made: int = 0, now: float, failure: Failure | None
) -> Any:
    """The status of a ReplicaSet, or of what is like it, with these active pods; now is in seconds since the epoch.

    made are pods that were made a moment ago and that the view does not show yet.
    """
    spec = replica_set.spec
    labels = Selector.from_set(dict(spec.template.metadata.labels))
    ready = [pod for pod in active if pod.is_ready]
    available = [pod for pod in ready if pod.available_in(spec.minReadySeconds, now=now) == 0.0]
    status = type(replica_set.status)()
    status.CopyFrom(replica_set.status)
    status.replicas = len(active) + made
    matches = matcher(labels)
    status.fullyLabeledReplicas = made + sum(1 for pod in active if matches(pod.labels))
    status.readyReplicas = len(ready)
    status.availableReplicas = len(available)
    status.observedGeneration = replica_set.metadata.generation
    _set_failure(status, failure, int(now))
    return status


def next_available(active: Sequence[PodView], min_ready_s: int, *, now: float) -> float | None:
    """Seconds until the next ready pod counts as available; None when there is none to wait for."""
    return min(filter(None, (pod.available_in(min_ready_s, now=now) for pod in active)), default=None)


def same_status(one: Any, other: Any) -> bool:
    """Whether two statuses say the same; a count of 0 and one that is not set are one."""
    counts = ("replicas", "fullyLabeledReplicas", "readyReplicas", "availableReplicas", "observedGeneration")
    return all(getattr(one, name) == getattr(other, name) for name in counts) and list(one.conditions) == list(
        other.conditions
    )


def _set_failure(status: Any, failure: Failure | None, now_s: int) -> None:
    known: Any = find_condition(status.conditions, REPLICA_FAILURE)
    if failure is None:
        if known is not None:
            status.conditions.remove(known)
        return
    if known is not None:
        # The first failure stands until all is well, or messages that differ would write without end.
        return
    status.conditions.add(
        type=REPLICA_FAILURE,
        status="True",
        reason=failure.reason,
        message=failure.message,
        lastTransitionTime=meta_pb2.Time(seconds=now_s, nanos=0),
    )
