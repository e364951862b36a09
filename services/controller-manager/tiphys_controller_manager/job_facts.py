"""What a Job asks of its pods: index, failures, exit codes, conditions and when they ended.

Kept apart from PodView, which carries it for pods of Jobs only: most pods of a cluster have none.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from tiphys.api.core.v1 import container_pb2, pod_pb2
from tiphys.api.meta.v1 import meta_pb2
from tiphys_apimachinery.meta import find_condition, get_controller_of, has_finalizer, join_key

JOB_KIND: Final = "Job"
JOB_API_VERSION: Final = "batch/v1"
# Source: k8s.io/api batch/v1, the constants of Job.
TRACKING_FINALIZER: Final = "batch.kubernetes.io/job-tracking"
INDEX: Final = "batch.kubernetes.io/job-completion-index"
INDEX_FAILURES: Final = "batch.kubernetes.io/job-index-failure-count"
INDEX_IGNORED_FAILURES: Final = "batch.kubernetes.io/job-index-ignored-failure-count"
# Pods that a Job has still to settle, by the key of the Job; those that nobody manages under their namespace and "/".
UNSETTLED_INDEX: Final = "unsettled"


@dataclass(frozen=True, slots=True)
class Exit:
    """A container that has ended; init containers are told apart, as rules look at them last."""

    container: str
    code: int
    is_init: bool = False


@dataclass(frozen=True, slots=True)
class JobFacts:
    """Of one pod of a Job. index is None where it has none; ended is in seconds since the epoch, 0 while it runs."""

    index: int | None = None
    index_failures: int = 0
    index_ignored_failures: int = 0
    # Of all containers together, where PodView has the most of any.
    restarts: int = 0
    ended: float = 0.0
    exits: tuple[Exit, ...] = ()
    conditions: tuple[tuple[str, str], ...] = ()

    @property
    def all_failures(self) -> int:
        """How often its index has failed before it, by whatever rule."""
        return self.index_failures + self.index_ignored_failures


def is_of_job(pod: pod_pb2.Pod) -> bool:
    """Whether a Job manages the pod."""
    owner = get_controller_of(pod)
    return owner is not None and owner.kind == JOB_KIND and owner.apiVersion == JOB_API_VERSION


def job_facts(pod: pod_pb2.Pod) -> JobFacts:
    """The facts of one pod."""
    status, annotations = pod.status, pod.metadata.annotations
    all_statuses = (*status.containerStatuses, *status.initContainerStatuses)
    return JobFacts(
        index=_whole_number(annotations, INDEX),
        index_failures=_whole_number(annotations, INDEX_FAILURES) or 0,
        index_ignored_failures=_whole_number(annotations, INDEX_IGNORED_FAILURES) or 0,
        restarts=sum(container.restartCount for container in all_statuses),
        ended=_ended(pod),
        exits=(*_exits(status.containerStatuses, False), *_exits(status.initContainerStatuses, True)),
        conditions=tuple((item.type, item.status) for item in status.conditions),
    )


def unsettled_keys(pod: pod_pb2.Pod) -> Iterable[str]:
    """Index function: the Job whose affair the pod still is. One that is counted is no longer in the index.

    So a Job of a thousand pods looks at those that live, and never again at all that it ever had.
    """
    is_tracked = has_finalizer(pod, TRACKING_FINALIZER)
    owner = get_controller_of(pod)
    if owner is None:
        return (join_key(pod.metadata.namespace, ""),) if is_tracked else ()
    if owner.kind != JOB_KIND or owner.apiVersion != JOB_API_VERSION:
        return ()
    if not is_tracked and pod.status.phase in ("Succeeded", "Failed"):
        return ()
    return (join_key(pod.metadata.namespace, owner.name),)


def _exits(statuses: Iterable[container_pb2.ContainerStatus], is_init: bool) -> Iterable[Exit]:
    for item in statuses:
        if item.state.HasField("terminated"):
            yield Exit(item.name, item.state.terminated.exitCode, is_init)


def _ended(pod: pod_pb2.Pod) -> float:
    """When its containers ended, or else when it became unready, was deleted, or was made.

    Source: kubernetes pkg/controller/job/backoff_utils.go, getFinishedTime.
    """
    if pod.status.phase not in ("Succeeded", "Failed") and not pod.metadata.HasField("deletionTimestamp"):
        return 0.0
    sidecars = {item.name for item in pod.spec.initContainers if item.restartPolicy == "Always"}
    statuses = [
        *pod.status.containerStatuses,
        *(item for item in pod.status.initContainerStatuses if item.name in sidecars),
    ]
    ends = [_seconds(item.state.terminated.finishedAt) for item in statuses]
    if ends and all(ends):
        return max(ends)
    ready = find_condition(pod.status.conditions, "Ready")
    if ready is not None and ready.status == "False" and _seconds(ready.lastTransitionTime):
        return _seconds(ready.lastTransitionTime)
    if pod.metadata.HasField("deletionTimestamp"):
        return _seconds(pod.metadata.deletionTimestamp) - pod.metadata.deletionGracePeriodSeconds
    return _seconds(pod.metadata.creationTimestamp)


def _seconds(time: meta_pb2.Time) -> float:
    return float(time.seconds) + time.nanos / 1e9


def _whole_number(annotations: Mapping[str, str], name: str) -> int | None:
    text = annotations.get(name, "")
    return int(text) if text.isascii() and text.isdigit() else None
