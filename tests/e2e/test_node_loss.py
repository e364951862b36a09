"""A node that does not answer any more: how soon that is known, and how its pods come elsewhere."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

import pytest

from tests.e2e.cluster import Cluster, Kubectl, eventually, unique_name
from tests.e2e.test_healing import pid_of

# The grace of a silent node alone is 50 s.
pytestmark = [pytest.mark.containerd, pytest.mark.slow]
LONE = """
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: lone}
spec:
  serviceName: lone
  replicas: 1
  selector: {matchLabels: {app: lone}}
  template:
    metadata: {labels: {app: lone}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - {name: httpd, image: "tiphys.dev/httpd:1", imagePullPolicy: IfNotPresent}
"""
PROCESSES = ("kubelet-node-2", "containerd-node-2")


@pytest.fixture
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two nodes, and a StatefulSet whose one pod is on the second."""
    found = Cluster(unique_name("e2e-loss-"), tmp_path_factory.mktemp("home-loss") / "home")
    try:
        found.up("--nodes=2")
        kubectl = found.kubectl()
        kubectl("cordon", "node-1")
        kubectl("apply", "-f", "-", stdin=LONE)
        kubectl("rollout", "status", "statefulset/lone", "--timeout=90s")
        kubectl("uncordon", "node-1")
        yield found
    finally:
        found.down()


def ready(kubectl: Kubectl, what: str) -> str:
    return kubectl("get", what, "-o", 'jsonpath={.status.conditions[?(@.type=="Ready")].status}')


def node_of(kubectl: Kubectl) -> str:
    return kubectl("get", "pod", "lone-0", "--ignore-not-found", "-o", "jsonpath={.spec.nodeName}")


def test_B24_B39_a_node_without_power_is_known_and_once_it_is_said_to_be_off_its_pods_move(cluster: Cluster) -> None:
    kubectl = cluster.kubectl()
    assert node_of(kubectl) == "node-2"
    stopped = [pid_of(cluster, name) for name in PROCESSES]
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    began = time.monotonic()
    try:
        eventually(lambda: ready(kubectl, "node/node-2") == "Unknown")
        known_s = time.monotonic() - began
        # Not before the grace is over: its last word may be some seconds old.
        assert known_s > 35
        eventually(lambda: ready(kubectl, "pod/lone-0") == "False")
        taints = kubectl("get", "node", "node-2", "-o", "jsonpath={.spec.taints[*].key}").split()
        assert "node.kubernetes.io/unreachable" in taints
        # Its pods bear that for five minutes.
        assert node_of(kubectl) == "node-2"

        kubectl("taint", "node", "node-2", "node.kubernetes.io/out-of-service=nodeshutdown:NoExecute")
        eventually(lambda: node_of(kubectl) == "node-1" and ready(kubectl, "pod/lone-0") == "True")
    finally:
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)
    kubectl("taint", "node", "node-2", "node.kubernetes.io/out-of-service-")
    eventually(lambda: ready(kubectl, "node/node-2") == "True")
