"""What a DaemonSet plans: on which nodes pods belong, which come and go next, and what the status says of it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.controller_manager.controllers.test_nodes import node
from tests.unit.controller_manager.controllers.test_replicaset import view
from tiphys.api.apps.v1 import apps_pb2
from tiphys.api.core.v1 import node_pb2, pod_pb2
from tiphys_component.clock import FakeClock
from tiphys_controller_manager.controllers.daemonset.failed_pods import FailedPods
from tiphys_controller_manager.controllers.daemonset.placement import HASH_LABEL, Fate, make_pod, rules_of
from tiphys_controller_manager.controllers.daemonset.plan import Goal, Plan, by_node, goal_of, plan, status_of
from tiphys_controller_manager.nodes import node_view
from tiphys_controller_manager.pods import PodView, pod_view

CONTROLLER = "daemonset-controller"
DaemonSet = apps_pb2.DaemonSet
ControllerRevision = apps_pb2.ControllerRevision
Pod = pod_pb2.Pod
Node = node_pb2.Node
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
