"""`tiphys what-if`: what it says of pods that do not exist is what the scheduler then does with them."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.cluster import TIPHYS, Cluster, eventually, run

pytestmark = pytest.mark.containerd


def pod(name: str, cpu: str, **spec: Any) -> dict[str, Any]:
    container = {"name": "c", "image": "busybox", "command": ["sleep", "1000"], "resources": {"requests": {"cpu": cpu}}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": "what-if"}},
        "spec": {"containers": [container], "terminationGracePeriodSeconds": 0, **spec},
    }


def test_C32_the_answer_is_what_the_scheduler_then_does(cluster: Cluster, tmp_path: Path) -> None:
    kubectl = cluster.kubectl()
    file = tmp_path / "pods.json"
    pods = [pod(f"what-{number}", "10m") for number in range(4)]
    pods += [pod("what-large", "900"), pod("what-elsewhere", "10m", nodeSelector={"disk": "none"})]
    file.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": pods}))

    def ask(*more: str) -> str:
        return run(TIPHYS, "what-if", "-f", str(file), f"--name={cluster.name}", *more, check=False)

    outcomes = json.loads(ask("-o", "json"))["outcomes"]
    assert [item["name"] for item in outcomes] == [item["metadata"]["name"] for item in pods]
    lines = ask().splitlines()
    assert lines[0].split() == ["NAMESPACE", "NAME", "NODE", "SCORE", "MESSAGE"]
    assert "Insufficient cpu" in lines[5]
    assert "didn't match Pod's node affinity/selector" in lines[6]
    # Nothing was made.
    assert "No resources found" in kubectl("get", "pods", "-l", "app=what-if", check=False)

    def came_true(item: dict[str, str]) -> bool:
        if item.get("node"):
            return kubectl("get", "pod", item["name"], "-o", "jsonpath={.spec.nodeName}") == item["node"]
        reason = "jsonpath={.status.conditions[?(@.type=='PodScheduled')].message}"
        return kubectl("get", "pod", item["name"], "-o", reason).startswith(item["message"])

    kubectl("create", "-f", str(file))
    try:
        for item in outcomes:
            eventually(partial(came_true, item))
    finally:
        kubectl("delete", "pods", "-l", "app=what-if")


def test_C32_a_pod_that_would_be_refused_is_told_with_the_reason(cluster: Cluster, tmp_path: Path) -> None:
    file = tmp_path / "pods.json"
    file.write_text(json.dumps(pod("Wrong_Name", "10m")))
    said = run(TIPHYS, "what-if", "-f", str(file), f"--name={cluster.name}", check=False)
    assert "pod default/Wrong_Name would be refused" in said
    assert "metadata.name" in said
