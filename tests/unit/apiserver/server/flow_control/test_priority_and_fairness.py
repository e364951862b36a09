"""Requests find their FlowSchema and its level, wait there, and are told to come back where they can't."""

from __future__ import annotations

import asyncio

import pytest

from tests.unit.apiserver.fake_objects import FakeObjects, build
from tests.unit.apiserver.server.calls import call_of
from tiphys.api.flowcontrol.v1.flowcontrol_pb2 import FlowSchema, PriorityLevelConfiguration
from tiphys_apimachinery.errors import TooManyRequests
from tiphys_apiserver.authentication.interface import MASTERS
from tiphys_apiserver.bootstrap.flow_control import SUGGESTED_SCHEMAS, ensure_flow_control
from tiphys_apiserver.server.call import Call
from tiphys_apiserver.server.flow_control.metrics import FlowMetrics
from tiphys_apiserver.server.flow_control.priority_and_fairness import PriorityAndFairness
from tiphys_component.clock import FakeClock
from tiphys_component.metrics import Registry

PODS = "/api/v1/namespaces/a/pods"
LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases"
CONTROLLERS = "system:kube-controller-manager"
ACCOUNTS = "system:serviceaccounts"


def flow_control(
    objects: FakeObjects | None = None, *, total: int = 600, objects_listed: int = 0, wait_limit_s: float = 15.0
) -> tuple[PriorityAndFairness, Registry]:
    registry = Registry()
    flow = PriorityAndFairness(
        total,
        objects or FakeObjects(),
        FakeClock(),
        count=lambda info: objects_listed,
        metrics=FlowMetrics(registry),
        wait_limit_s=wait_limit_s,
    )
    return flow, registry


async def defaults() -> FakeObjects:
    objects = FakeObjects()
    await ensure_flow_control(objects)
    return objects


@pytest.mark.parametrize(
    ("call", "schema"),
    [
        pytest.param(call_of("admin", PODS, MASTERS), "exempt", id="masters"),
        pytest.param(call_of("anybody", "/readyz"), "probes", id="health"),
        pytest.param(call_of("anybody", "/version"), "global-default", id="other path"),
        pytest.param(call_of(CONTROLLERS, f"{LEASES}/l"), "system-leader-election", id="leader election"),
        pytest.param(call_of(CONTROLLERS, PODS), "kube-controller-manager", id="controllers"),
        pytest.param(call_of("system:kube-scheduler", PODS), "kube-scheduler", id="scheduler"),
        pytest.param(
            call_of("system:node:n", "/api/v1/nodes/n/status", "system:nodes", method="PATCH"),
            "system-node-high",
            id="node status",
        ),
        pytest.param(call_of("system:node:n", PODS, "system:nodes"), "system-nodes", id="node"),
        pytest.param(
            call_of("system:serviceaccount:kube-system:dns", PODS, ACCOUNTS), "kube-system-service-accounts", id="dns"
        ),
        pytest.param(call_of("system:serviceaccount:a:b", PODS, ACCOUNTS), "service-accounts", id="account"),
        pytest.param(call_of("alice", PODS), "global-default", id="person"),
    ],
)
async def test_A49_request_is_of_the_schema_with_the_lowest_precedence_that_matches(call: Call, schema: str) -> None:
    flow, registry = flow_control(await defaults())
    await flow.enter(call)
    level = next(one.level.settings.name for one in flow.flows if one.name == schema)
    count = registry.value("apiserver_flowcontrol_dispatched_requests_total", priority_level=level, flow_schema=schema)
    assert count == 1
    assert [name for name, _ in call.flow_headers] == [
        "X-Kubernetes-PF-FlowSchema-UID",
        "X-Kubernetes-PF-PriorityLevel-UID",
    ]


async def test_A49_default_objects_are_made_once() -> None:
    objects = await defaults()
    made = len(objects.created)
    await ensure_flow_control(objects)
    assert (made, len(objects.created)) == (21, 21)


async def test_A49_change_of_an_owner_who_wants_it_stays() -> None:
    objects = await defaults()
    name = SUGGESTED_SCHEMAS[-1].metadata.name
    schema = await objects.get(FlowSchema, name)
    schema.spec.matchingPrecedence = 9000
    objects.put(schema)
    await ensure_flow_control(objects)
    assert (await objects.get(FlowSchema, name)).spec.matchingPrecedence == 9900
    schema.metadata.annotations["apf.kubernetes.io/autoupdate-spec"] = "false"
    objects.put(schema)
    await ensure_flow_control(objects)
    assert (await objects.get(FlowSchema, name)).spec.matchingPrecedence == 9000


