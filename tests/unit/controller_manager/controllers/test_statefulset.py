"""StatefulSets: names, order, claims, updates and revisions, and what the status says of it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.controller_manager.controllers.test_replicaset import NOW, view
from tests.unit.controller_manager.harness import House, house, names
from tiphys.api.apps.v1.apps_pb2 import ControllerRevision, StatefulSet
from tiphys.api.core.v1.persistent_volume_claim_pb2 import PersistentVolumeClaim
from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys_apimachinery.errors import Forbidden
from tiphys_controller_manager.controllers.deployment.revision import fingerprint
from tiphys_controller_manager.controllers.statefulset.plan import Goal, number_of, plan, status_of
from tiphys_controller_manager.pods import PodView
from tiphys_controller_manager.revisions import STATEFUL_SETS, make_revision, template_of

CONTROLLER = "statefulset-controller"


def goal(replicas: int = 3, **facts: Any) -> Goal:
    values: dict[str, Any] = {
        "name": "web",
        "replicas": replicas,
        "start": 0,
        "is_ordered": True,
        "is_rolling": True,
        "partition": 0,
        "max_unavailable": None,
        "min_ready_s": 0,
        "is_ending": False,
        "current": "web-1",
        "update": "web-1",
    }
    return Goal(**{**values, **facts})


def pod(number: int, revision: str = "web-1", **facts: Any) -> PodView:
    return view(f"web-{number}", labels={"controller-revision-hash": revision}, **facts)


GOING: dict[str, Any] = {"is_deleting": True}
NOT_READY: dict[str, Any] = {"ready_since": None}
ENDED: dict[str, Any] = {"phase": "Failed", "ready_since": None}


@pytest.mark.parametrize(
    ("wanted", "there", "created"),
    [
        pytest.param(goal(), [], (0,), id="the first alone"),
        pytest.param(goal(), [pod(0)], (1,), id="the next when it is ready"),
        pytest.param(goal(), [pod(0, **NOT_READY)], (), id="not before it is ready"),
        pytest.param(goal(min_ready_s=200), [pod(0)], (), id="not before it is available"),
        pytest.param(goal(), [pod(0), pod(2)], (1,), id="a gap is filled"),
        pytest.param(goal(), [pod(0), pod(1, **GOING), pod(2)], (), id="not before the old one is gone"),
        pytest.param(goal(start=5), [pod(5)], (6,), id="numbers from elsewhere"),
        pytest.param(goal(is_ordered=False), [pod(1, **NOT_READY)], (0, 2), id="all at once"),
        pytest.param(goal(is_ordered=False), [pod(1, **GOING)], (0, 2), id="all but the one that goes"),
        pytest.param(goal(is_ending=True), [], (), id="a set that ends makes none"),
        pytest.param(goal(0), [], (), id="none wanted"),
    ],
)
def test_pods_are_made(wanted: Goal, there: list[PodView], created: tuple[int, ...]) -> None:
    assert plan(wanted, there, now=NOW).create == created


def deleted(wanted: Goal, *there: PodView) -> list[str]:
    return [item.name for item in plan(wanted, there, now=NOW).delete]


@pytest.mark.parametrize(
    ("wanted", "there", "gone"),
    [
        pytest.param(goal(1), [pod(0), pod(1), pod(2)], ["web-2"], id="highest first"),
        pytest.param(goal(1), [pod(0), pod(1), pod(2, **GOING)], [], id="one after another"),
        pytest.param(goal(1), [pod(0, **NOT_READY), pod(1)], [], id="not while another is unwell"),
        pytest.param(goal(1), [pod(0), pod(1), pod(2, **NOT_READY)], ["web-2"], id="the one that is unwell itself"),
        pytest.param(goal(1), [pod(0), pod(1, **NOT_READY), pod(2, **NOT_READY)], [], id="two unwell"),
        pytest.param(goal(1), [pod(0), pod(1, **ENDED), pod(2, **ENDED)], ["web-2"], id="ended ones hold up nobody"),
        pytest.param(goal(1), [pod(0), pod(1, **ENDED), pod(2)], ["web-2"], id="nor those before them"),
        pytest.param(goal(1, is_ordered=False), [pod(0), pod(1), pod(2)], ["web-2", "web-1"], id="all at once"),
        pytest.param(goal(2, start=1), [pod(0), pod(1), pod(2)], ["web-0"], id="below the first number"),
        pytest.param(goal(0, is_ending=True), [pod(0)], [], id="a set that ends deletes none"),
    ],
)
def test_pods_that_are_too_many_go(wanted: Goal, there: list[PodView], gone: list[str]) -> None:
    assert deleted(wanted, *there) == gone


NEW = {"update": "web-2"}


@pytest.mark.parametrize(
    ("wanted", "there", "gone"),
    [
        pytest.param(goal(2, **NEW), [pod(0), pod(1)], ["web-1"], id="highest first"),
        pytest.param(goal(2, **NEW), [pod(0), pod(1, "web-2")], ["web-0"], id="then the next"),
        pytest.param(goal(2, **NEW), [pod(0), pod(1, "web-2", **NOT_READY)], [], id="not before it is ready"),
        pytest.param(goal(2, partition=1, **NEW), [pod(0), pod(1, "web-2")], [], id="down to the partition"),
        pytest.param(goal(2, is_rolling=False, **NEW), [pod(0), pod(1)], [], id="OnDelete waits"),
        pytest.param(goal(3, max_unavailable=2, **NEW), [pod(0), pod(1), pod(2)], ["web-2", "web-1"], id="two at once"),
        pytest.param(
            goal(3, max_unavailable=2, is_ordered=False, **NEW),
            [pod(0), pod(1), pod(2, "web-2", **NOT_READY)],
            ["web-1"],
            id="those not ready count",
        ),
        pytest.param(goal(2, is_ordered=False, **NEW), [pod(0), pod(1)], ["web-1"], id="parallel, yet one by one"),
    ],
)
def test_a_new_template_replaces_pods(wanted: Goal, there: list[PodView], gone: list[str]) -> None:
    assert deleted(wanted, *there) == gone


def test_B13_a_pod_below_the_partition_keeps_the_current_revision() -> None:
    wanted = goal(3, partition=2, **NEW)
    assert [wanted.revision_for(number) for number in range(3)] == ["web-1", "web-1", "web-2"]
    assert goal(3, partition=2, is_rolling=False, **NEW).revision_for(0) == "web-2"


@pytest.mark.parametrize("phase", ["Failed", "Succeeded"])
def test_a_finished_pod_is_deleted_and_made_again_only_when_it_is_gone(phase: str) -> None:
    ended = pod(0, phase=phase, ready_since=None)
    first = plan(goal(1), [ended], now=NOW)
    assert (first.recreate, first.create) == ((ended,), ())
    going = plan(goal(1), [pod(0, phase=phase, ready_since=None, **GOING)], now=NOW)
    assert (going.recreate, going.create) == ((), ())
    assert plan(goal(1), [], now=NOW).create == (0,)


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("web-0", 0),
        ("web-12", 12),
        ("web", None),
        ("web-x", None),
        ("web-01", None),
        ("api-0", None),
        ("web-a-0", None),
    ],
)
def test_only_pods_of_the_sets_names_are_its_own(name: str, number: int | None) -> None:
    assert number_of(name, "web") == number


def test_status_counts_and_ends_a_rollout() -> None:
    stored = StatefulSet()
    pods = [pod(0, "web-2"), pod(1, "web-2", **NOT_READY), pod(2, "web-1", **GOING)]
    half = status_of(stored, goal(3, min_ready_s=1000, **NEW), pods, collisions=0, now=NOW)
    assert (half.replicas, half.readyReplicas, half.availableReplicas) == (3, 2, 0)
    assert (half.currentReplicas, half.updatedReplicas) == (0, 2)
    assert (half.currentRevision, half.updateRevision) == ("web-1", "web-2")
    done = status_of(stored, goal(2, **NEW), [pod(0, "web-2"), pod(1, "web-2")], collisions=0, now=NOW)
    assert (done.currentRevision, done.currentReplicas) == ("web-2", 2)


def stateful_set(replicas: int = 2, *, templates: tuple[str, ...] = (), image: str = "busybox:1") -> StatefulSet:
    made = StatefulSet()
    made.metadata.name, made.metadata.namespace = "web", "default"
    spec = made.spec
    spec.replicas = replicas
    spec.serviceName = "web"
    spec.podManagementPolicy = "OrderedReady"
    spec.updateStrategy.type = "RollingUpdate"
    spec.updateStrategy.rollingUpdate.partition = 0
    spec.selector.matchLabels["app"] = "web"
    spec.template.metadata.labels["app"] = "web"
    spec.template.spec.containers.add(name="c", image=image)
    for name in templates:
        claim = spec.volumeClaimTemplates.add()
        claim.metadata.name = name
        claim.spec.accessModes.append("ReadWriteOnce")
        claim.spec.resources.requests["storage"].string = "1Gi"
    return made


async def run_all(built: House, rounds: int = 8) -> None:
    for _ in range(rounds):
        await built.run_pods()
        await built.settle()


async def change(built: House, edit: Any) -> None:
    stored = built.client.stored(StatefulSet, "web", "default")
    edit(stored.spec)
    await built.client.update(stored)
    await built.settle()


async def test_pods_start_in_order_with_their_names_and_claims() -> None:
    async with house(CONTROLLER) as built:
        await built.client.create(stateful_set(templates=("data",)))
        await built.settle()
        assert names(await built.pods()) == ["web-0"]
        await run_all(built)
        first, second = await built.pods()
        assert (first.metadata.name, second.metadata.name) == ("web-0", "web-1")
        assert (second.spec.hostname, second.spec.subdomain) == ("web-1", "web")
        assert second.metadata.labels["statefulset.kubernetes.io/pod-name"] == "web-1"
        assert second.metadata.labels["apps.kubernetes.io/pod-index"] == "1"
        claims = await built.all(PersistentVolumeClaim, "default")
        assert names(claims) == ["data-web-0", "data-web-1"]
        assert claims[0].metadata.labels["app"] == "web"
        assert not claims[0].metadata.ownerReferences
        volume = second.spec.volumes[0]
        assert (volume.name, volume.volumeSource.persistentVolumeClaim.claimName) == ("data", "data-web-1")
        status = built.client.stored(StatefulSet, "web", "default").status
        assert (status.replicas, status.readyReplicas, status.updatedReplicas, status.currentReplicas) == (2, 2, 2, 2)
        assert status.currentRevision == status.updateRevision == second.metadata.labels["controller-revision-hash"]


async def test_a_deleted_pod_comes_back_under_its_name_with_its_claim() -> None:
    async with house(CONTROLLER) as built:
        await built.client.create(stateful_set(templates=("data",)))
        await run_all(built)
        before = {item.metadata.name: item.metadata.uid for item in await built.all(PersistentVolumeClaim, "default")}
        old = (await built.pods())[0].metadata.uid
        await built.client.delete(Pod, "web-0", "default", grace_period_s=30)
        await built.settle()
        await run_all(built)
        again = (await built.pods())[0]
        assert again.metadata.name == "web-0"
        assert again.metadata.uid != old
        after = {item.metadata.name: item.metadata.uid for item in await built.all(PersistentVolumeClaim, "default")}
        assert after == before


async def test_B11_no_second_pod_of_a_name_while_the_first_is_going() -> None:
    async with house(CONTROLLER) as built:
        await built.client.create(stateful_set(1))
        await run_all(built)
        held = (await built.pods())[0]
        held.metadata.finalizers.append("example.com/hold")
        await built.client.update(held)
        await built.client.delete(Pod, "web-0", "default", grace_period_s=0)
        await built.run_for(30)
        assert [item.metadata.uid for item in await built.pods()] == [held.metadata.uid]


async def test_scaling_down_goes_from_the_end_and_keeps_claims() -> None:
    async with house(CONTROLLER) as built:
        await built.client.create(stateful_set(3, templates=("data",)))
        await run_all(built)
        await change(built, lambda spec: setattr(spec, "replicas", 1))
        await run_all(built)
        assert names(await built.pods()) == ["web-0"]
        assert len(await built.all(PersistentVolumeClaim, "default")) == 3


async def test_B12_claims_end_with_whom_the_policy_names() -> None:
    made = stateful_set(2, templates=("data",))
    made.spec.persistentVolumeClaimRetentionPolicy.whenDeleted = "Delete"
    made.spec.persistentVolumeClaimRetentionPolicy.whenScaled = "Delete"

    def owners(built: House, name: str) -> list[tuple[str, str]]:
        claim = built.client.stored(PersistentVolumeClaim, name, "default")
        return [(owner.kind, owner.name) for owner in claim.metadata.ownerReferences]

    async with house(CONTROLLER) as built:
        await built.client.create(made)
        await run_all(built)
        assert owners(built, "data-web-1") == [("StatefulSet", "web")]
        await change(built, lambda spec: setattr(spec, "replicas", 1))
        await built.settle()
        assert owners(built, "data-web-1") == [("Pod", "web-1")]
        assert owners(built, "data-web-0") == [("StatefulSet", "web")]
        await change(built, lambda spec: setattr(spec.persistentVolumeClaimRetentionPolicy, "whenDeleted", "Retain"))
        assert owners(built, "data-web-0") == []


async def test_B12_a_claim_whose_pod_was_lost_before_the_set_shrank_stays() -> None:
    """As in Kubernetes: only a pod that the set itself takes away takes its claim along."""
    async with house(CONTROLLER) as built:
        left = PersistentVolumeClaim()
        left.metadata.name, left.metadata.namespace = "data-web-1", "default"
        await built.client.create(left)
        made = stateful_set(1, templates=("data",))
        made.spec.persistentVolumeClaimRetentionPolicy.whenScaled = "Delete"
        await built.client.create(made)
        await run_all(built)
        assert names(await built.pods()) == ["web-0"]
        claim = built.client.stored(PersistentVolumeClaim, "data-web-1", "default")
        assert not claim.metadata.ownerReferences


async def test_B12_a_claim_that_is_going_is_not_used_again() -> None:
    async with house(CONTROLLER) as built:
        old = PersistentVolumeClaim()
        old.metadata.name, old.metadata.namespace = "data-web-0", "default"
        old.metadata.finalizers.append("kubernetes.io/pvc-protection")
        await built.client.create(old)
        await built.client.delete(PersistentVolumeClaim, "data-web-0", "default")
        await built.client.create(stateful_set(1, templates=("data",)))
        await built.run_for(5)
        assert await built.pods() == []
        held = built.client.stored(PersistentVolumeClaim, "data-web-0", "default")
        held.metadata.ClearField("finalizers")
        await built.client.update(held)
        await built.run_for(5)
        assert names(await built.pods()) == ["web-0"]


async def test_a_new_template_rolls_out_from_the_end_and_back_again() -> None:
    async with house(CONTROLLER) as built:
        await built.client.create(stateful_set())
        await run_all(built)
        first = built.client.stored(StatefulSet, "web", "default").status.currentRevision

        def image(name: str) -> Any:
            return lambda spec: setattr(spec.template.spec.containers[0], "image", name)

        await change(built, image("busybox:2"))
        images = {item.metadata.name: item.spec.containers[0].image for item in await built.pods()}
        assert images.get("web-0") == "busybox:1"
        await run_all(built, 12)
        assert {item.spec.containers[0].image for item in await built.pods()} == {"busybox:2"}
        status = built.client.stored(StatefulSet, "web", "default").status
        assert status.currentRevision == status.updateRevision != first
        await change(built, image("busybox:1"))
        await run_all(built, 12)
        assert {item.spec.containers[0].image for item in await built.pods()} == {"busybox:1"}
        assert built.client.stored(StatefulSet, "web", "default").status.currentRevision == first
        revisions = await built.all(ControllerRevision, "default")
        assert sorted(item.revision for item in revisions) == [2, 3]


async def test_old_revisions_beyond_the_limit_go() -> None:
    made = stateful_set(1)
    made.spec.revisionHistoryLimit = 1
    async with house(CONTROLLER) as built:
        await built.client.create(made)
        for number in range(2, 6):
            await run_all(built, 4)
            await change(
                built,
                lambda spec, number=number: setattr(spec.template.spec.containers[0], "image", f"busybox:{number}"),
            )
        await run_all(built)
        assert sorted(item.revision for item in await built.all(ControllerRevision, "default")) == [4, 5]


async def test_a_failed_pod_is_made_again() -> None:
    async with house(CONTROLLER) as built:
        await built.client.create(stateful_set(1))
        await run_all(built)
        ended = (await built.pods())[0]
        ended.status.phase = "Failed"
        await built.client.update_status(ended)
        await run_all(built)
        again = (await built.pods())[0]
        assert again.metadata.uid != ended.metadata.uid
        assert "RecreatingFailedPod" in built.events.reasons()


async def test_a_refused_pod_is_told_of_and_tried_again() -> None:
    async with house(CONTROLLER) as built:
        built.client.server.fail("Create", Pod, Forbidden("over quota"))
        await built.client.create(stateful_set(1))
        await built.settle()
        assert ("Warning", "FailedCreate") in {(kind, reason) for kind, reason, _ in built.events.seen}
        await built.run_for(5)
        assert names(await built.pods()) == ["web-0"]


async def test_pods_of_its_name_that_nobody_owns_are_adopted() -> None:
    orphan = Pod()
    orphan.metadata.name, orphan.metadata.namespace = "web-0", "default"
    orphan.metadata.labels["app"] = "web"
    orphan.status.phase = "Pending"
    async with house(CONTROLLER) as built:
        await built.client.create(orphan)
        await built.client.create(stateful_set(1))
        await built.run_for(3)
        adopted = (await built.pods())[0]
        assert adopted.metadata.ownerReferences[0].name == "web"
        assert adopted.metadata.labels["statefulset.kubernetes.io/pod-name"] == "web-0"


def test_a_revision_is_the_patch_that_kubectl_sends_back() -> None:
    made = stateful_set()
    revision = make_revision(STATEFUL_SETS, made, 1, 0)
    assert b'"$patch":"replace"' in revision.data.raw
    assert fingerprint(template_of(revision)) == fingerprint(made.spec.template)
    assert make_revision(STATEFUL_SETS, made, 1, 1).metadata.name != revision.metadata.name


async def test_M15_a_set_that_is_going_gets_no_revision_anew() -> None:
    """The simulation's seed 2: the garbage collector and we undid each other's work for ever."""
    async with house(CONTROLLER) as built:
        await built.client.create(stateful_set())
        await run_all(built)

        stored = built.client.stored(StatefulSet, "web", "default")
        stored.metadata.finalizers.append("foregroundDeletion")
        await built.client.update(stored)
        await built.client.delete(StatefulSet, "web", "default")
        for revision in await built.all(ControllerRevision, "default"):
            await built.client.delete(ControllerRevision, revision.metadata.name, "default")
        pod = (await built.pods())[0]
        await built.client.delete(Pod, pod.metadata.name, "default", grace_period_s=0)
        await built.settle()
        assert await built.all(ControllerRevision, "default") == []
        left = built.client.stored(StatefulSet, "web", "default")
        assert left.status.replicas == 1
