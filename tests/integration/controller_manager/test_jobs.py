"""Jobs and CronJobs on a real API server, with a hand that plays kubelet."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from tests.integration.controller_manager.conftest import Cluster
from tiphys.api.batch.v1 import batch_pb2
from tiphys.api.core.v1 import pod_pb2
from tiphys_apimachinery.codec.json_codec import from_json
from tiphys_apimachinery.errors import Conflict, NotFound
from tiphys_apimachinery.meta import get_controller_of, is_being_deleted, is_condition_true, to_time
from tiphys_component.clock import SystemClock

Job = batch_pb2.Job


def job(name: str, **spec: Any) -> Job:
    """A Job; further fields of its spec as in YAML."""
    pod = {"restartPolicy": "Never", "containers": [{"name": "c", "image": "busybox"}]}
    spec = {"template": {"metadata": {"labels": {"app": name}}, "spec": pod}, **spec}
    return from_json(Job, {"metadata": {"name": name, "namespace": "default"}, "spec": spec})


async def end_pods(cluster: Cluster, code_of: Callable[[pod_pb2.Pod], int] = lambda pod: 0) -> int:
    """Do a kubelet's work once with pods that end as soon as they start; how many have ended now."""
    ended = 0
    for pod in (await cluster.client.list(pod_pb2.Pod, "default")).items:
        with suppress(NotFound, Conflict):
            ended += await _end(cluster, pod, code_of(pod))
    return ended


async def _end(cluster: Cluster, pod: pod_pb2.Pod, code: int) -> int:
    if pod.status.phase not in ("Succeeded", "Failed"):
        pod.status.phase = "Succeeded" if code == 0 else "Failed"
        state = pod.status.containerStatuses.add(name="c", image="busybox", imageID="").state.terminated
        state.exitCode = code
        for stamp in (state.startedAt, state.finishedAt):
            stamp.CopyFrom(to_time(SystemClock().now()))
        await cluster.client.update_status(pod)
        return 1
    if is_being_deleted(pod):
        await cluster.client.delete(pod_pb2.Pod, pod.metadata.name, pod.metadata.namespace, grace_period_s=0)
    return 0


async def reaches(cluster: Cluster, name: str, kind: str) -> Job | None:
    """The Job once it has this condition."""
    found = await cluster.client.get(Job, name, "default")
    return found if is_condition_true(found.status.conditions, kind) else None


async def run_to(cluster: Cluster, name: str, kind: str, code_of: Callable[[pod_pb2.Pod], int] = lambda pod: 0) -> Job:
    """End pods until the Job has this condition."""

    async def once() -> Job | None:
        await end_pods(cluster, code_of)
        return await reaches(cluster, name, kind)

    found: Job = await cluster.until(once)
    return found


async def test_B20_a_job_runs_to_completion_with_every_pod_counted_once(cluster: Cluster) -> None:
    await cluster.client.create(job("pi", completions=12, parallelism=5))
    most = 0

    async def once() -> Job | None:
        nonlocal most
        await end_pods(cluster)
        pods = (await cluster.client.list(pod_pb2.Pod, "default")).items
        most = max(most, sum(pod.status.phase == "Pending" for pod in pods))
        return await reaches(cluster, "pi", "Complete")

    done = await cluster.until(once)
    assert (done.status.succeeded, done.status.failed, done.status.active) == (12, 0, 0)
    pods = (await cluster.client.list(pod_pb2.Pod, "default")).items
    assert len(pods) == 12
    assert most <= 5
    assert not any(pod.metadata.finalizers for pod in pods)


async def test_B18_a_job_of_false_fails_and_says_why(cluster: Cluster) -> None:
    await cluster.client.create(job("no", backoffLimit=0))
    failed = await run_to(cluster, "no", "Failed", lambda pod: 1)
    assert failed.status.conditions[-1].reason == "BackoffLimitExceeded"
    assert failed.status.failed == 1


