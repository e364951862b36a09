"""Budgets: how many pods may go, what was granted and not done, and conditions that are out of date."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from tests.unit.controller_manager.controllers.test_replicaset import replica_set, view
from tests.unit.controller_manager.harness import House, house
from tiphys.api.apps.v1 import apps_pb2
from tiphys.api.core.v1 import pod_pb2
from tiphys.api.policy.v1 import policy_pb2
from tiphys_apimachinery.errors import Conflict
from tiphys_apimachinery.meta import find_condition, to_time
from tiphys_controller_manager.controllers.disruption.plan import (
    Demand,
    Disrupted,
    budget_view,
    demand_of,
    disrupted_of,
    failed_status,
    healthy_count,
    needs_scale,
    status_of,
)

CONTROLLER = "disruption-controller"
Budget = policy_pb2.PodDisruptionBudget
Pod = pod_pb2.Pod
Deployment = apps_pb2.Deployment
NOW = 1_000_000.0


def budget(**amounts: int | str) -> Budget:
    made = Budget()
    made.metadata.name, made.metadata.namespace = "b", "default"
    made.spec.selector.matchLabels["app"] = "web"
    for name, amount in amounts.items():
        value = getattr(made.spec, name)
        if isinstance(amount, str):
            value.type, value.strVal = 1, amount
        else:
            value.type, value.intVal = 0, amount
    return made


@pytest.mark.parametrize(
    ("amounts", "pods", "wanted", "expected"),
    [
        pytest.param({"minAvailable": 2}, 3, 0, Demand(3, 2), id="a number, of the pods that are there"),
        pytest.param({"minAvailable": 5}, 3, 0, Demand(3, 5), id="more than there are"),
        pytest.param({"minAvailable": "50%"}, 2, 5, Demand(5, 3), id="a share of those wanted, rounded up"),
        pytest.param({"maxUnavailable": 1}, 2, 5, Demand(5, 4), id="one away"),
        pytest.param({"maxUnavailable": "30%"}, 2, 5, Demand(5, 3), id="a share away, rounded up"),
        pytest.param({"maxUnavailable": 9}, 2, 5, Demand(5, 0), id="all may be away"),
        pytest.param({}, 3, 5, Demand(0, 0), id="neither is said"),
    ],
)
def test_B33_demand(amounts: dict[str, Any], pods: int, wanted: int, expected: Demand) -> None:
    assert demand_of(budget(**amounts), pods=pods, wanted=wanted) == expected


@pytest.mark.parametrize(
    ("amounts", "asks"),
    [({"minAvailable": 1}, False), ({"minAvailable": "1%"}, True), ({"maxUnavailable": 1}, True), ({}, False)],
)
def test_B33_only_what_depends_on_the_wanted_number_asks_the_owners(amounts: dict[str, Any], asks: bool) -> None:
    assert needs_scale(budget(**amounts)) is asks


def granted(**ages: float) -> Budget:
    made = budget(minAvailable=1)
    for name, age in ages.items():
        made.status.disruptedPods[name].seconds = int(NOW - age)
    return made


def test_B33_a_granted_pod_counts_as_gone_until_it_is_or_two_minutes_have_passed() -> None:
    pods = [view("a"), view("b"), view("c", is_deleting=True), view("d")]
    budget = granted(a=10, b=120, c=10, gone=10)
    since = {name: float(stamp.seconds) for name, stamp in budget.status.disruptedPods.items()}
    found = disrupted_of(budget, pods, known_since=since, now=NOW)
    assert list(found.waiting) == ["a"]
    assert [pod.name for pod in found.overdue] == ["b"]
    assert found.next_due == NOW + 110
    # b is back, c goes, a is about to.
    assert healthy_count(pods, found) == 2


NOBODY = Disrupted({}, (), None)


@pytest.mark.parametrize(
    ("demand", "healthy", "allowed"),
    [
        pytest.param(Demand(3, 2), 3, 1, id="one to spare"),
        pytest.param(Demand(3, 2), 2, 0, id="none to spare"),
        pytest.param(Demand(3, 2), 1, 0, id="too few"),
        pytest.param(Demand(0, 0), 0, 0, id="none expected: the first are safe"),
        pytest.param(Demand(0, 0), 2, 0, id="none expected, though there are some"),
    ],
)
def test_B33_the_status_says_how_many_may_go(demand: Demand, healthy: int, allowed: int) -> None:
    made = budget(minAvailable=1)
    made.metadata.generation = 4
    status = status_of(made, demand, NOBODY, healthy=healthy, now=NOW)
    assert (status.disruptionsAllowed, status.observedGeneration) == (allowed, 4)
    condition: Any = find_condition(status.conditions, "DisruptionAllowed")
    assert condition.status == ("True" if allowed else "False")
    assert condition.reason == ("SufficientPods" if allowed else "InsufficientPods")


def test_B33_a_budget_that_cannot_be_counted_lets_nothing_go() -> None:
    made = budget(maxUnavailable=1)
    made.status.disruptionsAllowed = 3
    made.status.disruptedPods["a"].seconds = 1
    status = failed_status(made, "no scale", now=NOW)
    condition: Any = find_condition(status.conditions, "DisruptionAllowed")
    assert (condition.status, condition.reason, condition.message) == ("False", "SyncFailed", "no scale")
    assert status.disruptionsAllowed == 0
    assert list(status.disruptedPods) == ["a"]


def test_B33_a_budget_without_a_selector_covers_nothing_and_one_with_an_empty_one_all() -> None:
    made = budget(minAvailable=1)
    made.spec.selector.Clear()
    assert budget_view(made).selector.matches({"any": "pod"})
    made.spec.ClearField("selector")
    assert not budget_view(made).selector.matches({"any": "pod"})


async def pods_of(h: House, owner: Any, count: int, *, kind: str = "ReplicaSet", api: str = "apps/v1") -> None:
    for number in range(count):
        made = Pod()
        made.metadata.name, made.metadata.namespace = f"{owner.metadata.name}-{number}", "default"
        made.metadata.labels["app"] = "web"
        made.metadata.ownerReferences.add(
            apiVersion=api, kind=kind, name=owner.metadata.name, uid=owner.metadata.uid, controller=True
        )
        await h.make_ready(await h.client.create(made))
    await h.settle()


def status(h: House) -> Any:
    return h.client.stored(Budget, "b", "default").status


async def of_deployment(h: House, replicas: int) -> Any:
    deployment = Deployment()
    deployment.metadata.name, deployment.metadata.namespace = "web", "default"
    deployment.spec.replicas = replicas
    stored = await h.client.create(deployment)
    owned = replica_set("web-1", 1)
    owned.metadata.ownerReferences.add(
        apiVersion="apps/v1", kind="Deployment", name="web", uid=stored.metadata.uid, controller=True
    )
    return await h.client.create(owned)


async def test_B33_of_a_deployment_its_replicas_count_not_those_of_its_sets() -> None:
    async with house(CONTROLLER) as h:
        await pods_of(h, await of_deployment(h, 4), 3)
        await h.client.create(budget(maxUnavailable="50%"))
        await h.settle()
        found = status(h)
        assert (found.expectedPods, found.desiredHealthy, found.currentHealthy, found.disruptionsAllowed) == (
            4,
            2,
            3,
            1,
        )


async def test_B33_owners_of_a_kind_with_a_scale_are_asked_for_it() -> None:
    async with house(CONTROLLER) as h:
        made = apps_pb2.StatefulSet()
        made.metadata.name, made.metadata.namespace = "db", "default"
        made.spec.replicas = 3
        await pods_of(h, await h.client.create(made), 3, kind="StatefulSet")
        await h.client.create(budget(maxUnavailable=1))
        await h.settle()
        assert (status(h).expectedPods, status(h).disruptionsAllowed) == (3, 1)


async def test_B33_an_owner_without_a_scale_lets_nothing_go() -> None:
    async with house(CONTROLLER) as h:
        made = apps_pb2.DaemonSet()
        made.metadata.name, made.metadata.namespace = "agent", "default"
        await pods_of(h, await h.client.create(made), 2, kind="DaemonSet")
        await h.client.create(budget(maxUnavailable=1))
        await h.settle()
        condition: Any = find_condition(status(h).conditions, "DisruptionAllowed")
        assert (condition.reason, status(h).disruptionsAllowed) == ("SyncFailed", 0)
        assert "does not implement the scale subresource" in condition.message
        assert "CalculateExpectedPodCountFailed" in h.events.reasons()


async def test_B33_pods_of_nobody_are_told_of() -> None:
    async with house(CONTROLLER) as h:
        made = Pod()
        made.metadata.name, made.metadata.namespace = "lone", "default"
        made.metadata.labels["app"] = "web"
        await h.make_ready(await h.client.create(made))
        await h.client.create(budget(maxUnavailable=1))
        await h.settle()
        assert "UnmanagedPods" in h.events.reasons()
        assert status(h).disruptionsAllowed == 0


async def test_B33_a_pod_that_becomes_ready_or_goes_is_counted_at_once() -> None:
    async with house(CONTROLLER) as h:
        await h.client.create(budget(minAvailable=1))
        await h.settle()
        assert "NoPods" in h.events.reasons()
        await pods_of(h, await of_deployment(h, 2), 2)
        assert status(h).disruptionsAllowed == 1
        await h.client.delete(Pod, "web-1-0", "default", grace_period_s=0)
        await h.settle()
        assert (status(h).disruptionsAllowed, status(h).currentHealthy) == (0, 1)


async def test_B33_a_pod_that_did_not_go_is_told_of_and_counts_again() -> None:
    async with house(CONTROLLER) as h:
        await pods_of(h, await of_deployment(h, 2), 2)
        await h.client.create(budget(minAvailable=1))
        await h.settle()
        stored = h.client.stored(Budget, "b", "default")
        stored.status.disruptedPods["web-1-0"].CopyFrom(to_time(h.clock.now()))
        stored.status.disruptionsAllowed = 0
        await h.client.update_status(stored)
        await h.run_for(100)
        assert (status(h).disruptionsAllowed, list(status(h).disruptedPods)) == (0, ["web-1-0"])
        await h.run_for(25)
        assert (status(h).disruptionsAllowed, list(status(h).disruptedPods)) == (1, [])
        assert "NotDeleted" in h.events.reasons()


@pytest.mark.parametrize("wrong_s", [-3600, 3600], ids=["behind", "ahead"])
async def test_M15_a_grant_holds_two_minutes_whatever_the_servers_clock_says(wrong_s: int) -> None:
    """The simulation's seed 1: the server's clock jumped back, and what it granted was overdue at once."""
    async with house(CONTROLLER) as h:
        await pods_of(h, await of_deployment(h, 2), 2)
        await h.client.create(budget(minAvailable=1))
        await h.settle()
        stored = h.client.stored(Budget, "b", "default")
        stored.status.disruptedPods["web-1-0"].CopyFrom(to_time(h.clock.now() + timedelta(seconds=wrong_s)))
        stored.status.disruptionsAllowed = 0
        await h.client.update_status(stored)
        await h.run_for(100)
        assert (status(h).disruptionsAllowed, list(status(h).disruptedPods)) == (0, ["web-1-0"])
        await h.run_for(25)
        assert (status(h).disruptionsAllowed, list(status(h).disruptedPods)) == (1, [])


async def test_B33_what_an_eviction_spent_meanwhile_is_not_written_over() -> None:
    async with house(CONTROLLER) as h:
        await pods_of(h, await of_deployment(h, 2), 2)
        await h.client.create(budget(minAvailable=1))
        await h.settle()
        h.client.server.fail("UpdateStatus", Budget, Conflict("an eviction was faster"))
        await h.client.delete(Pod, "web-1-0", "default", grace_period_s=0)
        await h.run_for(1)
        condition: Any = find_condition(status(h).conditions, "DisruptionAllowed")
        assert (status(h).disruptionsAllowed, condition.reason) == (0, "InsufficientPods")


@pytest.mark.parametrize(
    ("reason", "phase", "after"),
    [
        pytest.param("EvictionByEvictionAPI", "Running", "False", id="taken back"),
        pytest.param("TerminationByKubelet", "Running", "True", id="the kubelet ends what it began"),
        pytest.param("EvictionByEvictionAPI", "Failed", "True", id="it has gone"),
    ],
)
async def test_B33_a_pod_that_stays_is_no_target_any_more(reason: str, phase: str, after: str) -> None:
    async with house(CONTROLLER) as h:
        made = Pod()
        made.metadata.name, made.metadata.namespace = "p", "default"
        stored: Any = await h.client.create(made)
        stored.status.phase = phase
        target = stored.status.conditions.add(type="DisruptionTarget", status="True", reason=reason)
        target.lastTransitionTime.CopyFrom(to_time(h.clock.now()))
        await h.client.update_status(stored)
        await h.run_for(119)
        assert target_of(h).status == "True"
        await h.run_for(3)
        assert target_of(h).status == after


def target_of(h: House) -> Any:
    return find_condition(h.client.stored(Pod, "p", "default").status.conditions, "DisruptionTarget")
