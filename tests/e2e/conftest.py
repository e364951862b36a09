"""The cluster that tests share: one for each store, started once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.cluster import MANIFESTS, VERSIONS, Cluster, Kubectl, unique_name


@pytest.fixture(scope="session", params=["sqlite", "etcd"])
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster of one node."""
    home: Path = tmp_path_factory.mktemp(f"home-{request.param}") / "home"
    found = Cluster(unique_name(f"e2e-{request.param}-"), home, request.param)
    try:
        found.up()
        yield found
    finally:
        found.down()


@pytest.fixture(params=VERSIONS)
def kubectl(request: pytest.FixtureRequest, cluster: Cluster) -> Kubectl:
    """Stock kubectl, each version in turn."""
    return cluster.kubectl(request.param)


@pytest.fixture
def shop(cluster: Cluster) -> Iterator[Kubectl]:
    """The Deployment, ConfigMap, Secret and Service of manifests/shop.yaml, rolled out; and a pod to visit it from."""
    found = cluster.kubectl()
    manifests = ("-f", str(MANIFESTS / "shop.yaml"), "-f", str(MANIFESTS / "visitor.yaml"))
    found("apply", *manifests)
    found("rollout", "status", "deployment/shop", "--timeout=90s")
    found("wait", "--for=condition=Ready", "pod/visitor", "--timeout=60s")
    yield found
    found("delete", *manifests, "--wait=true", "--timeout=60s")
