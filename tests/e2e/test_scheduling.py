"""What scheduling promises, on a node with a kernel: limits that cap, taints that evict, room that is lent."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.cluster import Cluster, Kubectl, eventually, unique_name
from tiphys_apimachinery.quantity import Quantity

pytestmark = pytest.mark.containerd
NODE = "node-1"
GROUPS = Path("/sys/fs/cgroup")
GI = 1 << 30
LENT = """
apiVersion: kubescheduler.config.k8s.io/v1
kind: KubeSchedulerConfiguration
profiles:
- schedulerName: lending
  pluginConfig:
  - name: MeasuredUse
    args: {priorityClassNames: [spare], periodSeconds: 2}
"""
SPARE = {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": "spare"}, "value": -10}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster of its own: its node is tainted and filled."""
    found = Cluster(unique_name("e2e-sched-"), tmp_path_factory.mktemp("home-sched") / "home")
    try:
        found.up()
        yield found
    finally:
        found.down()


@pytest.fixture
def kubectl(cluster: Cluster) -> Iterator[Kubectl]:
    """kubectl, with no pods and taints left behind."""
    found = cluster.kubectl()
    yield found
    found("taint", "node", NODE, "e2e-", check=False)
    found("delete", "pods", "--all", "--wait=true", "--timeout=90s")


def pod(name: str, *command: str, resources: Any = None, **spec: Any) -> str:
    container: dict[str, Any] = {"name": "main", "image": "busybox", "imagePullPolicy": "IfNotPresent"}
    container |= {"command": list(command) or ["sleep", "100000"], "resources": resources or {}}
    made = {"terminationGracePeriodSeconds": 0, "containers": [container], **spec}
    return json.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": made})


def apply(kubectl: Kubectl, *pods: str) -> None:
    for made in pods:
        kubectl("apply", "-f", "-", stdin=made)


def ready(kubectl: Kubectl, *names: str) -> None:
    kubectl("wait", "--for=condition=Ready", *(f"pod/{name}" for name in names), "--timeout=90s")


def groups(kubectl: Kubectl, name: str) -> tuple[str, str]:
    """The uid of a pod and the id of its container, by which their groups are named."""
    found = kubectl.json("get", "pod", name)
    return found["metadata"]["uid"], found["status"]["containerStatuses"][0]["containerID"].rpartition("/")[2]


def group(uid: str, controller: str) -> Path:
    """A pod's group in a hierarchy of version 1."""
    (found,) = (GROUPS / controller).glob(f"*/{NODE}/kubepods/**/pod{uid}")
    return found


def figure(uid: str, file: str, container: str = "") -> int:
    """A number that the kernel has for a pod's group, or for its container's."""
    return int((group(uid, file.partition(".")[0]) / container / file).read_text())


def test_C13_pods_with_limits_above_the_node_all_schedule_and_the_kernel_has_their_limits(kubectl: Kubectl) -> None:
    capacity = kubectl.json("get", "node", NODE)["status"]["allocatable"]
    cpus, memory = (
        int(Quantity.parse(capacity["cpu"]).value()) + 4,
        Quantity.parse(capacity["memory"]).value() // GI + 4,
    )
    resources = {
        "requests": {"cpu": "10m", "memory": "8Mi"},
        "limits": {"cpu": str(cpus), "memory": f"{memory}Gi"},
    }
    names = [f"capped-{number}" for number in range(4)]
    apply(kubectl, *(pod(name, resources=resources) for name in names))
    ready(kubectl, *names)
    for name in names:
        uid, container = groups(kubectl, name)
        assert figure(uid, "cpu.cfs_quota_us", container) == cpus * 100_000
        assert figure(uid, "cpu.shares", container) == 10
        assert figure(uid, "memory.limit_in_bytes", container) == memory * GI


def tolerating(seconds: int) -> list[dict[str, Any]]:
    return [{"key": "e2e", "operator": "Equal", "value": "x", "effect": "NoExecute", "tolerationSeconds": seconds}]


def is_there(kubectl: Kubectl, name: str) -> bool:
    found = kubectl.json("get", "pods", "--field-selector", f"metadata.name={name}")["items"]
    return any("deletionTimestamp" not in item["metadata"] for item in found)


def test_C16_a_taint_that_is_taken_away_in_time_evicts_nobody(kubectl: Kubectl) -> None:
    """Conformance: NoExecuteTaintManager Single Pod, removing taint cancels eviction."""
    apply(kubectl, pod("patient", tolerations=tolerating(20)), pod("impatient"))
    ready(kubectl, "patient", "impatient")
    kubectl("taint", "node", NODE, "e2e=x:NoExecute")
    tainted_at = time.monotonic()
    eventually(lambda: not is_there(kubectl, "impatient"))
    assert is_there(kubectl, "patient")
    kubectl("taint", "node", NODE, "e2e:NoExecute-")
    took_s = time.monotonic() - tainted_at
    if took_s > 19:
        pytest.fail(f"the machine took {took_s:.0f} s to take the taint away: nothing can be said")
    # Well past the time at which it would have gone.
    said = kubectl("wait", "--for=delete", "pod/patient", "--timeout=25s", check=False)
    assert "timed out" in said
    assert is_there(kubectl, "patient")