async def test_A49_new_objects_count_from_the_next_request_on() -> None:
    objects = await defaults()
    flow, _ = flow_control(objects)
    await flow.enter(call_of("alice", PODS))
    spec = {"type": "Limited", "limited": {"nominalConcurrencyShares": 1, "limitResponse": {"type": "Reject"}}}
    objects.put(build(PriorityLevelConfiguration, metadata={"name": "narrow"}, spec=spec))
    rule = {
        "subjects": [{"kind": "User", "user": {"name": "alice"}}],
        "resourceRules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"], "namespaces": ["a"]}],
    }
    schema = {"priorityLevelConfiguration": {"name": "narrow"}, "matchingPrecedence": 10, "rules": [rule]}
    objects.put(build(FlowSchema, metadata={"name": "alice"}, spec=schema))
    await flow.enter(call_of("alice"))
    assert flow.levels["narrow"].seats == 1
    assert flow.levels["global-default"].seats == 1


async def test_A49_schema_without_its_level_is_passed_over() -> None:
    objects = await defaults()
    await objects.delete(PriorityLevelConfiguration, "global-default")
    flow, _ = flow_control(objects)
    await flow.enter(call_of("alice"))
    assert flow.levels["catch-all"].seats == 1


async def test_A49_request_beyond_the_queues_is_told_when_to_come_back() -> None:
    flow, registry = flow_control(total=1)
    await flow.enter(call_of("alice"))
    with pytest.raises(TooManyRequests) as refused:
        await flow.enter(call_of("alice"))
    assert refused.value.retry_after_s == 1
    count = registry.value(
        "apiserver_flowcontrol_rejected_requests_total",
        priority_level="catch-all",
        flow_schema="catch-all",
        reason="concurrency-limit",
    )
    assert count == 1


async def test_A49_request_waits_for_a_seat_and_no_longer_than_its_time() -> None:
    flow, registry = flow_control(await defaults(), total=1, wait_limit_s=0.01)
    held = [call_of("alice") for _ in range(8)]
    for call in held:
        try:
            await flow.enter(call)
        except TooManyRequests:
            break
    else:
        pytest.fail("nothing was ever full")
    labels = {"priority_level": "global-default", "flow_schema": "global-default", "reason": "time-out"}
    assert registry.value("apiserver_flowcontrol_rejected_requests_total", **labels) == 1
    waiting = call_of("alice")
    async with asyncio.TaskGroup() as group:
        group.create_task(flow.enter(waiting))
        await asyncio.sleep(0)
        held[0].free_seat()
    assert waiting.seat is not None
    assert flow.levels["global-default"].waiting == 0


@pytest.mark.parametrize(
    ("path", "watch", "limit", "listed", "seats"),
    [
        pytest.param(f"{PODS}/p", False, 0, 5000, 1, id="get"),
        pytest.param(PODS, False, 0, 20, 1, id="short list"),
        pytest.param(PODS, False, 0, 320, 4, id="list"),
        pytest.param(PODS, False, 0, 5000, 10, id="long list"),
        pytest.param(PODS, False, 200, 5000, 2, id="page"),
        pytest.param(PODS, True, 0, 5000, 1, id="watch"),
    ],
)
async def test_A49_list_holds_seats_for_what_it_reads(
    path: str, watch: bool, limit: int, listed: int, seats: int
) -> None:
    flow, _ = flow_control(await defaults(), objects_listed=listed)
    call = call_of("alice", path, watch=watch)
    call.limit = limit
    await flow.enter(call)
    assert flow.levels["global-default"].seats == seats
    call.free_seat()
    assert flow.levels["global-default"].seats == 0


async def test_A49_watch_that_sends_its_state_first_is_a_list_until_it_has_begun() -> None:
    flow, _ = flow_control(await defaults(), objects_listed=1000)
    call = call_of("alice", PODS, watch=True)
    call.sends_initial_events = True
    await flow.enter(call)
    assert flow.levels["global-default"].seats == 10


async def test_A49_logs_and_tunnels_hold_no_seat() -> None:
    flow, _ = flow_control(await defaults())
    call = call_of("alice", f"{PODS}/p/exec", method="POST")
    await flow.enter(call)
    assert call.seat is None


async def test_A49_small_request_comes_between_any_two_long_ones() -> None:
    """Long requests begin one a turn of the loop, so what arrives meanwhile waits for one of them."""
    flow, _ = flow_control(await defaults(), objects_listed=200)
    order: list[str] = []

    async def request(name: str, path: str) -> None:
        await flow.enter(call_of("alice", path))
        order.append(name)

    async with asyncio.TaskGroup() as group:
        for number in range(4):
            group.create_task(request(f"list {number}", PODS))
        group.create_task(request("get", f"{PODS}/p"))
    assert order.index("get") <= 1
    assert len(order) == 5
