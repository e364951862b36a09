"""Bad input, and faults at the worst moment, on the real control plane: it keeps its promises and comes to rest."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from tests.integration.simulation.deeds import NAMESPACE, evict_pod, named, workload
from tests.integration.simulation.scenario import begin
from tiphys.api.apps.v1.apps_pb2 import Deployment, ReplicaSet
from tiphys.api.batch.v1.batch_pb2 import Job
from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys.api.core.v1.resource_quota_pb2 import ResourceQuota
from tiphys.api.policy.v1.policy_pb2 import PodDisruptionBudget
from tiphys_apimachinery.errors import Invalid
from tiphys_apimachinery.meta import find_condition, get_controller_of, is_condition_true
from tiphys_cluster.testing.cluster import Cluster, cluster
from tiphys_cluster.testing.faults import Faults, FaultyTransport
from tiphys_cluster.testing.guard import Breach
from tiphys_cluster.testing.hollow_nodes import RUNS_FOR_S
from tiphys_cluster.testing.invariants import guard
from tiphys_cluster.testing.world import World, follow, is_ready
from tiphys_component import log
from tiphys_component.app import start_loop
from tiphys_component.virtual_time import virtual_time

Story = Callable[[Cluster], Awaitable[None]]


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    log.configure("error")
    yield
    log.configure("debug")


def tell(story: Story) -> None:
    """Play a story on four nodes; nobody breaks a promise, and no process ends by itself."""
    assert broken_in(story) == []


def broken_in(story: Story) -> list[Breach]:
    """The promises that were broken while a story was played on four nodes."""
    with virtual_time() as (runner, clock):

        async def main() -> list[Breach]:
            async with cluster(clock) as made:
                world = World(revision=await made.revision())
                watcher = guard(world, made.nodes.running, clock.monotonic)
                async with asyncio.TaskGroup() as group:
                    following = start_loop(group, follow(made.server.store, world, watcher.look), "guard")
                    await begin(made)
                    await story(made)
                    following.cancel()
                assert made.failures() == []
                return watcher.breaches

        return runner.run(main())


async def has_ready(made: Cluster, app: str, count: int) -> bool:
    pods = (await made.client.list(Pod, NAMESPACE, label_selector=f"app={app}")).items
    return sum(map(is_ready, pods)) == count == len(pods)


def of_size(kind: Any, name: str, replicas: int, app: str = "", **requests: str) -> Any:
    made = workload(kind, name, app, **requests)
    made.spec.replicas = replicas
    return made


# -- selectors


def contradicts_itself(made: Any) -> None:
    for operator in ("In", "NotIn"):
        made.spec.selector.matchExpressions.add(key="app", operator=operator, values=["web"])


def selects_others(made: Any) -> None:
    made.spec.selector.matchLabels["app"] = "others"


def names_no_operator(made: Any) -> None:
    made.spec.selector.matchExpressions.add(key="app", operator="Near", values=["web"])


def has_no_values(made: Any) -> None:
    made.spec.selector.matchExpressions.add(key="app", operator="In")


def test_M15_selector_that_its_own_pods_do_not_match_is_refused() -> None:
    async def story(made: Cluster) -> None:
        for kind in (Deployment, ReplicaSet):
            for spoil in (contradicts_itself, selects_others, names_no_operator, has_no_values):
                bad = of_size(kind, "web", 2)
                spoil(bad)
                with pytest.raises(Invalid, match=r"spec\.(selector|template)"):
                    await made.client.create(bad)

    tell(story)


def test_M15_budget_that_selects_nothing_stands_in_nobodys_way() -> None:
    async def story(made: Cluster) -> None:
        budget = named(PodDisruptionBudget, "none")
        budget.spec.minAvailable.intVal = 1
        for operator in ("In", "NotIn"):
            budget.spec.selector.matchExpressions.add(key="app", operator=operator, values=["web"])
        await made.client.create(budget)
        await made.client.create(of_size(ReplicaSet, "web", 2))
        await made.until(lambda: has_ready(made, "web", 2), within_s=60)
        status = (await made.client.get(PodDisruptionBudget, "none", NAMESPACE)).status
        assert (status.expectedPods, status.disruptionsAllowed) == (0, 0)

    tell(story)


@pytest.mark.parametrize("kind", [Deployment, ReplicaSet], ids=["Deployment", "ReplicaSet"])
def test_M15_sets_that_select_each_others_pods_keep_their_own(kind: Any) -> None:
    async def story(made: Cluster) -> None:
        for name, replicas in (("one", 3), ("other", 2)):
            await made.client.create(of_size(kind, name, replicas, "shared"))
        await made.until(lambda: has_ready(made, "shared", 5), within_s=120)
        await made.clock.sleep(60)
        assert await has_ready(made, "shared", 5)

    tell(story)


def test_M15_of_two_sets_that_race_for_orphans_each_pod_gets_one_owner() -> None:
    async def story(made: Cluster) -> None:
        for number in range(6):
            pod = named(Pod, f"orphan{number}")
            pod.metadata.labels["app"] = "shared"
            pod.spec.containers.add(name="c", image="v1")
            await made.client.create(pod)
        async with asyncio.TaskGroup() as group:
            for name in ("one", "other"):
                group.create_task(made.client.create(of_size(ReplicaSet, name, 3, "shared")))
        await made.until(lambda: has_ready(made, "shared", 6), within_s=120)
        pods = (await made.client.list(Pod, NAMESPACE)).items
        owners = sorted(owner.name for pod in pods if (owner := get_controller_of(pod)))
        assert owners == ["one"] * 3 + ["other"] * 3

    tell(story)


@pytest.mark.parametrize("spends", [True, False], ids=["as it is", "spends nothing"])
def test_M15_evictions_at_once_take_no_more_than_the_budget_has(spends: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """And where an eviction spends nothing, the guard tells of it."""

    async def spend_nothing(*_: object) -> None:
        return

    if not spends:
        monkeypatch.setattr("tiphys_apiserver.endpoints.eviction._Evictor._spend", spend_nothing)

    async def story(made: Cluster) -> None:
        budget = named(PodDisruptionBudget, "web")
        budget.spec.minAvailable.intVal = 2
        budget.spec.selector.matchLabels["app"] = "web"
        await made.client.create(budget)
        await made.client.create(of_size(ReplicaSet, "web", 4))
        await made.until(lambda: has_ready(made, "web", 4), within_s=60)
        await made.clock.sleep(5)
        for pod in (await made.client.list(Pod, NAMESPACE)).items:
            await evict_pod(made, pod)
        await made.until(lambda: has_ready(made, "web", 4), within_s=60)

    assert {breach.name for breach in broken_in(story)} == (set() if spends else {"budget_is_kept"})


# -- quantities

HUGE = ("9223372036854775807", "1e18", "100Ei", "99999999999999999999999999")


@pytest.mark.parametrize("resource", ["cpu", "memory"])
def test_M15_pod_that_asks_for_more_than_there_is_waits_and_holds_nobody_up(resource: str) -> None:
    async def story(made: Cluster) -> None:
        for number, amount in enumerate(HUGE):
            await made.client.create(of_size(ReplicaSet, f"greedy{number}", 2, "greedy", **{resource: amount}))
        await made.client.create(of_size(ReplicaSet, "modest", 2, **{resource: "1m" if resource == "cpu" else "1"}))
        await made.until(lambda: has_ready(made, "modest", 2), within_s=60)
        greedy = (await made.client.list(Pod, NAMESPACE, label_selector="app=greedy")).items
        told: list[Any] = [find_condition(pod.status.conditions, "PodScheduled") for pod in greedy]
        assert {one.reason for one in told} == {"Unschedulable"}
        assert all(f"Insufficient {resource}" in one.message for one in told)
        assert len(told) == 2 * len(HUGE)

    tell(story)


def test_M15_pod_that_asks_for_nothing_fits_everywhere() -> None:
    async def story(made: Cluster) -> None:
        for number, amount in enumerate(("0", "0m", "0.0", "-0")):
            await made.client.create(of_size(ReplicaSet, f"light{number}", 2, "light", cpu=amount, memory=amount))
        await made.until(lambda: has_ready(made, "light", 8), within_s=60)

    tell(story)


@pytest.mark.parametrize(("hard", "fits"), [("0", 0), ("99999999999999999999999999", 2)], ids=["zero", "huge"])
def test_M15_quota_of_nothing_or_everything(hard: str, fits: int) -> None:
    async def story(made: Cluster) -> None:
        quota = named(ResourceQuota, "odd")
        quota.spec.hard["requests.cpu"].string = hard
        await made.client.create(quota)
        await made.clock.sleep(5)
        await made.client.create(of_size(ReplicaSet, "web", 2, cpu="100m"))
        await made.clock.sleep(30)
        assert await has_ready(made, "web", fits)

    tell(story)


# -- clocks


@pytest.mark.parametrize("wrong_s", [-86400.0, 86400.0])
@pytest.mark.parametrize("whose", ["kube-apiserver", "kube-controller-manager", "kube-scheduler"])
def test_M15_clock_that_jumps_costs_nobody_a_pod(whose: str, wrong_s: float) -> None:
    async def story(made: Cluster) -> None:
        await made.client.create(of_size(Deployment, "web", 4))
        await made.until(lambda: has_ready(made, "web", 4), within_s=60)
        before = {pod.metadata.uid for pod in (await made.client.list(Pod, NAMESPACE)).items}
        made.set_clocks(wrong_s, whose)
        await made.clock.sleep(120)
        assert {pod.metadata.uid for pod in (await made.client.list(Pod, NAMESPACE)).items} == before
        await made.client.patch(Deployment, "web", NAMESPACE, {"spec": {"replicas": 6}})
        await made.until(lambda: has_ready(made, "web", 6), within_s=120)
        made.set_clocks()
        await made.clock.sleep(120)
        assert await has_ready(made, "web", 6)

    tell(story)


# -- hands, machines and deaths at the worst moment


def test_M15_job_whose_pods_are_deleted_by_hand_is_done_all_the_same() -> None:
    async def story(made: Cluster) -> None:
        job = named(Job, "work")
        job.spec.completions, job.spec.parallelism, job.spec.backoffLimit = 3, 2, 100
        template = job.spec.template
        template.metadata.annotations[RUNS_FOR_S] = "20"
        template.spec.restartPolicy = "Never"
        template.spec.containers.add(name="c", image="v1")
        await made.client.create(job)
        for _ in range(4):
            await made.clock.sleep(8)
            for pod in (await made.client.list(Pod, NAMESPACE)).items[:1]:
                await made.client.delete(Pod, pod.metadata.name, NAMESPACE, grace_period_s=0, absent_ok=True)

        async def is_complete() -> bool:
            return is_condition_true((await made.client.get(Job, "work", NAMESPACE)).status.conditions, "Complete")

        await made.until(is_complete, within_s=1200)
        assert (await made.client.get(Job, "work", NAMESPACE)).status.succeeded == 3

    tell(story)


def test_M15_pods_bound_to_a_node_that_vanished_meanwhile_run_elsewhere() -> None:
    async def story(made: Cluster) -> None:
        made.faults = Faults(vanishes=1.0)
        await made.client.create(of_size(Deployment, "web", 6))
        await made.clock.sleep(20)
        assert len(made.nodes.names()) < 4
        made.faults = Faults()
        await made.until(lambda: has_ready(made, "web", 6), within_s=900)

    tell(story)


DEATHS = [
    ("kube-scheduler", "BatchBind"),
    ("kube-controller-manager", "BatchCreate"),
    ("kube-controller-manager", "Create"),
    ("kube-controller-manager", "Update"),
    ("kube-controller-manager", "UpdateStatus"),
    ("kube-controller-manager", "Patch"),
    ("kube-controller-manager", "Delete"),
]


@pytest.mark.parametrize("is_written", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(("whose", "method"), DEATHS, ids=[" ".join(one) for one in DEATHS])
def test_M15_killed_between_decision_and_write(
    whose: str, method: str, is_written: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process dies at each of its first five calls of that kind, once the call is decided, or once it is done."""
    deaths = 0
    inner_unary = FaultyTransport.unary

    async def unary(road: Any, service: str, called: str, request: bytes, **options: Any) -> bytes:
        nonlocal deaths
        is_now = called == method and deaths < 5 and road.whose == whose and "Lease" not in service
        if is_now:
            deaths += 1
            if not is_written:
                road.die()
        reply = await inner_unary(road, service, called, request, **options)
        if is_now:
            road.die()
        return reply

    monkeypatch.setattr(FaultyTransport, "unary", unary)

    async def story(made: Cluster) -> None:
        await made.client.create(of_size(Deployment, "web", 5))
        await made.until(lambda: has_ready(made, "web", 5), within_s=900)
        await made.client.patch(Deployment, "web", NAMESPACE, {"spec": {"replicas": 3}})
        await made.until(lambda: has_ready(made, "web", 3), within_s=900)

    tell(story)
    assert deaths >= 1
