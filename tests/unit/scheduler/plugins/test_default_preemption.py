"""Who makes room for whom: the rules by tables, and all nodes against a plain reference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.scheduler.objects import node, pod_message
from tests.unit.scheduler.world import World, world
from tiphys.api.core.v1.node_pb2 import Node
from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys.api.policy.v1.policy_pb2 import PodDisruptionBudget
from tiphys_apimachinery.labels import Selector
from tiphys_scheduler.budgets import Budgets, BudgetView
from tiphys_scheduler.cache import Cache
from tiphys_scheduler.columns import Columns
from tiphys_scheduler.framework.registry import DEFAULT_PROFILE
from tiphys_scheduler.framework.runtime import Framework, Placement
from tiphys_scheduler.framework.status import FitError
from tiphys_scheduler.nominations import Nominations
from tiphys_scheduler.plugins.default_preemption import DefaultPreemption
from tiphys_scheduler.pod_info import PodInfo, pod_info

_NO_ONE = "No preemption victims found for incoming pod"


@dataclass
class Evictions:
    """Notes who would have to go."""

    seen: list[tuple[str, str, tuple[str, ...]]] = field(default_factory=list)

    def preempt(self, pod: PodInfo, node: str, victims: Sequence[PodInfo]) -> None:
        self.seen.append((pod.name, node, tuple(v.name for v in victims)))


@dataclass
class Room:
    """A cluster with a preemption plugin and its framework."""

    cache: Cache
    budgets: Budgets
    evictions: Evictions
    nominations: Nominations
    preemption: DefaultPreemption
    framework: Framework

    def preempt(self, info: PodInfo) -> str:
        """What the plugin says of a pod that fits nowhere: the node, or else its message."""
        error = self.framework.place(info)
        assert isinstance(error, FitError), error
        result = self.preemption.post_filter(info, error)
        return result.node or result.message


def room(*nodes: Node) -> Room:
    cache, budgets, evictions = Cache(Columns()), Budgets(), Evictions()
    for item in nodes:
        cache.set_node(item)
    nominations = Nominations(cache.columns)
    preemption = DefaultPreemption(
        cache, lambda: DEFAULT_PROFILE.filters, nominations, budgets=budgets, evictor=evictions
    )
    framework = Framework(DEFAULT_PROFILE, cache.columns, nominations)
    return Room(cache, budgets, evictions, nominations, preemption, framework)


def running(
    name: str, at: str, priority: int, *, cpu: str = "1", started: int = 100, app: str = "", port: int = 0
) -> PodInfo:
    message = pod_message(name, cpu=cpu, priority=priority, nodeName=at, port=port)
    message.status.startTime.seconds = started
    if app:
        message.metadata.labels["app"] = app
    return pod_info(message)


def wanting(cpu: str = "1", priority: int = 100, name: str = "vip", port: int = 0, **spec: object) -> PodInfo:
    return pod_info(pod_message(name, cpu=cpu, memory="", priority=priority, port=port, **spec))


def budget(app: str, allowed: int) -> BudgetView:
    return BudgetView("default", Selector.from_set({"app": app}), allowed, frozenset())


@pytest.mark.parametrize(
    ("pods", "budgets", "expected"),
    [
        pytest.param(
            [running("a", "n1", 5, app="guarded"), running("b", "n2", 50)],
            [budget("guarded", 0)],
            ("n2", ("b",)),
            id="fewest broken budgets count before priority",
        ),
        pytest.param(
            [running("a", "n1", 50), running("b", "n2", 5)], [], ("n2", ("b",)), id="lowest of the highest priorities"
        ),
        pytest.param(
            [running("a", "n1", 5), running("b", "n2", 5, cpu="500m"), running("c", "n2", 5, cpu="500m")],
            [],
            ("n1", ("a",)),
            id="smallest sum of priorities, which more victims never make smaller",
        ),
        pytest.param(
            [running("a", "n1", 5, started=100), running("b", "n2", 5, started=900)],
            [],
            ("n2", ("b",)),
            id="the one that has run shortest",
        ),
        pytest.param(
            [running("a", "n1", 5), running("b", "n2", 5)], [], ("n1", ("a",)), id="the first of equally good nodes"
        ),
        pytest.param(
            [running("a", "n1", 5, app="guarded"), running("b", "n2", 100)],
            [budget("guarded", 0)],
            ("n1", ("a",)),
            id="a budget is broken where nothing else makes room",
        ),
    ],
)
def test_C19_the_node_is_chosen_by_upstreams_order_of_costs(
    pods: list[PodInfo], budgets: list[BudgetView], expected: tuple[str, tuple[str, ...]]
) -> None:
    found = room(node("n1", cpu="1"), node("n2", cpu="1"))
    for number, view in enumerate(budgets):
        found.budgets.set(f"default/{number}", view)
    for info in pods:
        found.cache.set_pod(info)
    assert found.preempt(wanting()) == expected[0]
    assert found.evictions.seen == [("vip", *expected)]


def test_C19_as_many_as_possible_stay_and_the_more_important_first() -> None:
    found = room(node("n1", cpu="4"))
    for name, priority in (("low", 1), ("mid", 2), ("high", 3), ("other", 4)):
        found.cache.set_pod(running(name, "n1", priority))
    assert found.preempt(wanting("2")) == "n1"
    assert found.evictions.seen == [("vip", "n1", ("mid", "low"))]


def test_C19_pods_of_a_full_budget_are_put_back_first() -> None:
    found = room(node("n1", cpu="2"))
    found.budgets.set("default/b", budget("guarded", 0))
    found.cache.set_pod(running("guarded", "n1", 1, app="guarded"))
    found.cache.set_pod(running("plain", "n1", 50))
    assert found.preempt(wanting("1")) == "n1"
    assert found.evictions.seen == [("vip", "n1", ("plain",))]


@pytest.mark.parametrize(
    ("info", "message"),
    [
        (
            wanting(preemptionPolicy="Never"),
            "preemption: not eligible due to preemptionPolicy=Never.",
        ),
        (wanting(priority=1), f"preemption: 0/2 nodes are available: 2 {_NO_ONE}."),
        (
            wanting("8"),
            "preemption: 0/2 nodes are available: 2 Preemption is not helpful for scheduling.",
        ),
    ],
    ids=["policy Never", "nobody is less important", "larger than any node"],
)
def test_C19_the_message_says_why_nobody_made_room(info: PodInfo, message: str) -> None:
    found = room(node("n1", cpu="1"), node("n2", cpu="1"))
    for name in ("n1", "n2"):
        found.cache.set_pod(running(f"on-{name}", name, 10))
    assert found.preempt(info) == message
    assert found.evictions.seen == []


def test_C19_a_host_port_is_taken_from_a_lesser_pod() -> None:
    found = room(node("n1"))
    found.cache.set_pod(running("holder", "n1", 1, port=80))
    found.cache.set_pod(running("bystander", "n1", 0, port=81))
    assert found.preempt(wanting(port=80)) == "n1"
    assert found.evictions.seen == [("vip", "n1", ("holder",))]


def test_C19_anti_affinity_to_a_lesser_pod_is_solved_by_its_end() -> None:
    found = room(node("n1", labels={"kubernetes.io/hostname": "n1"}))
    found.cache.set_pod(running("rival", "n1", 1, app="web"))
    found.cache.set_pod(running("bystander", "n1", 0, app="db"))
    message = pod_message("vip", priority=100)
    term = message.spec.affinity.podAntiAffinity.requiredDuringSchedulingIgnoredDuringExecution.add()
    term.topologyKey = "kubernetes.io/hostname"
    term.labelSelector.matchLabels["app"] = "web"
    before = len(found.cache.columns.changes)
    assert found.preempt(pod_info(message)) == "n1"
    assert found.evictions.seen == [("vip", "n1", ("rival",))]
    # Only the nomination is a change: trying things out leaves nothing behind.
    assert len(found.cache.columns.changes) == before + 1


def test_C19_the_only_node_where_room_can_be_made_is_found_among_many() -> None:
    """Each of the others has a pod that must stay and keeps the better one away; more of them than are compared."""
    found = room(*(node(f"n{i}", labels={"kubernetes.io/hostname": f"n{i}"}) for i in range(130)))
    message = pod_message("vip", cpu="4", priority=100)
    term = message.spec.affinity.podAntiAffinity.requiredDuringSchedulingIgnoredDuringExecution.add()
    term.topologyKey = "kubernetes.io/hostname"
    term.labelSelector.matchLabels["app"] = "web"
    last = max(found.cache.columns.row_of.items(), key=lambda item: item[1])[0]
    for number in range(130):
        name = f"n{number}"
        found.cache.set_pod(running(f"low-{name}", name, 1))
        if name != last:
            found.cache.set_pod(running(f"must-stay-{name}", name, 500, app="web", cpu="100m"))
    assert found.preempt(pod_info(message)) == last


def test_C19_a_pod_whose_room_is_cordoned_off_while_it_waits_makes_some_elsewhere() -> None:
    found = room(node("n1", cpu="1"), node("n2", cpu="1"))
    for name in ("n1", "n2"):
        message = pod_message(f"on-{name}", cpu="1", priority=1, nodeName=name)
        message.status.startTime.seconds = 900 if name == "n1" else 100
        found.cache.set_pod(pod_info(message))
    assert found.preempt(wanting(name="first")) == "n1"
    ending = pod_message("on-n1", cpu="1", priority=1, nodeName="n1")
    ending.metadata.deletionTimestamp.seconds = 1
    ending.status.conditions.add(type="DisruptionTarget", status="True", reason="PreemptionByScheduler")
    found.cache.set_pod(pod_info(ending))
    assert "terminating pod on the nominated node" in found.preempt(wanting(name="first"))
    found.cache.set_node(node("n1", cpu="1", unschedulable=True))
    assert found.preempt(wanting(name="first")) == "n2"


def test_C19_room_is_kept_for_the_nominated_pod_from_its_equals_and_not_from_its_betters() -> None:
    found = room(node("n1", cpu="1"))
    victim = running("victim", "n1", 1)
    found.cache.set_pod(victim)
    first = wanting(name="first")
    assert found.preempt(first) == "n1"
    found.cache.remove_pod(victim.key)
    assert isinstance(found.framework.place(wanting(name="equal")), FitError)
    assert isinstance(found.framework.place(wanting(name="better", priority=101)), Placement)
    assert isinstance(found.framework.place(first), Placement)


def test_C19_a_better_pod_takes_the_room_and_the_nomination_over() -> None:
    found = room(node("n1", cpu="1"))
    found.cache.set_pod(running("victim", "n1", 1))
    assert found.preempt(wanting(name="first", priority=10)) == "n1"
    assert found.preempt(wanting(name="better", priority=20)) == "n1"
    assert [p.name for p in found.nominations.on("n1")] == ["better"]


def test_C19_a_pod_whose_room_went_to_a_better_one_keeps_no_room() -> None:
    found = room(node("n1", cpu="1"))
    found.cache.set_pod(running("victim", "n1", 1))
    first = wanting(name="first", priority=10)
    assert found.preempt(first) == "n1"
    found.cache.remove_pod("default/victim")
    found.cache.set_pod(running("better", "n1", 50))
    assert found.preempt(first) == f"preemption: 0/1 nodes are available: 1 {_NO_ONE}."
    assert found.nominations.on("n1") == []


def test_C19_the_next_preemptor_takes_another_node() -> None:
    found = room(node("n1", cpu="1"), node("n2", cpu="1"))
    for name in ("n1", "n2"):
        found.cache.set_pod(running(f"on-{name}", name, 10))
    assert found.preempt(wanting(name="first")) == "n1"
    assert found.preempt(wanting(name="second")) == "n2"
    assert found.preempt(wanting(name="third")).startswith("preemption: 0/2 nodes are available")


_PODS = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 3), st.sampled_from(["500m", "1", "2"]), st.sampled_from(["", "g"])),
    max_size=14,
)


@settings(max_examples=40, deadline=None)
@given(_PODS, st.sampled_from(["1", "2", "3"]), st.integers(0, 2), st.integers(0, 2))
def test_C19_of_all_nodes_the_cheapest_is_chosen(
    pods: list[tuple[int, int, str, str]], cpu: str, allowed: int, late: int
) -> None:
    found = room(*(node(f"n{i}", cpu="4") for i in range(4)))
    found.budgets.set("default/b", budget("g", allowed))
    info, cut = wanting(cpu, priority=3), len(pods) // 2
    for number, (at, priority, size, app) in enumerate(pods):
        if number == cut and late:
            # What is kept from here on must follow the pods that come later.
            found.preemption.candidate(info)
        found.cache.set_pod(running(f"p{number}", f"n{at}", priority, cpu=size, started=100 + number, app=app))
    candidate = found.preemption.candidate(info)
    best = _plain_candidate(found, info)
    assert (candidate and (candidate[0], {v.name for v in candidate[1].pods})) == best


def _cpu(info: PodInfo) -> int:
    return dict(info.needs.requests).get("cpu", 0)


def _plain_candidate(found: Room, info: PodInfo) -> tuple[str, set[str]] | None:
    """Node by node and pod by pod, without anything kept."""
    costs = []
    for name in sorted(found.cache.columns.row_of, key=lambda n: found.cache.columns.row_of[n]):
        there = found.cache.pods_on(name)
        lower = sorted((p for p in there if p.priority < info.priority), key=lambda p: (-p.priority, p.started_s))
        left = 4000 - sum(_cpu(p) for p in there if p not in lower) - _cpu(info)
        if not lower or left < 0:
            continue
        breaking, others = found.budgets.split(lower)
        victims, violations = [], 0
        for group in (breaking, others):
            for other in group:
                if _cpu(other) <= left:
                    left -= _cpu(other)
                else:
                    victims.append(other)
                    violations += group is breaking
        if not victims:
            continue
        top = max(v.priority for v in victims)
        started = min(v.started_s for v in victims if v.priority == top)
        total = sum(v.priority + (1 << 31) for v in victims)
        cost = (violations, top, total, len(victims), -started, found.cache.columns.row_of[name])
        costs.append((cost, name, {v.name for v in victims}))
    return min(costs)[1:] if costs else None


async def _full(found: World, victim: Pod) -> None:
    await found.client.create(victim)
    await found.until(lambda: found.node_of(victim.metadata.name) == "a")


async def test_C19_a_lesser_pod_ends_gracefully_and_the_better_one_gets_its_node() -> None:
    async with world(node("a", cpu="1")) as found:
        await _full(found, pod_message("victim", cpu="1", priority=1))
        await found.client.create(pod_message("vip", cpu="1", priority=100))
        await found.until(lambda: any(reason == "Preempted" for _, reason, _ in found.events.seen))
        stored = await found.client.get(Pod, "victim", "default")
        condition = next(c for c in stored.status.conditions if c.type == "DisruptionTarget")
        assert (condition.status, condition.reason, condition.message) == (
            "True",
            "PreemptionByScheduler",
            "default-scheduler: preempting to accommodate a higher priority pod",
        )
        assert stored.metadata.HasField("deletionTimestamp")
        vip = await found.client.get(Pod, "vip", "default")
        await found.until(lambda: found.client.stored(Pod, "vip", "default").status.nominatedNodeName == "a")
        assert ("victim", "Preempted", f"Preempted by pod {vip.metadata.uid} on node a") in found.events.seen
        # Its kubelet is done with it.
        await found.client.delete(Pod, "victim", "default", grace_period_s=0)
        await found.until(lambda: found.place_of("vip") == "backoff")
        found.clock.advance(2)
        await found.until(lambda: found.node_of("vip") == "a")
        assert len(found.scheduler.nominations) == 0


async def test_C19_a_pod_that_waits_for_its_victims_preempts_nobody_else() -> None:
    async with world(node("a", cpu="1"), node("b", cpu="1")) as found:
        for name, at in (("v1", "a"), ("v2", "b")):
            await found.client.create(pod_message(name, cpu="1", priority=1, nodeName=at))
        await found.until(lambda: bool(found.scheduler.cache.node_of("default/v2")))
        await found.client.create(pod_message("vip", cpu="1", priority=100))
        await found.until(lambda: any(reason == "Preempted" for _, reason, _ in found.events.seen))
        await found.until(
            lambda: any(p.is_preempted and p.is_deleting for n in "ab" for p in found.scheduler.cache.pods_on(n))
        )
        found.scheduler.queue.activate("default/vip")
        text = "preemption: not eligible due to a terminating pod on the nominated node."
        await found.until(lambda: any(text in message for _, _, message in found.events.seen))
        assert [reason for _, reason, _ in found.events.seen].count("Preempted") == 1


async def test_C19_a_budget_is_read_from_the_api() -> None:
    guard = PodDisruptionBudget()
    guard.metadata.name, guard.metadata.namespace = "guard", "default"
    guard.spec.selector.matchLabels["app"] = "guarded"
    async with world(node("a", cpu="1"), node("b", cpu="1"), guard) as found:
        for name, at, app in (("v1", "a", "guarded"), ("v2", "b", "free")):
            victim = pod_message(name, cpu="1", priority=1, nodeName=at)
            victim.metadata.labels["app"] = app
            await found.client.create(victim)
        await found.until(lambda: bool(found.scheduler.cache.node_of("default/v2")))
        await found.client.create(pod_message("vip", cpu="1", priority=100))
        await found.until(lambda: any(reason == "Preempted" for _, reason, _ in found.events.seen))
        assert [name for name, reason, _ in found.events.seen if reason == "Preempted"] == ["v2"]


async def test_C19_room_meant_for_a_deleted_pod_is_free_again() -> None:
    async with world(node("a", cpu="1")) as found:
        await _full(found, pod_message("victim", cpu="1", priority=1))
        await found.client.create(pod_message("vip", cpu="1", priority=100))
        await found.until(lambda: any(reason == "Preempted" for _, reason, _ in found.events.seen))
        await found.client.delete(Pod, "victim", "default", grace_period_s=0)
        await found.client.create(pod_message("next", cpu="1", priority=1))
        await found.until(lambda: found.place_of("next") == "unschedulable")
        await found.client.delete(Pod, "vip", "default", grace_period_s=0)
        await found.until(lambda: found.place_of("next") == "backoff")
        found.clock.advance(2)
        await found.until(lambda: found.node_of("next") == "a")


async def test_C19_one_after_another_the_least_make_room_as_their_sets_go_on_asking() -> None:
    """Conformance: PreemptionExecutionPath runs ReplicaSets; of four kinds the highest takes all its room of the least.

    What is preempted comes again, as a ReplicaSet would have it, and waits: nobody above it moves for it.
    """
    scarce = "example.com/fakecpu"
    async with world(node("a", more={scarce: "1000"})) as found:

        async def ask(name: str, amount: int, priority: int) -> None:
            made = pod_message(name, priority=priority)
            made.spec.containers[0].resources.requests[scarce].string = str(amount)
            await found.client.create(made)

        kinds = {"p1": (5, 40, 1), "p2": (4, 50, 2), "p3": (4, 95, 3)}
        for kind, (count, amount, priority) in kinds.items():
            for number in range(count):
                await ask(f"{kind}-{number}", amount, priority)
        names = [f"{kind}-{number}" for kind, (count, _, _) in kinds.items() for number in range(count)]
        await found.until(lambda: all(found.node_of(name) == "a" for name in names))
        # 780 of 1,000 are used: 180 more are to be had, and all five of the least have 200.
        await ask("p4-0", 400, 4)

        def ending() -> set[str]:
            stored = [(name, found.client.find_stored(Pod, name, "default")) for name in names]
            return {name for name, pod in stored if pod is None or pod.metadata.HasField("deletionTimestamp")}

        await found.until(lambda: len(ending()) == 5)
        assert ending() == {f"p1-{number}" for number in range(5)}
        for name in sorted(ending()):
            await found.client.delete(Pod, name, "default", grace_period_s=0)
        for number in range(5):
            await ask(f"p1-again-{number}", 40, 1)
        await found.until(lambda: found.place_of("p1-again-4") == "unschedulable")
        found.clock.advance(11)
        await found.until(lambda: found.node_of("p4-0") == "a")
        assert all(found.node_of(name) == "a" for name in names if not name.startswith("p1"))
        assert not any(found.node_of(f"p1-again-{number}") for number in range(5))
