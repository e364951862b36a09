"""Deployments: rollouts, rollbacks, scaling, pausing, and what kubectl reads of them."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.controller_manager.harness import House, house
from tiphys.api.apps.v1 import apps_pb2
from tiphys_apimachinery.errors import Forbidden
from tiphys_apimachinery.meta import find_condition, get_controller_of
from tiphys_controller_manager.controllers.deployment.revision import (
    DESIRED_REPLICAS,
    HASH_LABEL,
    MAX_REPLICAS,
    REVISION,
    fingerprint,
    template_hash,
)

BOTH = ("deployment-controller", "replicaset-controller")


def deployment(name: str = "web", replicas: int = 3, image: str = "busybox:1", **spec: Any) -> apps_pb2.Deployment:
    made = apps_pb2.Deployment()
    made.metadata.name, made.metadata.namespace = name, "default"
    made.spec.replicas = replicas
    made.spec.selector.matchLabels["app"] = name
    made.spec.template.metadata.labels["app"] = name
    made.spec.template.spec.containers.add(name="c", image=image)
    made.spec.strategy.type = "RollingUpdate"
    made.spec.revisionHistoryLimit = 10
    made.spec.progressDeadlineSeconds = 600
    for key, value in spec.items():
        setattr(made.spec, key, value)
    return made


def stored(h: House, name: str = "web") -> apps_pb2.Deployment:
    return h.client.stored(apps_pb2.Deployment, name, "default")


async def sets(h: House) -> dict[str, apps_pb2.ReplicaSet]:
    """ReplicaSets by their image."""
    return {item.spec.template.spec.containers[0].image: item for item in await h.all(apps_pb2.ReplicaSet, "default")}


async def change(h: House, **facts: Any) -> None:
    obj = stored(h)
    if "image" in facts:
        obj.spec.template.spec.containers[0].image = facts.pop("image")
    for key, value in facts.items():
        setattr(obj.spec, key, value)
    await h.client.update(obj)
    await h.settle()


async def roll_out(h: House, rounds: int = 12) -> None:
    for _ in range(rounds):
        await h.run_pods()
        await h.settle()


def condition(h: House, kind: str) -> tuple[str, str]:
    found: Any = find_condition(stored(h).status.conditions, kind)
    return (found.status, found.reason) if found is not None else ("", "")


async def test_a_rollout_ends_with_all_pods_of_the_new_template() -> None:
    async with house(*BOTH) as h:
        await h.client.create(deployment(replicas=3))
        await roll_out(h)
        await change(h, image="busybox:2")
        await roll_out(h)
        by_image = await sets(h)
        assert (by_image["busybox:1"].spec.replicas, by_image["busybox:2"].spec.replicas) == (0, 3)
        status = stored(h).status
        assert (status.replicas, status.updatedReplicas, status.availableReplicas) == (3, 3, 3)
        assert condition(h, "Progressing") == ("True", "NewReplicaSetAvailable")
        assert condition(h, "Available") == ("True", "MinimumReplicasAvailable")
        assert status.observedGeneration == stored(h).metadata.generation


async def test_a_replica_set_carries_hash_owner_revision_and_sizes() -> None:
    async with house(*BOTH) as h:
        made = await h.client.create(deployment(replicas=4))
        await h.settle()
        (item,) = (await sets(h)).values()
        code = item.metadata.labels[HASH_LABEL]
        assert item.metadata.name == f"web-{code}"
        assert item.spec.selector.matchLabels[HASH_LABEL] == code
        assert item.spec.template.metadata.labels[HASH_LABEL] == code
        owner = get_controller_of(item)
        assert owner is not None
        assert (owner.kind, owner.uid) == ("Deployment", made.metadata.uid)
        annotations = item.metadata.annotations
        assert (annotations[REVISION], annotations[DESIRED_REPLICAS], annotations[MAX_REPLICAS]) == ("1", "4", "5")
        assert stored(h).metadata.annotations[REVISION] == "1"


async def test_undo_moves_the_old_replica_set_to_the_front() -> None:
    async with house(*BOTH) as h:
        await h.client.create(deployment())
        await roll_out(h)
        await change(h, image="busybox:2")
        await roll_out(h)
        await change(h, image="busybox:1")
        await roll_out(h)
        by_image = await sets(h)
        assert len(by_image) == 2
        assert by_image["busybox:1"].metadata.annotations[REVISION] == "3"
        assert by_image["busybox:1"].metadata.annotations["deployment.kubernetes.io/revision-history"] == "1"
        assert by_image["busybox:1"].spec.replicas == 3
        assert stored(h).metadata.annotations[REVISION] == "3"


async def test_history_beyond_the_limit_is_deleted() -> None:
    async with house(*BOTH) as h:
        await h.client.create(deployment(replicas=1, revisionHistoryLimit=1))
        await roll_out(h, 4)
        for number in (2, 3, 4):
            await change(h, image=f"busybox:{number}")
            await roll_out(h, 6)
        assert sorted(await sets(h)) == ["busybox:3", "busybox:4"]


async def test_a_paused_deployment_does_not_roll_but_scales() -> None:
    async with house(*BOTH) as h:
        await h.client.create(deployment())
        await roll_out(h)
        await change(h, paused=True)
        assert condition(h, "Progressing") == ("Unknown", "DeploymentPaused")
        await change(h, image="busybox:2")
        await change(h, replicas=5)
        await roll_out(h)
        assert {image: item.spec.replicas for image, item in (await sets(h)).items()} == {"busybox:1": 5}
        await change(h, paused=False)
        await roll_out(h)
        assert (await sets(h))["busybox:2"].spec.replicas == 5
        assert condition(h, "Progressing") == ("True", "NewReplicaSetAvailable")


async def test_scaling_in_the_middle_of_a_rollout_keeps_the_proportion() -> None:
    async with house(*BOTH) as h:
        made = deployment(replicas=10)
        made.spec.strategy.rollingUpdate.maxSurge.intVal = 3
        made.spec.strategy.rollingUpdate.maxUnavailable.intVal = 2
        await h.client.create(made)
        await roll_out(h, 4)
        await change(h, image="busybox:2")
        before = {image: item.spec.replicas for image, item in (await sets(h)).items()}
        assert before == {"busybox:1": 8, "busybox:2": 5}
        await change(h, replicas=20)
        after = {image: item.spec.replicas for image, item in (await sets(h)).items()}
        assert sum(after.values()) == 23
        assert after["busybox:1"] == 14
        assert after["busybox:2"] == 9


async def test_recreate_starts_nothing_before_all_old_pods_are_gone() -> None:
    async with house(*BOTH) as h:
        made = deployment(replicas=2)
        made.spec.strategy.type = "Recreate"
        await h.client.create(made)
        await roll_out(h, 4)
        for pod in await h.pods():
            pod.spec.nodeName = "n"
            await h.client.update(pod)
        await h.settle()
        await change(h, image="busybox:2")
        await h.settle()
        assert "busybox:2" not in await sets(h)
        await roll_out(h)
        assert {image: item.spec.replicas for image, item in (await sets(h)).items()} == {
            "busybox:1": 0,
            "busybox:2": 2,
        }


async def test_restart_by_annotation_rolls_the_pods() -> None:
    async with house(*BOTH) as h:
        await h.client.create(deployment(replicas=2))
        await roll_out(h)
        first = {pod.metadata.name for pod in await h.pods()}
        obj = stored(h)
        obj.spec.template.metadata.annotations["kubectl.kubernetes.io/restartedAt"] = "now"
        await h.client.update(obj)
        await roll_out(h)
        assert not first & {pod.metadata.name for pod in await h.pods()}


async def test_no_progress_within_the_deadline_turns_progressing_false() -> None:
    async with house(*BOTH) as h:
        await h.client.create(deployment(replicas=1, progressDeadlineSeconds=30))
        await h.settle()
        assert condition(h, "Progressing")[0] == "True"
        await h.run_for(40)
        assert condition(h, "Progressing") == ("False", "ProgressDeadlineExceeded")
        await roll_out(h, 3)
        assert condition(h, "Progressing") == ("True", "NewReplicaSetAvailable")


async def test_a_taken_name_counts_as_collision_and_another_is_found() -> None:
    async with house(*BOTH) as h:
        wanted = deployment()
        code = template_hash(wanted.spec.template, None)
        foreign = apps_pb2.ReplicaSet()
        foreign.metadata.name, foreign.metadata.namespace = f"web-{code}", "default"
        foreign.spec.selector.matchLabels["x"] = "y"
        h.client.seed(foreign)
        await h.client.create(wanted)
        await h.settle()
        await h.run_for(1)
        assert stored(h).status.collisionCount == 1
        assert len(await h.all(apps_pb2.ReplicaSet, "default")) == 2


async def test_a_refused_replica_set_shows_in_the_conditions() -> None:
    async with house(*BOTH) as h:
        h.client.server.fail("Create", apps_pb2.ReplicaSet, Forbidden("no"), times=3)
        await h.client.create(deployment())
        await h.settle()
        assert condition(h, "Progressing") == ("False", "ReplicaSetCreateError")
        assert "ReplicaSetCreateError" in h.events.reasons()


async def test_events_say_how_sets_were_scaled() -> None:
    async with house("deployment-controller") as h:
        await h.client.create(deployment(replicas=2))
        await h.settle()
        (name,) = [item.metadata.name for item in (await sets(h)).values()]
        assert h.events.seen == [("Normal", "ScalingReplicaSet", f"Scaled up replica set {name} from 0 to 2")]


async def test_a_matching_orphan_replica_set_is_adopted() -> None:
    async with house("deployment-controller") as h:
        made = await h.client.create(deployment(replicas=2))
        await h.settle()
        (item,) = (await sets(h)).values()
        del item.metadata.ownerReferences[:]
        await h.client.update(item)
        await h.settle()
        (item,) = (await sets(h)).values()
        owner = get_controller_of(item)
        assert owner is not None
        assert owner.uid == made.metadata.uid


async def test_a_settled_deployment_writes_nothing_more() -> None:
    async with house(*BOTH) as h:
        await h.client.create(deployment())
        await roll_out(h)
        before = len(h.client.writes())
        h.loops["deployment-controller"].trigger("default/web")
        h.loops["replicaset-controller"].trigger(f"default/{next(iter((await sets(h)).values())).metadata.name}")
        await h.settle()
        assert len(h.client.writes()) == before


@pytest.mark.parametrize("spoil", ["hash label", "empty message"])
def test_the_fingerprint_ignores_what_means_nothing(spoil: str) -> None:
    one, other = deployment().spec.template, deployment().spec.template
    if spoil == "hash label":
        other.metadata.labels[HASH_LABEL] = "x"
    else:
        other.spec.securityContext.SetInParent()
        other.spec.containers[0].resources.SetInParent()
    assert fingerprint(one) == fingerprint(other)


def test_the_hash_is_stable_and_depends_on_collisions() -> None:
    template = deployment().spec.template
    assert template_hash(template, None) == "6476ccc7f7"
    assert template_hash(template, 1) != template_hash(template, None)
