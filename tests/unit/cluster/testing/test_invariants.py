"""Every invariant can fail: a history that breaks it, and it alone, is told of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tiphys.api.apps.v1.apps_pb2 import DaemonSet, Deployment, ReplicaSet
from tiphys.api.batch.v1.batch_pb2 import Job
from tiphys.api.core.v1.node_pb2 import Node
from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys.api.core.v1.resource_quota_pb2 import ResourceQuota
from tiphys_apimachinery.meta import namespaced_name
from tiphys_cluster.testing.invariants import INVARIANTS, Guard
from tiphys_cluster.testing.world import World


class History:
    """Objects come and change, and the guard looks at each."""

    def __init__(self) -> None:
        self.running: dict[str, set[str]] = {}
        self.guard = Guard(World(), self.running)

    def put(self, obj: Any) -> None:
        known = self.guard.world.of(type(obj))
        before = known.get(namespaced_name(obj))
        kept = type(obj).FromString(obj.SerializeToString())
        known[namespaced_name(obj)] = kept
        self.guard.look(before, kept)

    def names(self) -> set[str]:
        return {breach.name for breach in self.guard.breaches}


def make(kind: Any, name: str, owner: Any = None) -> Any:
    made = kind()
    made.metadata.name, made.metadata.namespace, made.metadata.uid = (
        name,
        "" if kind is Node else "default",
        f"uid-{name}",
    )
    if owner is not None:
        made.metadata.ownerReferences.add(
            kind=type(owner).DESCRIPTOR.name, name=owner.metadata.name, uid=owner.metadata.uid, controller=True
        )
    return made


def node(pods: str = "2", cpu: str = "1") -> Node:
    made: Node = make(Node, "n1")
    made.status.allocatable["pods"].string, made.status.allocatable["cpu"].string = pods, cpu
    return made


def bound(name: str, owner: Any = None, cpu: str = "") -> Pod:
    made: Pod = make(Pod, name, owner)
    made.spec.nodeName = "n1"
    container = made.spec.containers.add(name="c")
    if cpu:
        container.resources.requests["cpu"].string = cpu
    return made


def moves(history: History, *, breaks: bool) -> None:
    pod = bound("p")
    history.put(pod)
    pod.spec.nodeName = "n2" if breaks else "n1"
    history.put(pod)


def runs_twice(history: History, *, breaks: bool) -> None:
    history.running["default/p"] = {"one", "other"} if breaks else {"one"}
    history.put(bound("p"))


def fills_a_node(history: History, *, breaks: bool) -> None:
    history.put(node())
    for number in range(3 if breaks else 2):
        history.put(bound(f"p{number}", cpu="100m"))


def asks_too_much(history: History, *, breaks: bool) -> None:
    history.put(node())
    history.put(bound("p0", cpu="600m"))
    history.put(bound("p1", cpu="600m" if breaks else "400m"))


def replicas(history: History, *, breaks: bool) -> None:
    owner = make(ReplicaSet, "r")
    owner.spec.replicas = 2
    history.put(owner)
    for number in range(3 if breaks else 2):
        history.put(make(Pod, f"p{number}", owner))


def surges(history: History, *, breaks: bool) -> None:
    deployment = make(Deployment, "d")
    deployment.spec.replicas, deployment.spec.strategy.type = 4, "RollingUpdate"
    deployment.spec.strategy.rollingUpdate.maxSurge.intVal = 1
    history.put(deployment)
    for name, size in (("old", 4), ("new", 2 if breaks else 1)):
        owned = make(ReplicaSet, name, deployment)
        owned.spec.replicas = size
        history.put(owned)


def works_too_wide(history: History, *, breaks: bool) -> None:
    job = make(Job, "j")
    job.spec.parallelism, job.spec.completions = 2, 5
    history.put(job)
    for number in range(3 if breaks else 2):
        history.put(make(Pod, f"p{number}", job))


def works_too_often(history: History, *, breaks: bool) -> None:
    job = make(Job, "j")
    job.spec.parallelism, job.spec.completions = 2, 2
    history.put(job)
    done = make(Pod, "done", job)
    done.status.phase = "Succeeded"
    history.put(done)
    for number in range(2 if breaks else 1):
        history.put(make(Pod, f"p{number}", job))


def overdraws(history: History, *, breaks: bool) -> None:
    quota = make(ResourceQuota, "q")
    quota.spec.hard["pods"].string = "1"
    history.put(quota)
    for number in range(2 if breaks else 1):
        history.put(make(Pod, f"p{number}"))


def daemons(history: History, *, breaks: bool) -> None:
    owner = make(DaemonSet, "ds")
    history.put(owner)
    for number in range(2 if breaks else 1):
        history.put(bound(f"p{number}", owner))


CASES: dict[str, tuple[str, Callable[..., None]]] = {
    "a pod changes its node": ("bound_once", moves),
    "two pods of one name run": ("one_of_a_name_runs", runs_twice),
    "more pods than a node takes": ("node_holds", fills_a_node),
    "more CPU than a node has": ("node_holds", asks_too_much),
    "a replica too many": ("replica_set_has_no_more", replicas),
    "more than the surge": ("deployment_keeps_its_surge", surges),
    "more than the parallelism": ("job_runs_no_more_than_it_may", works_too_wide),
    "more than the completions": ("job_runs_no_more_than_it_may", works_too_often),
    "more than the quota": ("quota_holds", overdraws),
    "two daemons on a node": ("one_daemon_a_node", daemons),
}


@pytest.mark.parametrize(("name", "happens"), CASES.values(), ids=CASES)
def test_M15_breach_is_told_of(name: str, happens: Callable[..., None]) -> None:
    broken, kept = History(), History()
    happens(broken, breaks=True)
    happens(kept, breaks=False)
    assert broken.names() == {name}
    assert kept.names() == set()


def test_every_invariant_has_a_history_that_breaks_it() -> None:
    assert {name for name, _ in CASES.values()} == set(INVARIANTS)


def test_a_set_told_to_shrink_may_have_its_pods_until_it_has_seen_it() -> None:
    history = History()
    owner = make(ReplicaSet, "r")
    owner.spec.replicas, owner.metadata.generation = 3, 1
    owner.status.observedGeneration = 1
    history.put(owner)
    owner.spec.replicas, owner.metadata.generation = 1, 2
    history.put(owner)
    for number in range(3):
        history.put(make(Pod, f"p{number}", owner))
    assert history.names() == set()
    owner.status.observedGeneration, owner.status.replicas = 2, 1
    history.put(owner)
    history.put(make(Pod, "p4", owner))
    assert history.names() == {"replica_set_has_no_more"}
