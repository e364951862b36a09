"""ReplicaSets: pods made, deleted, adopted and released, and what the status says of it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.controller_manager.harness import house, names
from tiphys.api.apps.v1 import apps_pb2
from tiphys.api.core.v1 import pod_pb2
from tiphys_apimachinery.errors import Forbidden, ServiceUnavailable
from tiphys_apimachinery.meta import get_controller_of
from tiphys_controller_manager.controllers.replicaset.controller import ReplicaSetController
from tiphys_controller_manager.controllers.replicaset.plan import (
    Failure,
    next_available,
    plan_pods,
    slow_start,
    status_of,
)
from tiphys_controller_manager.controllers.replicaset.ranking import choose_for_deletion
from tiphys_controller_manager.pods import Owner, PodView

NOW = 1_000_000.0


def replica_set(name: str = "web", replicas: int = 3, **spec: Any) -> apps_pb2.ReplicaSet:
    made = apps_pb2.ReplicaSet()
    made.metadata.name, made.metadata.namespace = name, "default"
    made.spec.replicas = replicas
    made.spec.selector.matchLabels["app"] = "web"
    made.spec.template.metadata.labels["app"] = "web"
    made.spec.template.spec.containers.add(name="c", image="busybox")
    for key, value in spec.items():
        setattr(made.spec, key, value)
    return made


def view(name: str, **facts: Any) -> PodView:
    values: dict[str, Any] = {
        "key": f"default/{name}",
        "namespace": "default",
        "name": name,
        "uid": name,
        "resource_version": "1",
        "labels": {"app": "web"},
        "controller": Owner("apps/v1", "ReplicaSet", "web", "u"),
        "is_deleting": False,
        "deletion_due": 0.0,
        "phase": "Running",
        "node": "n1",
        "ready_since": NOW - 100,
        "created": NOW - 100,
        "finished": 0.0,
        "restarts": 0,
        "deletion_cost": 0,
        "ips": (),
        "hostname": "",
        "subdomain": "",
        "ports": (),
        "tolerations": (),
        "finalizers": (),
    }
    return PodView(**{**values, **facts})


@pytest.mark.parametrize(
    ("victim", "other"),
    [
        pytest.param({"node": ""}, {}, id="without a node before with one"),
        pytest.param({"phase": "Pending"}, {"phase": "Unknown"}, id="pending before unknown"),
        pytest.param({"phase": "Unknown"}, {}, id="unknown before running"),
        pytest.param({"ready_since": None}, {}, id="not ready before ready"),
        pytest.param({"deletion_cost": -1}, {}, id="cheaper first"),
        pytest.param({"ready_since": NOW - 10}, {"ready_since": NOW - 10_000}, id="ready for a shorter time first"),
        pytest.param({"restarts": 3}, {}, id="more restarts first"),
        pytest.param({"created": NOW - 10}, {"created": NOW - 10_000}, id="younger first"),
        pytest.param({"uid": "a", "created": NOW - 100}, {"uid": "b", "created": NOW - 101}, id="ages alike: by uid"),
    ],
)
def test_the_pod_that_matters_least_goes_first(victim: dict[str, Any], other: dict[str, Any]) -> None:
    first, second = view("z-victim", **victim), view("a-other", **other)
    assert choose_for_deletion([second, first], [], 1, now=NOW) == (first,)


def test_of_equal_pods_the_one_on_the_fuller_node_goes() -> None:
    crowded, lonely = view("crowded", node="n1"), view("lonely", node="n2")
    related = [crowded, lonely, view("sibling", node="n1")]
    assert choose_for_deletion([lonely, crowded], related, 1, now=NOW) == (crowded,)


def test_batches_double_from_one() -> None:
    assert slow_start(20) == [1, 2, 4, 8, 5]
    assert slow_start(0) == []


def test_one_round_makes_at_most_500_pods() -> None:
    assert plan_pods(2000, [], [], now=NOW).create == 500


def test_status_counts_only_what_is_ready_for_long_enough_as_available() -> None:
    owner = replica_set(minReadySeconds=50)
    pods = [view("old"), view("fresh", ready_since=NOW - 5), view("unready", ready_since=None)]
    status = status_of(owner, pods, now=NOW, failure=None)
    assert (status.replicas, status.readyReplicas, status.availableReplicas) == (3, 2, 1)


@pytest.mark.parametrize(
    ("ready_since", "min_ready_s", "left_s"),
    [
        pytest.param(None, 0, None, id="not ready"),
        pytest.param(NOW, 0, 0.0, id="at once where nothing is asked"),
        pytest.param(NOW + 3600, 0, 0.0, id="at once, though our clock is behind"),
        pytest.param(NOW - 5, 30, 25.0, id="ready for a while"),
        pytest.param(NOW - 30, 30, 0.0, id="ready for long enough"),
        pytest.param(NOW + 3600, 30, 30.0, id="our clock is behind: asked again as if it had become ready now"),
    ],
)
def test_a_clock_that_is_behind_delays_no_pod_beyond_what_its_owner_asks(
    ready_since: float | None, min_ready_s: int, left_s: float | None
) -> None:
    pod = view("p", ready_since=ready_since)
    assert pod.available_in(min_ready_s, now=NOW) == left_s
    status = status_of(replica_set(minReadySeconds=min_ready_s), [pod], now=NOW, failure=None)
    assert status.availableReplicas == (left_s == 0.0)
    assert next_available([pod], min_ready_s, now=NOW) == (left_s or None)


def test_failure_condition_appears_and_goes() -> None:
    owner = replica_set()
    failed = status_of(owner, [], now=NOW, failure=Failure("FailedCreate", "quota"))
    assert [(c.type, c.status, c.reason) for c in failed.conditions] == [("ReplicaFailure", "True", "FailedCreate")]
    owner.status.CopyFrom(failed)
    assert not status_of(owner, [], now=NOW, failure=None).conditions


async def test_pods_are_made_as_the_template_says() -> None:
    async with house("replicaset-controller") as h:
        owner = await h.client.create(replica_set(replicas=3))
        await h.settle()
        pods = await h.pods()
        assert len(pods) == 3
        for pod in pods:
            reference = get_controller_of(pod)
            assert reference is not None
            assert (reference.uid, reference.kind, reference.blockOwnerDeletion) == (
                owner.metadata.uid,
                "ReplicaSet",
                True,
            )
            assert pod.metadata.name.startswith("web-")
            assert pod.spec.containers[0].image == "busybox"
        assert h.events.reasons() == ["SuccessfulCreate"] * 3


async def test_status_follows_the_pods() -> None:
    async with house("replicaset-controller") as h:
        await h.client.create(replica_set(replicas=2))
        await h.settle()
        await h.run_pods()
        await h.settle()
        status = h.client.stored(apps_pb2.ReplicaSet, "web", "default").status
        assert (status.replicas, status.readyReplicas, status.availableReplicas) == (2, 2, 2)
        assert status.fullyLabeledReplicas == 2
        assert status.observedGeneration == 1


async def test_a_pod_that_vanishes_is_replaced() -> None:
    async with house("replicaset-controller") as h:
        await h.client.create(replica_set(replicas=2))
        await h.settle()
        first = (await h.pods())[0].metadata.name
        await h.client.delete(pod_pb2.Pod, first, "default")
        await h.settle()
        assert len(await h.pods()) == 2
        assert first not in names(await h.pods())


async def test_finished_pods_do_not_count() -> None:
    async with house("replicaset-controller") as h:
        await h.client.create(replica_set(replicas=1))
        await h.settle()
        (pod,) = await h.pods()
        pod.status.phase = "Failed"
        await h.client.update_status(pod)
        await h.settle()
        assert sorted(pod.status.phase for pod in await h.pods()) == ["Failed", "Pending"]


async def test_scaling_down_deletes_the_pods_that_matter_least() -> None:
    async with house("replicaset-controller") as h:
        await h.client.create(replica_set(replicas=3))
        await h.settle()
        keep = (await h.pods())[1]
        await h.make_ready(keep)
        await h.settle()
        stored = h.client.stored(apps_pb2.ReplicaSet, "web", "default")
        stored.spec.replicas = 1
        await h.client.update(stored)
        await h.settle()
        assert names(await h.pods()) == [keep.metadata.name]
        assert h.events.reasons().count("SuccessfulDelete") == 2


async def test_matching_orphans_are_adopted_before_pods_are_made() -> None:
    async with house("replicaset-controller") as h:
        orphan = pod_pb2.Pod()
        orphan.metadata.name, orphan.metadata.namespace = "orphan", "default"
        orphan.metadata.labels["app"] = "web"
        h.client.seed(orphan)
        await h.settle()
        owner = await h.client.create(replica_set(replicas=1))
        await h.settle()
        (pod,) = await h.pods()
        reference = get_controller_of(pod)
        assert pod.metadata.name == "orphan"
        assert reference is not None
        assert reference.uid == owner.metadata.uid


async def test_a_pod_that_no_longer_matches_is_released_and_replaced() -> None:
    async with house("replicaset-controller") as h:
        await h.client.create(replica_set(replicas=1))
        await h.settle()
        (pod,) = await h.pods()
        pod.metadata.labels["app"] = "debug"
        await h.client.update(pod)
        await h.settle()
        owners = {pod.metadata.labels["app"]: get_controller_of(pod) for pod in await h.pods()}
        assert owners["debug"] is None
        assert owners["web"] is not None


async def test_pods_of_others_are_left_alone() -> None:
    async with house("replicaset-controller") as h:
        foreign = pod_pb2.Pod()
        foreign.metadata.name, foreign.metadata.namespace = "foreign", "default"
        foreign.metadata.labels["app"] = "web"
        foreign.metadata.ownerReferences.add(apiVersion="v1", kind="X", name="x", uid="other", controller=True)
        h.client.seed(foreign)
        await h.client.create(replica_set(replicas=1))
        await h.settle()
        assert len(await h.pods()) == 2


async def test_a_refused_pod_shows_in_the_status_and_stops_the_batch() -> None:
    async with house("replicaset-controller") as h:
        h.client.server.fail("BatchCreate", pod_pb2.Pod, Forbidden("exceeded quota"), times=2)
        await h.client.create(replica_set(replicas=5))
        await h.settle()
        status = h.client.stored(apps_pb2.ReplicaSet, "web", "default").status
        assert status.conditions[0].reason == "FailedCreate"
        assert "exceeded quota" in status.conditions[0].message
        assert "FailedCreate" in h.events.reasons()
        await h.run_for(5)
        assert len(await h.pods()) == 5
        assert not h.client.stored(apps_pb2.ReplicaSet, "web", "default").status.conditions


async def test_B37_pods_of_a_call_whose_answer_was_lost_are_not_made_twice() -> None:
    async with house("replicaset-controller") as h:
        h.client.server.fail("BatchCreate", pod_pb2.Pod, ServiceUnavailable("connection lost"), after=True)
        await h.client.create(replica_set(replicas=1))
        await h.settle()
        await h.run_for(10)
        creations = [call for call in h.client.writes() if call.method == "BatchCreate"]
        assert (len(await h.pods()), len(creations)) == (1, 1)


async def test_B37_no_pod_is_made_while_the_view_lags_behind_own_writes() -> None:
    async with house("replicaset-controller") as h:
        await h.client.create(replica_set(replicas=3))
        await h.settle()
        loop = h.loops["replicaset-controller"]
        informer = h.parts.shared.informer(pod_pb2.Pod)
        seen = informer.reflector.resource_version
        reconciler = loop.reconciler
        assert isinstance(reconciler, ReplicaSetController)
        reconciler._expectations._pending.clear()
        stored = h.client.stored(apps_pb2.ReplicaSet, "web", "default")
        reconciler._expectations.wrote("default/web", stored)
        informer.reflector.resource_version = "1"
        for pod in await h.pods():
            informer.store.remove(f"default/{pod.metadata.name}")
        loop.trigger("default/web")
        await h.settle()
        assert len(await h.pods()) == 3
        informer.reflector.resource_version = seen


async def test_pods_become_available_by_the_clock_alone() -> None:
    async with house("replicaset-controller") as h:
        await h.client.create(replica_set(replicas=1, minReadySeconds=30))
        await h.settle()
        await h.run_pods()
        await h.settle()
        assert h.client.stored(apps_pb2.ReplicaSet, "web", "default").status.availableReplicas == 0
        await h.run_for(31)
        assert h.client.stored(apps_pb2.ReplicaSet, "web", "default").status.availableReplicas == 1


async def test_a_replica_set_that_is_being_deleted_makes_nothing() -> None:
    async with house("replicaset-controller") as h:
        going = replica_set(replicas=2)
        going.metadata.finalizers.append("foregroundDeletion")
        going.metadata.deletionTimestamp.seconds = 1
        h.client.seed(going)
        await h.settle()
        assert await h.pods() == []


async def test_B37_a_watch_that_lags_makes_no_pod_twice() -> None:
    async with house("replicaset-controller") as h:
        h.client.server.fail("Watch", pod_pb2.Pod, ServiceUnavailable("no watch"), times=1000)
        h.client.server.cut_watches()
        await h.run_for(5)
        await h.client.create(replica_set(replicas=3))
        await h.run_for(30)
        for _ in range(5):
            h.loops["replicaset-controller"].trigger("default/web")
            await h.settle()
        assert len(await h.pods()) == 3


async def test_what_counts_no_pod_otherwise_costs_no_look() -> None:
    """Of the changes of a pod's life most are told to its owner for nothing."""
    async with house("replicaset-controller") as h:
        await h.client.create(replica_set(replicas=4))
        await h.settle()
        await h.run_pods()
        await h.run_for(60)
        report = h.loops["replicaset-controller"].report
        before = report.reconciles
        for pod in await h.pods():
            pod.metadata.annotations["note"] = "of no concern"
            stored = await h.client.update(pod)
            stored.status.hostIP = "10.0.0.1"
            await h.client.update_status(stored)
        await h.run_for(60)
        assert report.reconciles == before


async def test_pods_made_and_deleted_are_counted_with_the_write_of_the_same_round() -> None:
    async with house("replicaset-controller") as h:
        made = await h.client.create(replica_set(replicas=8))
        await h.settle()
        writes = int(h.client.stored(apps_pb2.ReplicaSet, "web", "default").metadata.resourceVersion)
        pods = [int(pod.metadata.resourceVersion) for pod in await h.pods()]
        assert h.client.stored(apps_pb2.ReplicaSet, "web", "default").status.replicas == 8
        # One write of the status behind that of the set and those of eight pods.
        assert (writes - int(made.metadata.resourceVersion), len(pods)) == (9, 8)
