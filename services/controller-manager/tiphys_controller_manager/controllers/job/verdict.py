"""How a Job stands: what its pods add up to, and whether that ends it.

Source: kubernetes pkg/controller/job/job_controller.go, syncJob.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from tiphys.api.batch.v1 import batch_pb2
from tiphys_apimachinery.meta import find_condition, is_condition_true
from tiphys_controller_manager.controllers.job.indexes import NO_INDEXES, Indexes, parse_indexes
from tiphys_controller_manager.controllers.job.policies import FAIL_INDEX, facts_of, rule_on, success_message
from tiphys_controller_manager.job_facts import TRACKING_FINALIZER
from tiphys_controller_manager.pods import PodView, seconds

COMPLETE: Final = "Complete"
FAILED: Final = "Failed"
SUSPENDED: Final = "Suspended"
FAILURE_TARGET: Final = "FailureTarget"
SUCCESS_CRITERIA_MET: Final = "SuccessCriteriaMet"
# Who runs Jobs whose spec.managedBy says nothing.
CONTROLLER_NAME: Final = "kubernetes.io/job-controller"


@dataclass(frozen=True, slots=True)
class Verdict:
    """How the Job ends. The interim condition comes first; the final one when all its pods are counted and gone."""

    has_failed: bool
    reason: str
    message: str

    @property
    def interim(self) -> str:
        """The condition that announces the end."""
        return FAILURE_TARGET if self.has_failed else SUCCESS_CRITERIA_MET

    @property
    def final(self) -> str:
        """The condition that is the end."""
        return FAILED if self.has_failed else COMPLETE


REACHED: Final = Verdict(False, "CompletionsReached", "Reached expected number of succeeded pods")


@dataclass(frozen=True, slots=True)
class Standing:
    """A Job and its pods added up; counts hold also what the status does not have yet."""

    active: tuple[PodView, ...]
    # Being deleted, and not at their end.
    terminating: tuple[PodView, ...]
    new_succeeded: tuple[PodView, ...]
    new_failed: tuple[PodView, ...]
    succeeded: int
    failed: int
    verdict: Verdict | None
    # Of an Indexed Job: what the status had, what is now, what has failed for good.
    known_done: Indexes = NO_INDEXES
    done: Indexes = NO_INDEXES
    lost: Indexes | None = None
    # Failed pods that stay until one takes their place, which is told how often the index has failed.
    delayed: Mapping[int, PodView] = field(default_factory=dict)


def is_finished(job: batch_pb2.Job) -> bool:
    """Whether the Job has come to its end."""
    return is_condition_true(job.status.conditions, COMPLETE) or is_condition_true(job.status.conditions, FAILED)


def is_indexed(spec: batch_pb2.JobSpec) -> bool:
    """Whether each pod has an index."""
    return spec.completionMode == "Indexed"


def is_tracked(pod: PodView) -> bool:
    """Whether the pod has still to be counted."""
    return TRACKING_FINALIZER in pod.finalizers


def replaces_failed_only(spec: batch_pb2.JobSpec) -> bool:
    """Whether a pod is replaced only when it has ended, and not as soon as it is being deleted."""
    return spec.podReplacementPolicy == "Failed"


def has_failed(spec: batch_pb2.JobSpec, pod: PodView) -> bool:
    """Whether the pod counts as failed. One that is being deleted may never reach an end of its own."""
    if pod.phase == "Failed":
        return True
    return pod.is_deleting and pod.phase != "Succeeded" and not replaces_failed_only(spec)


def valid_index(spec: batch_pb2.JobSpec, pod: PodView) -> int | None:
    """The pod's index, where it is one of the Job's."""
    index = facts_of(pod).index
    return index if index is not None and index < spec.completions else None


def assess(job: batch_pb2.Job, pods: Sequence[PodView], *, now: float) -> Standing:
    """Add up a Job and the pods that are still its affair; now is in seconds since the epoch."""
    spec, status = job.spec, job.status
    known = status.uncountedTerminatedPods
    fresh = [pod for pod in pods if is_tracked(pod) and (not is_indexed(spec) or valid_index(spec, pod) is not None)]
    known_succeeded, known_failed = frozenset(known.succeeded), frozenset(known.failed)
    succeeded = tuple(
        pod for pod in fresh if pod.phase == "Succeeded" and pod.uid not in known_succeeded | known_failed
    )
    failed = tuple(pod for pod in fresh if pod.uid not in known_failed and has_failed(spec, pod))
    counted = [pod for pod in failed if rule_on(spec, pod).counts]
    standing = Standing(
        active=tuple(pod for pod in pods if pod.is_active),
        terminating=tuple(pod for pod in pods if pod.is_deleting and not pod.is_finished),
        new_succeeded=succeeded,
        new_failed=failed,
        succeeded=status.succeeded + len(succeeded) + len(known.succeeded),
        failed=status.failed + len(counted) + len(known.failed),
        verdict=None,
    )
    if is_indexed(spec):
        standing = _with_indexes(job, pods, standing)
    return replace(standing, verdict=_judge(job, pods, standing, now))


def _with_indexes(job: batch_pb2.Job, pods: Sequence[PodView], standing: Standing) -> Standing:
    spec, status = job.spec, job.status
    known = parse_indexes(status.completedIndexes, spec.completions)
    tracked = [(index, pod) for pod in pods if is_tracked(pod) and (index := valid_index(spec, pod)) is not None]
    done = known.with_indexes({index for index, pod in tracked if pod.phase == "Succeeded"})
    lost: Indexes | None = None
    delayed: dict[int, PodView] = {}
    if spec.HasField("backoffLimitPerIndex"):
        failed = [(index, pod) for index, pod in tracked if has_failed(spec, pod)]
        lost = parse_indexes(status.failedIndexes, spec.completions)
        lost = lost.with_indexes({index for index, pod in failed if _is_index_lost(spec, pod)})
        taken = {facts_of(pod).index for pod in standing.active}
        for index, pod in failed:
            if index in done or index in lost or index in taken:
                continue
            if index not in delayed or _is_later(pod, delayed[index]):
                delayed[index] = pod
    return replace(standing, succeeded=len(done), known_done=known, done=done, lost=lost, delayed=delayed)


def _is_index_lost(spec: batch_pb2.JobSpec, pod: PodView) -> bool:
    ruling = rule_on(spec, pod)
    if ruling.action == FAIL_INDEX:
        return True
    return ruling.counts and facts_of(pod).index_failures >= spec.backoffLimitPerIndex


def _is_later(pod: PodView, other: PodView) -> bool:
    mine, theirs = facts_of(pod), facts_of(other)
    return (mine.all_failures, mine.ended) > (theirs.all_failures, theirs.ended)


def _judge(job: batch_pb2.Job, pods: Sequence[PodView], standing: Standing, now: float) -> Verdict | None:
    """What ends the Job; an announced end stands, whatever else has happened."""
    for kind, is_failure in ((SUCCESS_CRITERIA_MET, False), (FAILURE_TARGET, True)):
        known: Any = find_condition(job.status.conditions, kind)
        if known is not None and known.status == "True":
            return Verdict(is_failure, known.reason, known.message)
    spec = job.spec
    for pod in pods:
        if has_failed(spec, pod) and (message := rule_on(spec, pod).message):
            return Verdict(True, "PodFailurePolicy", message)
    if standing.failed > spec.backoffLimit or _has_restarted_too_often(spec, pods):
        return Verdict(True, "BackoffLimitExceeded", "Job has reached the specified backoff limit")
    left_s = deadline_in(job, now=now)
    if left_s is not None and left_s <= 0:
        return Verdict(True, "DeadlineExceeded", "Job was active longer than specified deadline")
    if standing.lost is not None:
        if spec.HasField("maxFailedIndexes") and len(standing.lost) > spec.maxFailedIndexes:
            text = "Job has exceeded the specified maximal number of failed indexes"
            return Verdict(True, "MaxFailedIndexesExceeded", text)
        if len(standing.lost) and len(standing.lost) + len(standing.done) >= spec.completions:
            return Verdict(True, "FailedIndexes", "Job has failed indexes")
    message = success_message(spec, standing.done) if is_indexed(spec) else ""
    return Verdict(False, "SuccessPolicy", message) if message else None


def deadline_in(job: batch_pb2.Job, *, now: float) -> float | None:
    """Seconds until a Job that runs is over its deadline; None where it has none."""
    spec, status = job.spec, job.status
    if not spec.HasField("activeDeadlineSeconds") or spec.suspend or not status.HasField("startTime"):
        return None
    if is_condition_true(status.conditions, SUSPENDED):
        # It goes on just now: the start is still that from before it rested, and is about to be set anew.
        return None
    return seconds(status.startTime) + spec.activeDeadlineSeconds - now


def _has_restarted_too_often(spec: batch_pb2.JobSpec, pods: Sequence[PodView]) -> bool:
    """Of a Job whose containers are started again in their pods, restarts are what counts against the limit."""
    if spec.template.spec.restartPolicy != "OnFailure":
        return False
    restarts = sum(facts_of(pod).restarts for pod in pods if pod.phase in ("Running", "Pending"))
    return restarts > 0 if spec.backoffLimit == 0 else restarts >= spec.backoffLimit
