"""A Deployment's status: counts, and the conditions from which kubectl rollout status reads how far it is.

Source: kubernetes pkg/controller/deployment/progress.go, sync.go and util/deployment_util.go.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from tiphys.api.apps.v1 import apps_pb2
from tiphys.api.meta.v1 import meta_pb2
from tiphys_apimachinery.meta import find_condition
from tiphys_controller_manager.controllers.deployment.rolling import Limits
from tiphys_controller_manager.pods import seconds

AVAILABLE: Final = "Available"
PROGRESSING: Final = "Progressing"
REPLICA_FAILURE: Final = "ReplicaFailure"
TIMED_OUT: Final = "ProgressDeadlineExceeded"
NEW_AVAILABLE: Final = "NewReplicaSetAvailable"
PAUSED: Final = "DeploymentPaused"
_NO_DEADLINE: Final = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Rollout:
    """What a status is made of."""

    deployment: apps_pb2.Deployment
    new: apps_pb2.ReplicaSet | None
    olds: Sequence[apps_pb2.ReplicaSet]
    limits: Limits

    @property
    def sets(self) -> list[apps_pb2.ReplicaSet]:
        """All ReplicaSets."""
        return [*self.olds, *([self.new] if self.new is not None else [])]

    @property
    def subject(self) -> str:
        """What messages speak of."""
        if self.new is not None:
            return f'ReplicaSet "{self.new.metadata.name}"'
        return f'Deployment "{self.deployment.metadata.name}"'


@dataclass(frozen=True, slots=True)
class Said:
    """One condition without its times."""

    kind: str
    status: str
    reason: str
    message: str


def has_deadline(deployment: apps_pb2.Deployment) -> bool:
    """Whether progress is watched at all."""
    spec = deployment.spec
    return spec.HasField("progressDeadlineSeconds") and spec.progressDeadlineSeconds != _NO_DEADLINE


def counts(rollout: Rollout, now_s: float) -> apps_pb2.DeploymentStatus:
    """The status by what its ReplicaSets say, conditions as they were but for Available."""
    deployment, sets = rollout.deployment, rollout.sets
    available = sum(item.status.availableReplicas for item in sets)
    status = apps_pb2.DeploymentStatus()
    status.CopyFrom(deployment.status)
    status.observedGeneration = deployment.metadata.generation
    status.replicas = sum(item.status.replicas for item in sets)
    status.updatedReplicas = rollout.new.status.replicas if rollout.new is not None else 0
    status.readyReplicas = sum(item.status.readyReplicas for item in sets)
    status.availableReplicas = available
    status.unavailableReplicas = max(0, sum(item.spec.replicas for item in sets) - available)
    if available >= rollout.limits.min_available:
        message = "Deployment has minimum availability."
        set_condition(status, Said(AVAILABLE, "True", "MinimumReplicasAvailable", message), now_s)
    else:
        message = "Deployment does not have minimum availability."
        set_condition(status, Said(AVAILABLE, "False", "MinimumReplicasUnavailable", message), now_s)
    return status


def rollout_status(rollout: Rollout, now_s: float) -> apps_pb2.DeploymentStatus:
    """The status in the middle, or at the end, of a rollout."""
    deployment = rollout.deployment
    status = counts(rollout, now_s)
    known: Any = find_condition(deployment.status.conditions, PROGRESSING)
    if not has_deadline(deployment):
        remove_condition(status, PROGRESSING)
    elif not (status.replicas == status.updatedReplicas and known is not None and known.reason == NEW_AVAILABLE):
        _set_progress(rollout, status, known, now_s)
    _set_replica_failure(rollout, status)
    return status


def is_complete(deployment: apps_pb2.Deployment, status: apps_pb2.DeploymentStatus) -> bool:
    """Whether all pods are of the new template and available, and no other is left."""
    wanted = deployment.spec.replicas
    return (
        status.updatedReplicas == wanted
        and status.replicas == wanted
        and status.availableReplicas == wanted
        and status.observedGeneration >= deployment.metadata.generation
    )


def is_progressing(old: apps_pb2.DeploymentStatus, new: apps_pb2.DeploymentStatus) -> bool:
    """Whether more is new, ready or available, or less is old."""
    return (
        new.updatedReplicas > old.updatedReplicas
        or new.replicas - new.updatedReplicas < old.replicas - old.updatedReplicas
        or new.readyReplicas > old.readyReplicas
        or new.availableReplicas > old.availableReplicas
    )


def is_timed_out(deployment: apps_pb2.Deployment, status: apps_pb2.DeploymentStatus, now_s: float) -> bool:
    """Whether nothing has progressed for as long as the spec allows."""
    known: Any = find_condition(status.conditions, PROGRESSING)
    if known is None or known.reason == NEW_AVAILABLE or not has_deadline(deployment):
        return False
    if known.reason == TIMED_OUT:
        return True
    return seconds(known.lastUpdateTime) + deployment.spec.progressDeadlineSeconds < now_s


def look_again_after(deployment: apps_pb2.Deployment, status: apps_pb2.DeploymentStatus, now_s: float) -> float | None:
    """Seconds until the deadline may have passed; None where it does not run."""
    known: Any = find_condition(status.conditions, PROGRESSING)
    if known is None or not has_deadline(deployment) or deployment.spec.paused:
        return None
    if is_complete(deployment, status) or known.reason == TIMED_OUT:
        return None
    # Stamps are whole seconds, so one more.
    return max(1.0, seconds(known.lastUpdateTime) + deployment.spec.progressDeadlineSeconds - now_s + 1.0)


def note_pause(deployment: apps_pb2.Deployment, now_s: float) -> None:
    """Say in the condition Progressing that the Deployment was paused or resumed, so that the deadline stands still."""
    if not has_deadline(deployment):
        return
    known: Any = find_condition(deployment.status.conditions, PROGRESSING)
    if known is not None and known.reason == TIMED_OUT:
        # What has failed stays failed until it progresses.
        return
    was_paused = known is not None and known.reason == PAUSED
    if deployment.spec.paused and not was_paused:
        set_condition(deployment.status, Said(PROGRESSING, "Unknown", PAUSED, "Deployment is paused"), now_s)
    elif not deployment.spec.paused and was_paused:
        message = "Deployment is resumed"
        set_condition(deployment.status, Said(PROGRESSING, "Unknown", "DeploymentResumed", message), now_s)


def set_condition(status: apps_pb2.DeploymentStatus, said: Said, now_s: float) -> None:
    """Set one condition; with status and reason unchanged it stays as it is, message included."""
    known: Any = find_condition(status.conditions, said.kind)
    if known is not None and known.status == said.status and known.reason == said.reason:
        return
    stamp = meta_pb2.Time(seconds=int(now_s), nanos=0)
    changed = known is None or known.status != said.status
    made = apps_pb2.DeploymentCondition(
        type=said.kind,
        status=said.status,
        reason=said.reason,
        message=said.message,
        lastUpdateTime=stamp,
        lastTransitionTime=stamp if changed else known.lastTransitionTime,
    )
    remove_condition(status, said.kind)
    status.conditions.append(made)


def remove_condition(status: apps_pb2.DeploymentStatus, kind: str) -> None:
    """Drop one condition."""
    kept = [condition for condition in status.conditions if condition.type != kind]
    if len(kept) != len(status.conditions):
        del status.conditions[:]
        status.conditions.extend(kept)


def same_status(one: apps_pb2.DeploymentStatus, other: apps_pb2.DeploymentStatus) -> bool:
    """Whether two statuses say the same; a count of 0 and one that is not set are one."""
    for field in one.DESCRIPTOR.fields:
        if field.name == "conditions":
            if list(one.conditions) != list(other.conditions):
                return False
        elif getattr(one, field.name) != getattr(other, field.name):
            return False
    return True


def _set_progress(rollout: Rollout, status: apps_pb2.DeploymentStatus, known: Any, now_s: float) -> None:
    deployment = rollout.deployment
    if is_complete(deployment, status):
        message = f"{rollout.subject} has successfully progressed."
        set_condition(status, Said(PROGRESSING, "True", NEW_AVAILABLE, message), now_s)
    elif is_progressing(deployment.status, status):
        # A new update time each time it moves, or the deadline would run although all goes well.
        transition = known.lastTransitionTime if known is not None and known.status == "True" else None
        remove_condition(status, PROGRESSING)
        message = f"{rollout.subject} is progressing."
        set_condition(status, Said(PROGRESSING, "True", "ReplicaSetUpdated", message), now_s)
        if transition is not None:
            status.conditions[-1].lastTransitionTime.CopyFrom(transition)
    elif is_timed_out(deployment, status, now_s):
        message = f"{rollout.subject} has timed out progressing."
        set_condition(status, Said(PROGRESSING, "False", TIMED_OUT, message), now_s)


def _set_replica_failure(rollout: Rollout, status: apps_pb2.DeploymentStatus) -> None:
    first = [rollout.new] if rollout.new is not None else []
    for item in [*first, *rollout.olds]:
        failed: Any = find_condition(item.status.conditions, REPLICA_FAILURE)
        if failed is not None:
            known: Any = find_condition(status.conditions, REPLICA_FAILURE)
            if known is not None and known.status == failed.status and known.reason == failed.reason:
                return
            remove_condition(status, REPLICA_FAILURE)
            status.conditions.add(
                type=REPLICA_FAILURE,
                status=failed.status,
                reason=failed.reason,
                message=failed.message,
                lastUpdateTime=failed.lastTransitionTime,
                lastTransitionTime=failed.lastTransitionTime,
            )
            return
    remove_condition(status, REPLICA_FAILURE)
