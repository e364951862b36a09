"""kubectl top, and an autoscaler that goes by the real use of processors."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.e2e.cluster import MANIFESTS, VERSIONS, Cluster, Kubectl, eventually

pytestmark = pytest.mark.containerd

MANIFEST = str(MANIFESTS / "burner.yaml")
# How soon the check of the row wants to see more pods; with the usual periods it takes half of it.
SOON_S = 60.0


@pytest.fixture
def burner(cluster: Cluster) -> Iterator[Kubectl]:
    """A Deployment of one busy pod, with its autoscaler."""
    kubectl = cluster.kubectl()
    kubectl("apply", "-f", MANIFEST)
    kubectl("rollout", "status", "deployment/burner", "--timeout=90s")
    yield kubectl
    kubectl("delete", "-f", MANIFEST, "--ignore-not-found", "--wait=true", "--timeout=60s")
    kubectl("wait", "--for=delete", "pod", "-l", "app=burner", "--timeout=60s", check=False)


def pods(kubectl: Kubectl) -> list[str]:
    """The names of the pods that are not ending."""
    found = kubectl.json("get", "pods", "-l", "app=burner")["items"]
    return [pod["metadata"]["name"] for pod in found if "deletionTimestamp" not in pod["metadata"]]


def table(text: str) -> list[list[str]]:
    """The words of each line but the head."""
    return [line.split() for line in text.strip().splitlines()[1:]]


def test_B31_J2_busy_pods_are_shown_and_become_more_and_fewer_when_they_rest(burner: Kubectl, cluster: Cluster) -> None:
    grown = eventually(lambda: len(found := pods(burner)) == 3 and found, timeout_s=SOON_S)
    burner("wait", "--for=condition=Ready", "pod", "-l", "app=burner", "--timeout=60s")

    def shown() -> bool:
        return {row[0] for row in table(burner("top", "pods", "-l", "app=burner"))} == set(grown)

    eventually(shown)
    for version in VERSIONS:
        kubectl = cluster.kubectl(version)
        (row, *_) = table(kubectl("top", "pods", "-l", "app=burner", "--containers"))
        assert row[1] == "main"
        assert re.fullmatch(r"[0-9]+m", row[2])
        (node,) = table(kubectl("top", "nodes"))
        assert node[0] == "node-1"
        assert int(node[1].removesuffix("m")) > 0
        (row, *_) = table(kubectl("get", "hpa", "burner"))
        assert row[1] == "Deployment/burner"
        assert "/60%" in " ".join(row)
    events = burner("get", "events", "--field-selector=reason=SuccessfulRescale", "-o", "jsonpath={.items[*].message}")
    assert "cpu resource utilization (percentage of request) above target" in events
    for pod in pods(burner):
        burner("exec", pod, "--", "touch", "/tmp/rest")
    eventually(lambda: len(pods(burner)) == 1)
    assert "All metrics below target" in burner("describe", "hpa", "burner")


def test_J2_top_tells_of_nodes_without_pods(kubectl: Kubectl) -> None:
    rows = eventually(lambda: table(kubectl("top", "nodes")))
    assert [row[0] for row in rows] == ["node-1"]
    assert all(row[2].endswith("%") and row[4].endswith("%") for row in rows)
