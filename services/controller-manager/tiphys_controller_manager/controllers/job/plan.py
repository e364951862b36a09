"""Which pods a Job makes and deletes next.

Source: kubernetes pkg/controller/job/job_controller.go, manageJob.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from tiphys.api.batch.v1 import batch_pb2
from tiphys_controller_manager.controllers.job.backoff import Record, remaining
from tiphys_controller_manager.controllers.job.policies import facts_of, rule_on
from tiphys_controller_manager.controllers.job.verdict import (
    REACHED,
    Standing,
    Verdict,
    is_indexed,
    replaces_failed_only,
    valid_index,
)
from tiphys_controller_manager.controllers.replicaset.ranking import choose_for_deletion
from tiphys_controller_manager.pods import PodView

# Source: job_controller.go, MaxPodCreateDeletePerSync.
BURST: Final = 500


@dataclass(frozen=True, slots=True)
class NewPod:
    """A pod to make: its index in an Indexed Job, and there, with a limit per index, how often that has failed."""

    index: int | None = None
    failures: int | None = None
    ignored_failures: int = 0


@dataclass(frozen=True, slots=True)
class PodChange:
    """Pods to make or pods to delete, never both; wait_s is when to ask again though nothing happens."""

    create: tuple[NewPod, ...] = ()
    delete: tuple[PodView, ...] = ()
    wait_s: float | None = None


def plan_pods(job: batch_pb2.Job, standing: Standing, record: Record, *, now: float) -> PodChange:
    """The next step of a Job that goes on; now is in seconds since the epoch."""
    spec = job.spec
    active = standing.active
    if spec.suspend:
        return PodChange(delete=active)
    wanted = _wanted(spec, standing)
    surplus = _surplus(spec, active, len(active) - wanted, now=now)
    if surplus:
        return PodChange(delete=surplus[:BURST])
    held = len(standing.terminating) if replaces_failed_only(spec) else 0
    missing = min(wanted - len(active) - held, BURST)
    if missing <= 0:
        return PodChange()
    if spec.HasField("backoffLimitPerIndex"):
        return _by_index(spec, standing, missing, record, now=now)
    wait_s = record.remaining(now)
    if wait_s > 0:
        return PodChange(wait_s=wait_s)
    if is_indexed(spec):
        return PodChange(create=tuple(NewPod(index) for index in _pending(spec, standing, missing)))
    return PodChange(create=(NewPod(),) * missing)


def reached(job: batch_pb2.Job, succeeded: int, active: int) -> Verdict | None:
    """The end of a Job that has all its successes and no pod that runs."""
    needed = job.spec.completions if job.spec.HasField("completions") else 1
    return REACHED if succeeded >= needed and active == 0 else None


def _wanted(spec: batch_pb2.JobSpec, standing: Standing) -> int:
    if spec.HasField("completions"):
        return max(min(spec.completions - standing.succeeded, spec.parallelism), 0)
    # A work queue: the first that ends well says that there is nothing left to take; those that run may end.
    return len(standing.active) if standing.succeeded else spec.parallelism


def _surplus(spec: batch_pb2.JobSpec, active: Sequence[PodView], at_least: int, *, now: float) -> tuple[PodView, ...]:
    """Pods that should not be: without an index of the Job's, second of an index, or simply too many."""
    wrong: list[PodView] = []
    right: list[PodView] = list(active)
    if is_indexed(spec):
        right = []
        by_index: dict[int, list[PodView]] = {}
        for pod in active:
            index = valid_index(spec, pod)
            if index is None:
                wrong.append(pod)
            else:
                by_index.setdefault(index, []).append(pod)
        for pods in by_index.values():
            double = choose_for_deletion(pods, (), len(pods) - 1, now=now) if len(pods) > 1 else ()
            wrong += double
            right += [pod for pod in pods if pod not in double]
    too_many = at_least - len(wrong)
    if too_many > 0:
        wrong += choose_for_deletion(right, (), too_many, now=now)
    return tuple(wrong)


def _pending(spec: batch_pb2.JobSpec, standing: Standing, count: int) -> list[int]:
    """The lowest indexes that have no pod and want one."""
    held = standing.active
    if replaces_failed_only(spec):
        held += standing.terminating
    taken = standing.done.with_indexes(index for pod in held if (index := valid_index(spec, pod)) is not None)
    if standing.lost is not None:
        taken |= standing.lost
    return taken.first_free(count, spec.completions)


def _by_index(spec: batch_pb2.JobSpec, standing: Standing, count: int, record: Record, *, now: float) -> PodChange:
    """Each index waits for itself."""
    create, waits = [], []
    for index in _pending(spec, standing, count):
        before = standing.delayed.get(index)
        if before is None:
            create.append(NewPod(index, 0))
            continue
        facts = facts_of(before)
        wait_s = remaining(facts.all_failures + 1, record.ended(before), now)
        if wait_s > 0:
            waits.append(wait_s)
            continue
        counts = rule_on(spec, before).counts
        create.append(NewPod(index, facts.index_failures + counts, facts.index_ignored_failures + (not counts)))
    return PodChange(create=tuple(create), wait_s=min(waits, default=None))
