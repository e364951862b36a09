"""Nodes: ranges of addresses, heartbeats, taints, evictions, and pods of nodes that are gone."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.controller_manager.controllers.test_replicaset import replica_set, view
from tests.unit.controller_manager.harness import House, house, names
from tiphys.api.coordination.v1 import coordination_pb2
from tiphys.api.core.v1 import node_pb2, pod_pb2
from tiphys_apimachinery.meta import find_condition, to_micro_time, to_time
from tiphys_component.app import StartupError
from tiphys_controller_manager.controllers.node_ipam.allocator import Allocator, NothingLeft, Pool, pools
from tiphys_controller_manager.controllers.node_lifecycle.plan import Zone, zone_state
from tiphys_controller_manager.controllers.pod_gc.plan import terminated_beyond
from tiphys_controller_manager.pods import Toleration
from tiphys_controller_manager.taints import Taint, eviction_due, tolerates

LIFECYCLE, EVICTION = "node-lifecycle-controller", "taint-eviction-controller"
NOT_READY, UNREACHABLE = "node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"


def node(name: str = "n1", ready: str = "True", zone: str = "") -> node_pb2.Node:
    made = node_pb2.Node()
    made.metadata.name = name
    if zone:
        made.metadata.labels["topology.kubernetes.io/zone"] = zone
    if ready:
        made.status.conditions.add(type="Ready", status=ready)
    return made


def pod(name: str = "p1", node_name: str = "n1", tolerate_s: int | None = None) -> pod_pb2.Pod:
    made = pod_pb2.Pod()
    made.metadata.name, made.metadata.namespace = name, "default"
    made.spec.nodeName = node_name
    made.status.phase = "Running"
    made.status.conditions.add(type="Ready", status="True").lastTransitionTime.seconds = 1
    if tolerate_s is not None:
        for key in (NOT_READY, UNREACHABLE):
            made.spec.tolerations.add(key=key, operator="Exists", effect="NoExecute", tolerationSeconds=tolerate_s)
    return made


def taints(h: House, name: str = "n1") -> set[tuple[str, str]]:
    stored = h.client.stored(node_pb2.Node, name)
    return {(taint.key, taint.effect) for taint in stored.spec.taints}


async def say(h: House, ready: str, name: str = "n1") -> None:
    """The kubelet writes its status."""
    stored = h.client.stored(node_pb2.Node, name)
    condition: Any = find_condition(stored.status.conditions, "Ready")
    condition.status = ready
    condition.lastHeartbeatTime.CopyFrom(to_time(h.clock.now()))
    await h.client.update_status(stored)
    await h.settle()


async def test_a_ready_node_loses_its_taint_at_once() -> None:
    async with house(LIFECYCLE) as h:
        made = node(ready="False")
        made.spec.taints.add(key=NOT_READY, effect="NoSchedule")
        h.client.seed(made)
        await h.settle()
        assert taints(h) == {(NOT_READY, "NoSchedule")}
        await say(h, "True")
        assert taints(h) == set()


@pytest.mark.parametrize(
    ("condition", "taint"),
    [
        ("MemoryPressure", "node.kubernetes.io/memory-pressure"),
        ("DiskPressure", "node.kubernetes.io/disk-pressure"),
        ("PIDPressure", "node.kubernetes.io/pid-pressure"),
        ("NetworkUnavailable", "node.kubernetes.io/network-unavailable"),
    ],
)
async def test_pressure_taints_come_and_foreign_ones_stay(condition: str, taint: str) -> None:
    async with house(LIFECYCLE) as h:
        made = node()
        made.spec.taints.add(key="gpu", value="yes", effect="NoSchedule")
        made.status.conditions.add(type=condition, status="True")
        h.client.seed(made)
        await h.settle()
        assert taints(h) == {("gpu", "NoSchedule"), (taint, "NoSchedule")}


async def test_a_cordoned_node_is_tainted_and_cleared() -> None:
    async with house(LIFECYCLE) as h:
        h.client.seed(node())
        await h.settle()
        for wanted in (True, False):
            await h.client.patch(node_pb2.Node, "n1", "", {"spec": {"unschedulable": wanted}})
            await h.settle()
            assert (("node.kubernetes.io/unschedulable", "NoSchedule") in taints(h)) is wanted


async def test_B24_silence_makes_a_node_unknown_and_its_pods_not_ready() -> None:
    async with house(LIFECYCLE, node_monitor_grace_period_s=40.0) as h:
        h.client.seed(node("n1"), node("n2"), pod())
        await h.settle()
        for _ in range(8):
            await h.run_for(6)
            await say(h, "True", "n2")
        stored = h.client.stored(node_pb2.Node, "n1")
        assert {condition.status for condition in stored.status.conditions} == {"Unknown"}
        ready: Any = find_condition(stored.status.conditions, "Ready")
        assert ready.reason == "NodeStatusUnknown"
        assert taints(h) == {(UNREACHABLE, "NoSchedule"), (UNREACHABLE, "NoExecute")}
        assert taints(h, "n2") == set()
        waiting = h.client.stored(pod_pb2.Pod, "p1", "default").status.conditions[0]
        assert waiting.status == "False"
        await say(h, "True")
        assert taints(h) == set()


async def moment(h: House, holds: Callable[[], Awaitable[bool]], *, before_s: float, step_s: float = 0.25) -> float:
    """When it came true, by the clock, to a step; fails if it has not by a moment."""
    while not await holds():
        assert h.clock.monotonic() < before_s, "it has not happened in time"
        await h.run_for(step_s)
    return h.clock.monotonic()


@pytest.mark.parametrize("last_s", [0.0, 0.9, 3.7, 7.3], ids="last heard {} s after another".format)
async def test_B24_a_silent_node_is_not_ready_within_five_seconds_of_its_grace(last_s: float) -> None:
    async with house(LIFECYCLE) as h:
        h.client.seed(node("n1"), node("n2"))
        await h.settle()
        await h.run_for(last_s)
        await say(h, "True")
        silent_since = h.clock.monotonic()

        async def is_unknown() -> bool:
            ready: Any = find_condition(h.client.stored(node_pb2.Node, "n1").status.conditions, "Ready")
            return bool(ready.status == "Unknown")

        await h.run_for(49.5)
        assert not await is_unknown()
        assert await moment(h, is_unknown, before_s=silent_since + 56) - silent_since <= 55


async def test_B24_pods_of_a_silent_node_are_replaced_five_minutes_after_it_was_given_up() -> None:
    async with house(LIFECYCLE, EVICTION, "replicaset-controller") as h:
        # Bound by hand: there is no scheduler.
        h.client.seed(node("n1"), node("n2"))
        await h.client.create(replica_set(replicas=1))
        await h.settle()
        (born,) = await h.pods()
        born.spec.nodeName = "n1"
        born.spec.tolerations.extend(pod(tolerate_s=300).spec.tolerations)
        await h.make_ready(await h.client.update(born))

        async def live_on(seconds: float) -> None:
            # The other node is well all the time.
            until = h.clock.monotonic() + seconds
            while h.clock.monotonic() < until:
                await say(h, "True", "n2")
                await h.run_for(min(20.0, until - h.clock.monotonic()))
            await say(h, "True", "n2")

        async def is_given_up() -> bool:
            return (UNREACHABLE, "NoExecute") in taints(h)

        async def is_replaced() -> bool:
            return any(one.metadata.uid != born.metadata.uid for one in await h.pods())

        await live_on(48)
        given_up = await moment(h, is_given_up, before_s=56)
        await live_on(given_up + 298.5 - h.clock.monotonic())
        assert not await is_replaced()
        await moment(h, is_replaced, before_s=given_up + 302)


async def test_a_lease_is_a_heartbeat() -> None:
    async with house(LIFECYCLE, node_monitor_grace_period_s=40.0) as h:
        h.client.seed(node("n1"))
        lease = coordination_pb2.Lease()
        lease.metadata.name, lease.metadata.namespace = "n1", "kube-node-lease"
        lease = await h.client.create(lease)
        for _ in range(12):
            await h.run_for(10)
            lease.spec.renewTime.CopyFrom(to_micro_time(h.clock.now()))
            lease = await h.client.update(lease)
            await h.settle()
        assert taints(h) == set()
        await h.run_for(41)
        assert (UNREACHABLE, "NoSchedule") in taints(h)


async def test_B24_when_every_node_is_lost_nothing_is_evicted() -> None:
    async with house(LIFECYCLE) as h:
        h.client.seed(node("n1", "False"), node("n2", "False"))
        await h.settle()
        assert taints(h) == {(NOT_READY, "NoSchedule")}
        await say(h, "True", "n2")
        assert taints(h) == {(NOT_READY, "NoSchedule"), (NOT_READY, "NoExecute")}


async def test_B24_nodes_of_a_zone_lose_their_pods_one_after_another() -> None:
    async with house(LIFECYCLE, node_monitor_grace_period_s=1000.0) as h:
        h.client.seed(*(node(f"lost{i}", "False") for i in range(3)), *(node(f"ok{i}") for i in range(10)))
        await h.settle()

        def evicted() -> int:
            return sum((NOT_READY, "NoExecute") in taints(h, f"lost{i}") for i in range(3))

        assert evicted() == 1
        await h.run_for(11)
        assert evicted() == 2
        await h.run_for(11)
        assert evicted() == 3


def in_zone(zone: str, *states: str) -> list[node_pb2.Node]:
    return [node(f"{zone}{number}", ready, zone) for number, ready in enumerate(states)]


def evicted_in(h: House, zone: str, count: int) -> int:
    return sum((NOT_READY, "NoExecute") in taints(h, f"{zone}{number}") for number in range(count))


async def test_B24_a_zone_with_most_nodes_lost_evicts_nothing_while_the_others_go_on() -> None:
    lost, well = ["False"] * 4, ["True"] * 3
    async with house(LIFECYCLE, node_monitor_grace_period_s=1000.0) as h:
        h.client.seed(*in_zone("a", *lost, "True"), *in_zone("b", "False", *well))
        await h.run_for(60)
        assert (evicted_in(h, "a", 4), evicted_in(h, "b", 1)) == (0, 1)
        # Two of the lost come back: the zone is well enough for the others to be given up.
        for name in ("a0", "a1"):
            await say(h, "True", name)
        await h.run_for(25)
        assert evicted_in(h, "a", 4) == 2


async def test_B24_a_large_zone_with_most_nodes_lost_evicts_ten_times_slower() -> None:
    changes: dict[str, Any] = {"large_cluster_size_threshold": 4, "node_monitor_grace_period_s": 1000.0}
    async with house(LIFECYCLE, **changes) as h:
        h.client.seed(*in_zone("a", *["False"] * 4, "True"), *in_zone("b", "True"))
        await h.run_for(95)
        assert evicted_in(h, "a", 4) == 1
        await h.run_for(10)
        assert evicted_in(h, "a", 4) == 2


async def test_B24_a_zone_that_is_lost_whole_is_emptied_at_the_normal_rate_where_another_is_left() -> None:
    async with house(LIFECYCLE, node_monitor_grace_period_s=1000.0) as h:
        h.client.seed(*in_zone("a", *["False"] * 3), *in_zone("b", "True"))
        await h.run_for(25)
        assert evicted_in(h, "a", 3) == 3


@pytest.mark.parametrize(
    ("ready", "lost", "state"),
    [(5, 0, Zone.NORMAL), (0, 1, Zone.FULL), (1, 2, Zone.NORMAL), (2, 3, Zone.PARTIAL), (10, 5, Zone.NORMAL)],
)
def test_B24_zones(ready: int, lost: int, state: Zone) -> None:
    assert zone_state(ready, lost, 0.55) is state


EXECUTE = Taint("k", "v", "NoExecute", since=100.0)


@pytest.mark.parametrize(
    ("toleration", "covers"),
    [
        pytest.param(Toleration("", "Exists", "", "", None), True, id="everything"),
        pytest.param(Toleration("k", "Exists", "", "", None), True, id="any value"),
        pytest.param(Toleration("k", "Equal", "v", "NoExecute", None), True, id="exactly"),
        pytest.param(Toleration("k", "Equal", "w", "", None), False, id="another value"),
        pytest.param(Toleration("k", "Equal", "v", "NoSchedule", None), False, id="another effect"),
        pytest.param(Toleration("x", "Exists", "", "", None), False, id="another key"),
    ],
)
def test_tolerations(toleration: Toleration, covers: bool) -> None:
    assert tolerates(toleration, EXECUTE) is covers


@pytest.mark.parametrize(
    ("tolerations", "due"),
    [
        pytest.param([], 0.0, id="none: at once"),
        pytest.param([Toleration("k", "Exists", "", "", None)], None, id="for ever"),
        pytest.param([Toleration("k", "Exists", "", "", 30)], 130.0, id="for a while"),
        pytest.param(
            [Toleration("k", "Exists", "", "", 30), Toleration("", "Exists", "", "", 5)], 105.0, id="shortest"
        ),
        pytest.param([Toleration("k", "Exists", "", "", 0)], 0.0, id="for no time"),
    ],
)
def test_when_a_pod_must_go(tolerations: list[Toleration], due: float | None) -> None:
    assert eviction_due(tolerations, [EXECUTE]) == due


def test_without_taints_a_pod_stays() -> None:
    assert eviction_due([], []) is None


async def tainted(h: House, key: str = NOT_READY) -> None:
    stored = h.client.stored(node_pb2.Node, "n1")
    stored.spec.taints.add(key=key, effect="NoExecute", timeAdded=to_time(h.clock.now()))
    await h.client.update(stored)
    await h.settle()


def is_ending(h: House, name: str = "p1") -> bool:
    stored = h.client.find_stored(pod_pb2.Pod, name, "default")
    return stored is None or stored.metadata.HasField("deletionTimestamp")


async def test_a_pod_is_evicted_when_its_toleration_is_used_up() -> None:
    async with house(EVICTION) as h:
        h.client.seed(node(), pod(tolerate_s=300), pod("bare"))
        await h.settle()
        await tainted(h)
        assert (is_ending(h), is_ending(h, "bare")) == (False, True)
        await h.run_for(290)
        assert not is_ending(h)
        await h.run_for(11)
        assert is_ending(h)
        condition: Any = find_condition(
            h.client.stored(pod_pb2.Pod, "p1", "default").status.conditions, "DisruptionTarget"
        )
        assert condition.reason == "DeletionByTaintManager"
        assert "TaintManagerEviction" in h.events.reasons()


async def test_a_taint_taken_off_in_time_spares_the_pod() -> None:
    async with house(EVICTION) as h:
        h.client.seed(node(), pod(tolerate_s=300))
        await h.settle()
        await tainted(h)
        await h.run_for(200)
        stored = h.client.stored(node_pb2.Node, "n1")
        del stored.spec.taints[:]
        await h.client.update(stored)
        await h.run_for(200)
        assert not is_ending(h)


async def test_a_pod_bound_later_is_evicted_too() -> None:
    async with house(EVICTION) as h:
        h.client.seed(node())
        await h.settle()
        await tainted(h)
        h.client.seed(pod())
        await h.settle()
        assert is_ending(h)


def test_ranges_are_given_in_order_and_again_only_at_the_end() -> None:
    allocator = Allocator(pools(["10.244.0.0/22"], mask_ipv4=24, mask_ipv6=64))
    assert [allocator.allocate(f"n{i}") for i in range(3)] == [(f"10.244.{i}.0/24",) for i in range(3)]
    allocator.release("n1")
    assert allocator.allocate("n3") == ("10.244.3.0/24",)
    assert allocator.allocate("n4") == ("10.244.1.0/24",)
    with pytest.raises(NothingLeft):
        allocator.allocate("n5")


def test_service_addresses_are_never_given_to_nodes() -> None:
    allocator = Allocator(pools(["10.96.0.0/14"], mask_ipv4=16, mask_ipv6=64), ["10.96.0.0/15"])
    assert allocator.allocate("n") == ("10.98.0.0/16",)


def test_two_families() -> None:
    allocator = Allocator(pools(["10.244.0.0/16", "fd00::/48"], mask_ipv4=24, mask_ipv6=64))
    assert allocator.allocate("n") == ("10.244.0.0/24", "fd00::/64")


@pytest.mark.parametrize(("cluster", "mask"), [("10.0.0.0/24", 16), ("10.0.0.0/8", 28)])
def test_ranges_that_cannot_be_cut_are_refused(cluster: str, mask: int) -> None:
    with pytest.raises(ValueError, match="parts of size"):
        pools([cluster], mask_ipv4=mask, mask_ipv6=64)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["allocate", "release", "occupy"]), st.integers(0, 9)), max_size=40))
def test_F22_no_two_nodes_ever_have_one_range(steps: list[tuple[str, int]]) -> None:
    (pool,) = pools(["10.0.0.0/21"], mask_ipv4=24, mask_ipv6=64)
    assert isinstance(pool, Pool)
    allocator = Allocator([pool])
    held: dict[str, str] = {}
    for verb, number in steps:
        name = f"n{number}"
        if verb == "release":
            allocator.release(name)
            held.pop(name, None)
        elif name not in held:
            if verb == "occupy":
                text = pool.part(number % 8)
                if text not in held.values():
                    assert not allocator.occupy(name, [text])
                    held[name] = text
                continue
            try:
                (text,) = allocator.allocate(name)
            except NothingLeft:
                assert len(held) == 8
                continue
            assert text not in held.values()
            held[name] = text


async def test_nodes_get_and_give_back_their_ranges() -> None:
    async with house("node-ipam-controller", cluster_cidr=("10.244.0.0/23",)) as h:
        for name in ("n1", "n2", "n3"):
            await h.client.create(node(name))
        await h.settle()
        given = {item.metadata.name: list(item.spec.podCIDRs) for item in await h.all(node_pb2.Node)}
        assert sorted(map(str, given.values())) == ["['10.244.0.0/24']", "['10.244.1.0/24']", "[]"]
        assert "CIDRNotAvailable" in h.events.reasons()
        await h.client.delete(node_pb2.Node, "n1")
        await h.run_for(11)
        assert all(item.spec.podCIDR for item in await h.all(node_pb2.Node))


async def test_what_nodes_have_already_is_not_given_again() -> None:
    async with house("node-ipam-controller", cluster_cidr=("10.244.0.0/16",)) as h:
        old = node("old")
        old.spec.podCIDR = "10.244.0.0/24"
        old.spec.podCIDRs.append("10.244.0.0/24")
        h.client.seed(old)
        await h.settle()
        await h.client.create(node("new"))
        await h.settle()
        assert h.client.stored(node_pb2.Node, "new").spec.podCIDR == "10.244.1.0/24"


async def test_a_wrong_cluster_range_refuses_the_start() -> None:
    with pytest.raises(StartupError, match="does not appear"):
        async with house("node-ipam-controller", cluster_cidr=("nonsense",)):
            pass


def test_finished_pods_beyond_the_threshold_go_oldest_first() -> None:
    pods = [view(f"p{i}", phase="Failed", created=float(i)) for i in range(5)] + [view("alive", created=0.0)]
    assert [item.name for item in terminated_beyond(pods, 3)] == ["p0", "p1"]
    assert terminated_beyond(pods, 0) == []


async def test_B29_pods_of_a_deleted_node_are_removed_after_a_quarantine() -> None:
    async with house("pod-garbage-collector-controller") as h:
        h.client.seed(node("n1"), node("n2"), pod("p1", "n1"), pod("p2", "n2"))
        await h.settle()
        await h.client.delete(node_pb2.Node, "n1")
        await h.run_for(30)
        assert names(await h.pods()) == ["p1", "p2"]
        await h.run_for(15)
        assert names(await h.pods()) == ["p2"]


async def test_a_pod_that_never_came_to_a_node_ends() -> None:
    async with house("pod-garbage-collector-controller") as h:
        stuck = pod("stuck", "")
        stuck.metadata.deletionTimestamp.seconds = 5
        stuck.metadata.deletionGracePeriodSeconds = 30
        h.client.seed(stuck)
        await h.run_for(25)
        assert await h.pods() == []
