"""A StatefulSet keeps its data: its pods come back under their names, with their volumes, whatever dies meanwhile."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from tests.e2e.cluster import MANIFESTS, Cluster, Kubectl, eventually
from tests.e2e.test_healing import pid_of

pytestmark = pytest.mark.containerd

MANIFEST = str(MANIFESTS / "database.yaml")
# What serves volumes on a node.
PROCESSES = ("kubelet-node-1", "csi-hostpath-node-1", "csi-companion-node-1")


@pytest.fixture
def database(cluster: Cluster) -> Iterator[Kubectl]:
    """A StatefulSet of one pod that notes each of its starts in its volume."""
    kubectl = cluster.kubectl()
    kubectl("apply", "-f", MANIFEST)
    yield kubectl
    kubectl("delete", "-f", MANIFEST, "--ignore-not-found", "--wait=true", "--timeout=60s")
    kubectl("wait", "--for=delete", "pod", "-l", "app=database", "--timeout=60s", check=False)
    kubectl("delete", "pvc", "-l", "app=database", "--wait=true", "--timeout=60s")
    # Every volume goes with its claim: none is left for nobody.
    eventually(lambda: not volumes(kubectl))


def volumes(kubectl: Kubectl) -> list[str]:
    return [item["metadata"]["name"] for item in kubectl.json("get", "pv")["items"]]


def uid_of(kubectl: Kubectl, pod: str) -> str:
    return kubectl("get", "pod", pod, "--ignore-not-found", "-o", "jsonpath={.metadata.uid}")


def starts(kubectl: Kubectl, pod: str) -> list[str]:
    return kubectl("exec", pod, "--", "cat", "/data/starts").split()


def wait_ready(kubectl: Kubectl, replicas: int) -> None:
    def is_ready() -> bool:
        found = kubectl.json("get", "statefulset", "database")
        status = found["status"]
        is_seen = status.get("observedGeneration") == found["metadata"]["generation"]
        return bool(is_seen and status.get("readyReplicas") == status.get("replicas") == replicas)

    eventually(is_ready)


def wait_for_another(kubectl: Kubectl, pod: str, before: str) -> None:
    eventually(lambda: uid_of(kubectl, pod) not in ("", before))
    kubectl("wait", "--for=condition=Ready", f"pod/{pod}", "--timeout=60s")


def test_E25_B12_data_survives_the_pod(database: Kubectl) -> None:
    wait_ready(database, 1)
    before = uid_of(database, "database-0")
    claim = database("get", "pvc", "data-database-0", "-o", "jsonpath={.status.phase} {.spec.volumeName}").split()
    database("delete", "pod", "database-0")
    wait_for_another(database, "database-0", before)
    assert starts(database, "database-0") == ["database-0", "database-0"]
    after = database("get", "pvc", "data-database-0", "-o", "jsonpath={.status.phase} {.spec.volumeName}").split()
    assert after == claim
    assert claim[0] == "Bound"
    assert volumes(database) == [claim[1]]


@pytest.mark.parametrize("process", PROCESSES)
def test_E25_data_survives_a_kill_while_the_pod_is_replaced(cluster: Cluster, database: Kubectl, process: str) -> None:
    wait_ready(database, 1)
    before, pid = uid_of(database, "database-0"), pid_of(cluster, process)
    database("delete", "pod", "database-0", "--wait=false")
    os.kill(pid, signal.SIGKILL)
    wait_for_another(database, "database-0", before)
    assert starts(database, "database-0") == ["database-0", "database-0"]
    assert len(volumes(database)) == 1


@pytest.mark.parametrize("process", PROCESSES)
def test_E25_a_volume_is_made_once_though_its_makers_are_killed(
    cluster: Cluster, database: Kubectl, process: str
) -> None:
    wait_ready(database, 1)
    for replicas in (2, 3):
        pid = pid_of(cluster, process)
        database("scale", "statefulset/database", f"--replicas={replicas}")
        os.kill(pid, signal.SIGKILL)
        wait_ready(database, replicas)
    assert [starts(database, f"database-{number}") for number in range(3)] == [
        ["database-0"],
        ["database-1"],
        ["database-2"],
    ]
    assert len(volumes(database)) == 3


def test_B13_B34_a_stateful_set_scales_rolls_and_goes_back_by_kubectl(database: Kubectl, kubectl: Kubectl) -> None:
    wait_ready(database, 1)
    kubectl("scale", "statefulset/database", "--replicas=2")
    wait_ready(database, 2)
    assert "ready" in kubectl("get", "statefulset", "database").lower()
    kubectl("set", "env", "statefulset/database", "ROUND=2")
    said = kubectl("rollout", "status", "statefulset/database", "--timeout=60s")
    assert "2 new pods have been updated" in said
    assert "ROUND=2" in kubectl("exec", "database-1", "--", "env")
    assert len(kubectl("rollout", "history", "statefulset/database").split("\n")) >= 4
    kubectl("rollout", "undo", "statefulset/database")
    kubectl("rollout", "status", "statefulset/database", "--timeout=60s")
    assert "ROUND=2" not in kubectl("exec", "database-1", "--", "env")
    # Three lives each, one volume.
    assert starts(database, "database-1") == ["database-1"] * 3
    kubectl("scale", "statefulset/database", "--replicas=1")
    wait_ready(database, 1)
    assert uid_of(database, "database-1") == ""


def test_B11_each_pod_of_a_stateful_set_has_its_name(database: Kubectl) -> None:
    wait_ready(database, 1)
    address = database("get", "pod", "database-0", "-o", "jsonpath={.status.podIP}")
    name = "database-0.database.default.svc.cluster.local"
    assert address in eventually(lambda: database("exec", "database-0", "--", "nslookup", name, check=False))
    labels = database.json("get", "pod", "database-0")["metadata"]["labels"]
    assert labels["statefulset.kubernetes.io/pod-name"] == "database-0"
    assert labels["apps.kubernetes.io/pod-index"] == "0"


def test_claims_grow_and_shrink_by_their_rules(database: Kubectl) -> None:
    wait_ready(database, 1)

    def resize(size: str, *, check: bool = True) -> str:
        patch = f'{{"spec":{{"resources":{{"requests":{{"storage":"{size}"}}}}}}}}'
        return database("patch", "pvc", "data-database-0", "-p", patch, check=check)

    resize("20Mi")
    eventually(lambda: database("get", "pvc", "data-database-0", "-o", "jsonpath={.status.capacity.storage}") == "20Mi")
    assert "field can not be less than status.capacity" in resize("5Mi", check=False)
