"""Several nodes: pods reach each other whatever carries the packets, and nodes come, go, and lose their wires."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.cluster import MANIFESTS, Cluster, Kubectl, eventually, run, unique_name

pytestmark = pytest.mark.containerd
NODES = ("node-1", "node-2", "node-3")
LEASE = "flannel.alpha.coreos.com/"
GPU_POD = """
apiVersion: v1
kind: Pod
metadata: {name: gpu}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: main
    image: busybox
    imagePullPolicy: IfNotPresent
    command: [sleep, "1000"]
    resources: {limits: {nvidia.com/gpu: 1}}
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three nodes, with a Deployment spread over them."""
    found = Cluster(unique_name("e2e-nodes-"), tmp_path_factory.mktemp("home-nodes") / "home")
    try:
        found.up("--nodes=3")
        kubectl = found.kubectl()
        kubectl("apply", "-f", str(MANIFESTS / "spread.yaml"))
        roll_out(kubectl)
        assert set(by_node(kubectl)) == set(NODES)
        yield found
    finally:
        found.down()


def roll_out(kubectl: Kubectl) -> None:
    kubectl("rollout", "status", "deployment/spread", "--timeout=90s")


def by_node(kubectl: Kubectl) -> dict[str, list[Any]]:
    """The pods that are not being deleted, by their node."""
    found: dict[str, list[Any]] = {}
    for pod in kubectl.json("get", "pods", "-l", "app=spread")["items"]:
        if "deletionTimestamp" not in pod["metadata"]:
            found.setdefault(pod["spec"]["nodeName"], []).append(pod)
    return found


def fetch(kubectl: Kubectl, pod: Any, *addresses: str) -> list[str]:
    """What answers a pod at these addresses: the names of pods."""
    script = "".join(f"timeout 2 wget -q -O - http://{address}/ || exit 1\n" for address in addresses)
    said = kubectl("exec", pod["metadata"]["name"], "--", "sh", "-c", script, check=False)
    return [line.split()[0] for line in said.splitlines() if line.startswith("spread-")]


def all_reach_all(kubectl: Kubectl) -> bool:
    """Whether a pod on every node gets answers from every pod by its address, and from the service."""
    spread = by_node(kubectl)
    pods = [pod for on_node in spread.values() for pod in on_node]
    names = [pod["metadata"]["name"] for pod in pods]
    direct = [f"{pod['status']['podIP']}:8080" for pod in pods]
    for visitor, *_ in spread.values():
        answers = fetch(kubectl, visitor, *direct, *["spread"] * 3)
        where = f"from {visitor['metadata']['name']} on {visitor['spec']['nodeName']} to {direct}"
        assert answers[: len(pods)] == names, where
        assert len(answers) == len(pods) + 3, where
    return True


def lease(kubectl: Kubectl, node: str) -> dict[str, str]:
    """A node's subnet and how it is reached."""
    found = kubectl.json("get", "node", node)
    kept = {key: value for key, value in found["metadata"]["annotations"].items() if key.startswith(LEASE)}
    return {**kept, "podCIDR": found["spec"]["podCIDR"]}


@pytest.mark.parametrize(
    ("backend", "route"),
    [
        ("udp", "10.244.0.0/16 dev flannel0"),
        ("host-gw", "via 198.18."),
        ("vxlan", "dev flannel.1"),
    ],
    ids=["F11-udp", "F13-host-gw", "F12-vxlan"],
)
def test_F11_F12_F13_a_service_answers_from_every_node_with_each_back_end(
    cluster: Cluster, backend: str, route: str
) -> None:
    cluster.up(f"--flannel-backend={backend}")

    def has_route(node: str) -> bool:
        return route in cluster.inside(node, "ip", "route")

    for node in NODES:
        eventually(partial(has_route, node))
    assert eventually(lambda: all_reach_all(cluster.kubectl()), timeout_s=20)


def test_F15_a_node_that_was_cut_off_keeps_its_lease_and_answers_on_its_return(cluster: Cluster) -> None:
    kubectl = cluster.kubectl()
    before, spread = lease(kubectl, "node-2"), by_node(kubectl)
    visitor, target = spread["node-1"][0], f"{spread['node-2'][0]['status']['podIP']}:8080"

    cluster.inside("switch", "ip", "link", "set", "port2", "down")
    try:
        assert eventually(lambda: not fetch(kubectl, visitor, target), timeout_s=10)
    finally:
        cluster.inside("switch", "ip", "link", "set", "port2", "up")

    assert eventually(lambda: fetch(kubectl, visitor, target), timeout_s=5)
    assert eventually(lambda: all_reach_all(kubectl), timeout_s=20)
    assert lease(kubectl, "node-2") == before


