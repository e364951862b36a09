"""Deletes each Job so many seconds after its end as its ttlSecondsAfterFinished says, with its pods.

Source: kubernetes pkg/controller/ttlafterfinished/ttlafterfinished_controller.go.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tiphys.api.batch.v1 import batch_pb2
from tiphys_apimachinery.errors import Conflict, NotFound
from tiphys_apimachinery.meta import is_being_deleted, split_key
from tiphys_client.controller import RequeueAfter
from tiphys_controller_manager.frame import Context, Watch, own_key
from tiphys_controller_manager.pods import seconds

Job = batch_pb2.Job


class TTLAfterFinished:
    """Keys are Jobs."""

    def __init__(self, context: Context) -> None:
        self._client = context.client
        self._clock = context.clock
        self._jobs = context.informers.of(Job)
        self._metrics = context.metrics

    def watches(self) -> Iterable[Watch]:
        """Jobs that are to go after their end."""
        return (Watch(Job, _keys),)

    def first_keys(self) -> Iterable[str]:
        """None: every Job is seen as added."""
        return ()

    async def reconcile(self, key: str) -> RequeueAfter | None:
        """Delete the Job if its time has come. Raises errors of the API."""
        job = self._jobs.get(key)
        if job is None or self._wait_s(job) is None:
            return None
        if (wait_s := self._wait_s(job)) is not None and wait_s > 0:
            return RequeueAfter(wait_s)
        namespace, name = split_key(key)
        try:
            # The view may be old: a Job may live longer by now, or be another of that name.
            fresh = await self._client.get(Job, name, namespace)
            wait_s = self._wait_s(fresh)
            if fresh.metadata.uid != job.metadata.uid or wait_s is None:
                return None
            if wait_s > 0:
                return RequeueAfter(wait_s)
            # Foreground, so that the Job is there until its pods are gone and nothing counts them as another's.
            await self._client.delete(
                Job, name, namespace, preconditions_uid=fresh.metadata.uid, propagation="Foreground"
            )
            self._metrics.ttl_delay.observe(-wait_s)
        except (NotFound, Conflict):
            # Gone already, or changed: then its event brings us back.
            return None
        return None

    def _wait_s(self, job: Job) -> float | None:
        """Seconds until the Job is to go; None where it is to stay."""
        due = due_at(job)
        return None if due is None else due - self._clock.now().timestamp()


def due_at(job: Job) -> float | None:
    """When the Job is to be deleted, in seconds since the epoch; None where it is to stay, or has not ended."""
    if not job.spec.HasField("ttlSecondsAfterFinished") or is_being_deleted(job):
        return None
    for condition in job.status.conditions:
        if condition.type in ("Complete", "Failed") and condition.status == "True":
            return seconds(condition.lastTransitionTime) + job.spec.ttlSecondsAfterFinished
    return None


def _keys(old: Any, new: Any) -> Iterable[str]:
    return own_key(old, new) if new is not None and due_at(new) is not None else ()
