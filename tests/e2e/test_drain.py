"""Nodes that are drained, join and leave: evictions wait for budgets, and daemons come and go with their nodes."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from tests.e2e.cluster import Cluster, Kubectl, eventually, unique_name

pytestmark = pytest.mark.containerd
IMAGE = "tiphys.dev/httpd:1"
# Two pods, of which the budget spares none: only a third one frees the first.
SHOP = f"""
apiVersion: apps/v1
kind: Deployment
metadata: {{name: guarded}}
spec:
  replicas: 2
  selector: {{matchLabels: {{app: guarded}}}}
  template:
    metadata: {{labels: {{app: guarded}}}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - {{name: httpd, image: "{IMAGE}", imagePullPolicy: IfNotPresent}}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {{name: guard}}
spec:
  minAvailable: 2
  selector: {{matchLabels: {{app: guarded}}}}
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {{name: agent}}
spec:
  selector: {{matchLabels: {{app: agent}}}}
  template:
    metadata: {{labels: {{app: agent}}}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - {{name: httpd, image: "{IMAGE}", imagePullPolicy: IfNotPresent}}
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two nodes; the first is closed until all pods are on the second."""
    found = Cluster(unique_name("e2e-drain-"), tmp_path_factory.mktemp("home-drain") / "home")
    try:
        found.up("--nodes=2")
        kubectl = found.kubectl()
        kubectl("cordon", "node-1")
        kubectl("apply", "-f", "-", stdin=SHOP)
        kubectl("rollout", "status", "deployment/guarded", "--timeout=90s")
        kubectl("rollout", "status", "daemonset/agent", "--timeout=90s")
        kubectl("uncordon", "node-1")
        yield found
    finally:
        found.down()


def where(kubectl: Kubectl, app: str) -> list[str]:
    """The nodes of the pods of an application that are not going."""
    pods = kubectl.json("get", "pods", "-l", f"app={app}")["items"]
    return sorted(pod["spec"].get("nodeName", "") for pod in pods if "deletionTimestamp" not in pod["metadata"])


def test_B15_a_daemon_runs_on_every_node_also_on_one_that_is_closed(cluster: Cluster) -> None:
    assert where(cluster.kubectl(), "agent") == ["node-1", "node-2"]


def test_B33_drain_waits_for_the_budget_and_goes_on_when_a_spare_pod_is_ready(cluster: Cluster) -> None:
    kubectl = cluster.kubectl()
    assert where(kubectl, "guarded") == ["node-2", "node-2"]
    eventually(lambda: kubectl("get", "pdb", "guard", "-o", "jsonpath={.status.currentHealthy}") == "2")

    drain = kubectl.popen(
        "drain", "node-2", "--ignore-daemonsets", "--timeout=170s", stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        assert drain.stdout is not None
        blocked = next(line for line in drain.stdout if "violate" in line)
        assert "Cannot evict pod as it would violate the pod's disruption budget" in blocked
        assert where(kubectl, "guarded") == ["node-2", "node-2"]

        kubectl("scale", "deployment/guarded", "--replicas=3")
        rest = drain.communicate(timeout=180)[0]
    finally:
        drain.kill()
        drain.wait()
    assert drain.returncode == 0, rest
    assert "node/node-2 drained" in rest
    eventually(lambda: where(kubectl, "guarded") == ["node-1"] * 3)
    assert where(kubectl, "agent") == ["node-1", "node-2"]
    kubectl("uncordon", "node-2")


def test_B15_a_node_that_joins_gets_its_daemon_and_one_that_leaves_takes_its_along(cluster: Cluster) -> None:
    kubectl = cluster.kubectl()
    cluster.node("add")
    eventually(lambda: where(kubectl, "agent") == ["node-1", "node-2", "node-3"])
    kubectl("rollout", "status", "daemonset/agent", "--timeout=60s")
    cluster.node("remove", "node-3")
    eventually(lambda: where(kubectl, "agent") == ["node-1", "node-2"])
