"""StatefulSets on the real API server: the order of pods at every event, updates, canaries, cases of conformance."""

from __future__ import annotations

from typing import Any

import pytest

from tests.integration.controller_manager.conftest import Cluster
from tests.integration.controller_manager.test_controllers import has, listed
from tests.integration.controller_manager.watched import kubelet, watched
from tests.unit.controller_manager.controllers.test_statefulset import stateful_set
from tiphys.api.apps.v1 import apps_pb2
from tiphys.api.core.v1 import persistent_volume_claim_pb2, pod_pb2, service_account_pb2
from tiphys_apimachinery.meta import is_being_deleted
from tiphys_controller_manager.controllers.statefulset.plan import REVISION_LABEL
from tiphys_controller_manager.pods import PodView

StatefulSet = apps_pb2.StatefulSet
Pod = pod_pb2.Pod
Claim = persistent_volume_claim_pb2.PersistentVolumeClaim


@pytest.fixture(autouse=True)
async def _account(cluster: Cluster) -> None:
    """Pods need it."""
    await cluster.until(lambda: has(cluster, service_account_pb2.ServiceAccount, "default", "default"))


async def change(cluster: Cluster, **spec: Any) -> None:
    """Change the StatefulSet web."""
    image = spec.pop("image", None)
    if image is not None:
        spec["template"] = {"spec": {"containers": [{"name": "c", "image": image}]}}
    await cluster.client.patch(StatefulSet, "web", "default", {"spec": spec}, type="strategic")


async def found(cluster: Cluster) -> StatefulSet:
    return await cluster.client.get(StatefulSet, "web", "default")


async def is_ready(cluster: Cluster, replicas: int) -> bool:
    stored = await found(cluster)
    status = stored.status
    is_seen = status.observedGeneration == stored.metadata.generation
    return is_seen and status.replicas == status.readyReplicas == replicas


async def images(cluster: Cluster) -> dict[str, str]:
    pods = await listed(cluster, Pod)
    return {pod.metadata.name: pod.spec.containers[0].image for pod in pods if not is_being_deleted(pod)}


def one_of_each_name(pods: list[PodView]) -> str:
    names = [pod.name for pod in pods]
    return f"two of one name: {names}" if len(set(names)) < len(names) else ""


def in_order(pods: list[PodView]) -> str:
    """Ascending: nothing stands on what is missing or not ready."""
    numbers = sorted(int(pod.name.rpartition("-")[2]) for pod in pods)
    if numbers != list(range(len(numbers))):
        return f"a gap: {numbers}"
    unwell = [pod.name for pod in pods if not pod.is_ready and pod.name != f"web-{len(numbers) - 1}"]
    return f"not ready below others: {unwell}" if unwell else one_of_each_name(pods)


async def test_B11_pods_come_in_ascending_and_go_in_descending_order(cluster: Cluster) -> None:
    """Source: conformance, scaling should happen in predictable order."""
    async with kubelet(cluster), watched(cluster, in_order) as seen:
        await cluster.client.create(stateful_set(3))
        await cluster.until(lambda: is_ready(cluster, 3))
        await change(cluster, replicas=0)
        await cluster.until(lambda: is_ready(cluster, 0))
    assert seen.made == ["web-0", "web-1", "web-2"]
    assert seen.gone == ["web-2", "web-1", "web-0"]


async def test_B11_scaling_halts_while_a_pod_is_unwell(cluster: Cluster) -> None:
    """Source: conformance, scaling should halt if any stateful pod is unhealthy."""
    async with kubelet(cluster):
        await cluster.client.create(stateful_set(2))
        await cluster.until(lambda: is_ready(cluster, 2))
    pod = await cluster.client.get(Pod, "web-0", "default")
    pod.status.conditions[0].status = "False"
    await cluster.client.update_status(pod)
    async with watched(cluster) as seen:
        await change(cluster, replicas=3)

        async def is_seen() -> bool:
            stored = await found(cluster)
            return bool(stored.status.observedGeneration == stored.metadata.generation)

        await cluster.until(is_seen)
        assert seen.made == []
        pod = await cluster.client.get(Pod, "web-0", "default")
        pod.status.conditions[0].status = "True"
        await cluster.client.update_status(pod)
        async with kubelet(cluster):
            await cluster.until(lambda: is_ready(cluster, 3))
        assert seen.made == ["web-2"]


