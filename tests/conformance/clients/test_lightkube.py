"""lightkube: typed, by httpx, sync and async."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from lightkube import AsyncClient, Client, KubeConfig
from lightkube.core.exceptions import ApiError
from lightkube.models.autoscaling_v1 import ScaleSpec
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.apps_v1 import Deployment
from lightkube.resources.core_v1 import ConfigMap, Node
from lightkube.types import PatchType


def _objects(kubeconfig: Path) -> None:
    with Client(config=KubeConfig.from_file(str(kubeconfig)), field_manager="test") as client:
        _use(client)


def _use(client: Client) -> None:
    client.create(ConfigMap(metadata=ObjectMeta(name="a", namespace="default", labels={"x": "y"}), data={"k": "v"}))
    found = client.get(ConfigMap, "a", namespace="default")
    assert found.data == {"k": "v"}
    found.data = {"k": "w"}
    assert client.replace(found).data == {"k": "w"}
    client.patch(ConfigMap, "a", {"data": {"l": "m"}}, patch_type=PatchType.MERGE)
    (listed,) = client.list(ConfigMap, namespace="default", labels={"x": "y"})
    assert listed.data == {"k": "w", "l": "m"}
    applied = client.apply(ConfigMap(metadata=ObjectMeta(name="a", namespace="default"), data={"n": "o"}))
    assert applied.data is not None
    assert applied.data["n"] == "o"
    client.delete(ConfigMap, "a", namespace="default")
    with pytest.raises(ApiError, match='configmaps "a" not found'):
        client.get(ConfigMap, "a", namespace="default")
    client.create(Node(metadata=ObjectMeta(name="n")))
    assert [node.metadata.name for node in client.list(Node) if node.metadata] == ["n"]


async def test_objects_live_their_lives(kubeconfig: Path) -> None:
    await asyncio.to_thread(_objects, kubeconfig)


async def test_scale_and_watch_by_the_async_client(kubeconfig: Path) -> None:
    client = AsyncClient(config=KubeConfig.from_file(str(kubeconfig)))
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    spec = {"replicas": 1, "selector": {"matchLabels": {"a": "b"}}, "template": template}
    deployment = Deployment.from_dict({"metadata": {"name": "d", "namespace": "default"}, "spec": spec})
    assert isinstance(deployment, Deployment)
    made = await client.create(deployment)
    assert made.metadata is not None
    scaled = await client.replace(
        Deployment.Scale(metadata=ObjectMeta(name="d", namespace="default"), spec=ScaleSpec(replicas=4)), "d"
    )
    assert scaled.spec is not None
    assert scaled.spec.replicas == 4
    async for event, found in client.watch(
        Deployment, namespace="default", resource_version=made.metadata.resourceVersion
    ):
        assert event == "MODIFIED"
        assert found.spec is not None
        assert found.spec.replicas == 4
        break
    await client.close()
