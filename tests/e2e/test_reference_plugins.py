"""Debian's CNI plugins in place of ours, by configuration, with a range of pods of the user's choice."""

from __future__ import annotations

import json
from collections.abc import Iterator
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from tests.e2e.cluster import Cluster, eventually, unique_name

pytestmark = pytest.mark.containerd
PLUGINS = Path("/usr/lib/cni")
RANGE = IPv4Network("10.60.0.0/16")
# What nothing of ours writes: another bridge, and addresses that we would not begin with.
NETWORK = {
    "cniVersion": "1.0.0",
    "name": "own",
    "plugins": [
        {
            "type": "bridge",
            "bridge": "own0",
            "isDefaultGateway": True,
            "ipMasq": True,
            "ipam": {"type": "host-local", "ranges": [[{"subnet": "{{podCIDR}}"}]]},
        },
        {"type": "portmap", "capabilities": {"portMappings": True}},
        {"type": "tuning", "sysctl": {"net.core.somaxconn": "611"}},
    ],
}


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """One node with a network of the user's own."""
    own = tmp_path / "own.conflist"
    own.write_text(json.dumps(NETWORK))
    found = Cluster(unique_name("e2e-own-"), tmp_path / "home")
    try:
        found.up(f"--pod-network-cidr={RANGE}", f"--cni-conf={own}", f"--cni-bin-dir={PLUGINS}")
        yield found
    finally:
        found.down()


def test_F16_F18_reference_plugins_and_a_range_of_the_users_choice_serve_pods(cluster: Cluster) -> None:
    kubectl = cluster.kubectl()
    node = IPv4Network(kubectl("get", "node", "node-1", "-o", "jsonpath={.spec.podCIDR}"))
    assert node.subnet_of(RANGE)
    assert node.prefixlen == 24
    binaries = cluster.home / "nodes" / "node-1" / "cni" / "bin"
    assert (binaries / "bridge").resolve() == (PLUGINS / "bridge").resolve()

    for name in ("server", "visitor"):
        kubectl("run", name, "--image=tiphys.dev/httpd:1")
    kubectl("wait", "--for=condition=Ready", "pod/server", "pod/visitor", "--timeout=60s")
    address = kubectl("get", "pod", "server", "-o", "jsonpath={.status.podIP}")
    kubectl("expose", "pod", "server", "--port=80", "--target-port=8080")

    assert address in [str(host) for host in node.hosts()]
    assert "server" in kubectl("exec", "visitor", "--", "wget", "-qO-", f"http://{address}:8080")
    eventually(lambda: "server" in kubectl("exec", "visitor", "--", "wget", "-qO-", "http://server"))
    assert kubectl("exec", "server", "--", "cat", "/proc/sys/net/core/somaxconn").strip() == "611"
    assert "own0" in cluster.inside("node-1", "ip", "link", "show", "type", "bridge")
    assert "cni0" not in cluster.inside("node-1", "ip", "link", "show", "type", "bridge")
    # Their DEL is called too: no address stays behind.
    kubectl("delete", "pod", "server", "visitor", "--timeout=60s")
    kept = Path("/var/lib/cni/networks/own")
    eventually(lambda: "10.60." not in cluster.inside("node-1", "ls", str(kept)))


def test_F23_node_without_its_network_configuration_is_not_ready_and_says_why(cluster: Cluster) -> None:
    kubectl, folder = cluster.kubectl(), cluster.home / "nodes" / "node-1" / "cni" / "net.d"
    written = folder / "10-tiphys.conflist"
    written.rename(folder / "taken-away")

    def ready() -> str:
        path = '{.status.conditions[?(@.type=="Ready")].status} {.status.conditions[?(@.type=="Ready")].message}'
        return kubectl("get", "node", "node-1", "-o", f"jsonpath={path}")

    eventually(lambda: ready().startswith("False"))
    assert f"no network configuration list in {folder}" in ready()
    (folder / "taken-away").rename(written)
    eventually(lambda: ready().startswith("True"))
