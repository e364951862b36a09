"""DaemonSets: on which nodes pods come and go, updates within their bounds, history, and the status."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.controller_manager.controllers.test_nodes import node
from tests.unit.controller_manager.controllers.test_replicaset import view
from tests.unit.controller_manager.harness import House, house, names
from tiphys.api.apps.v1 import apps_pb2
from tiphys.api.core.v1 import node_pb2, pod_pb2
from tiphys_apimachinery.errors import Forbidden
from tiphys_component.clock import FakeClock
from tiphys_controller_manager.controllers.daemonset.failed_pods import FailedPods
from tiphys_controller_manager.controllers.daemonset.placement import HASH_LABEL, Fate, make_pod, rules_of
from tiphys_controller_manager.controllers.daemonset.plan import Goal, Plan, by_node, goal_of, plan, status_of
from tiphys_controller_manager.nodes import node_view
from tiphys_controller_manager.pods import PodView, pod_view
from tiphys_controller_manager.revisions import template_of

CONTROLLER = "daemonset-controller"
DaemonSet, ControllerRevision, Pod, Node = apps_pb2.DaemonSet, apps_pb2.ControllerRevision, pod_pb2.Pod, node_pb2.Node
NOW = 1_000_000.0
NEW, OLD = "new", "old"
GOING: dict[str, Any] = {"is_deleting": True}
NOT_READY: dict[str, Any] = {"ready_since": None, "phase": "Pending"}
FAILED: dict[str, Any] = {"ready_since": None, "phase": "Failed"}


def daemon_set(**strategy: Any) -> DaemonSet:
    made = DaemonSet()
    made.metadata.name, made.metadata.namespace = "agent", "default"
    made.spec.selector.matchLabels["app"] = "agent"
    made.spec.template.metadata.labels["app"] = "agent"
    made.spec.template.spec.containers.add(name="c", image="busybox:1")
    made.spec.updateStrategy.type = strategy.pop("type", "RollingUpdate")
    for name, value in strategy.items():
        number = getattr(made.spec.updateStrategy.rollingUpdate, name)
        if isinstance(value, str):
            number.type, number.strVal = 1, value
        else:
            number.type, number.intVal = 0, value
    return made


def tainted(key: str, effect: str, name: str = "n1") -> node_pb2.Node:
    made = node(name)
    made.spec.taints.add(key=key, effect=effect)
    return made


def tolerant(key: str, effect: str = "") -> DaemonSet:
    made = daemon_set()
    made.spec.template.spec.tolerations.add(key=key, operator="Exists", effect=effect)
    return made


def chooses(**labels: str) -> DaemonSet:
    made = daemon_set()
    made.spec.template.spec.nodeSelector.update(labels)
    return made


def affine(key: str, operator: str, *values: str, field: bool = False) -> DaemonSet:
    made = daemon_set()
    required = made.spec.template.spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution
    term = required.nodeSelectorTerms.add()
    (term.matchFields if field else term.matchExpressions).add(key=key, operator=operator, values=values)
    return made


def named(name: str) -> DaemonSet:
    made = daemon_set()
    made.spec.template.spec.nodeName = name
    return made


def on_host_network() -> DaemonSet:
    made = daemon_set()
    made.spec.template.spec.hostNetwork = True
    return made


PREFIX = "node.kubernetes.io/"


@pytest.mark.parametrize(
    ("made", "on", "fate"),
    [
        pytest.param(daemon_set(), node(), Fate.RUNS, id="any node"),
        pytest.param(chooses(disk="ssd"), node(), Fate.LEAVES, id="a label is missing"),
        pytest.param(chooses(**{"topology.kubernetes.io/zone": "a"}), node(zone="a"), Fate.RUNS, id="the label"),
        pytest.param(affine("metadata.name", "In", "n1", field=True), node(), Fate.RUNS, id="its name by field"),
        pytest.param(affine("metadata.name", "In", "n1"), node(), Fate.LEAVES, id="a name is no label"),
        pytest.param(affine("metadata.name", "NotIn", "n1", field=True), node(), Fate.LEAVES, id="any but this name"),
        pytest.param(affine("cores", "Gt", "x"), node(), Fate.LEAVES, id="a bound that is no number"),
        pytest.param(named("n1"), node(), Fate.RUNS, id="the template names this node"),
        pytest.param(named("n2"), node(), Fate.LEAVES, id="the template names another node"),
        pytest.param(daemon_set(), tainted("gpu", "NoSchedule"), Fate.STAYS, id="a taint for new pods"),
        pytest.param(daemon_set(), tainted("gpu", "NoExecute"), Fate.LEAVES, id="a taint for all pods"),
        pytest.param(daemon_set(), tainted("gpu", "PreferNoSchedule"), Fate.RUNS, id="a taint that only asks"),
        pytest.param(tolerant("gpu"), tainted("gpu", "NoExecute"), Fate.RUNS, id="a taint that is borne"),
    ],
)
def test_B15_a_node_is_chosen_by_labels_names_and_taints(made: DaemonSet, on: Node, fate: Fate) -> None:
    assert rules_of(made).fate(node_view(on)) is fate


@pytest.mark.parametrize(
    ("key", "effect", "made", "fate"),
    [
        pytest.param("not-ready", "NoExecute", daemon_set(), Fate.RUNS, id="not ready"),
        pytest.param("unreachable", "NoExecute", daemon_set(), Fate.RUNS, id="unreachable"),
        pytest.param("disk-pressure", "NoSchedule", daemon_set(), Fate.RUNS, id="disk pressure"),
        pytest.param("memory-pressure", "NoSchedule", daemon_set(), Fate.RUNS, id="memory pressure"),
        pytest.param("pid-pressure", "NoSchedule", daemon_set(), Fate.RUNS, id="too many processes"),
        pytest.param("unschedulable", "NoSchedule", daemon_set(), Fate.RUNS, id="cordoned"),
        pytest.param("network-unavailable", "NoSchedule", daemon_set(), Fate.STAYS, id="no network"),
        pytest.param("network-unavailable", "NoSchedule", on_host_network(), Fate.RUNS, id="no network, none needed"),
        pytest.param("not-ready", "NoSchedule", daemon_set(), Fate.STAYS, id="not ready, for new pods"),
        pytest.param("not-ready", "NoSchedule", tolerant("", "NoSchedule"), Fate.RUNS, id="not ready, borne"),
    ],
)
def test_B16_daemons_bear_what_the_state_of_a_node_says(key: str, effect: str, made: DaemonSet, fate: Fate) -> None:
    assert rules_of(made).fate(node_view(tainted(PREFIX + key, effect))) is fate


def test_B15_a_pod_is_made_for_its_node_by_field_and_keeps_what_is_preferred() -> None:
    made = affine("disk", "Exists")
    preferred = made.spec.template.spec.affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution
    preferred.add(weight=1)
    made.metadata.annotations["deprecated.daemonset.template.generation"] = "7"
    pod = make_pod(made, pod_owner(), node="n9", revision_hash="h")
    terms = pod.spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms
    assert [(f.key, f.operator, list(f.values)) for term in terms for f in term.matchFields] == [
        ("metadata.name", "In", ["n9"])
    ]
    assert not terms[0].matchExpressions
    assert len(pod.spec.affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution) == 1
    assert (pod.metadata.generateName, pod.spec.nodeName) == ("agent-", "")
    assert pod.metadata.labels[HASH_LABEL] == "h"
    assert pod.metadata.labels["pod-template-generation"] == "7"
    assert pod_view(pod).pinned_to == "n9"


def pod_owner() -> Any:
    return Pod().metadata.ownerReferences.add(kind="DaemonSet", name="agent", uid="u", controller=True)


def test_B16_a_toleration_of_the_template_for_a_time_becomes_one_for_ever() -> None:
    made = daemon_set()
    made.spec.template.spec.tolerations.add(
        key=PREFIX + "unreachable", operator="Exists", effect="NoExecute", tolerationSeconds=300
    )
    borne = make_pod(made, pod_owner(), node="n1", revision_hash="h").spec.tolerations
    mine = [item for item in borne if item.key == PREFIX + "unreachable"]
    assert [item.HasField("tolerationSeconds") for item in mine] == [False]


def pod(on: str = "n1", revision: str = NEW, name: str = "", **facts: Any) -> PodView:
    labels = {"app": "agent", HASH_LABEL: revision}
    return view(name or f"{on}-{revision}", **{"node": on, "labels": labels, **facts})


def goal(**changes: Any) -> Goal:
    values = {"revision_hash": NEW, "is_rolling": True, "max_unavailable": 1, "max_surge": 0, "min_ready_s": 0}
    return Goal(**{**values, **changes})


def planned(wanted: Goal, there: list[PodView], fates: dict[str, Fate] | None = None, *held: str) -> tuple[Any, ...]:
    """Nodes to make pods for, pods to delete, and ended pods, by name."""
    made = plan(wanted, fates or {"n1": Fate.RUNS}, by_node(there), held, now=NOW)
    return made.create, tuple(item.name for item in made.delete), tuple(item.name for item in made.ended)


STAYS, LEAVES = {"n1": Fate.STAYS}, {"n1": Fate.LEAVES}


@pytest.mark.parametrize(
    ("there", "fates", "expected"),
    [
        pytest.param([], None, (("n1",), (), ()), id="a pod is missing"),
        pytest.param([pod()], None, ((), (), ()), id="all is well"),
        pytest.param([pod(**GOING)], None, ((), (), ()), id="not before the old one is gone"),
        pytest.param([pod(**GOING, **FAILED)], None, (("n1",), (), ()), id="one that ended and goes holds nothing up"),
        pytest.param([], STAYS, ((), (), ()), id="none is made where none may come"),
        pytest.param([pod()], STAYS, ((), (), ()), id="one may stay"),
        pytest.param([pod()], LEAVES, ((), ("n1-new",), ()), id="one must leave"),
        pytest.param([pod(**GOING)], LEAVES, ((), (), ()), id="one leaves"),
        pytest.param([pod(), pod(name="b", created=NOW)], None, ((), ("b",), ()), id="the younger of two goes"),
        pytest.param(
            [pod(name="a", node="", pinned_to="n1"), pod(name="b", created=NOW)],
            None,
            ((), ("a",), ()),
            id="of two the one that runs stays",
        ),
        pytest.param([pod(**FAILED)], None, ((), (), ("n1-new",)), id="a failed one goes"),
        pytest.param([pod(phase="Succeeded")], None, ((), (), ("n1-new",)), id="one that ended by itself goes"),
        pytest.param([pod(), pod("gone")], None, ((), (), ()), id="pods of a node that is gone are others' work"),
        pytest.param(
            [pod(), pod("gone", name="b", node="", pinned_to="gone")],
            None,
            ((), ("b",), ()),
            id="unless they never got there",
        ),
    ],
)
def test_B15_one_pod_on_each_node(there: list[PodView], fates: dict[str, Fate] | None, expected: Any) -> None:
    assert planned(goal(), there, fates) == expected


def test_a_failed_pod_stays_while_its_node_is_held() -> None:
    assert planned(goal(), [pod(**FAILED)], None, "n1") == ((), (), ())
    assert planned(goal(), [pod(phase="Succeeded")], None, "n1") == ((), (), ("n1-new",))


THREE = dict.fromkeys(("n1", "n2", "n3"), Fate.RUNS)


def old_and_new(**of_old: str) -> list[PodView]:
    """An old pod on each of three nodes, but as said: new, or with facts."""
    return [pod(name, of_old.get(name, OLD)) for name in THREE]


@pytest.mark.parametrize(
    ("wanted", "there", "expected"),
    [
        pytest.param(goal(), old_and_new(), ((), ("n1-old",), ()), id="one by one"),
        pytest.param(goal(max_unavailable=2), old_and_new(), ((), ("n1-old", "n2-old"), ()), id="two at once"),
        pytest.param(goal(is_rolling=False), old_and_new(), ((), (), ()), id="OnDelete waits"),
        pytest.param(goal(), old_and_new(n1=NEW), ((), ("n2-old",), ()), id="the next"),
        pytest.param(
            goal(), [pod("n1", **NOT_READY), pod("n2", OLD), pod("n3", OLD)], ((), (), ()), id="not before it is ready"
        ),
        pytest.param(
            goal(min_ready_s=50),
            [pod("n1", ready_since=NOW - 10), pod("n2", OLD), pod("n3", OLD)],
            ((), (), ()),
            id="nor long enough",
        ),
        pytest.param(
            goal(),
            [pod("n1", OLD), pod("n2", OLD, **NOT_READY), pod("n3", OLD, **NOT_READY)],
            ((), ("n2-old", "n3-old"), ()),
            id="what is broken goes first, and nothing else",
        ),
        pytest.param(
            goal(), [pod("n1", OLD, **GOING), pod("n2", OLD), pod("n3", OLD)], ((), (), ()), id="one is on its way out"
        ),
    ],
)
def test_B15_an_update_keeps_within_max_unavailable(wanted: Goal, there: list[PodView], expected: Any) -> None:
    assert planned(wanted, there, THREE) == expected


SURGE = goal(max_unavailable=0, max_surge=1)
YOUNG: dict[str, Any] = {"created": NOW}


@pytest.mark.parametrize(
    ("wanted", "there", "expected"),
    [
        pytest.param(SURGE, old_and_new(), (("n1",), (), ()), id="a new pod beside the old one"),
        pytest.param(goal(max_unavailable=0, max_surge=2), old_and_new(), (("n1", "n2"), (), ()), id="two of them"),
        pytest.param(SURGE, [*old_and_new(), pod(**YOUNG, **NOT_READY)], ((), (), ()), id="it is not ready yet"),
        pytest.param(SURGE, [*old_and_new(), pod(**YOUNG)], ((), ("n1-old",), ()), id="the old one has served"),
        pytest.param(
            goal(max_unavailable=0, max_surge=1, min_ready_s=50),
            [*old_and_new(), pod(**YOUNG, ready_since=NOW - 10)],
            ((), (), ()),
            id="nor long enough",
        ),
        pytest.param(
            SURGE,
            [pod("n1", OLD, **NOT_READY), pod("n2", OLD), pod("n3", OLD)],
            (("n1", "n2"), (), ()),
            id="beside a broken one for nothing",
        ),
        pytest.param(
            SURGE,
            [pod("n1", OLD, **NOT_READY), pod(**YOUNG, **NOT_READY), pod("n2"), pod("n3")],
            ((), ("n1-old",), ()),
            id="a broken old one need not wait",
        ),
    ],
)
def test_B15_an_update_keeps_within_max_surge(wanted: Goal, there: list[PodView], expected: Any) -> None:
    assert planned(wanted, there, THREE) == expected


def test_B15_an_update_takes_nothing_from_where_no_pod_may_come() -> None:
    assert planned(goal(), [pod("n1", OLD)], STAYS) == ((), (), ())


@pytest.mark.parametrize(
    ("strategy", "bounds"),
    [
        pytest.param({}, (1, 0), id="by default one away"),
        pytest.param({"maxUnavailable": "34%"}, (2, 0), id="a share is rounded up"),
        pytest.param({"maxUnavailable": 0, "maxSurge": "34%"}, (0, 2), id="so is that of the surge"),
        pytest.param({"maxUnavailable": 0, "maxSurge": 0}, (1, 0), id="something must move"),
    ],
)
def test_bounds_of_an_update(strategy: dict[str, Any], bounds: tuple[int, int]) -> None:
    made = goal_of(daemon_set(**strategy), {**THREE, "n4": Fate.STAYS}, "h")
    assert (made.max_unavailable, made.max_surge) == bounds


def test_B15_the_status_counts_nodes_not_pods() -> None:
    fates = {**THREE, "n4": Fate.RUNS, "n5": Fate.LEAVES}
    there = by_node(
        [
            pod("n1"),
            pod("n2", OLD),
            pod("n2", NEW, **YOUNG),
            pod("n3", ready_since=NOW - 1, created=NOW - 9),
            pod("n5", OLD),
        ]
    )
    status = status_of(daemon_set(), goal(min_ready_s=10), fates, there, now=NOW)
    assert (status.desiredNumberScheduled, status.currentNumberScheduled, status.numberMisscheduled) == (4, 3, 1)
    assert (status.numberReady, status.numberAvailable, status.numberUnavailable) == (3, 2, 2)
    assert status.updatedNumberScheduled == 2


def test_failed_pods_wait_longer_each_time_and_a_new_generation_starts_over() -> None:
    clock = FakeClock()
    failed = FailedPods(clock)
    assert failed.held("k", 1) == {}
    for waits in (1.0, 2.0, 4.0):
        failed.deleted("k", 1, "n1")
        assert failed.held("k", 1) == {"n1": waits}
        clock.advance(waits)
        assert failed.held("k", 1) == {}
    failed.deleted("k", 1, "n1")
    assert failed.held("k", 2) == {}


def test_what_failed_long_ago_is_forgotten() -> None:
    clock = FakeClock()
    failed = FailedPods(clock)
    for _ in range(20):
        failed.deleted("k", 1, "n1")
    assert failed.held("k", 1) == {"n1": 900.0}
    clock.advance(1801)
    failed.held("k", 1)
    failed.deleted("k", 1, "n1")
    assert failed.held("k", 1) == {"n1": 1.0}


def test_a_plan_of_nothing_says_so() -> None:
    assert Plan().is_empty
    assert not Plan(create=("n1",)).is_empty


async def of_nodes(h: House, *of: str) -> None:
    for name in of:
        await h.client.create(node(name))
    await h.settle()


async def run_all(h: House, rounds: int = 6) -> None:
    for _ in range(rounds):
        await h.run_pods()
        await h.settle()


async def where(h: House) -> list[str]:
    return sorted(pod_view(item).pinned_to for item in await h.pods())


def status(h: House) -> Any:
    return h.client.stored(DaemonSet, "agent", "default").status


async def change(h: House, edit: Any) -> None:
    stored: Any = h.client.stored(DaemonSet, "agent", "default")
    edit(stored)
    await h.client.update(stored)
    await h.settle()


def image(name: str) -> Any:
    return lambda stored: setattr(stored.spec.template.spec.containers[0], "image", name)


async def images(h: House) -> set[str]:
    return {item.spec.containers[0].image for item in await h.pods()}


async def test_B15_each_node_gets_a_pod_and_a_new_node_at_once() -> None:
    async with house(CONTROLLER) as h:
        await of_nodes(h, "n1", "n2")
        await h.client.create(daemon_set())
        await run_all(h)
        assert await where(h) == ["n1", "n2"]
        assert (status(h).desiredNumberScheduled, status(h).numberAvailable) == (2, 2)
        await of_nodes(h, "n3")
        assert await where(h) == ["n1", "n2", "n3"]
        assert h.events.reasons() == ["SuccessfulCreate"] * 3


async def test_B15_pods_follow_the_labels_of_nodes() -> None:
    async with house(CONTROLLER) as h:
        await of_nodes(h, "n1", "n2")
        await h.client.create(chooses(color="blue"))
        await h.settle()
        assert await where(h) == []
        await label(h, "n1", color="blue")
        assert await where(h) == ["n1"]
        await label(h, "n1", color="green")
        await run_all(h)
        assert await where(h) == []
        await change(h, lambda stored: stored.spec.template.spec.nodeSelector.update(color="green"))
        assert await where(h) == ["n1"]


async def label(h: House, name: str, **labels: str) -> None:
    stored: Any = h.client.stored(Node, name)
    stored.metadata.labels.update(labels)
    await h.client.update(stored)
    await h.settle()


async def test_B15_a_heartbeat_of_a_node_is_no_work() -> None:
    async with house(CONTROLLER) as h:
        await of_nodes(h, "n1")
        await h.client.create(daemon_set())
        await run_all(h)
        before = h.loops[CONTROLLER].report.reconciles
        stored: Any = h.client.stored(Node, "n1")
        stored.status.conditions.add(type="Ready", status="True").lastHeartbeatTime.seconds = 7
        await h.client.update_status(stored)
        await h.settle()
        assert h.loops[CONTROLLER].report.reconciles == before


async def test_B15_a_pod_that_never_reached_its_lost_node_goes() -> None:
    async with house(CONTROLLER) as h:
        await of_nodes(h, "n1", "n2")
        await h.client.create(daemon_set())
        await h.settle()
        await h.client.delete(Node, "n2")
        await h.settle()
        assert await where(h) == ["n1"]
        assert status(h).desiredNumberScheduled == 1


async def test_B15_a_failed_pod_is_made_again_with_a_longer_wait_each_time() -> None:
    async with house(CONTROLLER) as h:
        await of_nodes(h, "n1")
        await h.client.create(daemon_set())
        await h.settle()
        first = await fail(h)
        assert (await h.pods())[0].metadata.uid != first
        second = await fail(h)
        assert [item.metadata.uid for item in await h.pods()] == [second]
        await h.run_for(1.1)
        assert (await h.pods())[0].metadata.uid != second
        assert h.events.reasons().count("FailedDaemonPod") == 2


async def fail(h: House) -> str:
    pod = (await h.pods())[0]
    pod.status.phase = "Failed"
    await h.client.update_status(pod)
    await h.settle()
    return str(pod.metadata.uid)


async def test_B15_an_update_replaces_one_pod_after_another() -> None:
    async with house(CONTROLLER) as h:
        await of_nodes(h, "n1", "n2", "n3")
        await h.client.create(daemon_set(maxUnavailable=1))
        await run_all(h)
        await change(h, image("busybox:2"))
        for _ in range(12):
            ready = [item for item in await h.pods() if pod_view(item).is_ready and not pod_view(item).is_deleting]
            assert len(ready) >= 2
            await h.run_pods()
            await h.settle()
        assert await images(h) == {"busybox:2"}
        assert (status(h).updatedNumberScheduled, status(h).numberUnavailable) == (3, 0)


async def test_B15_an_update_with_surge_loses_no_pod() -> None:
    async with house(CONTROLLER) as h:
        await of_nodes(h, "n1", "n2")
        await h.client.create(daemon_set(maxUnavailable=0, maxSurge=1))
        await run_all(h)
        await change(h, image("busybox:2"))
        for _ in range(12):
            live = [pod_view(item) for item in await h.pods() if not pod_view(item).is_deleting]
            assert len({item.pinned_to for item in live if item.is_ready}) == 2
            assert len(live) <= 3
            await h.run_pods()
            await h.settle()
        assert await images(h) == {"busybox:2"}
        assert await where(h) == ["n1", "n2"]


async def test_B15_OnDelete_waits_for_a_hand() -> None:
    async with house(CONTROLLER) as h:
        await of_nodes(h, "n1", "n2")
        await h.client.create(daemon_set(type="OnDelete"))
        await run_all(h)
        await change(h, image("busybox:2"))
        await run_all(h)
        assert await images(h) == {"busybox:1"}
        victim = (await h.pods())[0].metadata.name
        await h.client.delete(Pod, victim, "default", grace_period_s=0)
        await h.settle()
        assert await images(h) == {"busybox:1", "busybox:2"}
        assert status(h).updatedNumberScheduled == 1


async def test_B34_going_back_moves_the_old_revision_to_the_front_and_restarts_nothing_that_is_old() -> None:
    async with house(CONTROLLER) as h:
        await of_nodes(h, "n1", "n2")
        await h.client.create(daemon_set())
        await run_all(h)
        first = {item.metadata.uid for item in await h.pods()}
        await change(h, image("busybox:2"))
        # One pod is away for the update, and nobody makes the new one run: the other still has the old template.
        kept = {item.metadata.uid for item in await h.pods() if not pod_view(item).is_deleting} & first
        assert len(kept) == 1
        await change(h, image("busybox:1"))
        await run_all(h, 12)
        assert await images(h) == {"busybox:1"}
        assert kept <= {item.metadata.uid for item in await h.pods()}
        revisions = await h.all(ControllerRevision, "default")
        assert sorted(item.revision for item in revisions) == [2, 3]
        newest = max(revisions, key=lambda item: item.revision)
        assert newest.metadata.labels[HASH_LABEL] == (await h.pods())[0].metadata.labels[HASH_LABEL]
        assert newest.metadata.name == f"agent-{newest.metadata.labels[HASH_LABEL]}"
        assert template_of(newest).spec.containers[0].image == "busybox:1"


async def test_B34_revisions_beyond_the_limit_go() -> None:
    made = daemon_set()
    made.spec.revisionHistoryLimit = 1
    async with house(CONTROLLER) as h:
        await of_nodes(h, "n1")
        await h.client.create(made)
        for number in range(2, 6):
            await run_all(h, 4)
            await change(h, image(f"busybox:{number}"))
        await run_all(h, 4)
        assert sorted(item.revision for item in await h.all(ControllerRevision, "default")) == [4, 5]


async def test_B34_a_revision_of_that_name_with_another_content_makes_another_name() -> None:
    async with house(CONTROLLER) as h:
        await of_nodes(h, "n1")
        await h.client.create(daemon_set())
        await run_all(h)
        taken = (await h.all(ControllerRevision, "default"))[0]
        await h.client.delete(DaemonSet, "agent", "default")
        await h.settle()
        stolen = ControllerRevision()
        stolen.CopyFrom(taken)
        stolen.metadata.ClearField("ownerReferences")
        stolen.metadata.labels["app"] = "other"
        stolen.metadata.resourceVersion = ""
        await h.client.delete(ControllerRevision, taken.metadata.name, "default")
        await h.client.create(stolen)
        await h.client.create(daemon_set())
        await h.settle()
        assert status(h).collisionCount == 1
        assert len(names(await h.all(ControllerRevision, "default"))) == 2


async def test_B15_an_orphan_of_its_labels_is_adopted_and_a_changed_one_released() -> None:
    orphan = Pod()
    orphan.metadata.name, orphan.metadata.namespace = "stray", "default"
    orphan.metadata.labels["app"] = "agent"
    orphan.spec.nodeName = "n1"
    async with house(CONTROLLER) as h:
        await of_nodes(h, "n1")
        await h.client.create(orphan)
        made = daemon_set(type="OnDelete")
        await h.client.create(made)
        await h.settle()
        assert names(await h.pods()) == ["stray"]
        adopted = (await h.pods())[0]
        assert adopted.metadata.ownerReferences[0].name == "agent"
        adopted.metadata.labels["app"] = "other"
        await h.client.update(adopted)
        await h.settle()
        pods = {item.metadata.name: item for item in await h.pods()}
        assert len(pods) == 2
        assert not pods["stray"].metadata.ownerReferences


async def test_a_refused_pod_is_told_of_and_tried_again() -> None:
    async with house(CONTROLLER) as h:
        h.client.server.fail("BatchCreate", Pod, Forbidden("over quota"))
        await of_nodes(h, "n1")
        await h.client.create(daemon_set())
        await h.run_for(5)
        assert "FailedCreate" in h.events.reasons()
        assert await where(h) == ["n1"]


async def test_minReadySeconds_is_waited_for_without_an_event() -> None:
    made = daemon_set()
    made.spec.minReadySeconds = 30
    async with house(CONTROLLER) as h:
        await of_nodes(h, "n1")
        await h.client.create(made)
        await run_all(h)
        assert (status(h).numberReady, status(h).numberAvailable) == (1, 0)
        await h.run_for(31)
        assert status(h).numberAvailable == 1


async def test_a_set_that_ends_makes_nothing() -> None:
    made = daemon_set()
    made.metadata.finalizers.append("foregroundDeletion")
    async with house(CONTROLLER) as h:
        await h.client.create(made)
        await h.settle()
        await h.client.delete(DaemonSet, "agent", "default")
        await of_nodes(h, "n1")
        assert await h.pods() == []
