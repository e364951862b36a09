"""GPUs from a device plugin, from the API server to the inside of a container; the GPUs are simulated."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.cluster import Cluster, Kubectl, eventually, unique_name
from tests.e2e.test_healing import pid_of
from tiphys_cluster.layout import RUN

pytestmark = pytest.mark.containerd
GPU = "nvidia.com/gpu"


@pytest.fixture(scope="module")
def gpus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster of one node with two simulated GPUs."""
    cluster = Cluster(unique_name("e2e-dev-"), tmp_path_factory.mktemp("dev") / "home")
    try:
        cluster.up("--fake=gpu:2")
        yield cluster
    finally:
        cluster.down()


@pytest.fixture
def kubectl(gpus: Cluster) -> Iterator[Kubectl]:
    """kubectl, when both GPUs are allocatable; its pods are gone afterwards."""
    found = gpus.kubectl()
    eventually(lambda: amounts(found) == ("2", "2"))
    yield found
    found("delete", "pods", "--all", "--wait=true", "--timeout=60s")


def amounts(kubectl: Kubectl, resource: str = GPU) -> tuple[str | None, str | None]:
    """Capacity and allocatable of the node."""
    status = kubectl.json("get", "node", "node-1")["status"]
    return status["capacity"].get(resource), status["allocatable"].get(resource)


def pod(name: str, **resources: dict[str, str]) -> str:
    """A manifest."""
    main: dict[str, Any] = {"name": "main", "image": "docker.io/library/busybox:latest", "command": ["sleep", "1000"]}
    main |= {"imagePullPolicy": "IfNotPresent", "resources": resources}
    spec = {"terminationGracePeriodSeconds": 1, "containers": [main]}
    return json.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec})


def start(kubectl: Kubectl, name: str, count: int = 1, resource: str = GPU) -> None:
    """A pod that asks for devices, running."""
    kubectl("apply", "-f", "-", stdin=pod(name, limits={resource: str(count)}))
    kubectl("wait", "--for=condition=Ready", f"pod/{name}", "--timeout=60s")


def gpus_of(kubectl: Kubectl, name: str) -> str:
    """Which GPUs a container was told it has."""
    return kubectl("exec", name, "--", "sh", "-c", "echo $NVIDIA_VISIBLE_DEVICES").strip()


def container_id(kubectl: Kubectl, name: str) -> str:
    """The container's id, another after each restart."""
    return str(kubectl.json("get", "pod", name)["status"]["containerStatuses"][0]["containerID"])


def test_I15_a_gpu_pod_sees_its_device_and_nobody_else_gets_it(kubectl: Kubectl) -> None:
    start(kubectl, "one")
    start(kubectl, "two")
    files = {name: kubectl("exec", name, "--", "sh", "-c", "ls /dev/nvidia*").split() for name in ("one", "two")}
    assert {"/dev/nvidiactl", "/dev/nvidia-uvm"} < set(files["one"])
    own = [path for found in files.values() for path in found if path in ("/dev/nvidia0", "/dev/nvidia1")]
    assert sorted(own) == ["/dev/nvidia0", "/dev/nvidia1"]
    assert sorted([gpus_of(kubectl, "one"), gpus_of(kubectl, "two")]) == ["GPU-fake-0", "GPU-fake-1"]
    assert "libcuda.so.1" in kubectl("exec", "one", "--", "ls", "/usr/local/nvidia/lib64")
    kubectl("apply", "-f", "-", stdin=pod("three", limits={GPU: "1"}))
    eventually(lambda: "Insufficient nvidia.com/gpu" in kubectl("describe", "pod", "three"))
    kubectl("delete", "pod", "one", "--wait=true", "--timeout=60s")
    kubectl("wait", "--for=condition=Ready", "pod/three", "--timeout=60s")
    assert gpus_of(kubectl, "three") != gpus_of(kubectl, "two")


@pytest.mark.parametrize(
    ("resources", "words"),
    [
        pytest.param({"limits": {GPU: "500m"}}, "must be an integer", id="fractional"),
        pytest.param(
            {"requests": {GPU: "1"}, "limits": {GPU: "2"}}, "must be equal to nvidia.com/gpu", id="overcommit"
        ),
        pytest.param({"requests": {GPU: "1"}}, "Limit must be set for non overcommitable resources", id="no limit"),
    ],
)
def test_I16_requests_that_are_no_whole_devices_are_refused(
    kubectl: Kubectl, resources: dict[str, dict[str, str]], words: str
) -> None:
    said = kubectl("apply", "-f", "-", stdin=pod("wrong", **resources), check=False)
    assert words in said


def test_I17_a_capacity_patched_by_hand_is_scheduled(kubectl: Kubectl) -> None:
    resource = "example.com/dongle"
    kubectl("apply", "-f", "-", stdin=pod("dongle", limits={resource: "1"}))
    eventually(lambda: f"Insufficient {resource}" in kubectl("describe", "pod", "dongle"))
    patch = json.dumps({"status": {"capacity": {resource: "1"}}})
    kubectl("patch", "node", "node-1", "--subresource=status", "--type=merge", "-p", patch)
    kubectl("wait", "--for=condition=Ready", "pod/dongle", "--timeout=60s")
    assert amounts(kubectl, resource) == ("1", "1")
    assert amounts(kubectl) == ("2", "2")


@pytest.mark.parametrize("component", ["kubelet-node-1", "device-plugin-node-1"])
def test_I19_a_killed_side_comes_back_and_the_pod_keeps_its_device(
    gpus: Cluster, kubectl: Kubectl, component: str
) -> None:
    start(kubectl, "one")
    before, ran_in, had = pid_of(gpus, component), container_id(kubectl, "one"), gpus_of(kubectl, "one")
    os.kill(before, signal.SIGKILL)
    start(kubectl, "two")
    eventually(lambda: pid_of(gpus, component) != before)
    eventually(lambda: amounts(kubectl) == ("2", "2"))
    assert container_id(kubectl, "one") == ran_in
    assert gpus_of(kubectl, "one") == had != gpus_of(kubectl, "two")


def test_I18_a_gpu_that_turns_unhealthy_is_not_allocatable_until_it_is_well(gpus: Cluster, kubectl: Kubectl) -> None:
    faults = next((RUN / gpus.name).rglob("devices/driver")).parent / "faults"
    start(kubectl, "one")
    faults.write_text(f"{gpus_of(kubectl, 'one')}: xid 79\n")
    eventually(lambda: amounts(kubectl) == ("2", "1"))
    told = kubectl.json("get", "pod", "one")["status"]["containerStatuses"][0]["allocatedResourcesStatus"]
    assert told[0]["resources"][0]["health"] == "Unhealthy"
    faults.unlink()
    eventually(lambda: amounts(kubectl) == ("2", "2"))