def test_a_node_comes_and_another_goes_while_the_cluster_runs(cluster: Cluster) -> None:
    kubectl = cluster.kubectl()
    addresses = {node: node_address(kubectl, node) for node in NODES}

    assert "Node node-4 is Ready" in cluster.node("add", "--fake=gpu:2")
    wait_gpus(kubectl, "node-4", "2")
    kubectl("apply", "-f", "-", stdin=GPU_POD)
    kubectl("wait", "--for=condition=Ready", "pod/gpu", "--timeout=60s")
    assert kubectl("get", "pod", "gpu", "-o", "jsonpath={.spec.nodeName}") == "node-4"
    assert "nvidia" in kubectl("exec", "gpu", "--", "ls", "/dev")

    assert "Node node-2 is gone" in cluster.node("remove", "node-2")
    roll_out(kubectl)
    assert set(by_node(kubectl)) == {"node-1", "node-3", "node-4"}
    assert "node-2" not in kubectl("get", "nodes", "-o", "name")
    assert all_reach_all(kubectl)
    assert "port2" not in cluster.inside("switch", "ip", "-o", "link")
    assert traces_of(cluster, "node-2") == []
    assert {node: node_address(kubectl, node) for node in ("node-1", "node-3")} == {
        node: addresses[node] for node in ("node-1", "node-3")
    }

    assert "Node node-2 is Ready" in cluster.node("add")
    assert node_address(kubectl, "node-2") == addresses["node-2"]
    cluster.node("remove", "node-4")
    kubectl("delete", "pod", "gpu", "--ignore-not-found")
    roll_out(kubectl)
    kubectl("rollout", "restart", "deployment/spread")
    roll_out(kubectl)
    assert eventually(lambda: set(by_node(kubectl)) == set(NODES))
    assert eventually(lambda: all_reach_all(kubectl), timeout_s=20)


def node_address(kubectl: Kubectl, node: str) -> str:
    return kubectl("get", "node", node, "-o", "jsonpath={.status.addresses[0].address}")


def wait_gpus(kubectl: Kubectl, node: str, count: str) -> None:
    path = r"jsonpath={.status.allocatable.nvidia\.com/gpu}"
    assert eventually(lambda: kubectl("get", "node", node, "-o", path) == count, timeout_s=10)


def traces_of(cluster: Cluster, node: str) -> list[str]:
    """What the machine shows of a node."""
    places = [*Path("/sys/fs/cgroup").glob(f"*/tiphys-{cluster.name}/{node}")]
    places += [*Path("/sys/fs/cgroup").glob(f"*/tiphys-{cluster.name}/system/*-{node}")]
    places += [*cluster.home.glob(f"*/{node}"), *cluster.home.glob(f"logs/*-{node}.log")]
    running = Path("/run/tiphys", cluster.name)
    places += [*running.glob(f"*{node}*"), *running.glob(f"*/*{node}*")]
    mounts = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if cluster.name in line]
    return [*map(str, places), *(line for line in mounts if node in line)]


def leg_of(cluster: Cluster) -> str:
    """The interface that says it is this cluster's."""
    aliases = {path.parent.name: path.read_text().strip() for path in Path("/sys/class/net").glob("tph*/ifalias")}
    return next(name for name, alias in aliases.items() if alias == f"/run/tiphys/{cluster.name}")


@pytest.mark.parametrize("lost", ["leg", "node-2.net", "node-3.mnt"])
def test_up_puts_back_what_the_machine_lost(cluster: Cluster, lost: str) -> None:
    if lost == "leg":
        run("ip", "link", "delete", leg_of(cluster))
    else:
        run("umount", f"/run/tiphys/{cluster.name}/ns/{lost}")

    cluster.up()

    kubectl = cluster.kubectl()
    roll_out(kubectl)
    assert eventually(lambda: all_reach_all(kubectl), timeout_s=30)
    assert eventually(lambda: "NotReady" not in cluster.status())
