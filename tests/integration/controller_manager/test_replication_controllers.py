"""ReplicationControllers on a real API server: what Kubernetes' own six conformance tests of them ask for."""

from __future__ import annotations

from typing import Any

from tests.integration.controller_manager.conftest import Cluster
from tiphys.api.core.v1 import pod_pb2, replication_controller_pb2, resource_quota_pb2
from tiphys_apimachinery.codec.json_codec import from_json
from tiphys_apimachinery.meta import find_condition, get_controller_of

ReplicationController = replication_controller_pb2.ReplicationController


def controller(name: str, replicas: int) -> ReplicationController:
    """Without a selector: that of the template's labels is the default."""
    pod = {"metadata": {"labels": {"name": name}}, "spec": {"containers": [{"name": "c", "image": "busybox"}]}}
    spec = {"replicas": replicas, "template": pod}
    return from_json(ReplicationController, {"metadata": {"name": name, "namespace": "default"}, "spec": spec})


async def pods(cluster: Cluster) -> list[Any]:
    return (await cluster.client.list(pod_pb2.Pod, "default")).items


async def test_B3_a_controller_lives_scales_and_takes_its_pods_along(cluster: Cluster) -> None:
    await cluster.client.create(controller("web", 2))

    async def ready(count: int) -> bool:
        await cluster.run_pods()
        found = await cluster.client.get(ReplicationController, "web", "default")
        return found.status.availableReplicas == count == len(await pods(cluster))

    await cluster.until(lambda: ready(2))
    await cluster.client.patch(ReplicationController, "web", "default", {"spec": {"replicas": 3}})
    await cluster.until(lambda: ready(3))
    await cluster.client.patch(ReplicationController, "web", "default", {"spec": {"replicas": 1}})
    await cluster.until(lambda: ready(1))
    await cluster.client.delete(ReplicationController, "web", "default", propagation="Background")

    async def empty() -> bool:
        await cluster.run_pods()
        return not await pods(cluster)

    await cluster.until(empty)


async def test_B3_a_controller_adopts_what_matches_and_releases_what_does_not(cluster: Cluster) -> None:
    orphan = from_json(
        pod_pb2.Pod,
        {
            "metadata": {"name": "orphan", "namespace": "default", "labels": {"name": "web"}},
            "spec": {"containers": [{"name": "c", "image": "busybox"}]},
        },
    )
    await cluster.client.create(orphan)
    await cluster.client.create(controller("web", 1))

    async def owner() -> Any:
        return get_controller_of(await cluster.client.get(pod_pb2.Pod, "orphan", "default"))

    reference = await cluster.until(owner)
    assert (reference.kind, reference.name) == ("ReplicationController", "web")
    await cluster.client.patch(pod_pb2.Pod, "orphan", "default", {"metadata": {"labels": {"name": "other"}}})

    async def released() -> bool:
        return await owner() is None and len(await pods(cluster)) == 2

    await cluster.until(released)


async def test_B3_a_quota_that_is_used_up_is_told_as_a_condition(cluster: Cluster) -> None:
    quota = from_json(
        resource_quota_pb2.ResourceQuota,
        {"metadata": {"name": "two", "namespace": "default"}, "spec": {"hard": {"pods": "2"}}},
    )
    await cluster.client.create(quota)

    async def counted() -> bool:
        found = await cluster.client.get(resource_quota_pb2.ResourceQuota, "two", "default")
        return "pods" in found.status.used

    await cluster.until(counted)
    await cluster.client.create(controller("web", 3))

    async def failure() -> Any:
        found = await cluster.client.get(ReplicationController, "web", "default")
        return find_condition(found.status.conditions, "ReplicaFailure")

    assert (await cluster.until(failure)).reason == "FailedCreate"
    await cluster.client.patch(ReplicationController, "web", "default", {"spec": {"replicas": 2}})

    async def well() -> bool:
        return await failure() is None

    await cluster.until(well)
