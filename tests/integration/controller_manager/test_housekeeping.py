"""What namespaces and services get by themselves, and get again: an account, the authority, endpoints and an end."""

from __future__ import annotations

from typing import Any

import pytest

from tests.integration.controller_manager.conftest import Cluster
from tests.integration.controller_manager.test_controllers import absent, deployment, has, listed
from tiphys.api.core.v1.config_map_pb2 import ConfigMap
from tiphys.api.core.v1.endpoints_pb2 import Endpoints
from tiphys.api.core.v1.namespace_pb2 import Namespace
from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys.api.core.v1.service_account_pb2 import ServiceAccount
from tiphys.api.core.v1.service_pb2 import Service
from tiphys.api.discovery.v1.discovery_pb2 import EndpointSlice
from tiphys_apimachinery.meta import find_condition, is_condition_true

ROOT_CA = "kube-root-ca.crt"


async def make_namespace(cluster: Cluster, name: str) -> None:
    made = Namespace()
    made.metadata.name = name
    await cluster.client.create(made)
    await cluster.until(lambda: has(cluster, ServiceAccount, "default", name))


def a_pod(name: str, namespace: str, *, finalizer: str = "") -> Pod:
    made = Pod()
    made.metadata.name, made.metadata.namespace = name, namespace
    if finalizer:
        made.metadata.finalizers.append(finalizer)
    made.spec.containers.add(name="c", image="busybox")
    return made


def a_service(namespace: str = "default") -> Service:
    made = Service()
    made.metadata.name, made.metadata.namespace = "web", namespace
    made.spec.selector["app"] = "web"
    made.spec.ports.add(port=80)
    return made


async def test_B26_a_new_namespace_has_its_account_which_comes_again_when_it_is_deleted(cluster: Cluster) -> None:
    await make_namespace(cluster, "shop")
    first = await cluster.client.get(ServiceAccount, "default", "shop")
    await cluster.client.delete(ServiceAccount, "default", "shop")

    async def is_back() -> bool:
        if await absent(cluster, ServiceAccount, "default", "shop"):
            return False
        found = await cluster.client.get(ServiceAccount, "default", "shop")
        return bool(found.metadata.uid != first.metadata.uid)

    await cluster.until(is_back)


async def test_B30_the_published_authority_comes_back_and_is_put_right(cluster: Cluster) -> None:
    await make_namespace(cluster, "shop")
    await cluster.until(lambda: has(cluster, ConfigMap, ROOT_CA, "shop"))
    published = dict((await cluster.client.get(ConfigMap, ROOT_CA, "shop")).data)
    assert "BEGIN CERTIFICATE" in published["ca.crt"]

    async def is_right() -> bool:
        if await absent(cluster, ConfigMap, ROOT_CA, "shop"):
            return False
        return dict((await cluster.client.get(ConfigMap, ROOT_CA, "shop")).data) == published

    await cluster.client.delete(ConfigMap, ROOT_CA, "shop")
    await cluster.until(is_right)
    change = {"data": {"ca.crt": "another", "more": "x"}}
    await cluster.client.patch(ConfigMap, ROOT_CA, "shop", change, type="merge")
    await cluster.until(is_right)


@pytest.mark.parametrize(
    ("cls", "make"),
    [
        pytest.param(Pod, lambda: a_pod("p", "shop"), id="pods"),
        pytest.param(Service, lambda: a_service("shop"), id="services"),
    ],
)
async def test_B25_what_a_namespace_holds_goes_with_it_and_does_not_come_back(
    cluster: Cluster, cls: type[Any], make: Any
) -> None:
    await make_namespace(cluster, "shop")
    await cluster.client.create(make())
    await cluster.client.delete(Namespace, "shop")
    await cluster.until(lambda: absent(cluster, Namespace, "shop"))
    await make_namespace(cluster, "shop")
    assert await listed(cluster, cls, "shop") == []


async def test_B25_pods_that_stay_keep_all_else_in_place_and_the_namespace_says_why(cluster: Cluster) -> None:
    await make_namespace(cluster, "shop")
    await cluster.client.create(a_pod("p", "shop", finalizer="example.com/held"))
    made = ConfigMap()
    made.metadata.name, made.metadata.namespace = "kept", "shop"
    await cluster.client.create(made)
    await cluster.client.delete(Namespace, "shop")

    async def says_why() -> bool:
        found = await cluster.client.get(Namespace, "shop")
        return is_condition_true(found.status.conditions, "NamespaceFinalizersRemaining") and is_condition_true(
            found.status.conditions, "NamespaceContentRemaining"
        )

    await cluster.until(says_why)
    assert not await absent(cluster, ConfigMap, "kept", "shop")
    held = find_condition((await cluster.client.get(Namespace, "shop")).status.conditions, "NamespaceContentRemaining")
    assert held is not None
    assert "pods" in held.message
    await cluster.client.patch(Pod, "p", "shop", {"metadata": {"finalizers": None}}, type="merge")
    await cluster.until(lambda: absent(cluster, Namespace, "shop"))


async def test_B28_a_pod_whose_readiness_fails_leaves_the_slice_and_the_endpoints(cluster: Cluster) -> None:
    await cluster.until(lambda: has(cluster, ServiceAccount, "default", "default"))
    await cluster.client.create(a_service())
    await cluster.client.create(deployment("web", replicas=2))

    async def ready(count: int) -> bool:
        await cluster.run_pods()
        slices = [one for one in await listed(cluster, EndpointSlice) if one.metadata.name.startswith("web")]
        addresses = [end for one in slices for end in one.endpoints if end.conditions.ready]
        if await absent(cluster, Endpoints, "web", "default"):
            return False
        old = await cluster.client.get(Endpoints, "web", "default")
        return len(addresses) == count == sum(len(part.addresses) for part in old.subsets)

    await cluster.until(lambda: ready(2))
    pods = await listed(cluster, Pod)
    condition = find_condition(pods[0].status.conditions, "Ready")
    assert condition is not None
    condition.status = "False"
    await cluster.client.update_status(pods[0])
    await cluster.until(lambda: ready(1))
