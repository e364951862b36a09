"""Evictions over HTTP: which a budget pays for, which it forbids, and which need none."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.integration.apiserver.test_pod_subresources import BUDGETS, EVICTION, MERGE, PODS, make_pod
from tests.support.apiserver import RunningServer

READY = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
UNREADY = {"phase": "Running", "conditions": [{"type": "Ready", "status": "False"}]}


async def pod_in(server: RunningServer, status: dict[str, Any] | None = None, name: str = "p") -> dict[str, Any]:
    await make_pod(server, name)
    reply = await server.http("PATCH", f"{PODS}/{name}/status", {"status": status or READY}, content_type=MERGE)
    found: dict[str, Any] = reply.json()
    return found


async def budget(server: RunningServer, spec: dict[str, Any] | None = None, **status: Any) -> None:
    selects = {"selector": {"matchLabels": {"app": "a"}}, "minAvailable": 1}
    made = await server.http("POST", BUDGETS, {"metadata": {"name": "b"}, "spec": {**selects, **(spec or {})}})
    assert made.status == 201, made.body
    counts = {"disruptionsAllowed": 0, "currentHealthy": 1, "desiredHealthy": 1, "expectedPods": 1}
    body = {"status": {**counts, "observedGeneration": 1, **status}}
    assert (await server.http("PATCH", f"{BUDGETS}/b/status", body, content_type=MERGE)).status == 200


async def evict(server: RunningServer, name: str = "p", query: str = "", **options: Any) -> Any:
    body = {**EVICTION, "metadata": {"name": name, "namespace": "default"}, "deleteOptions": options}
    return await server.http("POST", f"{PODS}/{name}/eviction{query}", body)


async def is_there(server: RunningServer, name: str = "p") -> bool:
    return (await server.http("GET", f"{PODS}/{name}")).status == 200


async def status_of(server: RunningServer) -> dict[str, Any]:
    found: dict[str, Any] = (await server.http("GET", f"{BUDGETS}/b")).json()["status"]
    return found


async def test_B33_a_blocked_eviction_says_what_the_budget_needs(server: RunningServer) -> None:
    await pod_in(server)
    await budget(server)
    reply = await evict(server)
    cause = reply.json()["details"]["causes"][0]
    assert (reply.status, cause["reason"]) == (429, "DisruptionBudget")
    assert cause["message"] == "The disruption budget b needs 1 healthy pods and has 1 currently"
    # Waiting alone does not help: whoever drains is to say so, and not to try again unseen.
    assert "Retry-After" not in dict(reply.headers)


async def test_B33_a_budget_not_looked_at_yet_says_when_to_come_again(server: RunningServer) -> None:
    await pod_in(server)
    await budget(server, disruptionsAllowed=1, observedGeneration=0)
    reply = await evict(server)
    assert (reply.status, dict(reply.headers)["Retry-After"]) == (429, "10")
    assert "is still being processed by the server" in reply.json()["details"]["causes"][0]["message"]


async def test_B33_a_budget_that_cannot_be_counted_says_why(server: RunningServer) -> None:
    await pod_in(server)
    failed = {"type": "DisruptionAllowed", "status": "False", "reason": "SyncFailed", "message": "no scale"}
    await budget(server, conditions=[{**failed, "lastTransitionTime": "2026-01-01T00:00:00Z"}])
    assert "failed sync: no scale" in (await evict(server)).json()["details"]["causes"][0]["message"]


async def test_B33_a_budget_whose_last_disruption_was_just_spent_tells_no_wrong_numbers(server: RunningServer) -> None:
    await pod_in(server)
    await budget(server, currentHealthy=2)
    cause = (await evict(server)).json()["details"]["causes"][0]
    assert cause["message"] == "The disruption budget b does not allow evicting pods currently"


async def test_B33_a_budget_that_makes_no_sense_forbids(server: RunningServer) -> None:
    await pod_in(server)
    await budget(server, disruptionsAllowed=-1)
    assert (await evict(server)).status == 403
    assert await is_there(server)


async def test_B33_a_budget_that_remembers_too_many_pods_forbids(server: RunningServer) -> None:
    await pod_in(server)
    many = {f"p-{number}": "2026-01-01T00:00:00Z" for number in range(2001)}
    await budget(server, disruptionsAllowed=1, disruptedPods=many)
    assert (await evict(server)).status == 403
    assert await is_there(server)


async def test_B33_the_last_disruption_is_spent_and_said(server: RunningServer) -> None:
    await pod_in(server)
    await budget(server, disruptionsAllowed=1)
    # Held by a finalizer, so that it can still be looked at.
    await server.http("PATCH", f"{PODS}/p", {"metadata": {"finalizers": ["example.com/hold"]}}, content_type=MERGE)
    assert (await evict(server)).status == 201
    status = await status_of(server)
    assert (status["disruptionsAllowed"], list(status["disruptedPods"])) == (0, ["p"])
    assert [(item["type"], item["status"], item["reason"]) for item in status["conditions"]] == [
        ("DisruptionAllowed", "False", "InsufficientPods")
    ]
    pod = (await server.http("GET", f"{PODS}/p")).json()
    target = next(item for item in pod["status"]["conditions"] if item["type"] == "DisruptionTarget")
    assert (target["status"], target["reason"]) == ("True", "EvictionByEvictionAPI")
    assert "deletionTimestamp" in pod["metadata"]


async def test_B33_a_dry_run_asks_the_budget_and_spends_nothing(server: RunningServer) -> None:
    before = await pod_in(server)
    await budget(server, disruptionsAllowed=1)
    assert (await evict(server, query="?dryRun=All")).status == 201
    assert (await evict(server, dryRun=["All"])).status == 201
    assert (await server.http("GET", f"{PODS}/p")).json() == before
    assert (await status_of(server))["disruptionsAllowed"] == 1
    await server.http("PATCH", f"{BUDGETS}/b/status", {"status": {"disruptionsAllowed": 0}}, content_type=MERGE)
    assert (await evict(server, dryRun=["All"])).status == 429


@pytest.mark.parametrize("precondition", [{"uid": "another"}, {"resourceVersion": "1"}], ids=["uid", "version"])
async def test_B33_an_eviction_of_another_pod_spends_nothing(
    server: RunningServer, precondition: dict[str, str]
) -> None:
    await pod_in(server)
    await budget(server, disruptionsAllowed=1)
    assert (await evict(server, preconditions=precondition)).status == 409
    assert await is_there(server)
    assert (await status_of(server))["disruptionsAllowed"] == 1


async def test_B33_an_eviction_of_this_very_version_is_done(server: RunningServer) -> None:
    metadata = (await pod_in(server))["metadata"]
    await budget(server, disruptionsAllowed=1)
    mine = {name: metadata[name] for name in ("uid", "resourceVersion")}
    assert (await evict(server, preconditions=mine)).status == 201
    assert not await is_there(server)


@pytest.mark.parametrize("phase", ["Succeeded", "Failed", "Pending"])
async def test_B33_a_pod_that_does_no_work_always_goes(server: RunningServer, phase: str) -> None:
    await pod_in(server, {"phase": phase})
    await budget(server)
    assert (await evict(server)).status == 201
    assert not await is_there(server)
    assert (await status_of(server)).get("disruptedPods", {}) == {}


@pytest.mark.parametrize(
    ("policy", "healthy", "code"),
    [
        pytest.param(None, 1, 201, id="by default, where enough are healthy"),
        pytest.param(None, 0, 429, id="by default, where too few are"),
        pytest.param("IfHealthyBudget", 0, 429, id="asked for, where too few are"),
        pytest.param("AlwaysAllow", 0, 201, id="always"),
    ],
)
async def test_B33_a_pod_that_is_not_ready_goes_as_its_policy_says(
    server: RunningServer, policy: str | None, healthy: int, code: int
) -> None:
    await pod_in(server, UNREADY)
    spec = {"unhealthyPodEvictionPolicy": policy} if policy else {}
    await budget(server, spec, currentHealthy=healthy, desiredHealthy=1)
    assert (await evict(server)).status == code
    assert await is_there(server) is (code == 429)


async def test_B33_a_budget_without_a_selector_covers_no_pod(server: RunningServer) -> None:
    await pod_in(server)
    await budget(server, {"selector": None})
    assert (await evict(server)).status == 201


async def test_B33_two_budgets_for_one_pod_are_an_error(server: RunningServer) -> None:
    await pod_in(server)
    await budget(server, disruptionsAllowed=1)
    other = {"metadata": {"name": "b2"}, "spec": {"selector": {}, "minAvailable": 0}}
    assert (await server.http("POST", BUDGETS, other)).status == 201
    reply = await evict(server)
    assert (reply.status, reply.json()["reason"]) == (500, "InternalError")
    assert "more than one PodDisruptionBudget" in reply.json()["message"]


async def test_B33_evictions_at_once_never_spend_more_than_there_is(server: RunningServer) -> None:
    names = [f"p{number}" for number in range(8)]
    for name in names:
        await pod_in(server, name=name)
    await budget(server, disruptionsAllowed=3)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(evict(server, name)) for name in names]
    codes = sorted(task.result().status for task in tasks)
    assert codes == [201] * 3 + [429] * 5
    status = await status_of(server)
    assert status["disruptionsAllowed"] == 0
    assert len(status["disruptedPods"]) == 3
