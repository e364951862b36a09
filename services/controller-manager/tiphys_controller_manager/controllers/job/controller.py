"""Runs each Job to its end: makes its pods, counts those that ended once each, and says in its status how it stands."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tiphys.api.batch.v1 import batch_pb2
from tiphys.api.core.v1 import pod_pb2
from tiphys_apimachinery.errors import APIError, NotFound
from tiphys_apimachinery.labels import SelectorError
from tiphys_apimachinery.meta import (
    get_controller_of,
    has_finalizer,
    is_being_deleted,
    join_key,
    new_controller_ref,
    to_time,
)
from tiphys_client.controller import RequeueAfter, Terminal
from tiphys_controller_manager.controllers.job.backoff import Record
from tiphys_controller_manager.controllers.job.counting import (
    Count,
    Tally,
    announce,
    clear_counted,
    count_pods,
    finish,
    set_suspended,
)
from tiphys_controller_manager.controllers.job.job_pods import Finalizers, make_pod
from tiphys_controller_manager.controllers.job.measures import (
    PODS_CREATED,
    PODS_DELETED,
    RECONCILING,
    Measures,
    Numbers,
)
from tiphys_controller_manager.controllers.job.plan import PodChange, plan_pods, reached
from tiphys_controller_manager.controllers.job.verdict import (
    CONTROLLER_NAME,
    Standing,
    Verdict,
    assess,
    deadline_in,
    is_finished,
    is_tracked,
)
from tiphys_controller_manager.controllers.replicaset.plan import slow_start
from tiphys_controller_manager.frame import Context, Watch, own_key
from tiphys_controller_manager.job_facts import JOB_API_VERSION, JOB_KIND, TRACKING_FINALIZER, UNSETTLED_INDEX
from tiphys_controller_manager.ownership import Adopter, owner_keys, selecting_keys, selector_of, sort_out
from tiphys_controller_manager.pod_control import PodControl
from tiphys_controller_manager.pods import CONTROLLER_INDEX, PodView, orphans_in

Job = batch_pb2.Job
# How long to wait for a view that lags; the events that end the wait come by themselves.
_LAG_S: Final = 1.0


@dataclass(slots=True)
class _Round:
    """What one reconciliation of a Job has come to; it belongs to that alone."""

    standing: Standing
    verdict: Verdict | None
    tally: Tally
    is_managed: bool = False
    wait_s: float | None = None
    error: APIError | None = None
    action: str = RECONCILING


class JobController:
    """Reconciles one Job at a time; keys are namespace/name, and namespace/ for finished pods that nobody manages."""

    def __init__(self, context: Context) -> None:
        self._client = context.client
        self._clock = context.clock
        self._events = context.events
        self._jobs = context.informers.of(Job)
        self._pods = context.informers.of(pod_pb2.Pod)
        self._expectations = context.expectations(pod_pb2.Pod)
        self._own_writes = context.expectations(Job)
        self._control = PodControl(context.client, context.events, self._expectations)
        self._adopter = Adopter(context.client, pod_pb2.Pod, finalizers=(TRACKING_FINALIZER,))
        self._finalizers = Finalizers(context.client, self._expectations)
        # By key of the Job: its uid, and what its back-off rests on. Made anew from the pods when it is not there.
        self._records: dict[str, tuple[str, Record]] = {}
        self._measures = Measures(context.metrics.job)

    def watches(self) -> Iterable[Watch]:
        """Jobs, and the pods they manage or might adopt."""
        return (Watch(Job, self._job_keys), Watch(pod_pb2.Pod, self._pod_keys))

    def first_keys(self) -> Iterable[str]:
        """None: every Job is seen as added."""
        return ()

    async def reconcile(self, key: str) -> RequeueAfter | None:
        """One step of one Job. Raises the first error of its pods, after the status was written."""
        job = self._jobs.get(key)
        if not (self._own_writes.are_met(key) and self._expectations.are_met(key)):
            return RequeueAfter(_LAG_S)
        pods = [pod for _, pod in self._pods.store.projections_by_index(UNSETTLED_INDEX, key)]
        if job is None:
            self._forget(key)
            return await self._let_go(key, [pod for pod in pods if not self._is_wanted(pod)])
        if job.spec.managedBy not in ("", CONTROLLER_NAME):
            return None
        own = [pod for pod in pods if pod.controller_uid == job.metadata.uid]
        if len(own) < len(pods):
            # Of a Job that had this name before.
            await self._let_go(key, [pod for pod in pods if pod.controller_uid != job.metadata.uid])
        if is_finished(job):
            self._forget(key)
            return await self._let_go(key, own)
        if await self._settle_owners(key, job, own):
            return RequeueAfter(_LAG_S)
        return await self._step(key, job, own)

    async def _step(self, key: str, job: Job, pods: Sequence[PodView]) -> RequeueAfter | None:
        began = self._clock.monotonic()
        standing = assess(job, pods, now=self._clock.now().timestamp())
        current = _Round(standing, standing.verdict, _tally(standing.active, standing))
        has_failed = True
        try:
            again = await self._take_step(key, job, pods, current)
            has_failed = False
        finally:
            took_s = self._clock.monotonic() - began
            self._measures.round_ended(job, current.action, took_s, has_failed=has_failed)
        return again

    async def _take_step(self, key: str, job: Job, pods: Sequence[PodView], current: _Round) -> RequeueAfter | None:
        now, standing = self._clock.now(), current.standing
        record = self._record(key, job, standing).after(standing.new_succeeded, standing.new_failed)
        record = record.seen_at(now.timestamp(), standing.delayed.values())
        if current.verdict is not None:
            await self._stop(key, job, current)
        elif not is_being_deleted(job):
            await self._manage(key, job, current, record)
        if current.verdict is None:
            current.verdict = reached(job, standing.succeeded, current.tally.active)
        count = count_pods(job, pods, standing, verdict=current.verdict, tally=current.tally)
        status = count.status
        if not status.HasField("startTime") and not job.spec.suspend:
            status.startTime.CopyFrom(to_time(now))
        if current.verdict is not None:
            announce(status, current.verdict, now)
        elif current.is_managed and (reason := set_suspended(status, job.spec.suspend, now)):
            self._events.event(job, "Normal", reason, f"Job {reason.lower()}")
        try:
            await self._count(key, job, count, pods=pods, current=current)
        except NotFound:
            # Deleted while we worked on it: the event of that brings us back for its pods.
            self._forget(key)
            return RequeueAfter(_LAG_S)
        self._records[key] = (job.metadata.uid, record)
        if current.error is not None:
            raise current.error
        return self._next_look(key, job, count, current)

    async def _stop(self, key: str, job: Job, current: _Round) -> None:
        """Delete what runs; their finalizers go when they are counted."""
        active = current.standing.active
        outcome = await self._control.delete(key, job, active)
        current.error, current.action = outcome.error, PODS_DELETED if active else current.action
        if outcome.error is not None:
            # Not over while something may still run.
            current.verdict = None
        else:
            current.tally = Tally(0, 0, len(current.standing.terminating) + len(active))

    async def _manage(self, key: str, job: Job, current: _Round, record: Record) -> None:
        standing = current.standing
        change = plan_pods(job, standing, record, now=self._clock.now().timestamp())
        current.is_managed = True
        current.wait_s = change.wait_s
        if change.delete:
            await self._delete(key, job, change, current)
        elif change.create:
            wanted = iter(change.create)
            batches = slow_start(len(change.create))
            outcome = await self._control.create(key, job, lambda: make_pod(job, next(wanted)), batches)
            current.error, current.action = outcome.error, PODS_CREATED
            self._measures.made(job, standing, done=outcome.done, wanted=len(change.create))
            tally = current.tally
            current.tally = Tally(tally.active + outcome.done, tally.ready, tally.terminating)

    async def _delete(self, key: str, job: Job, change: PodChange, current: _Round) -> None:
        """Delete pods that are too many. They have not failed and must not be counted: the finalizer goes first."""
        current.action = PODS_DELETED
        _, error = await self._finalizers.remove(key, change.delete)
        if error is None:
            outcome = await self._control.delete(key, job, change.delete)
            error = outcome.error
        current.error = error
        if error is None:
            gone = {pod.uid for pod in change.delete}
            left = [pod for pod in current.standing.active if pod.uid not in gone]
            tally = _tally(left, current.standing)
            current.tally = Tally(tally.active, tally.ready, tally.terminating + len(gone))

    async def _count(self, key: str, job: Job, count: Count, *, pods: Sequence[PodView], current: _Round) -> None:
        """Write the uids, take the finalizers, write the numbers. Raises NotFound where the Job is gone."""
        status, before = count.status, Numbers.of(job.status)
        await self._write_status(key, job, status)
        freed, error = await self._finalizers.remove(key, count.release)
        current.error = current.error or error
        clear_counted(status, {pod.uid for pod in pods if is_tracked(pod) and pod.uid not in freed})
        verdict = current.verdict
        if error is None and count.is_all and verdict is not None and finish(status, verdict, self._clock.now()):
            await self._write_status(key, job, status)
            self._measures.ended(job, verdict)
            self._tell_of_end(job, verdict)
        else:
            await self._write_status(key, job, status)
        self._measures.counted(job, before, status)
        self._measures.ruled(job, [pod for pod in current.standing.new_failed if pod.uid in freed])

    def _tell_of_end(self, job: Job, verdict: Verdict) -> None:
        if verdict.has_failed:
            self._events.event(job, "Warning", verdict.reason, verdict.message)
            return
        if job.spec.HasField("completions") and job.status.succeeded > job.spec.completions:
            text = "Too many succeeded pods running after completion count reached"
            self._events.event(job, "Warning", "TooManySucceededPods", text)
        self._events.event(job, "Normal", "Completed", "Job completed")

    async def _write_status(self, key: str, job: Job, status: batch_pb2.JobStatus) -> None:
        """Write a status that says something new. Raises errors of the API."""
        if status == job.status:
            return
        job.status.CopyFrom(status)
        stored = await self._client.update_status(job)
        self._own_writes.wrote(key, stored)
        job.CopyFrom(stored)

    def _next_look(self, key: str, job: Job, count: Count, current: _Round) -> RequeueAfter | None:
        if not count.is_all or not self._expectations.are_met(key):
            return RequeueAfter(_LAG_S)
        waits = [current.wait_s, deadline_in(job, now=self._clock.now().timestamp())]
        return RequeueAfter(max(min(known), 0.0)) if (known := [wait for wait in waits if wait is not None]) else None

    def _record(self, key: str, job: Job, standing: Standing) -> Record:
        """What the back-off rests on; after a restart it is read from those pods of the Job that are still there."""
        uid, record = self._records.get(key, ("", Record()))
        if uid == job.metadata.uid:
            return record
        fresh = {pod.uid for pod in (*standing.new_succeeded, *standing.new_failed)}
        views = self._pods.store.projections_by_index(CONTROLLER_INDEX, job.metadata.uid)
        ended = [pod for _, pod in views if pod.is_finished and pod.uid not in fresh]
        good = [pod for pod in ended if pod.phase == "Succeeded"]
        return Record().after(good, [pod for pod in ended if pod.phase == "Failed"])

    async def _settle_owners(self, key: str, job: Job, own: Sequence[PodView]) -> bool:
        """Adopt and release; whether anything was: the view must show it before more is done."""
        try:
            selector = selector_of(job)
        except SelectorError as err:
            raise Terminal(f"job {key}: spec.selector: {err}") from err
        orphans = self._pods.store.projections_by_index(CONTROLLER_INDEX, orphans_in(job.metadata.namespace))
        candidates = [*own, *(pod for _, pod in orphans if pod.is_active)]
        owned = sort_out(job, selector, candidates)
        if not owned.adopt and not owned.release:
            return False
        reference = new_controller_ref(job, JOB_API_VERSION, JOB_KIND)
        await self._adopter.settle(job, reference, owned, lambda pod: self._expectations.wrote(key, pod))
        return True

    async def _let_go(self, key: str, pods: Sequence[PodView]) -> RequeueAfter | None:
        """Take the finalizer off pods that no Job will count."""
        _, error = await self._finalizers.remove(key, pods)
        if error is not None:
            raise error
        return None

    def _is_wanted(self, pod: PodView) -> bool:
        """Whether a pod that nobody manages may still be adopted."""
        if pod.controller is not None or not pod.is_active:
            return False
        message = self._pods.get(pod.key)
        return message is not None and bool(selecting_keys(self._jobs, None, message))

    def _forget(self, key: str) -> None:
        self._own_writes.forget(key)
        self._records.pop(key, None)

    def _job_keys(self, old: Any, new: Any) -> Iterable[str]:
        self._measures.job_seen(old, new, CONTROLLER_NAME)
        return own_key(old, new)

    def _pod_keys(self, old: Any, new: Any) -> Iterable[str]:
        self._measures.pod_seen(old, new)
        keys = {**owner_keys(JOB_API_VERSION, JOB_KIND, old, new), **selecting_keys(self._jobs, old, new)}
        if new is not None and get_controller_of(new) is None and has_finalizer(new, TRACKING_FINALIZER):
            keys[join_key(new.metadata.namespace, "")] = None
        return keys


def _tally(active: Sequence[PodView], standing: Standing) -> Tally:
    return Tally(len(active), sum(pod.is_ready for pod in active), len(standing.terminating))
