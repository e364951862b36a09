"""What Kubernetes' own conformance tests ask of Jobs and CronJobs, on a real API server."""

from __future__ import annotations

from typing import Any

import pytest

from tests.integration.controller_manager.conftest import Cluster
from tests.integration.controller_manager.test_jobs import Job, end_pods, job, reaches, run_to
from tiphys.api.batch.v1 import batch_pb2
from tiphys.api.core.v1 import pod_pb2
from tiphys_apimachinery.codec.json_codec import from_json
from tiphys_apimachinery.errors import Invalid, NotFound
from tiphys_apimachinery.meta import find_condition, get_controller_of

CronJob = batch_pb2.CronJob
INDEX = "batch.kubernetes.io/job-completion-index"


async def pods(cluster: Cluster) -> list[Any]:
    return (await cluster.client.list(pod_pb2.Pod, "default")).items


def reason_of(item: batch_pb2.Job, kind: str) -> str:
    """Why a condition of the Job is as it is."""
    condition = find_condition(item.status.conditions, kind)
    assert condition is not None, kind
    return str(condition.reason)


def index_of(pod: pod_pb2.Pod) -> int:
    return int(pod.metadata.annotations[INDEX])


async def started(cluster: Cluster, count: int) -> list[Any]:
    """The pods, once there are so many."""

    async def look() -> list[Any]:
        found = await pods(cluster)
        return found if len(found) == count else []

    found: list[Any] = await cluster.until(look)
    return found


async def test_B17_a_status_that_others_write_is_kept(cluster: Cluster) -> None:
    await cluster.client.create(job("noted", completions=2, parallelism=2))
    await started(cluster, 2)
    patch = {"status": {"conditions": [{"type": "Mine", "status": "True", "reason": "E2E", "message": "by hand"}]}}
    await cluster.client.patch(Job, "noted", "default", patch, type="strategic", subresource="status")
    done = await run_to(cluster, "noted", "Complete")
    mine: Any = find_condition(done.status.conditions, "Mine")
    assert (mine.status, mine.reason) == ("True", "E2E")


async def test_B17_a_jobs_life_by_patches_and_a_collection_that_goes(cluster: Cluster) -> None:
    made = job("life", suspend=True)
    made.metadata.labels["e2e"] = "life"
    await cluster.client.create(made)
    await cluster.client.patch(Job, "life", "default", {"metadata": {"labels": {"patched": "true"}}})

    async def is_suspended() -> Any:
        return await reaches(cluster, "life", "Suspended")

    resting = await cluster.until(is_suspended)
    assert resting.metadata.labels["patched"] == "true"
    resting.metadata.annotations["updated"] = "true"
    resting.spec.suspend = False
    await cluster.client.update(resting)
    assert (await run_to(cluster, "life", "Complete")).metadata.annotations["updated"] == "true"
    await cluster.client.delete_collection(Job, "default", label_selector="e2e=life")

    async def is_gone() -> bool:
        await end_pods(cluster)
        return not (await cluster.client.list(Job, "default")).items and not await pods(cluster)

    await cluster.until(is_gone)


async def test_B17_an_orphan_is_adopted_and_a_stranger_released(cluster: Cluster) -> None:
    await cluster.client.create(job("family", parallelism=2, completions=2))
    found = await started(cluster, 2)
    child = found[0].metadata.name
    await cluster.client.patch(pod_pb2.Pod, child, "default", {"metadata": {"ownerReferences": None}}, type="merge")

    async def is_adopted() -> bool:
        owner = get_controller_of(await cluster.client.get(pod_pb2.Pod, child, "default"))
        return owner is not None and owner.name == "family"

    await cluster.until(is_adopted)
    await cluster.client.patch(pod_pb2.Pod, child, "default", {"metadata": {"labels": None}}, type="merge")

    async def is_released() -> bool:
        pod = await cluster.client.get(pod_pb2.Pod, child, "default")
        return get_controller_of(pod) is None and not pod.metadata.finalizers

    await cluster.until(is_released)
    await started(cluster, 3)


async def test_B17_pods_that_a_job_leaves_behind_are_free(cluster: Cluster) -> None:
    await cluster.client.create(job("leaves", parallelism=2, completions=2))
    await started(cluster, 2)
    await cluster.client.delete(Job, "leaves", "default", propagation="Orphan")

    async def are_free() -> bool:
        found = await pods(cluster)
        assert len(found) == 2
        return not any(pod.metadata.finalizers or pod.metadata.ownerReferences for pod in found)

    async def is_gone() -> bool:
        return not (await cluster.client.list(Job, "default")).items

    await cluster.until(are_free)
    await cluster.until(is_gone)


