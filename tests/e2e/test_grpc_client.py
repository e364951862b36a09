"""A client of a few lines: typed stubs from the published contracts, and reflection for those who have none."""

from __future__ import annotations

from collections.abc import Iterator

import grpc
import pytest
import yaml
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from tests.e2e.cluster import Cluster, Kubectl
from tiphys.apiserver.core.v1 import pod_service_pb2, pod_service_pb2_grpc
from tiphys_client.kubeconfig import load

pytestmark = pytest.mark.containerd


@pytest.fixture
def channel(cluster: Cluster) -> Iterator[grpc.Channel]:
    config = load(cluster.kubeconfig)
    credentials = grpc.ssl_channel_credentials(config.ca_pem, config.key_pem, config.cert_pem)
    with grpc.secure_channel(config.grpc_address, credentials) as found:
        yield found


def test_pods_are_listed_and_watched(shop: Kubectl, channel: grpc.Channel) -> None:
    pods = pod_service_pb2_grpc.PodServiceStub(channel)
    listed = pods.List(pod_service_pb2.PodServiceListRequest(namespace="default", label_selector="app=shop"))
    assert len(listed.items) == 3
    watch = pods.Watch(
        pod_service_pb2.PodServiceWatchRequest(namespace="default", resource_version=listed.metadata.resourceVersion)
    )
    victim = listed.items[0].metadata.name
    shop("delete", "pod", victim, "--wait=false")
    changed = next(event.object for batch in watch for event in batch.events if event.object.metadata.name == victim)
    assert changed.metadata.HasField("deletionTimestamp")
    watch.cancel()
    shop("rollout", "status", "deployment/shop", "--timeout=60s")


def test_an_unknown_pod_is_not_found(cluster: Cluster, channel: grpc.Channel) -> None:
    pods = pod_service_pb2_grpc.PodServiceStub(channel)
    with pytest.raises(grpc.RpcError) as caught:
        pods.Get(pod_service_pb2.PodServiceGetRequest(namespace="default", name="nobody"))
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND
    assert caught.value.details() == 'pods "nobody" not found'


def test_reflection_lists_the_services(cluster: Cluster, channel: grpc.Channel) -> None:
    found = set(ProtoReflectionDescriptorDatabase(channel).get_services())
    assert {"tiphys.apiserver.core.v1.PodService", "tiphys.apiserver.apps.v1.DeploymentService"} <= found
    assert "grpc.health.v1.Health" in found


def test_kubeconfig_names_the_address(cluster: Cluster) -> None:
    document = yaml.safe_load(cluster.kubeconfig.read_text())
    assert document["clusters"][0]["cluster"]["server"].startswith("https://127.0.0.1:")
