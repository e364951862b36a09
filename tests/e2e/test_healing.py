"""Any process may be killed: the cluster goes on, and what runs is not touched."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.e2e.cluster import Cluster, Kubectl, eventually
from tests.e2e.test_tour import ask, pods

pytestmark = pytest.mark.containerd

COMPONENTS = (
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "cluster-dns",
    "kubelet-node-1",
    "kube-proxy-node-1",
    "tiphys-cni-node-1",
    "flannel-node-1",
    "csi-hostpath-node-1",
    "csi-companion-node-1",
    "containerd-node-1",
)


def pid_of(cluster: Cluster, component: str) -> int:
    """The process as `tiphys status` lists it."""
    for line in cluster.status().splitlines():
        words = line.replace("│", " ").split()
        if words and words[0] == component:
            return next(int(w) for w in words[1:] if w.isdigit() and Path(f"/proc/{w}").exists())
    raise AssertionError(f"{component} is not in\n{cluster.status()}")


def started_at(kubectl: Kubectl) -> dict[str, str]:
    found = kubectl.json("get", "pods", "-l", "app=shop")["items"]
    return {p["metadata"]["name"]: p["status"]["containerStatuses"][0]["state"]["running"]["startedAt"] for p in found}


@pytest.mark.parametrize("component", COMPONENTS)
def test_a_killed_component_heals(cluster: Cluster, shop: Kubectl, component: str) -> None:
    before, containers = pid_of(cluster, component), started_at(shop)
    os.kill(before, signal.SIGKILL)
    eventually(lambda: pid_of(cluster, component) != before)
    # A pod that is made now goes all the way through every component.
    eventually(lambda: "deployment" in shop("scale", "deployment/shop", "--replicas=4"))
    eventually(lambda: "successfully" in shop("rollout", "status", "deployment/shop", "--timeout=60s"))
    eventually(lambda: len(pods(shop)) == 4)
    assert eventually(lambda: ask(shop, "shop").endswith(" 1"))
    assert containers.items() <= started_at(shop).items(), "containers that ran were touched"
