"""What upstream's conformance list says of quotas: each object counts from its making to its end, and no further."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import pytest
from google.protobuf.message import Message

from tests.integration.controller_manager.conftest import Cluster
from tiphys.api.apps.v1.apps_pb2 import ReplicaSet
from tiphys.api.core.v1.config_map_pb2 import ConfigMap
from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys.api.core.v1.replication_controller_pb2 import ReplicationController
from tiphys.api.core.v1.resource_quota_pb2 import ResourceQuota
from tiphys.api.core.v1.secret_pb2 import Secret
from tiphys.api.core.v1.service_account_pb2 import ServiceAccount
from tiphys.api.core.v1.service_pb2 import Service
from tiphys_apimachinery.codec.json_codec import from_json
from tiphys_apimachinery.errors import Forbidden, NotFound

MessageT = TypeVar("MessageT", bound=Message)
NAMESPACE = "default"
TEMPLATE = {"metadata": {"labels": {"app": "x"}}, "spec": {"containers": [{"name": "c", "image": "busybox"}]}}


def quota(hard: Mapping[str, str], name: str = "q", **spec: Any) -> ResourceQuota:
    metadata = {"name": name, "namespace": NAMESPACE, "labels": {"of": "quota"}}
    return from_json(ResourceQuota, {"metadata": metadata, "spec": {"hard": dict(hard), **spec}})


def obj(cls: type[MessageT], name: str, **more: Any) -> MessageT:
    return from_json(cls, {"metadata": {"name": name, "namespace": NAMESPACE}, **more})


def pod(name: str, *, deadline_s: int | None = None, **requests: str) -> Pod:
    container: dict[str, Any] = {"name": "c", "image": "busybox"}
    if requests:
        named = {key.replace("_", "-"): value for key, value in requests.items()}
        container["resources"] = {"requests": named, "limits": named}
    spec: dict[str, Any] = {"containers": [container]}
    if deadline_s is not None:
        spec["activeDeadlineSeconds"] = deadline_s
    return obj(Pod, name, spec=spec)


async def used(cluster: Cluster, name: str = "q") -> dict[str, str]:
    found = await cluster.client.get(ResourceQuota, name, NAMESPACE)
    return {key: value.string for key, value in found.status.used.items()}


async def uses(cluster: Cluster, wanted: Mapping[str, str], name: str = "q") -> None:
    """Wait until the quota says so of these resources."""

    async def does() -> bool:
        found = await used(cluster, name)
        return all(found.get(key) == value for key, value in wanted.items())

    await cluster.until(does)


async def begin(cluster: Cluster, made: ResourceQuota) -> dict[str, str]:
    """Make a quota and wait until it is counted; what is used already."""

    async def account() -> bool:
        # Pods can be made only when their account is there.
        try:
            await cluster.client.get(ServiceAccount, "default", NAMESPACE)
        except NotFound:
            return False
        return True

    await cluster.until(account)
    await cluster.client.create(made)

    async def counted() -> dict[str, str]:
        found = await used(cluster, made.metadata.name)
        return found if found.keys() >= set(made.spec.hard) else {}

    found: dict[str, str] = await cluster.until(counted)
    return found


async def end(cluster: Cluster, cls: type[Any], name: str) -> None:
    await cluster.client.delete(cls, name, NAMESPACE, grace_period_s=0, propagation="Background")


async def test_B27_a_new_quota_says_what_is_used(cluster: Cluster) -> None:
    found = await begin(cluster, quota({"pods": "5", "services": "10", "count/replicasets.apps": "3"}))
    assert found == {"pods": "0", "services": "0", "count/replicasets.apps": "0"}


SERVICE = {"spec": {"ports": [{"port": 80}], "selector": {"app": "x"}}}
LIVES = [
    pytest.param("secrets", Secret, {"stringData": {"a": "b"}}, id="a secret"),
    pytest.param("configmaps", ConfigMap, {"data": {"a": "b"}}, id="a config map"),
    pytest.param(
        "replicationcontrollers", ReplicationController, {"spec": {"replicas": 0, "template": TEMPLATE}}, id="RC"
    ),
    pytest.param(
        "count/replicasets.apps",
        ReplicaSet,
        {"spec": {"replicas": 0, "selector": {"matchLabels": {"app": "x"}}, "template": TEMPLATE}},
        id="a replica set",
    ),
]


@pytest.mark.parametrize(("resource", "cls", "body"), LIVES)
async def test_B27_an_object_counts_while_it_lives(
    cluster: Cluster, resource: str, cls: type[Any], body: dict[str, Any]
) -> None:
    before = int((await begin(cluster, quota({resource: "20"})))[resource])
    await cluster.client.create(obj(cls, "one", **body))
    await uses(cluster, {resource: str(before + 1)})
    await end(cluster, cls, "one")
    await uses(cluster, {resource: str(before)})


async def test_B27_a_service_counts_with_its_node_ports_and_balancer(cluster: Cluster) -> None:
    hard = {"services": "10", "services.nodeports": "1", "services.loadbalancers": "1"}
    await begin(cluster, quota(hard))
    await cluster.client.create(obj(Service, "plain", **SERVICE))
    await cluster.client.create(obj(Service, "open", spec={**SERVICE["spec"], "type": "NodePort"}))
    await uses(cluster, {"services": "2", "services.nodeports": "1", "services.loadbalancers": "0"})
    with pytest.raises(Forbidden):
        await cluster.client.create(obj(Service, "more", spec={**SERVICE["spec"], "type": "NodePort"}))
    for name in ("plain", "open"):
        await end(cluster, Service, name)
    await uses(cluster, {"services": "0", "services.nodeports": "0"})


async def test_B27_a_pod_counts_with_what_it_asks_for(cluster: Cluster) -> None:
    hard = {"pods": "5", "cpu": "1", "memory": "500Mi", "ephemeral-storage": "50Gi"}
    await begin(cluster, quota(hard))
    await cluster.client.create(pod("one", cpu="500m", memory="252Mi", ephemeral_storage="30Gi"))
    wanted = {"pods": "1", "cpu": "500m", "memory": "252Mi", "ephemeral-storage": "30Gi"}
    await uses(cluster, wanted)
    with pytest.raises(Forbidden, match="exceeded quota: q"):
        await cluster.client.create(pod("two", cpu="600m", memory="100Mi", ephemeral_storage="1Gi"))
    stored = await cluster.client.get(Pod, "one", NAMESPACE)
    stored.metadata.labels["seen"] = "yes"
    await cluster.client.update(stored)
    await uses(cluster, wanted)
    await end(cluster, Pod, "one")
    await uses(cluster, {"pods": "0", "cpu": "0", "memory": "0", "ephemeral-storage": "0"})


@pytest.mark.parametrize(
    ("scope", "other", "inside", "outside"),
    [
        pytest.param(
            "Terminating",
            "NotTerminating",
            pod("in", deadline_s=3600, cpu="100m", memory="10Mi"),
            pod("out", cpu="100m", memory="10Mi"),
            id="pods with an end",
        ),
        pytest.param("BestEffort", "NotBestEffort", pod("in"), pod("out", cpu="100m", memory="10Mi"), id="best effort"),
    ],
)
async def test_B27_a_scope_counts_its_pods_alone(
    cluster: Cluster, scope: str, other: str, inside: Pod, outside: Pod
) -> None:
    await begin(cluster, quota({"pods": "5"}, "within", scopes=[scope]))
    await begin(cluster, quota({"pods": "5"}, "beyond", scopes=[other]))
    for made, counts, not_counts in ((inside, "within", "beyond"), (outside, "beyond", "within")):
        await cluster.client.create(made)
        await uses(cluster, {"pods": "1"}, counts)
        assert await used(cluster, not_counts) == {"pods": "0"}
        await end(cluster, Pod, made.metadata.name)
        await uses(cluster, {"pods": "0"}, counts)


async def test_B27_a_quota_is_changed_and_goes(cluster: Cluster) -> None:
    await begin(cluster, quota({"cpu": "1", "memory": "500Mi"}))
    stored = await cluster.client.get(ResourceQuota, "q", NAMESPACE)
    stored.spec.hard["cpu"].string = "2"
    changed = await cluster.client.update(stored)
    assert changed.spec.hard["cpu"].string == "2"

    async def is_told() -> bool:
        found = await cluster.client.get(ResourceQuota, "q", NAMESPACE)
        return bool(found.status.hard["cpu"].string == "2")

    await cluster.until(is_told)
    await cluster.client.delete(ResourceQuota, "q", NAMESPACE)
    with pytest.raises(NotFound):
        await cluster.client.get(ResourceQuota, "q", NAMESPACE)


async def test_B27_quotas_are_listed_patched_and_deleted_together(cluster: Cluster) -> None:
    await begin(cluster, quota({"cpu": "1", "memory": "500Mi"}))
    listed = (await cluster.client.list(ResourceQuota, None, label_selector="of=quota")).items
    assert [one.metadata.name for one in listed] == ["q"]
    change = {"metadata": {"labels": {"q": "patched"}}, "spec": {"hard": {"memory": "750Mi"}}}
    patched = await cluster.client.patch(ResourceQuota, "q", NAMESPACE, change, type="strategic")
    assert (patched.metadata.labels["q"], patched.spec.hard["memory"].string) == ("patched", "750Mi")
    await cluster.client.delete_collection(ResourceQuota, NAMESPACE, label_selector="q=patched")
    assert not (await cluster.client.list(ResourceQuota, NAMESPACE)).items


async def test_B27_a_status_written_by_hand_is_put_right(cluster: Cluster) -> None:
    await begin(cluster, quota({"cpu": "500m", "memory": "500Mi"}))
    change = {"status": {"hard": {"memory": "1Gi"}, "used": {"cpu": "400m"}}}
    told = await cluster.client.patch(ResourceQuota, "q", NAMESPACE, change, type="merge", subresource="status")
    assert (told.status.hard["memory"].string, told.spec.hard["memory"].string) == ("1Gi", "500Mi")
    stored = await cluster.client.get(ResourceQuota, "q", NAMESPACE)
    stored.spec.hard["memory"].string = "600Mi"
    await cluster.client.update(stored)

    async def is_right() -> bool:
        found = await cluster.client.get(ResourceQuota, "q", NAMESPACE)
        return (found.status.hard["memory"].string, found.status.used["cpu"].string) == ("600Mi", "0")

    await cluster.until(is_right)
