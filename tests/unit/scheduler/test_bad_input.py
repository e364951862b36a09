"""What nobody should ask for, and what breaks at the worst moment: the scheduler says so, or goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from tests.unit.scheduler.objects import node, pod, pod_message
from tests.unit.scheduler.plugins.test_volume_binding import claim, storage_class, user
from tests.unit.scheduler.world import World, world
from tiphys.api.core.v1.node_pb2 import Node
from tiphys.api.core.v1.persistent_volume_claim_pb2 import PersistentVolumeClaim
from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys_apimachinery.errors import APIError
from tiphys_apimachinery.persistent_volumes import SELECTED_NODE
from tiphys_client.client import Bind
from tiphys_scheduler.cache import Cache
from tiphys_scheduler.columns import Columns
from tiphys_scheduler.framework.registry import DEFAULT_PROFILE
from tiphys_scheduler.framework.runtime import Framework, Placement
from tiphys_scheduler.framework.status import FitError
from tiphys_scheduler.pod_info import pod_info

HOST = "kubernetes.io/hostname"


def needs_nothing_possible(operator: str, *values: str, key: str = "disk") -> Pod:
    made = pod_message("p")
    terms = made.spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms
    terms.add().matchExpressions.add(key=key, operator=operator, values=values)
    return made


def keeps_from_itself() -> Pod:
    made = pod_message("p")
    made.metadata.labels["app"] = "a"
    term = made.spec.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution.add(topologyKey="nowhere")
    term.labelSelector.matchLabels["app"] = "a"
    return made


def spreads_over_nothing() -> Pod:
    made = pod_message("p")
    constraint = made.spec.topologySpreadConstraints.add(maxSkew=1, topologyKey="nowhere")
    constraint.whenUnsatisfiable = "DoNotSchedule"
    constraint.labelSelector.matchExpressions.add(key="app", operator="In")
    return made


@pytest.mark.parametrize(
    "impossible",
    [
        needs_nothing_possible("In"),
        needs_nothing_possible("Gt", "many"),
        needs_nothing_possible("Lt"),
        needs_nothing_possible("Near", "here"),
        needs_nothing_possible("In", "x", key="no such label"),
        keeps_from_itself(),
        spreads_over_nothing(),
    ],
    ids=[
        "no values",
        "no number",
        "no bound",
        "no operator",
        "no such label",
        "no such place",
        "nothing to spread over",
    ],
)
async def test_impossible_selectors_leave_the_pod_waiting_and_others_in_peace(impossible: Pod) -> None:
    async with world(node("a", labels={HOST: "a", "disk": "7"})) as found:
        await found.client.create(impossible)
        await found.client.create(pod_message("other"))
        await found.until(lambda: found.node_of("other") == "a" and found.place_of("p") == "unschedulable")
        assert ("p", "FailedScheduling") in {(name, reason) for name, reason, _ in found.events.seen}


HUGE = ("9223372036854775807", "1E", "1e30", "4611686018427387904")


@pytest.mark.parametrize("amount", HUGE)
def test_huge_requests_are_insufficient_wherever_they_are(amount: str) -> None:
    cache = Cache(Columns())
    cache.set_node(node("a"))
    cache.set_node(node("full"))
    framework = Framework(DEFAULT_PROFILE, cache.columns)
    for made in (pod("p", cpu=amount), pod("q", memory=amount)):
        assert isinstance(framework.place(made), FitError)
    # Some were put on a node by name, and the kubelet has not refused them yet.
    there = [pod(f"there{i}", cpu=amount, memory=amount, nodeName="full") for i in range(300)]
    for made in there:
        cache.set_pod(made)
    found = framework.place(pod("ordinary", cpu="1"))
    assert isinstance(found, Placement)
    assert found.node == "a"
    for made in there:
        cache.remove_pod(made.key)
    assert not cache.columns.requested.any()


@pytest.mark.parametrize("amount", HUGE)
def test_a_node_that_claims_to_have_everything_takes_pods(amount: str) -> None:
    cache = Cache(Columns())
    cache.set_node(node("boaster", cpu=amount, memory=amount))
    framework = Framework(DEFAULT_PROFILE, cache.columns)
    scores = framework.scores(pod("p", cpu="1", memory="1Gi"))["boaster"]
    assert 0 <= scores["NodeResourcesFit"] <= 100
    assert isinstance(framework.place(pod("p", cpu="1", memory="1Gi")), Placement)


def test_zero_is_no_request_and_takes_but_a_place() -> None:
    cache = Cache(Columns())
    cache.set_node(node("a", cpu="0", memory="0", pods="2"))
    framework = Framework(DEFAULT_PROFILE, cache.columns)
    for name in ("p", "q"):
        made = pod(name, cpu="0", memory="0")
        assert isinstance(framework.place(made), Placement)
        cache.assume(made, "a")
    refused = framework.place(pod("r", cpu="0"))
    assert isinstance(refused, FitError)
    assert refused.message == "0/1 nodes are available: 1 Too many pods."


@dataclass
class Held:
    """Holds the calls that bind until they are let go."""

    go: asyncio.Event
    reached: asyncio.Event


def hold_bindings(found: World) -> Held:
    held = Held(asyncio.Event(), asyncio.Event())
    bind = found.client.bind

    async def late(binds: Sequence[Bind]) -> list[APIError | None]:
        held.reached.set()
        await held.go.wait()
        return await bind(binds)

    found.scheduler.binding._binder._client = type("Late", (), {"bind": staticmethod(late)})()
    return held


async def test_a_node_that_vanishes_while_pods_are_bound_to_it_takes_no_more_and_breaks_nothing() -> None:
    async with world(node("a", cpu="2")) as found:
        held = hold_bindings(found)
        await found.client.create(pod_message("p", cpu="1"))
        await held.reached.wait()
        await found.client.delete(Node, "a")
        await found.until(lambda: len(found.scheduler.cache.columns) == 0)
        await found.client.create(pod_message("q", cpu="1"))
        await found.until(lambda: found.place_of("q") == "unschedulable")
        held.go.set()
        # The binding was on its way: whoever collects pods of nodes that are gone ends it.
        await found.until(lambda: found.node_of("p") == "a" and found.scheduler.cache.assumed() == 0)
        found.client.seed(node("a", cpu="2"))
        await found.until(lambda: len(found.scheduler.cache.columns) == 1)
        found.clock.advance(11)
        await found.until(lambda: found.node_of("q") == "a")
        # A node of the name that comes back has both, each once.
        columns = found.scheduler.cache.columns
        assert int(columns.requested[columns.resource("cpu"), columns.row_of["a"]]) == 2000


async def test_a_node_that_vanishes_while_a_volume_is_made_there_is_left_for_another() -> None:
    async with world(node("a"), storage_class(), claim()) as found:
        await found.client.create(user("data"))

        def chosen() -> str:
            stored = found.client.find_stored(PersistentVolumeClaim, "data", "default")
            return str(stored.metadata.annotations.get(SELECTED_NODE, "")) if stored is not None else ""

        await found.until(lambda: chosen() == "a")
        found.client.seed(node("b"))
        await found.client.delete(Node, "a")
        await found.until(lambda: list(found.scheduler.cache.columns.row_of) == ["b"])
        # The provisioner, which can't make it there, gives the claim back.
        item = found.client.stored(PersistentVolumeClaim, "data", "default")
        del item.metadata.annotations[SELECTED_NODE]
        await found.client.update(item)
        await found.until(lambda: found.place_of("p") == "backoff")
        found.clock.advance(11)
        await found.until(lambda: chosen() == "b")
        assert pod_info(user("data")).needs.claims == ("default/data",)
