"""ReplicationControllers: the same as ReplicaSets, but for the form of the selector."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.controller_manager.harness import House, house
from tiphys.api.apps.v1 import apps_pb2
from tiphys.api.core.v1 import pod_pb2, replication_controller_pb2
from tiphys_apimachinery.errors import Forbidden
from tiphys_apimachinery.labels import from_label_selector
from tiphys_apimachinery.meta import find_condition, get_controller_of
from tiphys_controller_manager.ownership import selector_of

RC = "replicationcontroller-controller"
ReplicationController = replication_controller_pb2.ReplicationController


def controller(replicas: int = 3) -> ReplicationController:
    made = ReplicationController()
    made.metadata.name, made.metadata.namespace = "web", "default"
    made.spec.replicas = replicas
    made.spec.selector["app"] = "web"
    made.spec.template.metadata.labels["app"] = "web"
    made.spec.template.spec.containers.add(name="c", image="busybox")
    return made


async def stored(built: House) -> Any:
    return await built.client.get(ReplicationController, "web", "default")


async def test_B3_as_many_pods_run_as_are_asked_for() -> None:
    async with house(RC) as built:
        await built.client.create(controller())
        await built.settle()
        pods = await built.pods()
        owners = [get_controller_of(pod) for pod in pods]
        assert [(owner.apiVersion, owner.kind) for owner in owners if owner] == [("v1", "ReplicationController")] * 3
        await built.run_pods()
        await built.settle()
        status = (await stored(built)).status
        counts = (status.replicas, status.readyReplicas, status.availableReplicas, status.fullyLabeledReplicas)
        assert counts == (3, 3, 3, 3)


@pytest.mark.parametrize("replicas", [0, 1, 5])
async def test_B3_fewer_are_started_and_more_are_ended(replicas: int) -> None:
    async with house(RC) as built:
        await built.client.create(controller())
        await built.settle()
        made = await stored(built)
        made.spec.replicas = replicas
        await built.client.update(made)
        await built.settle()
        assert len(await built.pods()) == replicas


async def test_B3_even_one_pod_is_made_anew_when_it_is_lost() -> None:
    async with house(RC) as built:
        await built.client.create(controller(1))
        await built.settle()
        (lost,) = await built.pods()
        await built.client.delete(pod_pb2.Pod, lost.metadata.name, "default", grace_period_s=0)
        await built.settle()
        (pod,) = await built.pods()
        assert pod.metadata.uid != lost.metadata.uid


async def test_B3_matching_orphans_are_adopted_and_others_released() -> None:
    async with house(RC) as built:
        orphan = pod_pb2.Pod()
        orphan.metadata.name, orphan.metadata.namespace = "orphan", "default"
        orphan.metadata.labels["app"] = "web"
        await built.client.create(orphan)
        await built.client.create(controller(1))
        await built.settle()
        (adopted,) = await built.pods()
        owner = get_controller_of(adopted)
        assert owner is not None
        assert owner.name == "web"
        adopted.metadata.labels["app"] = "other"
        await built.client.update(adopted)
        await built.settle()
        released = await built.client.get(pod_pb2.Pod, "orphan", "default")
        assert not released.metadata.ownerReferences
        assert len(await built.pods()) == 2


async def test_B3_what_cannot_be_made_is_a_condition_until_it_is_well() -> None:
    async with house(RC) as built:
        for _ in range(20):
            built.client.server.fail("BatchCreate", pod_pb2.Pod, Forbidden("exceeded quota"))
        await built.client.create(controller(1))
        await built.settle()
        failed: Any = find_condition((await stored(built)).status.conditions, "ReplicaFailure")
        assert (failed.status, failed.reason) == ("True", "FailedCreate")
        made = await stored(built)
        made.spec.replicas = 0
        await built.client.update(made)
        await built.settle()
        assert find_condition((await stored(built)).status.conditions, "ReplicaFailure") is None


async def test_B3_pods_of_a_replica_set_of_the_same_name_are_not_its() -> None:
    async with house(RC, "replicaset-controller") as built:
        replica_set = apps_pb2.ReplicaSet()
        replica_set.metadata.name, replica_set.metadata.namespace = "web", "default"
        replica_set.spec.replicas = 2
        replica_set.spec.selector.matchLabels["app"] = "web"
        replica_set.spec.template.CopyFrom(controller().spec.template)
        await built.client.create(replica_set)
        await built.client.create(controller(1))
        await built.settle()
        kinds = sorted(owner.kind for pod in await built.pods() if (owner := get_controller_of(pod)) is not None)
        assert kinds == ["ReplicaSet", "ReplicaSet", "ReplicationController"]


def test_B3_a_map_selects_as_a_selector_of_the_same_labels() -> None:
    replica_set = apps_pb2.ReplicaSet()
    replica_set.spec.selector.matchLabels["app"] = "web"
    for labels in ({"app": "web", "x": "y"}, {"app": "other"}, {}):
        wanted = from_label_selector(replica_set.spec.selector).matches(labels)
        assert selector_of(controller()).matches(labels) == selector_of(replica_set).matches(labels) == wanted
