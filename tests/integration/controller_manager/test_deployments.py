"""Deployments and ReplicaSets on the real API server: what holds at every event, and cases of conformance."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from tests.integration.controller_manager.conftest import Cluster
from tests.integration.controller_manager.test_controllers import deployment, has, listed
from tests.integration.controller_manager.watched import active, kubelet, serving, watched
from tests.unit.controller_manager.controllers.test_replicaset import replica_set
from tiphys.api.apps.v1 import apps_pb2
from tiphys.api.core.v1 import pod_pb2, service_account_pb2
from tiphys_apimachinery.meta import find_condition
from tiphys_controller_manager.controllers.deployment.revision import HASH_LABEL, REVISION
from tiphys_controller_manager.pods import PodView, pod_view

Deployment, ReplicaSet, Pod = apps_pb2.Deployment, apps_pb2.ReplicaSet, pod_pb2.Pod
SCALE = "/apis/apps/v1/namespaces/default/{}/web/scale"


@pytest.fixture(autouse=True)
async def _account(cluster: Cluster) -> None:
    """Pods need it."""
    await cluster.until(lambda: has(cluster, service_account_pb2.ServiceAccount, "default", "default"))


async def change(cluster: Cluster, **facts: Any) -> None:
    """Change the Deployment web."""
    image = facts.pop("image", None)
    patch: dict[str, Any] = {"spec": facts}
    if image is not None:
        patch["spec"]["template"] = {"spec": {"containers": [{"name": "c", "image": image}]}}
    await cluster.client.patch(Deployment, "web", "default", patch, type="strategic")


async def is_rolled(cluster: Cluster, replicas: int) -> bool:
    found = await cluster.client.get(Deployment, "web", "default")
    status = found.status
    counts = (status.replicas, status.updatedReplicas, status.availableReplicas)
    return status.observedGeneration == found.metadata.generation and counts == (replicas,) * 3


async def sizes(cluster: Cluster) -> dict[str, int]:
    """The sizes of ReplicaSets by their image."""
    found = await listed(cluster, ReplicaSet)
    return {item.spec.template.spec.containers[0].image: item.spec.replicas for item in found}


async def rolled_out(cluster: Cluster, replicas: int = 3, **strategy: int | str) -> None:
    made = deployment(replicas=replicas)
    for name, value in strategy.items():
        if name == "type":
            made.spec.strategy.type = str(value)
        else:
            getattr(made.spec.strategy.rollingUpdate, name).intVal = int(value)
    await cluster.client.create(made)
    await cluster.until(lambda: is_rolled(cluster, replicas))


def within(low: int, high: int) -> Any:
    """A check of the bounds of a rollout."""

    def check(pods: list[PodView]) -> str:
        there, well = len(active(pods)), len(serving(pods))
        return f"{there} pods, {well} ready" if there > high or well < low else ""

    return check


async def test_B6_an_update_of_ten_keeps_within_eight_and_thirteen_at_every_event(cluster: Cluster) -> None:
    async with kubelet(cluster):
        await rolled_out(cluster, 10)
        async with watched(cluster, within(8, 13)) as seen:
            await change(cluster, image="busybox:2")
            await cluster.until(lambda: is_rolled(cluster, 10))
        assert len(seen.made) == 10
        # Each new pod came and was made ready, each old one went.
        assert seen.events >= 30


@pytest.mark.parametrize(
    ("bounds", "low", "high"),
    [
        pytest.param({"maxSurge": 1, "maxUnavailable": 0}, 4, 5, id="one more"),
        pytest.param({"maxSurge": 0, "maxUnavailable": 1}, 3, 4, id="one less"),
        pytest.param({"maxSurge": 4, "maxUnavailable": 4}, 0, 8, id="all at once"),
    ],
)
async def test_B6_bounds_of_other_strategies_hold_too(
    cluster: Cluster, bounds: dict[str, int], low: int, high: int
) -> None:
    async with kubelet(cluster):
        await rolled_out(cluster, 4, **bounds)
        async with watched(cluster, within(low, high)):
            await change(cluster, image="busybox:2")
            await cluster.until(lambda: is_rolled(cluster, 4))


async def test_B7_undo_brings_the_template_back_as_it_was_and_the_history_is_short(cluster: Cluster) -> None:
    async with kubelet(cluster):
        await rolled_out(cluster, 2)
        before = (await cluster.client.get(Deployment, "web", "default")).spec.template
        for number in range(2, 14):
            await change(cluster, image=f"busybox:{number}")
            await cluster.until(lambda: is_rolled(cluster, 2))

        async def is_short() -> bool:
            # Ten old ones and the one that is now.
            return len(await listed(cluster, ReplicaSet)) == 11

        await cluster.until(is_short)
        oldest = min(await listed(cluster, ReplicaSet), key=lambda item: int(item.metadata.annotations[REVISION]))
        template = pod_pb2.PodTemplateSpec()
        template.CopyFrom(oldest.spec.template)
        del template.metadata.labels[HASH_LABEL]
        stored = await cluster.client.get(Deployment, "web", "default")
        stored.spec.template.CopyFrom(template)
        await cluster.client.update(stored)
        await cluster.until(lambda: is_rolled(cluster, 2))
        restored = (await cluster.client.get(Deployment, "web", "default")).spec.template
        before.spec.containers[0].image = template.spec.containers[0].image
        assert restored.SerializeToString(deterministic=True) == before.SerializeToString(deterministic=True)
        again = {item.metadata.name: item.metadata.annotations[REVISION] for item in await listed(cluster, ReplicaSet)}
        assert again[oldest.metadata.name] == "14"


async def test_B7_a_paused_deployment_does_not_roll_until_it_is_resumed(cluster: Cluster) -> None:
    async with kubelet(cluster):
        await rolled_out(cluster, 2)
        await change(cluster, paused=True)
        async with watched(cluster) as seen:
            await change(cluster, image="busybox:2")
            await change(cluster, replicas=3)
            await cluster.until(lambda: _has_sizes(cluster, {"busybox:1": 3}))
            await cluster.until(lambda: _is_told(cluster, "DeploymentPaused"))
            await change(cluster, paused=False)
            await cluster.until(lambda: is_rolled(cluster, 3))
        assert len(seen.made) == 1 + 3


async def _has_sizes(cluster: Cluster, wanted: dict[str, int]) -> bool:
    return await sizes(cluster) == wanted


async def _is_told(cluster: Cluster, reason: str) -> bool:
    status = (await cluster.client.get(Deployment, "web", "default")).status
    found: Any = find_condition(status.conditions, "Progressing")
    return found is not None and found.reason == reason


async def test_B8_recreate_has_no_instant_with_both_revisions(cluster: Cluster) -> None:
    def check(pods: list[PodView]) -> str:
        revisions = Counter(pod.labels[HASH_LABEL] for pod in pods)
        return f"both run: {dict(revisions)}" if len(revisions) > 1 else ""

    async with kubelet(cluster):
        await rolled_out(cluster, 4, type="Recreate")
        async with watched(cluster, check) as seen:
            await change(cluster, image="busybox:2")
            await cluster.until(lambda: is_rolled(cluster, 4))
        assert (len(seen.gone), len(seen.made)) == (4, 4)


async def test_B9_scaling_in_the_middle_of_a_rollout_is_shared_out_in_proportion(cluster: Cluster) -> None:
    """Source: conformance, Deployment should support proportional scaling."""
    async with kubelet(cluster):
        await rolled_out(cluster, 10, maxSurge=3, maxUnavailable=2)
    # Nobody makes the new pods ready: the rollout stands.
    await change(cluster, image="busybox:404")
    await cluster.until(lambda: _has_sizes(cluster, {"busybox:1": 8, "busybox:404": 5}))
    await change(cluster, replicas=30)
    await cluster.until(lambda: _has_sizes(cluster, {"busybox:1": 20, "busybox:404": 13}))


async def test_B9_a_rollout_that_is_overtaken_is_left_and_its_pods_go_first(cluster: Cluster) -> None:
    """Source: conformance, Deployment should support rollover."""
    async with kubelet(cluster):
        await rolled_out(cluster, 4, maxSurge=1, maxUnavailable=0)
    async with watched(cluster, within(4, 5)):
        await change(cluster, image="busybox:404")
        await cluster.until(lambda: _has_sizes(cluster, {"busybox:1": 4, "busybox:404": 1}))
        await change(cluster, image="busybox:3")
        # The pod that never worked makes room for the one that will.
        await cluster.until(lambda: _has_sizes(cluster, {"busybox:1": 4, "busybox:404": 0, "busybox:3": 1}))
        async with kubelet(cluster):
            await cluster.until(lambda: is_rolled(cluster, 4))
    assert await sizes(cluster) == {"busybox:1": 0, "busybox:404": 0, "busybox:3": 4}


async def test_B5_no_progress_within_the_deadline_is_said_and_progress_takes_it_back(cluster: Cluster) -> None:
    made = deployment(replicas=1)
    made.spec.progressDeadlineSeconds = 1
    await cluster.client.create(made)
    await cluster.until(lambda: _is_told(cluster, "ProgressDeadlineExceeded"))
    async with kubelet(cluster):
        await cluster.until(lambda: _is_told(cluster, "NewReplicaSetAvailable"))


async def test_B5_each_template_has_a_set_of_its_own_with_hash_and_revision(cluster: Cluster) -> None:
    async with kubelet(cluster):
        await rolled_out(cluster, 1)
        await change(cluster, image="busybox:2")
        await cluster.until(lambda: is_rolled(cluster, 1))
    found = {item.spec.template.spec.containers[0].image: item for item in await listed(cluster, ReplicaSet)}
    assert [found[image].metadata.annotations[REVISION] for image in ("busybox:1", "busybox:2")] == ["1", "2"]
    for item in found.values():
        code = item.metadata.labels[HASH_LABEL]
        assert item.metadata.name == f"web-{code}"
        assert item.spec.selector.matchLabels[HASH_LABEL] == item.spec.template.metadata.labels[HASH_LABEL] == code
    assert (await cluster.client.get(Deployment, "web", "default")).metadata.annotations[REVISION] == "2"


@pytest.mark.parametrize("plural", ["deployments", "replicasets"])
async def test_B10_a_scale_of_another_version_than_was_looked_at_is_refused(cluster: Cluster, plural: str) -> None:
    made = deployment(replicas=1) if plural == "deployments" else replica_set(replicas=1)
    await cluster.client.create(made)
    path = SCALE.format(plural)

    async def scaled() -> Any:
        """What was looked at before it was scaled; again where the controller wrote a status meanwhile."""
        looked = (await cluster.server.http("GET", path)).json()
        assert (looked["kind"], looked["spec"]["replicas"]) == ("Scale", 1)
        reply = await cluster.server.http("PUT", path, {**looked, "spec": {"replicas": 2}})
        return looked if reply.status == 200 else None

    looked = await cluster.until(scaled)
    # As `kubectl scale --resource-version` and `--current-replicas` send it.
    assert (await cluster.server.http("PUT", path, {**looked, "spec": {"replicas": 9}})).status == 409

    async def has_two() -> bool:
        return len(await listed(cluster, Pod)) == 2

    await cluster.until(has_two)


async def test_B4_thirty_of_a_hundred_pods_deleted_at_once_come_back_and_never_one_too_many(cluster: Cluster) -> None:
    async def count() -> int:
        return len(active(pod_view(pod) for pod in await listed(cluster, Pod)))

    async def all_there() -> bool:
        return await count() == 100

    await cluster.client.create(replica_set(replicas=100))
    await cluster.until(all_there)
    async with watched(cluster, within(0, 100)) as seen:
        for pod in (await listed(cluster, Pod))[:30]:
            await cluster.client.delete(Pod, pod.metadata.name, "default", grace_period_s=0)

        async def is_back() -> bool:
            return len(seen.made) >= 30 and await all_there()

        await cluster.until(is_back)
        # Whoever made one too many would do it in the rounds after the last event.
        await cluster.until(lambda: _is_settled(cluster, 100))
    assert (len(seen.gone), len(seen.made)) == (30, 30)


async def _is_settled(cluster: Cluster, replicas: int) -> bool:
    found = await cluster.client.get(ReplicaSet, "web", "default")
    return bool(found.status.replicas == replicas and found.status.observedGeneration == found.metadata.generation)


async def test_B4_a_matching_orphan_is_adopted_and_one_that_matches_no_more_is_released(cluster: Cluster) -> None:
    """Source: conformance, ReplicaSet should adopt matching pods on creation and release no longer matching pods."""
    orphan = Pod()
    orphan.metadata.name, orphan.metadata.namespace = "orphan", "default"
    orphan.metadata.labels["app"] = "web"
    orphan.spec.containers.add(name="c", image="busybox")
    await cluster.client.create(orphan)
    await cluster.client.create(replica_set(replicas=1))

    async def owners() -> list[str]:
        found = await cluster.client.get(Pod, "orphan", "default")
        return [owner.name for owner in found.metadata.ownerReferences if owner.controller]

    await cluster.until(owners)
    assert [pod.metadata.name for pod in await listed(cluster, Pod)] == ["orphan"]
    patch = {"metadata": {"labels": {"app": "not-web"}}}
    await cluster.client.patch(Pod, "orphan", "default", patch)

    async def is_released() -> bool:
        return not await owners() and len(await listed(cluster, Pod)) == 2

    await cluster.until(is_released)


async def test_B4_pods_beyond_a_quota_show_in_the_conditions_until_there_is_room(cluster: Cluster) -> None:
    """Source: conformance, ReplicaSet should surface a failure condition on a common issue like exceeded quota."""
    quotas = "/api/v1/namespaces/default/resourcequotas"
    body = {"metadata": {"name": "few"}, "spec": {"hard": {"pods": "2"}}}
    assert (await cluster.server.http("POST", quotas, body)).status == 201

    async def is_counted() -> bool:
        return "used" in (await cluster.server.http("GET", f"{quotas}/few")).json().get("status", {})

    await cluster.until(is_counted)
    await cluster.client.create(replica_set(replicas=3))

    async def failure() -> Any:
        status = (await cluster.client.get(ReplicaSet, "web", "default")).status
        return find_condition(status.conditions, "ReplicaFailure")

    found = await cluster.until(failure)
    assert (found.status, found.reason) == ("True", "FailedCreate")
    assert "exceeded quota" in found.message
    await cluster.client.patch(ReplicaSet, "web", "default", {"spec": {"replicas": 2}})

    async def is_well() -> bool:
        return await failure() is None

    await cluster.until(is_well)


async def test_B4_pods_go_by_readiness_age_and_cost(cluster: Cluster) -> None:
    await cluster.client.create(replica_set(replicas=4))

    async def four() -> bool:
        return len(await listed(cluster, Pod)) == 4

    await cluster.until(four)
    await cluster.run_pods()
    cheap, dear = sorted(pod.metadata.name for pod in await listed(cluster, Pod))[:2]
    cost = "controller.kubernetes.io/pod-deletion-cost"
    await cluster.client.patch(Pod, cheap, "default", {"metadata": {"annotations": {cost: "-5"}}})
    await cluster.client.patch(Pod, dear, "default", {"metadata": {"annotations": {cost: "5"}}})

    async def left(replicas: int) -> set[str]:
        await cluster.client.patch(ReplicaSet, "web", "default", {"spec": {"replicas": replicas}})

        async def names() -> set[str]:
            found = {pod.metadata.name for pod in await listed(cluster, Pod) if pod_view(pod).is_active}
            return found if len(found) == replicas else set()

        found: set[str] = await cluster.until(names)
        return found

    assert cheap not in await left(3)
    assert await left(1) == {dear}
