"""The controllers against the real API server, with the rights that the bootstrap roles give them."""

from __future__ import annotations

from typing import Any

from tests.integration.controller_manager.conftest import Cluster
from tiphys.api.apps.v1 import apps_pb2
from tiphys.api.core.v1 import config_map_pb2, namespace_pb2, node_pb2, pod_pb2, service_account_pb2, service_pb2
from tiphys.api.discovery.v1 import discovery_pb2
from tiphys_apimachinery.errors import NotFound


def deployment(name: str = "web", namespace: str = "default", replicas: int = 3) -> apps_pb2.Deployment:
    made = apps_pb2.Deployment()
    made.metadata.name, made.metadata.namespace = name, namespace
    made.spec.replicas = replicas
    made.spec.selector.matchLabels["app"] = name
    made.spec.template.metadata.labels["app"] = name
    made.spec.template.spec.containers.add(name="c", image="busybox:1")
    return made


async def absent(cluster: Cluster, cls: type[Any], name: str, namespace: str = "") -> bool:
    try:
        await cluster.client.get(cls, name, namespace)
    except NotFound:
        return True
    return False


async def listed(cluster: Cluster, cls: type[Any], namespace: str = "default") -> list[Any]:
    return list((await cluster.client.list(cls, namespace)).items)


async def test_each_namespace_gets_its_account_and_the_authority(cluster: Cluster) -> None:
    made = namespace_pb2.Namespace()
    made.metadata.name = "shop"
    await cluster.client.create(made)
    account = service_account_pb2.ServiceAccount
    await cluster.until(lambda: has(cluster, account, "default", "shop"))
    await cluster.until(lambda: has(cluster, config_map_pb2.ConfigMap, "kube-root-ca.crt", "shop"))


async def has(cluster: Cluster, cls: type[Any], name: str, namespace: str) -> bool:
    return not await absent(cluster, cls, name, namespace)


async def test_a_node_gets_a_range(cluster: Cluster) -> None:
    for name in ("n1", "n2"):
        made = node_pb2.Node()
        made.metadata.name = name
        await cluster.client.create(made)

    async def ranges() -> list[str]:
        found = [node.spec.podCIDR for node in await listed(cluster, node_pb2.Node, "")]
        return found if all(found) else []

    assert sorted(await cluster.until(ranges)) == ["10.244.0.0/24", "10.244.1.0/24"]


async def test_a_deployment_rolls_and_its_service_follows(cluster: Cluster) -> None:
    await cluster.until(lambda: has(cluster, service_account_pb2.ServiceAccount, "default", "default"))
    service = service_pb2.Service()
    service.metadata.name, service.metadata.namespace = "web", "default"
    service.spec.selector["app"] = "web"
    service.spec.ports.add(port=80, protocol="TCP")
    await cluster.client.create(service)
    await cluster.client.create(deployment())

    async def rolled(image: str) -> bool:
        await cluster.run_pods()
        status = (await cluster.client.get(apps_pb2.Deployment, "web", "default")).status
        pods = await listed(cluster, pod_pb2.Pod)
        images = {pod.spec.containers[0].image for pod in pods}
        return images == {image} and (status.updatedReplicas, status.availableReplicas, status.replicas) == (3, 3, 3)

    await cluster.until(lambda: rolled("busybox:1"))
    obj = await cluster.client.get(apps_pb2.Deployment, "web", "default")
    obj.spec.template.spec.containers[0].image = "busybox:2"
    await cluster.client.update(obj)
    await cluster.until(lambda: rolled("busybox:2"))

    async def ready_endpoints() -> bool:
        slices = [
            item for item in await listed(cluster, discovery_pb2.EndpointSlice) if item.metadata.name != "kubernetes"
        ]
        endpoints = [endpoint for item in slices for endpoint in item.endpoints]
        names = {pod.metadata.name for pod in await listed(cluster, pod_pb2.Pod)}
        return all(e.conditions.ready for e in endpoints) and {e.targetRef.name for e in endpoints} == names

    await cluster.until(ready_endpoints)
    sets = await listed(cluster, apps_pb2.ReplicaSet)
    assert len(sets) == 2
    obj = await cluster.client.get(apps_pb2.Deployment, "web", "default")
    assert obj.metadata.annotations["deployment.kubernetes.io/revision"] == "2"


async def test_a_deleted_namespace_is_emptied_and_goes(cluster: Cluster) -> None:
    made = namespace_pb2.Namespace()
    made.metadata.name = "shop"
    await cluster.client.create(made)
    await cluster.until(lambda: has(cluster, service_account_pb2.ServiceAccount, "default", "shop"))
    await cluster.client.create(deployment(namespace="shop"))
    await cluster.until(lambda: listed(cluster, pod_pb2.Pod, "shop"))
    await cluster.client.delete(namespace_pb2.Namespace, "shop")

    async def gone() -> bool:
        await cluster.run_pods("shop")
        return await absent(cluster, namespace_pb2.Namespace, "shop")

    await cluster.until(gone)
    assert await listed(cluster, config_map_pb2.ConfigMap, "shop") == []


