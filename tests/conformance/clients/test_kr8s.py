"""kr8s: a client in kubectl's manner."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import cast

import kr8s
import pytest
from kr8s.asyncio import api as connect
from kr8s.asyncio.objects import ConfigMap, Deployment, Namespace


@pytest.fixture
async def api(kubeconfig: Path) -> AsyncIterator[kr8s.asyncio.Api]:
    found = await connect(kubeconfig=str(kubeconfig))
    yield found
    # It has no public way to hang up.
    assert found._session is not None
    await found._session.aclose()


async def test_objects_live_their_lives(api: kr8s.asyncio.Api) -> None:
    version = await api.version()
    assert version["major"] == "1"
    made = await ConfigMap({"metadata": {"name": "a", "labels": {"x": "y"}}, "data": {"k": "v"}}, api=api)
    await made.create()
    assert await made.exists()
    found = await ConfigMap.get("a", namespace="default", api=api)
    assert found.data == {"k": "v"}
    await found.patch({"data": {"k": "w"}})
    await found.label({"more": "1"})
    await found.refresh()
    assert (found.data["k"], found.labels["more"]) == ("w", "1")
    listed = [cast(ConfigMap, item).name async for item in api.get("configmaps", label_selector={"x": "y"})]
    assert listed == ["a"]
    await found.delete()
    with pytest.raises(kr8s.NotFoundError):
        await ConfigMap.get("a", namespace="default", api=api, timeout=1)


async def test_discovery_scale_and_watch(api: kr8s.asyncio.Api) -> None:
    kinds = {resource["kind"] for resource in await api.api_resources()}
    assert {"Pod", "Deployment", "Role"} <= kinds
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    spec = {"replicas": 1, "selector": {"matchLabels": {"a": "b"}}, "template": template}
    deployment = await Deployment({"metadata": {"name": "d"}, "spec": spec}, api=api)
    await deployment.create()
    await deployment.patch({"spec": {"replicas": 3}}, subresource="scale")
    await deployment.refresh()
    assert deployment.replicas == 3
    namespace = await Namespace({"metadata": {"name": "n"}}, api=api)
    await namespace.create()
    async for event, found in api.watch("namespaces"):
        if found.name == "n":
            assert event == "ADDED"
            break
