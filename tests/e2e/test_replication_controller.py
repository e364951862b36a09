"""The first object that made a cluster worth having: a ReplicationController keeps its pods alive, by stock kubectl."""

from __future__ import annotations

import json

import pytest

from tests.e2e.cluster import Kubectl, eventually

pytestmark = pytest.mark.containerd

CONTROLLER = {
    "apiVersion": "v1",
    "kind": "ReplicationController",
    "metadata": {"name": "veteran"},
    "spec": {
        "replicas": 2,
        "template": {
            "metadata": {"labels": {"app": "veteran"}},
            "spec": {
                "terminationGracePeriodSeconds": 1,
                "containers": [
                    {
                        "name": "main",
                        "image": "docker.io/library/busybox:latest",
                        "imagePullPolicy": "IfNotPresent",
                        "command": ["sleep", "100000"],
                    }
                ],
            },
        },
    },
}


def test_B3_a_replication_controller_keeps_scales_and_takes_its_pods_along(kubectl: Kubectl) -> None:
    def pods() -> list[str]:
        return kubectl("get", "pods", "-l", "app=veteran", "-o", "name").split()

    def shows(*counts: str) -> bool:
        row = kubectl("get", "rc", "veteran", "--no-headers").split()
        assert row[1:4] == list(counts), row
        return True

    kubectl("create", "-f", "-", stdin=json.dumps(CONTROLLER))
    eventually(lambda: shows("2", "2", "2"))
    lost = pods()[0]
    kubectl("delete", lost, "--wait=true")
    eventually(lambda: shows("2", "2", "2") and lost not in pods())
    kubectl("scale", "rc", "veteran", "--replicas=1")
    eventually(lambda: shows("1", "1", "1") and len(pods()) == 1)
    assert "Created pod: veteran-" in kubectl("describe", "rc", "veteran")
    kubectl("delete", "rc", "veteran")
    eventually(lambda: not pods())