@pytest.mark.parametrize(
    ("rule", "enough"),
    [
        pytest.param({"succeededIndexes": "0-1"}, {0, 1}, id="certain indexes"),
        pytest.param({"succeededIndexes": "0-2", "succeededCount": 1}, {1}, id="some of them"),
        pytest.param({"succeededCount": 1}, {3}, id="any"),
    ],
)
async def test_B21_a_success_policy_ends_the_job_early(cluster: Cluster, rule: Any, enough: set[int]) -> None:
    made = job("early", completionMode="Indexed", completions=4, parallelism=4, successPolicy={"rules": [rule]})
    await cluster.client.create(made)
    for pod in await started(cluster, 4):
        if index_of(pod) in enough:
            pod.status.phase = "Succeeded"
            await cluster.client.update_status(pod)

    async def is_complete() -> Any:
        return await reaches(cluster, "early", "Complete")

    done = await cluster.until(is_complete)
    assert reason_of(done, "Complete") == "SuccessPolicy"
    assert done.status.succeeded == len(enough)
    assert (done.status.active, done.status.terminating) == (0, 0)


async def test_B21_too_many_failed_indexes_end_the_job(cluster: Cluster) -> None:
    spec = {"completionMode": "Indexed", "completions": 10, "parallelism": 10, "backoffLimitPerIndex": 0}
    await cluster.client.create(job("many", **spec, maxFailedIndexes=4))
    failed = await run_to(cluster, "many", "Failed", lambda pod: 1 - index_of(pod) % 2)
    assert reason_of(failed, "Failed") == "MaxFailedIndexesExceeded"


async def test_B21_a_disruption_that_is_ignored_costs_nothing(cluster: Cluster) -> None:
    policy = {"rules": [{"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]}]}
    await cluster.client.create(job("disrupted", backoffLimit=0, podFailurePolicy=policy))
    (pod,) = await started(cluster, 1)
    pod.status.phase = "Failed"
    pod.status.conditions.add(type="DisruptionTarget", status="True", reason="EvictionByEvictionAPI")
    await cluster.client.update_status(pod)

    async def is_forgiven() -> bool:
        found = await cluster.client.get(pod_pb2.Pod, pod.metadata.name, "default")
        return not found.metadata.finalizers

    await cluster.until(is_forgiven)
    found = await cluster.client.get(Job, "disrupted", "default")
    assert (found.status.failed, len(found.status.conditions)) == (0, 0)


async def test_B21_another_controllers_job_is_that_ones_affair(cluster: Cluster) -> None:
    await cluster.client.create(job("theirs", managedBy="example.com/batch"))
    await cluster.client.create(job("ours"))
    await run_to(cluster, "ours", "Complete")
    theirs = await cluster.client.get(Job, "theirs", "default")
    assert not theirs.status.ListFields() or not theirs.status.HasField("startTime")
    theirs.status.conditions.add(type="Complete", status="True")
    with pytest.raises(Invalid, match="SuccessCriteriaMet"):
        await cluster.client.update_status(theirs)


def cron_job(**spec: Any) -> CronJob:
    pod = {"restartPolicy": "OnFailure", "containers": [{"name": "c", "image": "busybox"}]}
    spec = {"schedule": "* */1 * * ?", "jobTemplate": {"spec": {"template": {"spec": pod}}}, **spec}
    return from_json(CronJob, {"metadata": {"name": "cron", "namespace": "default"}, "spec": spec})


async def test_B23_the_operations_of_the_cron_job_api(cluster: Cluster) -> None:
    client = cluster.client
    created = await client.create(cron_job(concurrencyPolicy="Forbid", suspend=True))
    assert (created.spec.successfulJobsHistoryLimit, created.spec.failedJobsHistoryLimit) == (3, 1)
    patched = await client.patch(CronJob, "cron", "default", {"metadata": {"annotations": {"patched": "true"}}})
    patched.metadata.annotations["updated"] = "true"
    assert (await client.update(patched)).metadata.annotations["patched"] == "true"
    stamp = {"status": {"lastScheduleTime": "2026-01-01T00:00:00Z"}}
    await client.patch(CronJob, "cron", "default", stamp, type="merge", subresource="status")
    found = await client.get(CronJob, "cron", "default")
    assert found.status.lastScheduleTime.seconds == 1767225600
    assert found.metadata.annotations["updated"] == "true"
    with pytest.raises(Invalid, match="expected exactly 5 fields"):
        await client.patch(CronJob, "cron", "default", {"spec": {"schedule": "* * *"}})
    await client.delete_collection(CronJob, "default")
    with pytest.raises(NotFound):
        await client.get(CronJob, "cron", "default")