async def test_B11_all_at_once_where_order_does_not_matter(cluster: Cluster) -> None:
    """Source: conformance, burst scaling should run to completion even with unhealthy pods."""
    made = stateful_set(3)
    made.spec.podManagementPolicy = "Parallel"
    await cluster.client.create(made)

    async def three() -> bool:
        return len(await listed(cluster, Pod)) == 3

    await cluster.until(three)
    await change(cluster, replicas=1)
    async with kubelet(cluster):
        await cluster.until(lambda: is_ready(cluster, 1))


async def test_B11_a_pod_of_its_name_that_is_anothers_is_waited_for(cluster: Cluster) -> None:
    """Source: conformance, should recreate evicted statefulset."""
    other = Pod()
    other.metadata.name, other.metadata.namespace = "web-0", "default"
    other.spec.containers.add(name="c", image="busybox")
    await cluster.client.create(other)
    await cluster.client.create(stateful_set(1))
    async with watched(cluster, one_of_each_name) as seen:
        await cluster.client.delete(Pod, "web-0", "default", grace_period_s=0)
        async with kubelet(cluster):
            await cluster.until(lambda: is_ready(cluster, 1))
    assert (seen.gone, seen.made) == (["web-0"], ["web-0"])


async def test_B11_numbers_may_start_elsewhere(cluster: Cluster) -> None:
    made = stateful_set(2)
    made.spec.ordinals.start = 5
    async with kubelet(cluster), watched(cluster) as seen:
        await cluster.client.create(made)
        await cluster.until(lambda: is_ready(cluster, 2))
    assert seen.made == ["web-5", "web-6"]


async def test_B13_a_canary_takes_the_new_template_and_the_others_keep_theirs_whoever_dies(cluster: Cluster) -> None:
    """Source: conformance, should perform canary updates and phased rolling updates of template modifications."""
    async with kubelet(cluster), watched(cluster, one_of_each_name):
        await cluster.client.create(stateful_set(3))
        await cluster.until(lambda: is_ready(cluster, 3))
        await change(cluster, updateStrategy={"rollingUpdate": {"partition": 2}}, image="busybox:2")
        canary = {"web-0": "busybox:1", "web-1": "busybox:1", "web-2": "busybox:2"}

        async def has(wanted: dict[str, str]) -> bool:
            return await images(cluster) == wanted and await is_ready(cluster, 3)

        await cluster.until(lambda: has(canary))
        for name in ("web-0", "web-2"):
            before = (await cluster.client.get(Pod, name, "default")).metadata.uid
            await cluster.client.delete(Pod, name, "default", grace_period_s=0)

            async def is_back(name: str = name, before: str = before) -> bool:
                pods: dict[str, str] = {pod.metadata.name: pod.metadata.uid for pod in await listed(cluster, Pod)}
                return pods.get(name, before) != before

            await cluster.until(is_back)
            await cluster.until(lambda: has(canary))
        status = (await found(cluster)).status
        assert status.currentRevision != status.updateRevision
        assert (status.currentReplicas, status.updatedReplicas) == (2, 1)

        await change(cluster, updateStrategy={"rollingUpdate": {"partition": 1}})
        await cluster.until(lambda: has({**canary, "web-1": "busybox:2"}))
        await change(cluster, updateStrategy={"rollingUpdate": {"partition": 0}})
        await cluster.until(lambda: has(dict.fromkeys(canary, "busybox:2")))

        async def is_complete() -> bool:
            status = (await found(cluster)).status
            return bool(status.currentRevision == status.updateRevision and status.currentReplicas == 3)

        await cluster.until(is_complete)


