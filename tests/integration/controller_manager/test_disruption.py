"""Budgets and evictions together, on the real API server, with owners of a kind that was defined at run time."""

from __future__ import annotations

from typing import Any

import pytest

from tests.integration.controller_manager.conftest import Cluster
from tests.integration.controller_manager.test_controllers import deployment, has, listed
from tiphys.api.core.v1 import pod_pb2, service_account_pb2
from tiphys.api.policy.v1 import policy_pb2
from tiphys_apimachinery.errors import TooManyRequests
from tiphys_apimachinery.meta import is_being_deleted

SCHEMA = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
SCALE = {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"}
DEFINITION = {
    "metadata": {"name": "rings.example.com"},
    "spec": {
        "group": "example.com",
        "scope": "Namespaced",
        "names": {"plural": "rings", "singular": "ring", "kind": "Ring"},
        "versions": [
            {"name": "v1", "served": True, "storage": True, "schema": SCHEMA, "subresources": {"scale": SCALE}}
        ],
    },
}


def budget(**amounts: int) -> policy_pb2.PodDisruptionBudget:
    made = policy_pb2.PodDisruptionBudget()
    made.metadata.name, made.metadata.namespace = "b", "default"
    made.spec.selector.matchLabels["app"] = "web"
    for name, amount in amounts.items():
        getattr(made.spec, name).intVal = amount
    return made


async def allowed(cluster: Cluster) -> Any:
    return (await cluster.client.get(policy_pb2.PodDisruptionBudget, "b", "default")).status


async def evict(cluster: Cluster, pod: pod_pb2.Pod) -> None:
    eviction = policy_pb2.Eviction()
    eviction.metadata.name, eviction.metadata.namespace = pod.metadata.name, "default"
    await cluster.client.post(pod_pb2.Pod, "Evict", pod.metadata.name, "default", body=eviction)


async def live(cluster: Cluster) -> list[pod_pb2.Pod]:
    return [pod for pod in await listed(cluster, pod_pb2.Pod) if not is_being_deleted(pod)]


async def test_B33_evictions_wait_for_the_pods_that_come_in_place(cluster: Cluster) -> None:
    await cluster.until(lambda: has(cluster, service_account_pb2.ServiceAccount, "default", "default"))
    await cluster.client.create(deployment(replicas=2))
    await cluster.client.create(budget(maxUnavailable=1))

    async def may_go() -> bool:
        await cluster.run_pods()
        return bool((await allowed(cluster)).disruptionsAllowed == 1)

    await cluster.until(may_go)
    first, second = await live(cluster)
    await evict(cluster, first)
    with pytest.raises(TooManyRequests):
        await evict(cluster, second)

    await cluster.until(may_go)
    await evict(cluster, second)
    await cluster.until(may_go)
    assert not {first.metadata.uid, second.metadata.uid} & {pod.metadata.uid for pod in await live(cluster)}


async def test_B33_owners_of_a_defined_kind_say_by_their_scale_how_many_there_should_be(cluster: Cluster) -> None:
    await cluster.until(lambda: has(cluster, service_account_pb2.ServiceAccount, "default", "default"))
    server = cluster.server
    reply = await server.http("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", DEFINITION)
    assert reply.status == 201, reply.body
    rings = "/apis/example.com/v1/namespaces/default/rings"
    body = {"apiVersion": "example.com/v1", "kind": "Ring", "metadata": {"name": "r"}, "spec": {"replicas": 5}}

    async def create() -> Any:
        made = await server.http("POST", rings, body)
        return made.json() if made.status == 201 else None

    ring = await cluster.until(create)
    made = pod_pb2.Pod()
    made.metadata.name, made.metadata.namespace = "r-0", "default"
    made.metadata.labels["app"] = "web"
    made.metadata.ownerReferences.add(
        apiVersion="example.com/v1", kind="Ring", name="r", uid=ring["metadata"]["uid"], controller=True
    )
    made.spec.containers.add(name="c", image="busybox")
    await cluster.client.create(made)
    await cluster.client.create(budget(maxUnavailable=4))

    async def is_counted() -> bool:
        await cluster.run_pods()
        status = await allowed(cluster)
        return (status.expectedPods, status.desiredHealthy, status.currentHealthy) == (5, 1, 1)

    await cluster.until(is_counted)
