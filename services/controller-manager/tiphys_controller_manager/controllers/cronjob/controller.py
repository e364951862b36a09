"""Starts the Jobs of each CronJob when they are due, and keeps as many of the finished ones as it asks for."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Sequence
from typing import Any, Final

from tiphys.api.batch.v1 import batch_pb2
from tiphys_apimachinery.cron import UTC, CronError, Schedule, parse_cron, zone_named
from tiphys_apimachinery.errors import AlreadyExists, APIError, NotFound
from tiphys_apimachinery.meta import is_being_deleted, is_controlled_by, to_time
from tiphys_client.controller import RequeueAfter
from tiphys_controller_manager.controllers.cronjob.plan import (
    API_VERSION,
    KIND,
    Note,
    beyond_history,
    end_of,
    follow_jobs,
    make_job,
    plan_run,
    reference_to,
)
from tiphys_controller_manager.frame import Context, Watch, own_key
from tiphys_controller_manager.ownership import owner_keys
from tiphys_controller_manager.pod_control import is_namespace_ending
from tiphys_controller_manager.pods import CONTROLLER_INDEX

CronJob = batch_pb2.CronJob
Job = batch_pb2.Job
# How long to wait for a view that lags; the events that end the wait come by themselves.
_LAG_S: Final = 1.0


class CronJobController:
    """Reconciles one CronJob at a time; keys are namespace/name."""

    def __init__(self, context: Context) -> None:
        self._client = context.client
        self._clock = context.clock
        self._events = context.events
        self._cron_jobs = context.informers.of(CronJob)
        self._jobs = context.informers.of(Job)
        self._skew = context.metrics.cron_job_skew
        self._own_writes = context.expectations(CronJob)
        self._job_writes = context.expectations(Job)

    def watches(self) -> Iterable[Watch]:
        """CronJobs and the Jobs that were made of them, by us or by hand."""
        return (Watch(CronJob, own_key), Watch(Job, _job_keys))

    def first_keys(self) -> Iterable[str]:
        """None: every CronJob is seen as added."""
        return ()

    async def reconcile(self, key: str) -> RequeueAfter | None:
        """One step of one CronJob. Raises errors of the API."""
        cron_job = self._cron_jobs.get(key)
        if cron_job is None:
            self._own_writes.forget(key)
            self._job_writes.forget(key)
            return None
        if not (self._own_writes.are_met(key) and self._job_writes.are_met(key)):
            return RequeueAfter(_LAG_S)
        before = CronJob.FromString(cron_job.SerializeToString())
        jobs = list(self._jobs.by_index(CONTROLLER_INDEX, cron_job.metadata.uid))
        self._tell(cron_job, follow_jobs(cron_job, jobs, await self._missing(cron_job, jobs)))
        try:
            wait_s = None if is_being_deleted(cron_job) else await self._run(key, cron_job, jobs)
        finally:
            # Whatever became of the run, what was seen of the others holds.
            await self._write_status(key, cron_job, before)
        for job in beyond_history(cron_job, jobs):
            await self._delete(key, cron_job, job)
        return RequeueAfter(wait_s) if wait_s is not None else None

    async def _run(self, key: str, cron_job: CronJob, jobs: Sequence[Job]) -> float | None:
        """Start what is due; seconds until the next moment, None where nothing is to be started without a change."""
        spec = cron_job.spec
        zone: datetime.tzinfo | None = zone_named(spec.timeZone) if spec.HasField("timeZone") else UTC
        if zone is None:
            text = f'invalid timeZone: "{spec.timeZone}": unknown time zone {spec.timeZone}'
            self._tell(cron_job, [Note("Warning", "UnknownTimeZone", text)])
            return None
        if spec.suspend:
            return None
        schedule = self._parse(cron_job, zone)
        if schedule is None:
            return None
        listed = {reference.uid for reference in cron_job.status.active}
        active = [job for job in jobs if job.metadata.uid in listed and not end_of(job)]
        plan = plan_run(cron_job, active, schedule, now=self._clock.now())
        self._tell(cron_job, plan.notes)
        for job in plan.replace:
            await self._delete(key, cron_job, job)
            _strike(cron_job, job.metadata.uid)
        if plan.start is not None:
            await self._start(key, cron_job, make_job(cron_job, plan.start, zone))
            self._skew.observe(max(0.0, (self._clock.now() - plan.start).total_seconds()))
            cron_job.status.lastScheduleTime.CopyFrom(to_time(plan.start))
        return plan.wait_s

    def _parse(self, cron_job: CronJob, zone: datetime.tzinfo) -> Schedule | None:
        text = cron_job.spec.schedule
        try:
            return parse_cron(text, zone)
        except CronError as err:
            note = Note("Warning", "UnparseableSchedule", f'unparseable schedule: "{text}" : {err}')
            self._tell(cron_job, [note])
            return None

    async def _start(self, key: str, cron_job: CronJob, wanted: Job) -> None:
        """Make the Job of a run and put it into the status. Raises errors of the API, after an event."""
        try:
            job = await self._client.create(wanted)
            text = f"Created job {job.metadata.name}"
            self._tell(cron_job, [Note("Normal", "SuccessfulCreate", text)])
        except AlreadyExists:
            # We made it before, and died before the status was written; or it is another's, who will know why.
            job = await self._client.get(Job, wanted.metadata.name, wanted.metadata.namespace)
            if not is_controlled_by(job, cron_job) or end_of(job):
                return
        except APIError as err:
            if is_namespace_ending(err):
                return
            self._tell(cron_job, [Note("Warning", "FailedCreate", f"Error creating job: {err}")])
            raise
        self._job_writes.wrote(key, job)
        cron_job.status.active.append(reference_to(job))

    async def _delete(self, key: str, cron_job: CronJob, job: Job) -> None:
        metadata = job.metadata
        self._job_writes.deleting(key, [job])
        try:
            await self._client.delete(
                Job, metadata.name, metadata.namespace, preconditions_uid=metadata.uid, propagation="Background"
            )
        except NotFound:
            return
        except APIError as err:
            self._job_writes.not_changed(key, job)
            self._tell(cron_job, [Note("Warning", "FailedDelete", f"Deleted job: {err}")])
            raise
        self._tell(cron_job, [Note("Normal", "SuccessfulDelete", f"Deleted job {metadata.name}")])

    async def _missing(self, cron_job: CronJob, jobs: Sequence[Job]) -> list[str]:
        """The uids in the status whose Jobs are gone. The view may lag behind another writer's: the server is asked."""
        known = {job.metadata.uid for job in jobs}
        missing = []
        for reference in cron_job.status.active:
            if reference.uid in known:
                continue
            try:
                found = await self._client.get(Job, reference.name, reference.namespace)
            except NotFound:
                missing.append(reference.uid)
                continue
            if found.metadata.uid != reference.uid:
                missing.append(reference.uid)
        return missing

    async def _write_status(self, key: str, cron_job: CronJob, before: CronJob) -> None:
        if cron_job.status == before.status:
            return
        try:
            self._own_writes.wrote(key, await self._client.update_status(cron_job))
        except NotFound:
            # Deleted while we worked on it: nobody is left to be told.
            self._own_writes.forget(key)

    def _tell(self, cron_job: CronJob, notes: Iterable[Note]) -> None:
        for note in notes:
            self._events.event(cron_job, note.type, note.reason, note.message)


def _strike(cron_job: CronJob, uid: str) -> None:
    for number, reference in enumerate(cron_job.status.active):
        if reference.uid == uid:
            del cron_job.status.active[number]
            return


def _job_keys(old: Any, new: Any) -> Iterable[str]:
    return owner_keys(API_VERSION, KIND, old, new)
