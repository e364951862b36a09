"""Of what runs to an end."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from tiphys.api.batch.v1 import batch_pb2
from tiphys.api.core.v1 import pod_pb2
from tiphys_apimachinery.meta import get_controller_of, is_being_deleted, namespaced_name
from tiphys_cluster.testing.guard import Guard, is_over
from tiphys_cluster.testing.world import is_active

_INDEX: Final = "batch.kubernetes.io/job-completion-index"


def job_runs_no_more_than_it_may(guard: Guard, before: Any, after: Any) -> Iterator[str]:
    """A Job has no more pods at work than its parallelism, and no more successes than completions."""
    owner = guard.new_pods_owner(before, after, batch_pb2.Job)
    if owner is None:
        return
    pods = list(guard.world.owned(pod_pb2.Pod, owner))
    active = sum(map(is_active, pods))
    if active > owner.spec.parallelism:
        yield f"{namespaced_name(owner)} has {active} pods at work, parallelism {owner.spec.parallelism}"
    done = sum(pod.status.phase == "Succeeded" for pod in pods)
    if owner.spec.HasField("completions") and active + done > owner.spec.completions:
        yield f"{namespaced_name(owner)} has {active} + {done} pods for {owner.spec.completions} completions"


def one_pod_an_index(guard: Guard, before: Any, after: Any) -> Iterator[str]:
    """An index of a Job has one pod at work, and none once one has succeeded."""
    owner = guard.new_pods_owner(before, after, batch_pb2.Job)
    if owner is None or owner.spec.completionMode != "Indexed":
        return
    index = after.metadata.annotations[_INDEX]
    same = [pod for pod in guard.world.owned(pod_pb2.Pod, owner) if pod.metadata.annotations[_INDEX] == index]
    if sum(is_active(pod) or pod.status.phase == "Succeeded" for pod in same) > 1:
        yield f"{namespaced_name(owner)} has {len(same)} pods of index {index}"


def job_that_is_over_starts_nothing(guard: Guard, before: Any, after: Any) -> Iterator[str]:
    """A Job that has said how it ended makes no pod any more."""
    owner = guard.new_pods_owner(before, after, batch_pb2.Job)
    if owner is not None and before is None and is_over(owner):
        yield f"{namespaced_name(after)} is made for {namespaced_name(owner)}, which is over"


def job_ends_once(guard: Guard, before: Any, after: Any) -> Iterator[str]:
    """How a Job ended stays so, and what was counted is not taken back."""
    if before is None or after is None or before.metadata.uid != after.metadata.uid:
        return
    if is_over(before) and not is_over(after):
        yield f"{namespaced_name(after)} was over, and is not any more"
    for name in ("succeeded", "failed"):
        was, now = getattr(before.status, name), getattr(after.status, name)
        if now < was:
            yield f"{namespaced_name(after)} had {was} {name}, and has {now}"


def runs_do_not_overlap(guard: Guard, before: Any, after: Any) -> Iterator[str]:
    """A CronJob that forbids it, or replaces, has one Job that runs."""
    if before is not None or after is None:
        return
    owner = guard.owner_of(after, batch_pb2.CronJob)
    if owner is None or owner.spec.concurrencyPolicy == "Allow":
        return
    jobs = [
        job.metadata.name
        for job in guard.world.of(batch_pb2.Job).values()
        if (reference := get_controller_of(job)) is not None
        and reference.uid == owner.metadata.uid
        and not is_over(job)
        and not is_being_deleted(job)
    ]
    if len(jobs) > 1:
        yield f"{namespaced_name(owner)} runs {sorted(jobs)} at one time, its policy is {owner.spec.concurrencyPolicy}"
