"""DaemonSets on a real node: rolled out, back again, and where the node's network is their own work."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.cluster import Cluster, Kubectl, eventually

# One store is enough: the controller does not see it.
pytestmark = [pytest.mark.containerd, pytest.mark.parametrize("cluster", ["sqlite"], indirect=True, scope="session")]

AGENT = """
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: agent}
spec:
  selector: {matchLabels: {app: agent}}
  template:
    metadata: {labels: {app: agent}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: main
        image: busybox
        imagePullPolicy: IfNotPresent
        command: [sh, -c, "trap exit TERM; while true; do sleep 1; done"]
        env: [{name: COLOR, value: red}]
"""
# As flannel's own manifest has it: the host's network, and tolerant of all that keeps new pods away.
NETWORK = """
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: network}
spec:
  selector: {matchLabels: {app: network}}
  template:
    metadata: {labels: {app: network}}
    spec:
      terminationGracePeriodSeconds: 1
      hostNetwork: true
      tolerations: [{operator: Exists, effect: NoSchedule}]
      containers:
      - name: install
        image: busybox
        imagePullPolicy: IfNotPresent
        command:
        - sh
        - -c
        - mv /net.d/taken-away /net.d/10-tiphys.conflist; trap exit TERM; while true; do sleep 1; done
        volumeMounts: [{name: net, mountPath: /net.d}]
      volumes:
      - name: net
        hostPath: {path: FOLDER}
"""


@pytest.fixture
def agent(cluster: Cluster) -> Iterator[Kubectl]:
    """A DaemonSet, rolled out."""
    kubectl = cluster.kubectl()
    kubectl("apply", "-f", "-", stdin=AGENT)
    roll_out(kubectl, "agent")
    yield kubectl
    kubectl("delete", "daemonset", "agent", "--ignore-not-found", "--wait=true", "--timeout=60s")
    kubectl("wait", "--for=delete", "pod", "-l", "app=agent", "--timeout=60s", check=False)


def roll_out(kubectl: Kubectl, name: str) -> None:
    assert "successfully rolled out" in kubectl("rollout", "status", f"daemonset/{name}", "--timeout=120s")


def color(kubectl: Kubectl) -> set[str]:
    pods = kubectl.json("get", "pods", "-l", "app=agent")["items"]
    live = [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]
    return {pod["spec"]["containers"][0]["env"][0]["value"] for pod in live}


def template(kubectl: Kubectl) -> str:
    return kubectl("get", "daemonset", "agent", "-o", "jsonpath={.spec.template}")


def test_B15_B34_a_daemon_set_is_rolled_out_and_back_with_its_template_as_it_was(agent: Kubectl) -> None:
    before = template(agent)
    agent("set", "env", "daemonset/agent", "COLOR=blue")
    roll_out(agent, "agent")
    assert color(agent) == {"blue"}
    history = agent("rollout", "history", "daemonset/agent").split("\n")
    assert [line.split()[0] for line in history if line[:1].isdigit()] == ["1", "2"]
    assert "COLOR:\tblue" in agent("rollout", "history", "daemonset/agent", "--revision=2")

    assert "rolled back" in agent("rollout", "undo", "daemonset/agent")
    roll_out(agent, "agent")
    assert color(agent) == {"red"}
    assert template(agent) == before
    agent("rollout", "undo", "daemonset/agent", "--to-revision=2")
    roll_out(agent, "agent")
    assert color(agent) == {"blue"}


def test_B16_a_network_daemon_lands_on_a_node_without_network_and_brings_it_ready(cluster: Cluster) -> None:
    kubectl, folder = cluster.kubectl(), cluster.home / "nodes" / "node-1" / "cni" / "net.d"
    (folder / "10-tiphys.conflist").rename(folder / "taken-away")

    def ready() -> str:
        return kubectl("get", "node", "node-1", "-o", 'jsonpath={.status.conditions[?(@.type=="Ready")].status}')

    def is_tainted() -> bool:
        return "node.kubernetes.io/not-ready" in kubectl("get", "node", "node-1", "-o", "jsonpath={.spec.taints}")

    try:
        eventually(lambda: ready() == "False" and is_tainted())
        kubectl("apply", "-f", "-", stdin=NETWORK.replace("FOLDER", str(folder)))
        eventually(lambda: ready() == "True")
        roll_out(kubectl, "network")
    finally:
        kubectl("delete", "daemonset", "network", "--ignore-not-found", "--wait=true", "--timeout=60s")
        if (folder / "taken-away").exists():
            (folder / "taken-away").rename(folder / "10-tiphys.conflist")
    eventually(lambda: not is_tainted())