async def test_B13_an_update_goes_from_the_highest_number_down_one_after_another(cluster: Cluster) -> None:
    """Source: conformance, should perform rolling updates and roll backs of template modifications."""

    def one_away(pods: list[PodView]) -> str:
        well = sum(1 for pod in pods if pod.is_ready and not pod.is_deleting)
        return f"{well} ready" if well < 2 else one_of_each_name(pods)

    async with kubelet(cluster):
        await cluster.client.create(stateful_set(3))
        await cluster.until(lambda: is_ready(cluster, 3))
        async with watched(cluster, one_away) as seen:
            await change(cluster, image="busybox:2")

            async def is_rolled(image: str) -> bool:
                return set((await images(cluster)).values()) == {image} and await is_ready(cluster, 3)

            await cluster.until(lambda: is_rolled("busybox:2"))
            assert seen.gone == ["web-2", "web-1", "web-0"]
            await change(cluster, image="busybox:1")
            await cluster.until(lambda: is_rolled("busybox:1"))
    revisions = await listed(cluster, apps_pb2.ControllerRevision)
    assert sorted(item.revision for item in revisions) == [2, 3]


async def test_B13_OnDelete_waits_for_a_hand(cluster: Cluster) -> None:
    made = stateful_set(2)
    made.spec.updateStrategy.Clear()
    made.spec.updateStrategy.type = "OnDelete"
    async with kubelet(cluster):
        await cluster.client.create(made)
        await cluster.until(lambda: is_ready(cluster, 2))
        await change(cluster, image="busybox:2")
        await cluster.until(lambda: is_ready(cluster, 2))
        assert set((await images(cluster)).values()) == {"busybox:1"}
        await cluster.client.delete(Pod, "web-1", "default", grace_period_s=0)

        async def is_mixed() -> bool:
            return await images(cluster) == {"web-0": "busybox:1", "web-1": "busybox:2"}

        await cluster.until(is_mixed)


async def test_B12_claims_are_named_for_their_pods_and_stay_when_these_go(cluster: Cluster) -> None:
    async with kubelet(cluster):
        await cluster.client.create(stateful_set(2, templates=("data",)))
        await cluster.until(lambda: is_ready(cluster, 2))
        before = {item.metadata.name: item.metadata.uid for item in await listed(cluster, Claim)}
        assert sorted(before) == ["data-web-0", "data-web-1"]
        await change(cluster, replicas=0)
        await cluster.until(lambda: is_ready(cluster, 0))
        await change(cluster, replicas=2)
        await cluster.until(lambda: is_ready(cluster, 2))
    assert {item.metadata.name: item.metadata.uid for item in await listed(cluster, Claim)} == before
    pod = await cluster.client.get(Pod, "web-1", "default")
    assert pod.spec.volumes[0].volumeSource.persistentVolumeClaim.claimName == "data-web-1"


async def test_B34_history_of_a_set_is_kept_moved_and_labelled(cluster: Cluster) -> None:
    async with kubelet(cluster):
        await cluster.client.create(stateful_set(1))
        await cluster.until(lambda: is_ready(cluster, 1))
        first = (await found(cluster)).status.currentRevision
        (revision,) = await listed(cluster, apps_pb2.ControllerRevision)
        assert (revision.metadata.name, revision.revision) == (first, 1)
        pod = await cluster.client.get(Pod, "web-0", "default")
        assert pod.metadata.labels[REVISION_LABEL] == first
        uid = pod.metadata.uid
        # What is no template makes no revision and restarts nothing.
        await change(cluster, minReadySeconds=0, revisionHistoryLimit=3)
        await cluster.until(lambda: is_ready(cluster, 1))
        assert len(await listed(cluster, apps_pb2.ControllerRevision)) == 1
        assert (await cluster.client.get(Pod, "web-0", "default")).metadata.uid == uid
