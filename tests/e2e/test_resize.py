"""Vertical scaling: pods are resized while they run, by hand and by an operator that sees what they use."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.cluster import MANIFESTS, ROOT, Cluster, Kubectl, eventually

pytestmark = pytest.mark.containerd

MANIFEST = str(MANIFESTS / "resize.yaml")
CGROUPS = Path("/sys/fs/cgroup")
SCALING = """
apiVersion: scaling.tiphys.dev/v1
kind: Scaling
metadata: {name: worker}
spec: {match_labels: {app: worker}, most_cpu: 160, every_s: 2}
"""
NEIGHBOUR = """
apiVersion: v1
kind: Pod
metadata: {name: neighbour}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: docker.io/library/busybox:latest
    imagePullPolicy: IfNotPresent
    command: [sleep, "100000"]
    resources: {requests: {cpu: 500m}}
"""
SITE = """
apiVersion: example.com/v1
kind: Site
metadata: {name: hello}
spec: {text: "hello from a site", replicas: 2}
"""


@contextmanager
def operator(name: str, cluster: Cluster) -> Iterator[None]:
    """Runs one of the examples as users start it."""
    command = [sys.executable, "-m", f"examples.operators.{name}", f"--kubeconfig={cluster.kubeconfig}"]
    process = subprocess.Popen(command, cwd=ROOT)
    try:
        yield
    finally:
        process.terminate()
        assert process.wait(30) == 0


@pytest.fixture
def worker(cluster: Cluster) -> Iterator[Kubectl]:
    """The busy pod of the manifest."""
    kubectl = cluster.kubectl()
    kubectl("apply", "-f", MANIFEST)
    kubectl("rollout", "status", "deployment/worker", "--timeout=90s")
    yield kubectl
    kubectl("delete", "-f", MANIFEST, "--ignore-not-found", "--wait=true", "--timeout=60s")
    kubectl("wait", "--for=delete", "pod", "-l", "app=worker", "--timeout=60s", check=False)


def the_pod(kubectl: Kubectl) -> Any:
    """The Deployment's pod."""
    (pod,) = kubectl.json("get", "pods", "-l", "app=worker")["items"]
    return pod


def container(pod: Any) -> Any:
    """What its status says of its container."""
    return pod["status"]["containerStatuses"][0]


def in_kernel(pod: Any) -> tuple[int, int, int]:
    """Shares, quota and memory limit in the kernel's files of the running container."""
    runtime_id = container(pod)["containerID"].removeprefix("containerd://")

    def read(controller: str, name: str) -> int:
        (folder,) = (CGROUPS / controller).glob(f"**/pod{pod['metadata']['uid']}/{runtime_id}")
        return int((folder / name).read_text())

    return read("cpu", "cpu.shares"), read("cpu", "cpu.cfs_quota_us"), read("memory", "memory.limit_in_bytes")


def resize(kubectl: Kubectl, name: str, resources: dict[str, Any], *, check: bool = True) -> str:
    """kubectl patch --subresource resize."""
    patch = json.dumps({"spec": {"containers": [{"name": "main", "resources": resources}]}})
    return kubectl("patch", "pod", name, "--subresource", "resize", "--patch", patch, check=check)


def condition(pod: Any, kind: str) -> Any:
    """One of the pod's conditions, None where it is not there."""
    return next((c for c in pod["status"]["conditions"] if c["type"] == kind), None)


def test_B32_D34_a_live_pod_grows_and_shrinks_by_hand(worker: Kubectl) -> None:
    before = the_pod(worker)
    name = before["metadata"]["name"]
    assert in_kernel(before) == (40, 8000, 64 << 20)
    for cpu, memory, kernel in ((100, 64, (102, 20000, 128 << 20)), (20, 16, (20, 4000, 32 << 20))):
        requests = {"cpu": f"{cpu}m", "memory": f"{memory}Mi"}
        limits = {"cpu": f"{2 * cpu}m", "memory": f"{2 * memory}Mi"}
        resize(worker, name, {"requests": requests, "limits": limits})

        def is_resized(requests: Any = requests, limits: Any = limits) -> Any:
            pod = the_pod(worker)
            told = container(pod)
            done = condition(pod, "PodResizeInProgress") is None and told["allocatedResources"] == requests
            return pod if done and told["resources"] == {"requests": requests, "limits": limits} else None

        pod = eventually(is_resized)
        assert in_kernel(pod) == kernel
        assert container(pod)["containerID"] == container(before)["containerID"]
        assert container(pod)["restartCount"] == 0
        assert pod["status"]["observedGeneration"] == pod["metadata"]["generation"]
    assert "ResizeCompleted" in worker("describe", "pod", name)
    editor = {**os.environ, "KUBE_EDITOR": "sed -i 's/cpu: 40m/cpu: 50m/'"}
    assert worker.popen("edit", "pod", name, "--subresource", "resize", env=editor).wait(60) == 0
    eventually(lambda: in_kernel(the_pod(worker)) == (20, 5000, 32 << 20))


