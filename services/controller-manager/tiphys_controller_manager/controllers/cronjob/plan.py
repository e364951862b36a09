"""What a CronJob needs: whether a run is due, which of its Jobs go, and what its status says.

Source: kubernetes pkg/controller/cronjob/cronjob_controllerv2.go and utils.go.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from tiphys.api.batch.v1 import batch_pb2
from tiphys.api.core.v1 import reference_pb2
from tiphys_apimachinery.cron import Schedule
from tiphys_apimachinery.meta import is_being_deleted, is_condition_true, new_controller_ref, to_datetime
from tiphys_controller_manager.pods import seconds

API_VERSION: Final = "batch/v1"
KIND: Final = "CronJob"
# Source: k8s.io/api batch/v1, CronJobScheduledTimestampAnnotation.
SCHEDULED_AT: Final = "batch.kubernetes.io/cronjob-scheduled-timestamp"
# So many missed runs are told of: a clock that jumped looks just like that.
_MANY: Final = 100
_FORBID: Final = "Forbid"
_REPLACE: Final = "Replace"

CronJob = batch_pb2.CronJob
Job = batch_pb2.Job
Moment = datetime.datetime


@dataclass(frozen=True, slots=True)
class Note:
    """Something to tell the user."""

    type: Literal["Normal", "Warning"]
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Due:
    """The latest moment that has passed without its run, and whether very many have."""

    moment: Moment
    is_one_of_many: bool = False


@dataclass(slots=True)
class Plan:
    """One round: Jobs to delete, the run to start, and when to look again; wait_s None means at the next change."""

    start: Moment | None = None
    replace: tuple[Job, ...] = ()
    wait_s: float | None = None
    notes: list[Note] = field(default_factory=list)


def find_due(schedule: Schedule, since: Moment, now: Moment) -> Due | None:
    """The latest moment after since and not after now; one alone runs, however many were missed."""
    first = schedule.next_after(since)
    if first is None or first > now:
        return None
    second = schedule.next_after(first)
    if second is None or second > now:
        return Due(first)
    count, moment = 2, second
    while count <= _MANY and (following := schedule.next_after(moment)) is not None and following <= now:
        count, moment = count + 1, following
    if count <= _MANY:
        return Due(moment)
    # Years may lie between: look back from now, each time twice as far, and go on from the first that is found.
    back = second - first
    while (found := schedule.next_after(now - back)) is None or found > now:
        back *= 2
    moment = found
    while (following := schedule.next_after(moment)) is not None and following <= now:
        moment = following
    return Due(moment, is_one_of_many=True)


def plan_run(cron_job: CronJob, active: Sequence[Job], schedule: Schedule, *, now: Moment) -> Plan:
    """Whether a run is due, given the Jobs of it that run."""
    spec = cron_job.spec
    following = schedule.next_after(now)
    plan = Plan(wait_s=(following - now).total_seconds() if following is not None else None)
    due = find_due(schedule, _since(cron_job, now), now)
    if due is None:
        return plan
    if due.is_one_of_many:
        text = "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew"
        plan.notes.append(Note("Warning", "TooManyMissedTimes", text))
    late_s = (now - due.moment).total_seconds()
    if spec.HasField("startingDeadlineSeconds") and late_s > spec.startingDeadlineSeconds:
        when = due.moment.strftime("%a, %d %b %Y %H:%M:%S +0000")
        plan.notes.append(Note("Warning", "MissSchedule", f"Missed scheduled time to start a job: {when}"))
        return plan
    if any(reference.name == run_name(cron_job, due.moment) for reference in cron_job.status.active):
        return plan
    if spec.concurrencyPolicy == _FORBID and cron_job.status.active:
        text = "Not starting job because prior execution is running and concurrency policy is Forbid"
        plan.notes.append(Note("Normal", "JobAlreadyActive", text))
        return plan
    if spec.concurrencyPolicy == _REPLACE:
        plan.replace = tuple(active)
    plan.start = due.moment
    return plan


def _since(cron_job: CronJob, now: Moment) -> Moment:
    """The moment up to which nothing was missed."""
    status, spec = cron_job.status, cron_job.spec
    stamp = status.lastScheduleTime if status.HasField("lastScheduleTime") else cron_job.metadata.creationTimestamp
    since = to_datetime(stamp) or now
    if spec.HasField("startingDeadlineSeconds"):
        # Bounded, as a time stamp has an end: who waits longer than a century waits for ever.
        patience = datetime.timedelta(seconds=min(spec.startingDeadlineSeconds, 3_000_000_000))
        since = max(since, now - patience)
    return since


def run_name(cron_job: CronJob, moment: Moment) -> str:
    """The name of the Job of one run: made from its moment, so that no run is ever started twice."""
    return f"{cron_job.metadata.name}-{int(moment.timestamp()) // 60}"


def make_job(cron_job: CronJob, moment: Moment, zone: datetime.tzinfo) -> Job:
    """The Job of one run."""
    template = cron_job.spec.jobTemplate
    job = Job()
    job.metadata.name = run_name(cron_job, moment)
    job.metadata.namespace = cron_job.metadata.namespace
    job.metadata.labels.update(template.metadata.labels)
    job.metadata.annotations.update(template.metadata.annotations)
    local = moment.astimezone(zone)
    job.metadata.annotations[SCHEDULED_AT] = local.isoformat().replace("+00:00", "Z")
    job.metadata.ownerReferences.append(new_controller_ref(cron_job, API_VERSION, KIND))
    job.spec.CopyFrom(template.spec)
    return job


def reference_to(job: Job) -> reference_pb2.ObjectReference:
    """The reference by which a status names a Job that runs."""
    metadata = job.metadata
    return reference_pb2.ObjectReference(
        kind="Job",
        namespace=metadata.namespace,
        name=metadata.name,
        uid=metadata.uid,
        apiVersion="batch/v1",
        resourceVersion=metadata.resourceVersion,
    )


def end_of(job: Job) -> str:
    """How a Job has ended, Complete or Failed; empty while it has not."""
    return next((kind for kind in ("Complete", "Failed") if is_condition_true(job.status.conditions, kind)), "")


def follow_jobs(cron_job: CronJob, jobs: Sequence[Job], missing: Sequence[str]) -> list[Note]:
    """Bring the status up to date with the Jobs there are; missing are uids of those that are certainly gone."""
    status: Any = cron_job.status
    notes: list[Note] = []
    by_uid = {job.metadata.uid: job for job in jobs}
    listed = {reference.uid for reference in status.active}
    for job in jobs:
        if job.metadata.uid not in listed and not end_of(job):
            text = f"Saw a job that the controller did not create or forgot: {job.metadata.name}"
            notes.append(Note("Warning", "UnexpectedJob", text))
    kept = []
    for reference in status.active:
        found = by_uid.get(reference.uid)
        if found is not None and (end := end_of(found)):
            text = f"Saw completed job: {reference.name}, condition: {end}"
            notes.append(Note("Normal", "SawCompletedJob", text))
        elif reference.uid in missing:
            notes.append(Note("Normal", "MissingJob", f"Active job went missing: {reference.name}"))
        else:
            kept.append(reference)
    if len(kept) != len(status.active):
        copies = [reference_pb2.ObjectReference.FromString(item.SerializeToString()) for item in kept]
        del status.active[:]
        status.active.extend(copies)
    ends = [job.status.completionTime for job in jobs if end_of(job) == "Complete"]
    last = max(ends, key=seconds, default=None)
    if last is not None and seconds(last) > seconds(status.lastSuccessfulTime):
        status.lastSuccessfulTime.CopyFrom(last)
    return notes


def beyond_history(cron_job: CronJob, jobs: Sequence[Job]) -> list[Job]:
    """The oldest finished Jobs beyond the number of each kind that is kept."""
    spec: Any = cron_job.spec
    found: list[Job] = []
    for kind, limit in (("Complete", "successfulJobsHistoryLimit"), ("Failed", "failedJobsHistoryLimit")):
        if not spec.HasField(limit):
            continue
        ended = [job for job in jobs if end_of(job) == kind and not is_being_deleted(job)]
        ended.sort(key=lambda job: (seconds(job.status.startTime), job.metadata.name))
        found += ended[: max(len(ended) - getattr(spec, limit), 0)]
    return found
