"""The official client's sister for asyncio."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from kubernetes_asyncio import client, config, dynamic, watch
from kubernetes_asyncio.client.exceptions import ApiException


@pytest.fixture
async def api(kubeconfig: Path) -> AsyncIterator[client.ApiClient]:
    async with await config.new_client_from_config(str(kubeconfig)) as found:
        yield found


def secret(name: str, **data: str) -> client.V1Secret:
    return client.V1Secret(metadata=client.V1ObjectMeta(name=name, labels={"app": "web"}), string_data=data)


async def test_objects_live_their_lives(api: client.ApiClient) -> None:
    core = client.CoreV1Api(api)
    made = await core.create_namespaced_secret("default", secret("a", k="v"))
    assert made.data == {"k": "dg=="}
    await core.patch_namespaced_secret("a", "default", {"metadata": {"labels": {"more": "1"}}})
    found = await core.read_namespaced_secret("a", "default")
    assert found.metadata.labels == {"app": "web", "more": "1"}
    found.string_data = {"k": "w"}
    assert (await core.replace_namespaced_secret("a", "default", found)).data == {"k": "dw=="}
    assert len((await core.list_secret_for_all_namespaces(label_selector="app in (web)")).items) == 1
    with pytest.raises(ApiException) as taken:
        await core.create_namespaced_secret("default", secret("a"))
    assert taken.value.status == 409
    await core.delete_namespaced_secret("a", "default")
    with pytest.raises(ApiException) as gone:
        await core.read_namespaced_secret("a", "default")
    assert gone.value.status == 404


async def test_a_watch_goes_on_from_a_list(api: client.ApiClient) -> None:
    core = client.CoreV1Api(api)
    start = (await core.list_namespaced_secret("default")).metadata.resource_version
    await core.create_namespaced_secret("default", secret("a"))
    await core.delete_namespaced_secret("a", "default")
    seen = []
    async with watch.Watch() as stream:
        events = stream.stream(core.list_namespaced_secret, "default", resource_version=start, timeout_seconds=1)
        async for event in events:
            seen.append((event["type"], event["object"].metadata.name))
    assert seen == [("ADDED", "a"), ("DELETED", "a")]


async def test_the_dynamic_client_discovers(api: client.ApiClient) -> None:
    found = await dynamic.DynamicClient(api)
    leases = await found.resources.get(api_version="coordination.k8s.io/v1", kind="Lease")
    body = {"kind": "Lease", "apiVersion": "coordination.k8s.io/v1", "metadata": {"name": "l"}}
    await leases.create(body=body, namespace="default")
    assert (await leases.get(name="l", namespace="default")).metadata.name == "l"