def test_D34_what_the_node_can_never_give_is_told_and_bad_changes_are_refused(worker: Kubectl) -> None:
    name = the_pod(worker)["metadata"]["name"]
    resize(worker, name, {"requests": {"cpu": "900"}, "limits": {"cpu": "900"}})
    pending = eventually(lambda: condition(the_pod(worker), "PodResizePending"))
    assert pending["reason"] == "Infeasible"
    assert "Node didn't have enough capacity: cpu, requested: 900000" in pending["message"]
    resize(worker, name, {"requests": {"cpu": "40m"}, "limits": {"cpu": "80m"}})
    eventually(lambda: condition(the_pod(worker), "PodResizePending") is None)
    assert container(the_pod(worker))["restartCount"] == 0
    wrong = {"requests": {"cpu": "80m", "memory": "64Mi"}}
    assert "QOS Class may not change" in resize(worker, name, wrong, check=False)
    plain = json.dumps({"spec": {"containers": [{"name": "main", "resources": {"limits": {"cpu": "90m"}}}]}})
    assert "may not change fields" in worker("patch", "pod", name, "--patch", plain, check=False)


def test_D34_a_deferred_resize_is_done_when_room_comes(worker: Kubectl) -> None:
    name = the_pod(worker)["metadata"]["name"]
    worker("exec", name, "--", "touch", "/tmp/rest")
    cpus = int(worker.json("get", "node", "node-1")["status"]["allocatable"]["cpu"])
    worker("apply", "-f", "-", stdin=NEIGHBOUR)
    worker("wait", "--for=condition=Ready", "pod/neighbour", "--timeout=60s")
    wanted = f"{cpus * 1000 - 400}m"
    resize(worker, name, {"requests": {"cpu": wanted}, "limits": {"cpu": str(cpus)}})
    pending = eventually(lambda: condition(the_pod(worker), "PodResizePending"))
    assert pending["reason"] == "Deferred"
    assert "Node didn't have enough resource: cpu" in pending["message"]
    assert container(the_pod(worker))["allocatedResources"]["cpu"] == "40m"
    worker("delete", "pod", "neighbour", "--wait=true", "--timeout=60s")
    eventually(lambda: in_kernel(the_pod(worker))[1] == cpus * 100_000)
    assert condition(the_pod(worker), "PodResizePending") is None
    assert container(the_pod(worker))["restartCount"] == 0


def test_B32_a_recommender_resizes_a_busy_pod_and_again_when_it_rests(worker: Kubectl, cluster: Cluster) -> None:
    before = the_pod(worker)
    with operator("recommender", cluster):
        eventually(lambda: "scalings" in worker("api-resources", "--api-group=scaling.tiphys.dev", check=False))
        worker("apply", "-f", "-", stdin=SCALING)
        # It may use 80m and would use more: it is given twice as much, twice, and then no more than the most.
        grown = eventually(lambda: (pod := the_pod(worker)) and in_kernel(pod)[1] == 32000 and pod)
        assert in_kernel(grown)[0] == 163
        assert container(grown)["containerID"] == container(before)["containerID"]
        assert container(grown)["restartCount"] == 0
        worker("exec", grown["metadata"]["name"], "--", "touch", "/tmp/rest")
        rested = eventually(lambda: (pod := the_pod(worker)) and in_kernel(pod)[1] <= 4000 and pod)
        assert container(rested)["containerID"] == container(before)["containerID"]
        events = worker("get", "events", "--field-selector=reason=Resized", "-o", "jsonpath={.items[*].message}")
        assert grown["metadata"]["name"] in events
        worker("delete", "scaling", "worker", "--wait=true", "--timeout=30s")


def test_B40_the_example_operator_serves_a_site(kubectl: Kubectl, cluster: Cluster) -> None:
    with operator("site", cluster):
        eventually(lambda: "sites" in kubectl("api-resources", "--api-group=example.com", check=False))
        kubectl("apply", "-f", "-", stdin=SITE)
        eventually(lambda: kubectl.json("get", "site", "hello").get("status", {}).get("ready") == 2)
        kubectl("delete", "configmap", "hello")
        eventually(lambda: kubectl.json("get", "configmap", "hello")["data"]["index.html"] == "hello from a site")
        kubectl("patch", "site", "hello", "--type=merge", "--patch", '{"spec": {"text": "new", "replicas": 1}}')
        eventually(lambda: kubectl.json("get", "site", "hello")["status"].get("ready") == 1)
        assert kubectl.json("get", "configmap", "hello")["data"]["index.html"] == "new"
        kubectl("delete", "site", "hello", "--wait=true", "--timeout=60s")
        eventually(lambda: "NotFound" in kubectl("get", "deployment", "hello", check=False))
    kubectl("delete", "crd", "sites.example.com", "--timeout=60s")