async def test_A35_a_deleted_deployment_takes_its_sets_and_pods_along(cluster: Cluster) -> None:
    await cluster.until(lambda: has(cluster, service_account_pb2.ServiceAccount, "default", "default"))
    await cluster.client.create(deployment())

    async def has_pods() -> bool:
        return len(await listed(cluster, pod_pb2.Pod)) == 3

    await cluster.until(has_pods)
    await cluster.client.delete(apps_pb2.Deployment, "web", "default", propagation="Background")

    async def gone() -> bool:
        await cluster.run_pods()
        return not await listed(cluster, apps_pb2.ReplicaSet) and not await listed(cluster, pod_pb2.Pod)

    await cluster.until(gone)


async def test_A35_foreground_deletion_waits_for_the_pods(cluster: Cluster) -> None:
    await cluster.until(lambda: has(cluster, service_account_pb2.ServiceAccount, "default", "default"))
    await cluster.client.create(deployment())

    async def has_pods() -> bool:
        return len(await listed(cluster, pod_pb2.Pod)) == 3

    await cluster.until(has_pods)
    for pod in await listed(cluster, pod_pb2.Pod):
        pod.metadata.finalizers.append("example.com/hold")
        await cluster.client.update(pod)
    await cluster.client.delete(apps_pb2.Deployment, "web", "default", propagation="Foreground")

    async def pods_go() -> bool:
        return all(pod.metadata.HasField("deletionTimestamp") for pod in await listed(cluster, pod_pb2.Pod))

    await cluster.until(pods_go)
    assert await has(cluster, apps_pb2.Deployment, "web", "default")
    for pod in await listed(cluster, pod_pb2.Pod):
        await cluster.client.patch(pod_pb2.Pod, pod.metadata.name, "default", {"metadata": {"finalizers": None}})
    await cluster.until(lambda: absent(cluster, apps_pb2.Deployment, "web", "default"))
    assert await listed(cluster, pod_pb2.Pod) == []


async def test_A35_orphaned_pods_stay(cluster: Cluster) -> None:
    await cluster.until(lambda: has(cluster, service_account_pb2.ServiceAccount, "default", "default"))
    await cluster.client.create(deployment())

    async def has_pods() -> bool:
        return len(await listed(cluster, pod_pb2.Pod)) == 3

    await cluster.until(has_pods)
    await cluster.client.delete(apps_pb2.Deployment, "web", "default", propagation="Orphan")
    await cluster.until(lambda: absent(cluster, apps_pb2.Deployment, "web", "default"))
    (item,) = await listed(cluster, apps_pb2.ReplicaSet)
    assert not item.metadata.ownerReferences
    assert len(await listed(cluster, pod_pb2.Pod)) == 3


async def test_a_node_that_becomes_ready_loses_its_taint(cluster: Cluster) -> None:
    made = node_pb2.Node()
    made.metadata.name = "n1"
    stored = await cluster.client.create(made)
    assert [taint.key for taint in stored.spec.taints] == ["node.kubernetes.io/not-ready"]
    await cluster.until(lambda: has(cluster, node_pb2.Node, "n1", ""))
    stored = await cluster.client.get(node_pb2.Node, "n1")
    stored.ClearField("status")
    stored.metadata.ClearField("resourceVersion")
    stored.status.conditions.add(type="Ready", status="True", reason="KubeletReady", message="up")
    await cluster.client.update_status(stored)

    async def is_clean() -> bool:
        return not (await cluster.client.get(node_pb2.Node, "n1")).spec.taints

    await cluster.until(is_clean)


async def test_a_taint_evicts_pods_with_the_rights_we_have(cluster: Cluster) -> None:
    await cluster.until(lambda: has(cluster, service_account_pb2.ServiceAccount, "default", "default"))
    made = node_pb2.Node()
    made.metadata.name = "n1"
    await cluster.client.create(made)
    pod = pod_pb2.Pod()
    pod.metadata.name, pod.metadata.namespace = "p1", "default"
    pod.spec.nodeName = "n1"
    pod.spec.containers.add(name="c", image="busybox")
    await cluster.client.create(pod)
    taint = {"key": "broken", "effect": "NoExecute"}
    await cluster.client.patch(node_pb2.Node, "n1", "", {"spec": {"taints": [taint]}})

    async def is_ending() -> bool:
        stored = await cluster.client.get(pod_pb2.Pod, "p1", "default")
        reasons = [condition.reason for condition in stored.status.conditions]
        return stored.metadata.HasField("deletionTimestamp") and "DeletionByTaintManager" in reasons

    await cluster.until(is_ending)


async def test_pods_that_were_never_scheduled_end_with_their_owner(cluster: Cluster) -> None:
    await cluster.until(lambda: has(cluster, service_account_pb2.ServiceAccount, "default", "default"))
    await cluster.client.create(deployment(replicas=2))

    async def has_pods() -> bool:
        return len(await listed(cluster, pod_pb2.Pod)) == 2

    await cluster.until(has_pods)
    await cluster.client.delete(apps_pb2.Deployment, "web", "default")

    async def gone() -> bool:
        return not await listed(cluster, pod_pb2.Pod)

    await cluster.until(gone)
