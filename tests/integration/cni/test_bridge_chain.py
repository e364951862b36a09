"""The installed executables against real namespaces: by the service, by launcher of either kind, and without it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.cni.harness import KINDS, Node, open_node, sh

pytestmark = pytest.mark.netns


@pytest.fixture(params=KINDS)
def node(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Node]:
    with open_node(request.param, tmp_path) as found:
        yield found


def test_container_reaches_gateway_and_neighbour(node: Node) -> None:
    first, second = node.container(), node.container()
    for container in (first, second):
        assert node.call("ADD", "loopback", container, {"cniVersion": "0.3.1", "name": "lo"})[0] == 0
        code, result = node.call("ADD", "bridge", container, node.conf())
        assert code == 0, result
    assert result["ips"][0]["address"] == "10.77.0.3/24"
    assert "UP" in sh("ip", "-n", first, "link", "show", "lo")
    assert "default via 10.77.0.1" in sh("ip", "-n", first, "route")
    server = subprocess.Popen(
        ["nsenter", f"--net=/run/netns/{second}", sys.executable, "-c", _ECHO],
        stdout=subprocess.PIPE,
    )
    assert server.stdout is not None
    server.stdout.readline()
    reply = sh("nsenter", f"--net=/run/netns/{first}", sys.executable, "-c", _ASK, "10.77.0.3")
    server.wait(timeout=10)
    server.stdout.close()
    assert reply.strip() == "10.77.0.2"
    assert "masquerade" in sh("nsenter", f"--net=/run/netns/{node.name}", "nft", "list", "ruleset")


_ECHO = (
    "import socket; s = socket.create_server(('0.0.0.0', 7000)); print('up', flush=True);"
    "c, a = s.accept(); c.sendall(a[0].encode()); c.close()"
)
_ASK = "import socket, sys; print(socket.create_connection((sys.argv[1], 7000), 5).recv(99).decode())"


def test_add_is_refused_twice_and_keeps_the_first_address(node: Node) -> None:
    container = node.container()
    assert node.call("ADD", "bridge", container, node.conf())[0] == 0
    code, error = node.call("ADD", "bridge", container, node.conf())
    assert (code, error["code"]) == (1, 100)
    code, other = node.call("ADD", "bridge", node.container(), node.conf())
    assert other["ips"][0]["address"] == "10.77.0.3/24"


def test_check_finds_what_was_taken_away(node: Node) -> None:
    container = node.container()
    _, result = node.call("ADD", "bridge", container, node.conf())
    conf = node.conf(prevResult=result)
    assert node.call("CHECK", "bridge", container, conf) == (0, {})
    sh("ip", "-n", container, "route", "del", "default")
    code, error = node.call("CHECK", "bridge", container, conf)
    assert (code, "route to 0.0.0.0/0" in error["msg"]) == (1, True)
    sh("ip", "-n", container, "link", "del", "eth0")
    assert node.call("CHECK", "bridge", container, conf)[0] == 1


def test_delete_succeeds_again_and_after_the_namespace_is_gone(node: Node) -> None:
    container = node.container()
    assert node.call("ADD", "bridge", container, node.conf())[0] == 0
    sh("ip", "netns", "del", container)
    node.containers.remove(container)
    for _ in range(2):
        assert node.call("DEL", "bridge", container, node.conf()) == (0, {})
    assert "master cni0" not in sh("ip", "-n", node.name, "link")
    assert [p.name for p in (node.folder / "data" / "test").glob("10.*")] == []


def test_failed_add_leaves_nothing(node: Node) -> None:
    container = node.container()
    sh("ip", "-n", container, "link", "add", "eth0", "type", "veth", "peer", "name", "other")
    code, error = node.call("ADD", "bridge", container, node.conf())
    assert (code, "exists" in error["msg"]) == (1, True)
    assert [p.name for p in (node.folder / "data" / "test").glob("10.*")] == []
    assert "master cni0" not in sh("ip", "-n", node.name, "link")


def test_garbage_of_unknown_containers_is_collected(node: Node) -> None:
    kept, lost = node.container(), node.container()
    for container in (kept, lost):
        assert node.call("ADD", "bridge", container, node.conf())[0] == 0
    valid = [{"containerID": kept, "ifname": "eth0"}]
    code, _ = node.call("GC", "bridge", "", node.conf(cniVersion="1.1.0", **{"cni.dev/valid-attachments": valid}))
    assert code == 0
    assert sh("ip", "-n", node.name, "link").count("master cni0") == 1
    assert [p.name for p in (node.folder / "data" / "test").glob("10.*")] == ["10.77.0.2"]


def test_unsupported_field_is_refused(node: Node) -> None:
    code, error = node.call("ADD", "bridge", node.container(), node.conf(vlan=5))
    assert (code, error["code"]) == (1, 2)
    assert "vlan" in error["msg"]
