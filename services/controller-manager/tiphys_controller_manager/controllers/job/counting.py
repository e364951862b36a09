"""Counts pods that have ended, each once: first its uid is written to the status, then its finalizer goes, then the
number rises. Whoever dies in between finds at which of the three it was.

Source: kubernetes pkg/controller/job/job_controller.go, trackJobStatusAndRemoveFinalizers.
"""

from __future__ import annotations

import datetime
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tiphys.api.batch.v1 import batch_pb2
from tiphys_apimachinery.meta import find_condition, is_being_deleted, to_time
from tiphys_controller_manager.controllers.job.policies import rule_on
from tiphys_controller_manager.controllers.job.verdict import (
    SUSPENDED,
    Standing,
    Verdict,
    has_failed,
    is_indexed,
    is_tracked,
    valid_index,
)
from tiphys_controller_manager.pods import PodView

# Source: job_controller.go, MaxUncountedPods: their uids stay under 20 KB.
MOST_UNCOUNTED: Final = 500


@dataclass(frozen=True, slots=True)
class Tally:
    """The counts of pods that live, after this round's creations and deletions."""

    active: int
    ready: int
    terminating: int


@dataclass(frozen=True, slots=True)
class Count:
    """The status to write first, and the pods whose finalizers go after; is_all is false where some are left over."""

    status: batch_pb2.JobStatus
    release: tuple[PodView, ...]
    is_all: bool


def count_pods(
    job: batch_pb2.Job, pods: Sequence[PodView], standing: Standing, *, verdict: Verdict | None, tally: Tally
) -> Count:
    """The first status of a round: which pods have ended, as uids, and what that makes of the Job."""
    spec = job.spec
    status = batch_pb2.JobStatus()
    status.CopyFrom(job.status)
    status.active, status.ready, status.terminating = tally.active, tally.ready, tally.terminating
    status.uncountedTerminatedPods.SetInParent()
    clear_counted(status, {pod.uid for pod in pods if is_tracked(pod)})
    uncounted = status.uncountedTerminatedPods
    seen_succeeded, seen_failed = set(uncounted.succeeded), set(uncounted.failed)
    new_indexes: list[int] = []
    release: list[PodView] = []
    is_all = True
    ends_badly = verdict is not None and verdict.has_failed
    for pod in sorted(pods, key=lambda pod: valid_index(spec, pod) or 0) if is_indexed(spec) else pods:
        if not is_tracked(pod) or not _may_go(job, standing, verdict, pod):
            continue
        if len(new_indexes) + len(uncounted.succeeded) + len(uncounted.failed) >= MOST_UNCOUNTED:
            is_all = False
            break
        release.append(pod)
        index = valid_index(spec, pod) if is_indexed(spec) else None
        is_countable = not is_indexed(spec) or index is not None
        if pod.phase == "Succeeded" and pod.uid not in seen_failed:
            if index is not None and index not in standing.known_done:
                new_indexes.append(index)
            elif not is_indexed(spec) and pod.uid not in seen_succeeded:
                uncounted.succeeded.append(pod.uid)
        elif (has_failed(spec, pod) or ends_badly) and is_countable and pod.uid not in seen_failed:
            uncounted.failed.extend([pod.uid] if rule_on(spec, pod).counts else [])
    if is_indexed(spec):
        done = standing.known_done.with_indexes(new_indexes)
        status.succeeded, status.completedIndexes = len(done), str(done)
        if standing.lost is not None:
            status.failedIndexes = str(standing.lost)
        else:
            status.ClearField("failedIndexes")
    return Count(status, tuple(release), is_all)


def _may_go(job: batch_pb2.Job, standing: Standing, verdict: Verdict | None, pod: PodView) -> bool:
    """Whether a pod need not be kept any more."""
    if verdict is not None or is_being_deleted(job) or pod.phase == "Succeeded":
        return True
    return has_failed(job.spec, pod) and all(pod.uid != kept.uid for kept in standing.delayed.values())


def clear_counted(status: batch_pb2.JobStatus, tracked: Collection[str]) -> None:
    """Raise the numbers by the uids whose pods have no finalizer any more, and forget those."""
    uncounted = status.uncountedTerminatedPods
    for name in ("succeeded", "failed"):
        uids = getattr(uncounted, name)
        left = [uid for uid in uids if uid in tracked]
        if len(left) != len(uids):
            setattr(status, name, getattr(status, name) + len(uids) - len(left))
            del uids[:]
            uids.extend(left)


def has_uncounted(status: batch_pb2.JobStatus) -> bool:
    """Whether pods that have ended are still to be counted."""
    return bool(status.uncountedTerminatedPods.succeeded or status.uncountedTerminatedPods.failed)


def announce(status: batch_pb2.JobStatus, verdict: Verdict, now: datetime.datetime) -> None:
    """Write the interim condition, which makes the verdict stand."""
    put_condition(status, verdict.interim, "True", why=(verdict.reason, verdict.message), now=now)


def finish(status: batch_pb2.JobStatus, verdict: Verdict, now: datetime.datetime) -> bool:
    """Write the final condition once all pods are counted and gone; whether the Job has ended by that."""
    if has_uncounted(status) or status.terminating or status.active:
        return False
    put_condition(status, verdict.final, "True", why=(verdict.reason, verdict.message), now=now)
    if not verdict.has_failed:
        # Never before its start, which the API server refuses: a clock may have been set back since.
        began, ended = status.startTime, to_time(now)
        is_before = (ended.seconds, ended.nanos) < (began.seconds, began.nanos)
        status.completionTime.CopyFrom(began if is_before else ended)
    return True


def set_suspended(status: batch_pb2.JobStatus, is_suspended: bool, now: datetime.datetime) -> str:
    """Write whether the Job rests; a Job that goes on begins anew. Returns the reason of the event, "" for none."""
    known: Any = find_condition(status.conditions, SUSPENDED)
    if is_suspended == (known is not None and known.status == "True"):
        return ""
    if is_suspended:
        put_condition(status, SUSPENDED, "True", why=("JobSuspended", "Job suspended"), now=now)
        return "Suspended"
    put_condition(status, SUSPENDED, "False", why=("JobResumed", "Job resumed"), now=now)
    status.startTime.CopyFrom(to_time(now))
    return "Resumed"


def put_condition(
    status: batch_pb2.JobStatus, kind: str, value: str, *, why: tuple[str, str], now: datetime.datetime
) -> None:
    """Set a condition; why is reason and message. One that says so already keeps its time."""
    condition: Any = find_condition(status.conditions, kind)
    reason, message = why
    if condition is None:
        condition = status.conditions.add(type=kind)
    elif (condition.status, condition.reason, condition.message) == (value, reason, message):
        return
    condition.status, condition.reason, condition.message = value, reason, message
    for name in ("lastProbeTime", "lastTransitionTime"):
        getattr(condition, name).CopyFrom(to_time(now))
