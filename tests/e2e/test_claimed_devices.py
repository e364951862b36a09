"""Devices by resource claims, from a DRA driver's slices to the inside of a container; the devices are simulated."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.cluster import ROOT, TIPHYS, Cluster, Kubectl, eventually, run, unique_name
from tests.e2e.test_healing import pid_of

pytestmark = pytest.mark.containerd
DRIVER = "dra.tiphys.example"
# containerd of Debian 12 is older than CDI.
CONTAINERD = ROOT / "build" / "containerd-1.7"
CLASS = {
    "apiVersion": "resource.k8s.io/v1",
    "kind": "DeviceClass",
    "metadata": {"name": "gpu"},
    "spec": {"selectors": [{"cel": {"expression": f"device.driver == '{DRIVER}'"}}]},
}


def template(name: str, **request: Any) -> dict[str, Any]:
    """A template of claims with one request."""
    requests = [{"name": "gpu", "exactly": {"deviceClassName": "gpu"} | request}]
    return {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceClaimTemplate",
        "metadata": {"name": name},
        "spec": {"spec": {"devices": {"requests": requests}}},
    }


def pod(name: str, template_name: str = "one-gpu") -> dict[str, Any]:
    """A pod whose container has a claim from a template."""
    main: dict[str, Any] = {"name": "main", "image": "docker.io/library/busybox:latest", "command": ["sleep", "1000"]}
    main |= {"imagePullPolicy": "IfNotPresent", "resources": {"claims": [{"name": "gpu"}]}}
    spec: dict[str, Any] = {"terminationGracePeriodSeconds": 1, "containers": [main]}
    spec["resourceClaims"] = [{"name": "gpu", "resourceClaimTemplateName": template_name}]
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}


@pytest.fixture(scope="module")
def devices(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster of one node whose DRA driver offers two GPUs."""
    assert (CONTAINERD / "containerd").exists(), f"run hack/fetch-containerd {CONTAINERD}"
    cluster = Cluster(unique_name("e2e-dra-"), tmp_path_factory.mktemp("dra") / "home")
    path = os.environ["PATH"]
    try:
        os.environ["PATH"] = f"{CONTAINERD}:{path}"
        cluster.up("--fake=dra:gpu:2")
        yield cluster
    finally:
        os.environ["PATH"] = path
        cluster.down()


@pytest.fixture
def kubectl(devices: Cluster) -> Iterator[Kubectl]:
    """kubectl, when the driver has published its devices; pods and claims are gone afterwards."""
    found = devices.kubectl()
    eventually(lambda: found.json("get", "resourceslices")["items"])
    for item in (CLASS, template("one-gpu"), template("both-gpus", count=2)):
        found("apply", "-f", "-", stdin=json.dumps(item))
    yield found
    found("delete", "pods", "--all", "--wait=true", "--timeout=60s")


def start(kubectl: Kubectl, manifest: dict[str, Any]) -> None:
    """Creates a pod, and waits until it runs."""
    kubectl("apply", "-f", "-", stdin=json.dumps(manifest))
    kubectl("wait", "--for=condition=Ready", f"pod/{manifest['metadata']['name']}", "--timeout=120s")


def given(kubectl: Kubectl, name: str) -> list[str]:
    """The devices that a container was told of, and the device files that it has."""
    said = kubectl("exec", name, "--", "sh", "-c", "env | grep ^DRA_GPU | cut -d= -f2; ls /dev | grep ^gpu-")
    return sorted(said.split())


def refusal(kubectl: Kubectl, name: str) -> str:
    """Why a pod has no node."""
    conditions = kubectl.json("get", "pod", name)["status"].get("conditions", [])
    return next((c.get("message", "") for c in conditions if c["type"] == "PodScheduled"), "")


def test_C28_a_pod_gets_its_own_device_by_cdi_and_the_next_waits_for_it(kubectl: Kubectl, devices: Cluster) -> None:
    start(kubectl, pod("first"))
    start(kubectl, pod("second"))
    both = [given(kubectl, name) for name in ("first", "second")]
    assert sorted(both) == [["gpu-0", "node-1/gpu-0"], ["gpu-1", "node-1/gpu-1"]]
    kubectl("apply", "-f", "-", stdin=json.dumps(pod("third")))
    eventually(lambda: "cannot allocate all claims" in refusal(kubectl, "third"))
    said = run(TIPHYS, "explain", "pod/third", f"--name={devices.name}")
    assert "DynamicResources" in said
    assert "cannot allocate all claims" in said
    # A kubelet that dies in between neither takes a device from a running pod nor forgets to give one back.
    os.kill(pid_of(devices, "kubelet-node-1"), signal.SIGKILL)
    kubectl("delete", "pod", "first", "--wait=true", "--timeout=60s")
    kubectl("wait", "--for=condition=Ready", "pod/third", "--timeout=120s")
    assert given(kubectl, "third") == both[0]
    assert given(kubectl, "second") == both[1]


def test_C28_a_finished_pod_frees_its_devices_before_it_is_deleted(kubectl: Kubectl) -> None:
    done = pod("done", "both-gpus")
    done["spec"]["containers"][0]["command"] = ["sh", "-c", "ls /dev | grep ^gpu-"]
    done["spec"]["restartPolicy"] = "Never"
    kubectl("apply", "-f", "-", stdin=json.dumps(done))
    eventually(lambda: kubectl.json("get", "pod", "done")["status"].get("phase") == "Succeeded")
    assert kubectl("logs", "done").split() == ["gpu-0", "gpu-1"]
    start(kubectl, pod("next"))
    eventually(lambda: len(kubectl.json("get", "resourceclaims")["items"]) == 1)


def test_C28_a_claim_is_shared_and_its_pods_start_after_the_template_comes(kubectl: Kubectl) -> None:
    late = pod("late", "no-such-template")
    kubectl("apply", "-f", "-", stdin=json.dumps(late))
    eventually(lambda: "not found" in kubectl("get", "events", "--field-selector=involvedObject.name=late"))
    kubectl("apply", "-f", "-", stdin=json.dumps(template("no-such-template")))
    kubectl("wait", "--for=condition=Ready", "pod/late", "--timeout=120s")
    claim = template("shared")["spec"] | {"apiVersion": CLASS["apiVersion"], "kind": "ResourceClaim"}
    kubectl("apply", "-f", "-", stdin=json.dumps(claim | {"metadata": {"name": "shared"}}))
    for name in ("one", "two"):
        shares = pod(name)
        shares["spec"]["resourceClaims"] = [{"name": "gpu", "resourceClaimName": "shared"}]
        start(kubectl, shares)
    assert given(kubectl, "one") == given(kubectl, "two") != given(kubectl, "late")
