"""Jobs: how many pods run, when a Job ends and as what, and that each pod is counted once."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.controller_manager.controllers.jobs import (
    JOB,
    bury,
    condition,
    end,
    end_all,
    index_of,
    is_held,
    job,
    running,
    stored,
    submit,
)
from tests.unit.controller_manager.harness import house
from tiphys.api.batch.v1 import batch_pb2
from tiphys.api.core.v1 import pod_pb2
from tiphys_apimachinery.meta import get_controller_of
from tiphys_controller_manager.job_facts import UNSETTLED_INDEX


async def test_B17_a_job_runs_to_its_end_and_its_pods_stay() -> None:
    async with house(JOB) as built:
        await submit(built, job())
        (pod,) = await built.pods()
        made = await stored(built)
        assert is_held(pod)
        assert pod.metadata.labels["batch.kubernetes.io/controller-uid"] == made.metadata.uid
        owner = get_controller_of(pod)
        assert owner is not None
        assert (owner.apiVersion, owner.kind, owner.uid) == ("batch/v1", "Job", made.metadata.uid)
        assert (made.status.active, made.status.ready) == (1, 0)
        assert made.status.HasField("startTime")
        await end(built, pod)
        await built.settle()
        done = await stored(built)
        assert (done.status.succeeded, done.status.active) == (1, 0)
        assert [item.type for item in done.status.conditions] == ["SuccessCriteriaMet", "Complete"]
        assert condition(done, "Complete") == "CompletionsReached"
        assert done.status.HasField("completionTime")
        (pod,) = await built.pods()
        assert not is_held(pod)
        assert built.events.reasons() == ["SuccessfulCreate", "Completed"]


async def test_B18_a_job_of_false_makes_exactly_seven_pods_and_fails() -> None:
    async with house(JOB) as built:
        await submit(built, job())
        for delay in (10, 20, 40, 80, 160, 320):
            assert await end_all(built, 1) == 1
            await built.run_for(delay - 1)
            assert await running(built) == [], f"no pod within {delay} s of the failure"
            await built.run_for(1.1)
        assert await end_all(built, 1) == 1
        await built.run_for(2000)
        assert len(await built.pods()) == 7
        failed = await stored(built)
        assert failed.status.failed == 7
        assert condition(failed, "FailureTarget") == condition(failed, "Failed") == "BackoffLimitExceeded"
        assert not failed.status.HasField("completionTime")


@pytest.mark.parametrize(
    ("limit", "restarts", "ends"),
    [
        pytest.param(3, 2, False, id="fewer restarts than the limit"),
        pytest.param(3, 3, True, id="as many as the limit"),
        pytest.param(0, 1, True, id="no restart is allowed"),
    ],
)
async def test_B18_restarts_within_a_pod_count_against_the_limit(limit: int, restarts: int, ends: bool) -> None:
    async with house(JOB) as built:
        await submit(built, job(restart="OnFailure", backoffLimit=limit))
        (pod,) = await built.pods()
        pod.status.phase = "Running"
        pod.status.containerStatuses.add(name="c", restartCount=restarts)
        await built.client.update_status(pod)
        await built.settle()
        await bury(built)
        assert condition(await stored(built), "Failed") == ("BackoffLimitExceeded" if ends else "")


async def test_B18_the_back_off_outlives_the_controller() -> None:
    async with house(JOB) as built:
        await submit(built, job())
        for delay in (10.1, 20.1):
            await end_all(built, 1)
            await built.run_for(delay)
        await end_all(built, 1)
        again = built.client
    async with house(JOB, client=again) as later:
        # The clock of this house starts over, hence at the time of the pods or before it: the whole third delay is due.
        await later.run_for(39)
        assert await running(later) == []
        await later.run_for(80)
        assert len(await running(later)) == 1


async def test_B18_a_machine_whose_clock_is_an_hour_ahead_delays_a_job_no_longer() -> None:
    async with house(JOB) as built:
        await submit(built, job())
        (pod,) = await running(built)
        await end(built, pod, 1, ahead_s=3600)
        await built.run_for(9)
        assert await running(built) == []
        await built.run_for(1.1)
        assert len(await running(built)) == 1


async def test_B18_a_machine_whose_clock_is_an_hour_ahead_delays_an_index_no_longer() -> None:
    async with house(JOB) as built:
        spec: dict[str, Any] = {"completionMode": "Indexed", "completions": 2, "parallelism": 2}
        spec |= {"backoffLimitPerIndex": 5}
        await submit(built, job(**spec))
        for delay_s in (10, 20, 40):
            (pod,) = [pod for pod in await running(built) if index_of(pod) == 0]
            await end(built, pod, 1, ahead_s=3600)
            await built.run_for(delay_s - 1)
            assert [index_of(pod) for pod in await running(built)] == [1]
            await built.run_for(1.1)
            assert sorted(index_of(pod) for pod in await running(built)) == [0, 1]


async def test_B19_over_its_deadline_a_job_fails_and_its_pods_go() -> None:
    async with house(JOB) as built:
        await submit(built, job(activeDeadlineSeconds=5, parallelism=2, completions=2))
        await built.run_pods()
        await built.run_for(4.9)
        assert len(await running(built)) == 2
        await built.run_for(0.2)
        announced = await stored(built)
        assert condition(announced, "FailureTarget") == "DeadlineExceeded"
        assert condition(announced, "Failed") == ""
        assert announced.status.terminating == 2
        await bury(built)
        failed = await stored(built)
        assert condition(failed, "Failed") == "DeadlineExceeded"
        assert failed.status.failed == 2
        assert await built.pods() == []
        assert "DeadlineExceeded" in built.events.reasons()


async def test_B19_the_deadline_beats_a_back_off_that_has_not_run_out() -> None:
    async with house(JOB) as built:
        await submit(built, job(activeDeadlineSeconds=15, backoffLimit=6))
        await end_all(built, 1)
        await built.run_for(10.1)
        await end_all(built, 1)
        await built.run_for(5)
        assert condition(await stored(built), "Failed") == "DeadlineExceeded"
        assert len(await built.pods()) == 2


async def test_B20_never_more_than_parallelism_run_and_exactly_so_many_succeed() -> None:
    async with house(JOB) as built:
        await submit(built, job(parallelism=3, completions=8))
        seen = 0
        while pods := await running(built):
            assert len(pods) == min(3, 8 - seen)
            await end(built, pods[0])
            seen += 1
            await built.settle()
        done = await stored(built)
        assert (done.status.succeeded, len(await built.pods())) == (8, 8)
        assert condition(done, "Complete")


async def test_B20_the_first_success_of_a_work_queue_ends_the_making_of_pods() -> None:
    async with house(JOB) as built:
        await submit(built, job(parallelism=3))
        pods = await running(built)
        assert len(pods) == 3
        await end(built, pods[0])
        await built.settle()
        assert len(await built.pods()) == 3
        assert not condition(await stored(built), "Complete")
        await end(built, pods[1], 1)
        await end(built, pods[2])
        await built.settle()
        done = await stored(built)
        assert (done.status.succeeded, done.status.failed) == (2, 1)
        assert condition(done, "Complete")
        assert len(await built.pods()) == 3


async def test_B20_parallelism_is_raised_and_lowered_while_the_job_runs() -> None:
    async with house(JOB) as built:
        await submit(built, job(parallelism=1, completions=10))
        for parallelism in (4, 2, 0):
            made = await stored(built)
            made.spec.parallelism = parallelism
            await built.client.update(made)
            await built.settle()
            await bury(built)
            assert len(await running(built)) == parallelism
        left = await stored(built)
        # What we took away has not failed.
        assert (left.status.failed, left.status.active) == (0, 0)


async def test_B17_a_job_without_work_is_complete_at_once() -> None:
    async with house(JOB) as built:
        await submit(built, job(completions=0))
        assert condition(await stored(built), "Complete")
        assert await built.pods() == []


async def test_B17_a_pod_deleted_by_hand_counts_as_failed_and_is_replaced() -> None:
    async with house(JOB) as built:
        await submit(built, job())
        (pod,) = await built.pods()
        await built.run_pods()
        await built.client.delete(pod_pb2.Pod, pod.metadata.name, "default")
        await built.settle()
        await bury(built)
        await built.run_for(10.1)
        (second,) = await built.pods()
        assert second.metadata.uid != pod.metadata.uid
        assert (await stored(built)).status.failed == 1


async def test_B17_a_pod_that_ended_is_counted_though_it_is_deleted_at_once() -> None:
    async with house(JOB) as built:
        await submit(built, job(completions=2))
        (pod,) = await built.pods()
        await end(built, pod)
        await built.client.delete(pod_pb2.Pod, pod.metadata.name, "default", grace_period_s=0)
        await built.settle()
        assert (await stored(built)).status.succeeded == 1
        assert pod.metadata.name not in [left.metadata.name for left in await built.pods()]


async def test_B17_matching_orphans_are_adopted_and_others_released() -> None:
    async with house(JOB) as built:
        await submit(built, job())
        (pod,) = await built.pods()
        del pod.metadata.ownerReferences[:]
        await built.client.update(pod)
        await built.settle()
        (pod,) = await built.pods()
        owner = get_controller_of(pod)
        assert owner is not None
        assert owner.name == "pi"
        assert is_held(pod)
        pod.metadata.labels.clear()
        await built.client.update(pod)
        await built.settle()
        released = await built.client.get(pod_pb2.Pod, pod.metadata.name, "default")
        assert not released.metadata.ownerReferences
        assert not is_held(released)
        assert len(await running(built)) == 2


async def test_B17_pods_of_a_job_that_is_gone_are_not_held() -> None:
    async with house(JOB) as built:
        await submit(built, job(parallelism=2, completions=2))
        await built.client.delete(batch_pb2.Job, "pi", "default", propagation="Background")
        await built.settle()
        pods = await built.pods()
        assert len(pods) == 2
        assert not any(is_held(pod) for pod in pods)


async def test_B17_a_job_of_the_same_name_starts_with_pods_of_its_own() -> None:
    async with house(JOB) as built:
        await submit(built, job())
        await built.client.delete(batch_pb2.Job, "pi", "default", propagation="Background")
        await submit(built, job())
        made = await stored(built)
        held = [pod for pod in await built.pods() if is_held(pod)]
        assert [pod.metadata.ownerReferences[0].uid for pod in held] == [made.metadata.uid]
        assert made.status.active == 1


async def test_B21_a_suspended_job_ends_its_pods_and_begins_anew() -> None:
    async with house(JOB) as built:
        await submit(built, job(parallelism=2, completions=3, activeDeadlineSeconds=60))
        first = (await stored(built)).status.startTime.seconds
        await built.run_for(50)
        made = await stored(built)
        made.spec.suspend = True
        await built.client.update(made)
        await built.settle()
        await bury(built)
        resting = await stored(built)
        assert condition(resting, "Suspended") == "JobSuspended"
        assert (resting.status.active, resting.status.failed) == (0, 0)
        assert await built.pods() == []
        await built.run_for(100)
        resting = await stored(built)
        resting.spec.suspend = False
        await built.client.update(resting)
        await built.settle()
        going = await stored(built)
        assert condition(going, "Suspended") == "False"
        assert going.status.startTime.seconds >= first + 150
        assert len(await running(built)) == 2
        assert not condition(going, "FailureTarget")
        assert [reason for reason in built.events.reasons() if reason in ("Suspended", "Resumed")] == [
            "Suspended",
            "Resumed",
        ]


async def test_B21_a_job_made_suspended_has_no_start() -> None:
    async with house(JOB) as built:
        await submit(built, job(suspend=True))
        made = await stored(built)
        assert condition(made, "Suspended")
        assert not made.status.HasField("startTime")
        assert await built.pods() == []


async def test_B21_a_job_that_another_controller_manages_is_left_alone() -> None:
    async with house(JOB) as built:
        await submit(built, job(managedBy="example.com/mine"))
        assert await built.pods() == []
        assert not (await stored(built)).status.HasField("startTime")


async def test_B21_each_index_succeeds_once_and_tells_its_pod_which_it_is() -> None:
    async with house(JOB) as built:
        await submit(built, job(completionMode="Indexed", completions=5, parallelism=2))
        (first, second) = sorted(await running(built), key=index_of)
        assert (index_of(first), index_of(second)) == (0, 1)
        assert first.spec.hostname == "pi-0"
        assert first.metadata.name.startswith("pi-0-")
        (variable,) = first.spec.containers[0].env
        assert variable.name == "JOB_COMPLETION_INDEX"
        assert variable.valueFrom.fieldRef.fieldPath == "metadata.labels['batch.kubernetes.io/job-completion-index']"
        assert first.metadata.labels["batch.kubernetes.io/job-completion-index"] == "0"
        await end(built, second)
        await built.settle()
        assert (await stored(built)).status.completedIndexes == "1"
        await end(built, first, 1)
        await built.run_for(10.1)
        assert sorted(index_of(pod) for pod in await running(built)) == [0, 2]
        while await end_all(built):
            pass
        done = await stored(built)
        assert (done.status.completedIndexes, done.status.succeeded, done.status.failed) == ("0-4", 5, 1)
        assert condition(done, "Complete")


async def test_B21_of_two_pods_with_one_index_one_goes() -> None:
    async with house(JOB) as built:
        await submit(built, job(completionMode="Indexed", completions=2, parallelism=2))
        twin = (await running(built))[0]
        twin.metadata.name, twin.metadata.uid, twin.metadata.resourceVersion = "twin", "", ""
        await built.client.create(twin)
        await built.settle()
        assert sorted(index_of(pod) for pod in await running(built)) == [0, 1]


async def test_B21_an_elastic_indexed_job_shrinks_and_forgets_what_is_beyond() -> None:
    async with house(JOB) as built:
        await submit(built, job(completionMode="Indexed", completions=4, parallelism=4))
        pods = {index_of(pod): pod for pod in await running(built)}
        await end(built, pods[3])
        await built.settle()
        made = await stored(built)
        assert made.status.completedIndexes == "3"
        made.spec.completions = made.spec.parallelism = 2
        await built.client.update(made)
        await built.settle()
        await bury(built)
        shrunk = await stored(built)
        assert (shrunk.status.completedIndexes, shrunk.status.succeeded) == ("", 0)
        await end_all(built)
        assert condition(await stored(built), "Complete")


async def test_B21_an_index_that_fails_too_often_is_lost_and_the_others_go_on() -> None:
    async with house(JOB) as built:
        await submit(built, job(completionMode="Indexed", completions=3, parallelism=3, backoffLimitPerIndex=1))
        pods = {index_of(pod): pod for pod in await running(built)}
        await end(built, pods[1], 1)
        await end(built, pods[0])
        await built.settle()
        waiting = await built.client.get(pod_pb2.Pod, pods[1].metadata.name, "default")
        assert is_held(waiting), "it tells the next pod of the index how often it failed"
        await built.run_for(10.1)
        (again,) = [pod for pod in await running(built) if index_of(pod) == 1]
        assert again.metadata.annotations["batch.kubernetes.io/job-index-failure-count"] == "1"
        await end(built, again, 1)
        await built.settle()
        assert (await stored(built)).status.failedIndexes == "1"
        await end(built, pods[2])
        await built.settle()
        ended = await stored(built)
        assert (ended.status.completedIndexes, ended.status.failedIndexes) == ("0,2", "1")
        assert condition(ended, "Failed") == "FailedIndexes"


async def test_B21_more_lost_indexes_than_allowed_end_the_job() -> None:
    async with house(JOB) as built:
        made = job(completionMode="Indexed", completions=4, parallelism=4, backoffLimitPerIndex=0, maxFailedIndexes=1)
        await submit(built, made)
        pods = {index_of(pod): pod for pod in await running(built)}
        await end(built, pods[0], 1)
        await built.settle()
        assert not condition(await stored(built), "FailureTarget")
        await end(built, pods[2], 1)
        await built.settle()
        await bury(built)
        ended = await stored(built)
        assert condition(ended, "Failed") == "MaxFailedIndexesExceeded"
        assert ended.status.failedIndexes == "0,2"


def _on_exit(action: str, **wanted: Any) -> dict[str, Any]:
    return {"action": action, "onExitCodes": {"operator": "In", "values": [42], **wanted}}


async def test_B21_a_rule_fails_the_job_at_once() -> None:
    async with house(JOB) as built:
        policy = {"rules": [_on_exit("FailJob")]}
        await submit(built, job(parallelism=2, completions=2, podFailurePolicy=policy))
        pods = await running(built)
        await end(built, pods[0], 42)
        await built.settle()
        await bury(built)
        ended = await stored(built)
        assert condition(ended, "Failed") == "PodFailurePolicy"
        key = f"default/{pods[0].metadata.name}"
        assert ended.status.conditions[-1].message == (
            f"Container c for pod {key} failed with exit code 42 matching FailJob rule at index 0"
        )


async def test_B21_ignored_failures_do_not_count() -> None:
    async with house(JOB) as built:
        policy = {"rules": [{"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]}]}
        await submit(built, job(backoffLimit=0, podFailurePolicy=policy))
        (pod,) = await running(built)
        await end(built, pod, 137, reason="EvictionByEvictionAPI")
        await built.run_for(10.1)
        assert len(await running(built)) == 1
        assert (await stored(built)).status.failed == 0
        await end_all(built, 1)
        assert condition(await stored(built), "Failed") == "BackoffLimitExceeded"


async def test_B21_a_rule_loses_one_index() -> None:
    async with house(JOB) as built:
        policy = {"rules": [_on_exit("FailIndex")]}
        spec: dict[str, Any] = {"completionMode": "Indexed", "completions": 2, "parallelism": 2}
        spec |= {"backoffLimitPerIndex": 5}
        await submit(built, job(**spec, podFailurePolicy=policy))
        pods = {index_of(pod): pod for pod in await running(built)}
        await end(built, pods[0], 42)
        await built.settle()
        assert (await stored(built)).status.failedIndexes == "0"
        await end(built, pods[1])
        await built.settle()
        assert condition(await stored(built), "Failed") == "FailedIndexes"


async def test_B21_indexes_that_suffice_end_the_job_and_its_other_pods() -> None:
    async with house(JOB) as built:
        policy = {"rules": [{"succeededIndexes": "0", "succeededCount": 1}]}
        made = job(completionMode="Indexed", completions=3, parallelism=3, successPolicy=policy)
        await submit(built, made)
        pods = {index_of(pod): pod for pod in await running(built)}
        await end(built, pods[2])
        await built.settle()
        assert not condition(await stored(built), "SuccessCriteriaMet")
        await end(built, pods[0])
        await built.settle()
        met = await stored(built)
        assert condition(met, "SuccessCriteriaMet") == "SuccessPolicy"
        assert not condition(met, "Complete")
        await bury(built)
        done = await stored(built)
        assert condition(done, "Complete") == "SuccessPolicy"
        assert (done.status.completedIndexes, done.status.failed, await running(built)) == ("0,2", 0, [])


@pytest.mark.parametrize(("policy", "replaced"), [("TerminatingOrFailed", True), ("Failed", False)])
async def test_B21_a_pod_that_is_going_is_replaced_by_policy(policy: str, replaced: bool) -> None:
    async with house(JOB) as built:
        await submit(built, job(podReplacementPolicy=policy))
        await built.run_pods()
        (pod,) = await running(built)
        await built.client.delete(pod_pb2.Pod, pod.metadata.name, "default")
        await built.settle()
        await built.run_for(10.1)
        assert len(await running(built)) == replaced
        assert (await stored(built)).status.terminating == 1
        await bury(built)
        await built.run_for(10.1)
        assert len(await running(built)) == 1
        assert (await stored(built)).status.failed == 1


async def test_B20_a_large_job_costs_in_proportion_and_forgets_the_pods_it_has_counted() -> None:
    async with house(JOB) as built:
        await submit(built, job(parallelism=20, completions=100))
        pods = built.parts.shared.informer(pod_pb2.Pod)
        while await end_all(built):
            left = pods.store.projections_by_index(UNSETTLED_INDEX, "default/pi")
            assert len(left) <= 20
        assert condition(await stored(built), "Complete")
        writes = [call for call in built.client.writes() if call.method != "UpdateStatus" or call.kind == "Job"]
        # One patch a pod, and for each round of twenty a few writes of the status and batches of new pods.
        assert len(writes) < 2 * 100
