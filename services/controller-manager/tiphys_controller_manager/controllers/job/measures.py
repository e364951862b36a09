"""What is counted of Jobs, said in upstream's labels.

Source: kubernetes pkg/controller/job: syncJob, recordJobFinishedMetrics, recordJobPodsCreationTotal.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from tiphys.api.batch.v1 import batch_pb2
from tiphys_apimachinery.meta import has_finalizer
from tiphys_controller_manager.controller_metrics import JobMetrics
from tiphys_controller_manager.controllers.job.indexes import parse_indexes
from tiphys_controller_manager.controllers.job.policies import rule_on
from tiphys_controller_manager.controllers.job.verdict import Standing, Verdict
from tiphys_controller_manager.job_facts import TRACKING_FINALIZER
from tiphys_controller_manager.pods import PodView

RECONCILING, PODS_CREATED, PODS_DELETED = "reconciling", "pods_created", "pods_deleted"


@dataclass(frozen=True, slots=True)
class Numbers:
    """How far a Job had come."""

    succeeded: int
    failed: int
    done: str
    lost: str

    @classmethod
    def of(cls, status: batch_pb2.JobStatus) -> Numbers:
        """Those that a status says."""
        return cls(status.succeeded, status.failed, status.completedIndexes, status.failedIndexes)


class Measures:
    """Counts what becomes of Jobs and their pods."""

    def __init__(self, metrics: JobMetrics) -> None:
        self._metrics = metrics

    def round_ended(self, job: batch_pb2.Job, action: str, took_s: float, *, has_failed: bool) -> None:
        """One round of a Job that has not ended."""
        result = "failed" if has_failed else "succeeded"
        self._metrics.syncs.labels(_mode(job), result, action).inc()
        self._metrics.sync_seconds.labels(_mode(job), result, action).observe(took_s)

    def ended(self, job: batch_pb2.Job, verdict: Verdict) -> None:
        """The Job has its final condition."""
        result = "failed" if verdict.has_failed else "succeeded"
        self._metrics.finished.labels(_mode(job), result, verdict.reason).inc()

    def counted(self, job: batch_pb2.Job, before: Numbers, after: batch_pb2.JobStatus) -> None:
        """Its numbers have risen, or fallen where it begins anew."""
        for result in ("succeeded", "failed"):
            risen = getattr(after, result) - getattr(before, result)
            if risen > 0:
                self._metrics.pods_finished.labels(_mode(job), result).inc(risen)
        if job.spec.completionMode != "Indexed":
            return
        limit = "perIndex" if job.spec.HasField("backoffLimitPerIndex") else "global"
        for status, old, new in (
            ("succeeded", before.done, after.completedIndexes),
            ("failed", before.lost, after.failedIndexes),
        ):
            most = job.spec.completions
            risen = len(parse_indexes(new, most)) - len(parse_indexes(old, most)) if new != old else 0
            if risen > 0:
                self._metrics.indexes.labels(status, limit).inc(risen)

    def ruled(self, job: batch_pb2.Job, failed: Iterable[PodView]) -> None:
        """These pods have failed, and are counted or not as the policy says."""
        if not job.spec.HasField("podFailurePolicy"):
            return
        for pod in failed:
            self._metrics.failures_ruled.labels(rule_on(job.spec, pod).action).inc()

    def made(self, job: batch_pb2.Job, standing: Standing, *, done: int, wanted: int) -> None:
        """So many pods were made of those that were wanted."""
        reason = "new"
        if standing.terminating or standing.failed:
            is_patient = job.spec.podReplacementPolicy == "Failed"
            reason = "recreate_failed" if is_patient else "recreate_terminating_or_failed"
        if done:
            self._metrics.pods_made.labels(reason, "succeeded").inc(done)
        if done < wanted:
            self._metrics.pods_made.labels(reason, "failed").inc()

    def pod_seen(self, old: Any, new: Any) -> None:
        """A pod changed: whether it is one that ended and is still to be counted."""
        was, is_now = _awaits_count(old), _awaits_count(new)
        if was != is_now:
            self._metrics.finalizers.labels("add" if is_now else "delete").inc()

    def job_seen(self, old: Any, new: Any, own_name: str) -> None:
        """A Job came: whether it is another's."""
        if old is None and new.spec.managedBy not in ("", own_name):
            self._metrics.elsewhere.labels(new.spec.managedBy).inc()


def _mode(job: batch_pb2.Job) -> str:
    return job.spec.completionMode or "NonIndexed"


def _awaits_count(pod: Any) -> bool:
    return pod is not None and pod.status.phase in ("Succeeded", "Failed") and has_finalizer(pod, TRACKING_FINALIZER)
