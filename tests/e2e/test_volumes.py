"""Volumes made by hand and for one pod alone: bound with the pod, kept while in use, released after it."""

from __future__ import annotations

import pytest

from tests.e2e.cluster import MANIFESTS, Cluster, Kubectl, eventually

pytestmark = pytest.mark.containerd

MANIFEST = str(MANIFESTS / "local-volume.yaml")


def phase_of(kubectl: Kubectl, kind: str, name: str) -> str:
    return kubectl("get", kind, name, "--ignore-not-found", "-o", "jsonpath={.status.phase}")


def test_claims_of_a_pod_live_and_end_as_they_should(cluster: Cluster) -> None:
    kubectl = cluster.kubectl()
    kubectl("apply", "-f", MANIFEST)
    try:
        kubectl("wait", "--for=condition=Ready", "pod/by-hand", "--timeout=60s")
        assert phase_of(kubectl, "pvc", "by-hand") == "Bound"
        assert phase_of(kubectl, "pvc", "by-hand-scratch") == "Bound"
        assert phase_of(kubectl, "pv", "by-hand") == "Bound"
        kubectl("delete", "pvc", "by-hand", "--wait=false")
        assert "Terminating" in kubectl("get", "pvc", "by-hand")
        kubectl("delete", "pod", "by-hand", "--timeout=60s")
        eventually(lambda: phase_of(kubectl, "pv", "by-hand") == "Released")
        # The ephemeral claim ends with its pod, and its volume with it.
        eventually(lambda: not phase_of(kubectl, "pvc", "by-hand-scratch"))
        eventually(lambda: [item["metadata"]["name"] for item in kubectl.json("get", "pv")["items"]] == ["by-hand"])
    finally:
        kubectl("delete", "-f", MANIFEST, "--ignore-not-found", "--timeout=60s")


def test_a_pod_whose_claim_is_missing_waits_and_says_so(cluster: Cluster) -> None:
    kubectl = cluster.kubectl()
    overrides = (
        '{"spec":{"volumes":[{"name":"v","persistentVolumeClaim":{"claimName":"nowhere"}}],'
        '"containers":[{"name":"c","image":"busybox"}]}}'
    )
    kubectl("run", "lonely", "--image=busybox", "--restart=Never", f"--overrides={overrides}")
    try:
        text = '0/1 nodes are available: persistentvolumeclaim "nowhere" not found.'
        eventually(lambda: text in kubectl("describe", "pod", "lonely"))
        assert phase_of(kubectl, "pod", "lonely") == "Pending"
    finally:
        kubectl("delete", "pod", "lonely", "--timeout=60s")