async def test_B21_an_indexed_job_with_policies_is_accepted_and_obeyed(cluster: Cluster) -> None:
    made = job(
        "each",
        completionMode="Indexed",
        completions=4,
        parallelism=4,
        backoffLimitPerIndex=0,
        podFailurePolicy={"rules": [{"action": "FailIndex", "onExitCodes": {"operator": "In", "values": [42]}}]},
    )
    await cluster.client.create(made)
    index = "batch.kubernetes.io/job-completion-index"
    failed = await run_to(cluster, "each", "Failed", lambda pod: 42 if pod.metadata.labels[index] == "2" else 0)
    assert (failed.status.completedIndexes, failed.status.failedIndexes) == ("0,1,3", "2")
    assert failed.status.conditions[-1].reason == "FailedIndexes"


async def test_B17_pods_go_with_the_job_that_is_deleted(cluster: Cluster) -> None:
    await cluster.client.create(job("gone", completions=3, parallelism=3))

    async def started() -> bool:
        return len((await cluster.client.list(pod_pb2.Pod, "default")).items) == 3

    await cluster.until(started)
    await cluster.client.delete(Job, "gone", "default", propagation="Background")

    async def empty() -> bool:
        await end_pods(cluster)
        return not (await cluster.client.list(pod_pb2.Pod, "default")).items

    await cluster.until(empty)


async def test_B22_a_job_without_patience_takes_its_pods_along(cluster: Cluster) -> None:
    await cluster.client.create(job("brief", ttlSecondsAfterFinished=0))

    async def gone() -> bool:
        await end_pods(cluster)
        with suppress(NotFound):
            await cluster.client.get(Job, "brief", "default")
            return False
        return not (await cluster.client.list(pod_pb2.Pod, "default")).items

    await cluster.until(gone)


async def test_B21_suspending_a_job_ends_its_pods_and_resuming_begins_anew(cluster: Cluster) -> None:
    await cluster.client.create(job("rests", parallelism=2, completions=2, suspend=True))

    async def is_suspended() -> Any:
        return await reaches(cluster, "rests", "Suspended")

    resting = await cluster.until(is_suspended)
    assert not resting.status.HasField("startTime")
    await cluster.client.patch(Job, "rests", "default", {"spec": {"suspend": False}})
    done = await run_to(cluster, "rests", "Complete")
    assert done.status.succeeded == 2
    pods = (await cluster.client.list(pod_pb2.Pod, "default")).items
    assert all((owner := get_controller_of(pod)) is not None and owner.name == "rests" for pod in pods)


async def test_B23_a_cron_job_starts_the_run_that_it_missed_and_keeps_its_history(cluster: Cluster) -> None:
    made = batch_pb2.CronJob()
    made.metadata.name, made.metadata.namespace = "nightly", "default"
    made.spec.schedule, made.spec.timeZone, made.spec.successfulJobsHistoryLimit = "0 0 * * *", "Asia/Kolkata", 0
    made.spec.jobTemplate.spec.template.CopyFrom(job("x").spec.template)
    created = await cluster.client.create(made)
    # As if it had last run two days ago.
    created.status.lastScheduleTime.CopyFrom(to_time(SystemClock().now() - datetime.timedelta(days=2)))
    await cluster.client.update_status(created)

    async def is_running() -> Any:
        return (await cluster.client.get(batch_pb2.CronJob, "nightly", "default")).status.active

    (reference,) = await cluster.until(is_running)
    run = await cluster.client.get(Job, reference.name, "default")
    assert run.metadata.annotations["batch.kubernetes.io/cronjob-scheduled-timestamp"].endswith("T00:00:00+05:30")

    async def is_over() -> Any:
        await end_pods(cluster)
        found = await cluster.client.get(batch_pb2.CronJob, "nightly", "default")
        jobs = (await cluster.client.list(Job, "default")).items
        return found.status.HasField("lastSuccessfulTime") and not found.status.active and not jobs

    await cluster.until(is_over)
