"""The official Python client."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import pytest
from kubernetes import client, config, dynamic, utils, watch
from kubernetes.client.exceptions import ApiException

T = TypeVar("T")
LABELS = {"app": "web"}


@pytest.fixture
def api(kubeconfig: Path) -> Iterator[client.ApiClient]:
    found = config.new_client_from_config(str(kubeconfig))
    # Else connections are left to the garbage collector, on both sides.
    found.set_default_header("Connection", "close")
    yield found
    found.rest_client.pool_manager.clear()


def config_map(name: str, **data: str) -> client.V1ConfigMap:
    return client.V1ConfigMap(metadata=client.V1ObjectMeta(name=name, labels=LABELS), data=data)


def given(value: T | None) -> T:
    """What every answer has, though the client's types leave it open."""
    assert value is not None
    return value


def _objects(api: client.ApiClient) -> None:
    core = client.CoreV1Api(api)
    made = core.create_namespaced_config_map("default", config_map("a", k="v"))
    assert given(made.metadata).uid
    assert core.read_namespaced_config_map("a", "default").data == {"k": "v"}
    core.patch_namespaced_config_map("a", "default", {"data": {"k": "w", "l": "x"}})
    found = core.read_namespaced_config_map("a", "default")
    assert found.data == {"k": "w", "l": "x"}
    found.data = {"only": "one"}
    assert core.replace_namespaced_config_map("a", "default", found).data == {"only": "one"}
    with pytest.raises(ApiException, match="Conflict") as refused:
        core.replace_namespaced_config_map("a", "default", found)
    assert refused.value.status == 409
    core.create_namespaced_config_map("default", config_map("b"))
    page = core.list_namespaced_config_map("default", label_selector="app=web", limit=1)
    more = given(page.metadata)._continue
    rest = core.list_namespaced_config_map("default", label_selector="app=web", limit=1, _continue=more)
    assert [given(item.metadata).name for item in (*page.items, *rest.items)] == ["a", "b"]
    core.delete_collection_namespaced_config_map("default", label_selector="app=web")
    with pytest.raises(ApiException) as gone:
        core.read_namespaced_config_map("a", "default")
    assert (gone.value.status, gone.value.reason) == (404, "Not Found")


async def test_objects_live_their_lives(api: client.ApiClient) -> None:
    await asyncio.to_thread(_objects, api)


def _deployment(api: client.ApiClient) -> None:
    container = client.V1Container(name="c", image="i", ports=[client.V1ContainerPort(container_port=80)])
    template = client.V1PodTemplateSpec(
        metadata=client.V1ObjectMeta(labels=LABELS), spec=client.V1PodSpec(containers=[container])
    )
    selector = client.V1LabelSelector(match_labels=LABELS)
    spec = client.V1DeploymentSpec(replicas=1, selector=selector, template=template)
    apps = client.AppsV1Api(api)
    apps.create_namespaced_deployment(
        "default", client.V1Deployment(metadata=client.V1ObjectMeta(name="web"), spec=spec)
    )
    scaled = apps.patch_namespaced_deployment_scale("web", "default", {"spec": {"replicas": 3}})
    assert given(scaled.spec).replicas == 3
    assert apps.read_namespaced_deployment("web", "default").spec.replicas == 3
    (listed,) = apps.list_deployment_for_all_namespaces().items
    assert given(listed.spec.template.spec).containers[0].name == "c"
    apps.delete_namespaced_deployment("web", "default", propagation_policy="Background")
    assert not apps.list_namespaced_deployment("default").items


async def test_a_deployment_is_scaled(api: client.ApiClient) -> None:
    await asyncio.to_thread(_deployment, api)


def _watch(api: client.ApiClient) -> None:
    core = client.CoreV1Api(api)
    core.create_namespaced_config_map("default", config_map("a"))
    start = given(core.list_namespaced_config_map("default").metadata).resource_version
    core.patch_namespaced_config_map("a", "default", {"data": {"k": "w"}})
    core.delete_namespaced_config_map("a", "default")
    events = watch.Watch().stream(core.list_namespaced_config_map, "default", resource_version=start, timeout_seconds=1)
    seen = [(event["type"], event["object"].metadata.name) for event in events]
    assert seen == [("MODIFIED", "a"), ("DELETED", "a")]


async def test_a_watch_goes_on_from_a_list(api: client.ApiClient) -> None:
    await asyncio.to_thread(_watch, api)


def _dynamic(api: client.ApiClient) -> None:
    found = dynamic.DynamicClient(api)
    services = found.resources.get(api_version="v1", kind="Service")
    body = {"kind": "Service", "apiVersion": "v1", "metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}]}}
    assert services.create(body=body, namespace="default").spec.clusterIP
    body["metadata"] = {"name": "s", "labels": {"by": "apply"}}
    applied = services.server_side_apply(body=body, namespace="default", field_manager="test", force_conflicts=True)
    assert applied.metadata.labels.by == "apply"
    services.delete(name="s", namespace="default")
    groups = {group.name for group in client.ApisApi(api).get_api_versions().groups}
    assert {"apps", "batch", "rbac.authorization.k8s.io"} <= groups
    assert client.VersionApi(api).get_code().major == "1"


async def test_the_dynamic_client_discovers_and_applies(api: client.ApiClient) -> None:
    await asyncio.to_thread(_dynamic, api)


def _yaml(api: client.ApiClient) -> None:
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "made"}}
    role = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "Role",
        "metadata": {"name": "r", "namespace": "made"},
        "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}],
    }
    utils.create_from_dict(api, {"apiVersion": "v1", "kind": "List", "items": [namespace, role]})
    review = client.V1SelfSubjectAccessReview(
        spec=client.V1SelfSubjectAccessReviewSpec(
            resource_attributes=client.V1ResourceAttributes(verb="get", resource="pods", namespace="made")
        )
    )
    told = client.AuthorizationV1Api(api).create_self_subject_access_review(review)
    assert given(told.status).allowed
    made = client.RbacAuthorizationV1Api(api).read_namespaced_role("r", "made")
    assert given(made.rules)[0].verbs == ["get"]


async def test_manifests_are_created(api: client.ApiClient) -> None:
    await asyncio.to_thread(_yaml, api)