def test_C16_each_pod_is_evicted_after_the_time_that_it_tolerates(kubectl: Kubectl) -> None:
    """Conformance: NoExecuteTaintManager Multiple Pods, evicts pods with minTolerationSeconds."""
    apply(kubectl, pod("short", tolerations=tolerating(2)), pod("long", tolerations=tolerating(20)))
    ready(kubectl, "short", "long")
    kubectl("taint", "node", NODE, "e2e=x:NoExecute")
    tainted_at = time.monotonic()
    eventually(lambda: not is_there(kubectl, "short"))
    if time.monotonic() - tainted_at < 15:
        assert is_there(kubectl, "long")
    eventually(lambda: not is_there(kubectl, "long"))
    assert time.monotonic() - tainted_at >= 18


def test_C16_a_tainted_node_takes_those_who_tolerate_it(kubectl: Kubectl) -> None:
    kubectl("taint", "node", NODE, "e2e=x:NoSchedule")
    apply(kubectl, pod("kept-away"), pod("welcome", tolerations=[{"key": "e2e", "operator": "Exists"}]))
    ready(kubectl, "welcome")

    def told() -> bool:
        return "had untolerated taint {e2e: x}" in kubectl("describe", "pod", "kept-away")

    eventually(told)
    kubectl("taint", "node", NODE, "e2e-")
    ready(kubectl, "kept-away")


def test_C24_kubectl_takes_the_last_gate_away_and_the_pod_goes(kubectl: Kubectl) -> None:
    apply(kubectl, pod("gated", schedulingGates=[{"name": "example.com/one"}, {"name": "example.com/two"}]))
    assert "SchedulingGated" in kubectl("get", "pod", "gated")
    removal = '[{"op": "remove", "path": "/spec/schedulingGates/0"}]'
    kubectl("patch", "pod", "gated", "--type=json", "-p", removal)
    assert "SchedulingGated" in kubectl("get", "pod", "gated")
    kubectl("patch", "pod", "gated", "--type=json", "-p", removal)
    ready(kubectl, "gated")


@contextlib.contextmanager
def lending_scheduler(cluster: Cluster, folder: Path) -> Iterator[None]:
    """A second scheduler, for pods that name it."""
    config, log = folder / "lending.yaml", folder / "lending.log"
    config.write_text(LENT)
    command = [sys.executable, "-m", "tiphys_scheduler", f"--kubeconfig={cluster.home / 'scheduler.conf'}"]
    command += [f"--config={config}", "--leader-elect=false", "--secure-port=0", "--grpc-port=0"]
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
        try:
            yield
            assert process.poll() is None, log.read_text()
        finally:
            process.terminate()
            process.wait(30)


def spinning(threads: int, until: str = "true") -> Sequence[str]:
    """Uses all processors that it gets, once a command succeeds."""
    spin = "while :; do :; done & " * threads
    return ("sh", "-c", f"until {until}; do sleep 0.1; done; {spin} wait")


def used(uids: Sequence[str]) -> int:
    return sum(figure(uid, "cpuacct.usage") for uid in uids)


def test_C14_pods_on_lent_room_take_nothing_from_those_who_requested_it(
    kubectl: Kubectl, cluster: Cluster, tmp_path: Path
) -> None:
    kubectl("apply", "-f", "-", stdin=json.dumps(SPARE))
    millis = Quantity.parse(kubectl.json("get", "node", NODE)["status"]["allocatable"]["cpu"]).milli_value()
    threads = -(-millis // 1000)
    mine = {"cpu": f"{millis - 50}m", "memory": "64Mi"}
    apply(kubectl, pod("sure", *spinning(threads, "test -f /tmp/go"), resources={"requests": mine, "limits": mine}))
    ready(kubectl, "sure")
    # Full by requests, and idle.
    apply(kubectl, pod("ordinary", resources={"requests": {"cpu": "100m"}}))
    lent = {"spare.tiphys.io/cpu-millis": "100", "spare.tiphys.io/memory": "16Mi"}
    of_class = {"priorityClassName": "spare", "schedulerName": "lending"}
    names = [f"lent-{number}" for number in range(2)]
    resources = {"requests": lent, "limits": lent}
    with lending_scheduler(cluster, tmp_path):
        apply(kubectl, *(pod(name, *spinning(threads), resources=resources, **of_class) for name in names))
        ready(kubectl, *names)
    assert "Insufficient cpu" in kubectl("describe", "pod", "ordinary")
    sure, container = groups(kubectl, "sure")
    on_lent = [groups(kubectl, name) for name in names]
    assert figure(sure, "cpu.shares") == figure(sure, "cpu.shares", container) == (millis - 50) * 1024 // 1000
    for uid, inside in on_lent:
        assert figure(uid, "cpu.shares") == figure(uid, "cpu.shares", inside) == 2
    # All of them together weigh no more.
    assert int((group(on_lent[0][0], "cpu").parent / "cpu.shares").read_text()) == 2
    # Now all want everything: whose room it is has it.
    kubectl("exec", "sure", "--", "touch", "/tmp/go")
    uids = [uid for uid, _ in on_lent]
    begun = used([sure])
    eventually(lambda: used([sure]) > begun + 1_000_000_000)
    first, beside = used([sure]), used(uids)
    eventually(lambda: used([sure]) - first > 4_000_000_000)
    assert used([sure]) - first > 5 * (used(uids) - beside)
