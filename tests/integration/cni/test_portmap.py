"""Host ports in real namespaces: who reaches them, from where, and what is left when the container goes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.integration.cni.harness import Node, open_node, sh

pytestmark = pytest.mark.netns

NODE_IP, CLIENT_IP = "192.0.2.1", "192.0.2.2"
# Answers each TCP connection and UDP packet on a port with the address that it came from.
_SERVER = """
import selectors, socket, sys
port = int(sys.argv[1])
tcp, udp = socket.create_server(("", port)), socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.bind(("", port))
print("up", flush=True)
watch = selectors.DefaultSelector()
for one in (tcp, udp):
    watch.register(one, selectors.EVENT_READ)
while True:
    for key, _ in watch.select():
        if key.fileobj is tcp:
            connection, peer = tcp.accept()
            connection.sendall(peer[0].encode())
            connection.close()
        else:
            _, peer = udp.recvfrom(99)
            udp.sendto(peer[0].encode(), peer)
"""
CLIENT = """
import socket, sys
kind, host, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
try:
    if kind == "tcp":
        print(socket.create_connection((host, port), 1.0).recv(99).decode())
    else:
        asking = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        asking.settimeout(1.0)
        asking.sendto(b"?", (host, port))
        print(asking.recv(99).decode())
except OSError as err:
    print(type(err).__name__)
"""


def ask(netns: str, kind: str, host: str, port: int) -> str:
    """Who the server says the client is, or the error's class."""
    return sh("nsenter", f"--net=/run/netns/{netns}", sys.executable, "-c", CLIENT, kind, host, str(port)).strip()


@contextmanager
def serving(netns: str, port: int) -> Iterator[None]:
    command = ["nsenter", f"--net=/run/netns/{netns}", sys.executable, "-c", _SERVER, str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as server:
        try:
            assert server.stdout is not None
            assert server.stdout.readline() == b"up\n"
            yield
        finally:
            server.kill()


@pytest.fixture(params=["compiled", "standalone"])
def node(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Node]:
    with open_node(request.param, tmp_path) as found:
        sh("ip", "-n", found.name, "link", "set", "lo", "up")
        yield found


@pytest.fixture
def client(node: Node) -> Iterator[str]:
    """A machine beside the node."""
    name = f"{node.name}o"
    sh("ip", "netns", "add", name)
    try:
        sh("ip", "-n", name, "link", "add", "eth0", "type", "veth", "peer", "name", "out", "netns", node.name)
        for netns, device, address in ((name, "eth0", CLIENT_IP), (node.name, "out", NODE_IP)):
            sh("ip", "-n", netns, "address", "add", f"{address}/24", "dev", device)
            sh("ip", "-n", netns, "link", "set", device, "up")
        yield name
    finally:
        sh("ip", "netns", "del", name)


def mapping(host_port: int, container_port: int = 80, protocol: str = "tcp", **extra: str) -> dict[str, Any]:
    return {"hostPort": host_port, "containerPort": container_port, "protocol": protocol, **extra}


def portmap_conf(*mappings: dict[str, Any], **extra: Any) -> dict[str, Any]:
    base = {"cniVersion": "1.0.0", "name": "test", "type": "portmap", "runtimeConfig": {"portMappings": list(mappings)}}
    return base | extra


def start(node: Node, *mappings: dict[str, Any], **extra: Any) -> tuple[str, dict[str, Any]]:
    """A container on the bridge with its mappings; its name and the result."""
    container = node.container()
    sh("ip", "-n", container, "link", "set", "lo", "up")
    code, result = node.call("ADD", "bridge", container, node.conf(hairpinMode=True))
    assert code == 0, result
    conf = portmap_conf(*mappings, prevResult=result, **extra)
    code, answer = node.call("ADD", "portmap", container, conf)
    assert (code, answer) == (0, result), answer
    return container, result


def elements(node: Node) -> list[str]:
    """Comments of what is in the table."""
    listing = sh("nsenter", f"--net=/run/netns/{node.name}", "nft", "-j", "list", "ruleset")
    found = []
    for entry in json.loads(listing)["nftables"]:
        for element in (entry.get("map") or entry.get("set") or {}).get("elem", ()):
            found.append((element[0] if isinstance(element, list) else element)["elem"]["comment"])
    return found


def test_F3_host_port_reaches_the_pod_from_everywhere(node: Node, client: str) -> None:
    pod, _ = start(node, mapping(8080), mapping(8081, 80, "udp"))
    other, _ = start(node)
    with serving(pod, 80):
        seen = {
            "outside": ask(client, "tcp", NODE_IP, 8080),
            "outside by udp": ask(client, "udp", NODE_IP, 8081),
            "another pod": ask(other, "tcp", NODE_IP, 8080),
            "the pod itself": ask(pod, "tcp", NODE_IP, 8080),
            "the node": ask(node.name, "tcp", NODE_IP, 8080),
            "the node's loopback": ask(node.name, "tcp", "127.0.0.1", 8080),
            "another port": ask(client, "tcp", NODE_IP, 8082),
        }
    gateway = "10.77.0.1"
    assert seen == {
        "outside": CLIENT_IP,  # not hidden: the pod's answer comes back through the node anyway
        "outside by udp": CLIENT_IP,
        "another pod": gateway,
        "the pod itself": gateway,
        "the node": NODE_IP,
        "the node's loopback": gateway,
        "another port": "ConnectionRefusedError",
    }


def test_F3_masquerade_hides_a_pod_behind_the_node(node: Node, client: str) -> None:
    pod, _ = start(node)
    with serving(client, 80):
        assert ask(pod, "tcp", CLIENT_IP, 80) == NODE_IP


def test_host_ip_is_honoured(node: Node, client: str) -> None:
    sh("ip", "-n", node.name, "address", "add", "192.0.2.10/24", "dev", "out")
    first, _ = start(node, mapping(8080, hostIP="192.0.2.10"))
    second, _ = start(node, mapping(8080, 90, hostIP=NODE_IP))
    with serving(first, 80), serving(second, 90):
        assert ask(client, "tcp", "192.0.2.10", 8080) == CLIENT_IP
        assert ask(client, "tcp", NODE_IP, 8080) == CLIENT_IP
        assert ask(node.name, "tcp", "127.0.0.1", 8080) == "ConnectionRefusedError"


def test_delete_closes_the_ports_and_may_be_repeated(node: Node, client: str) -> None:
    pod, _ = start(node, mapping(8080))
    kept, _ = start(node, mapping(8090))
    sh("ip", "netns", "del", pod)
    node.containers.remove(pod)
    for _ in range(2):
        assert node.call("DEL", "portmap", pod, portmap_conf()) == (0, {})
    assert set(elements(node)) == {f"test/{kept} eth0"}
    assert ask(client, "tcp", NODE_IP, 8080) == "ConnectionRefusedError"


def test_second_add_changes_nothing_and_a_taken_port_is_told(node: Node) -> None:
    pod, result = start(node, mapping(8080))
    before = elements(node)
    assert node.call("ADD", "portmap", pod, portmap_conf(mapping(8080), prevResult=result))[0] == 0
    assert elements(node) == before
    code, error = node.call("ADD", "portmap", "other", portmap_conf(mapping(8080), prevResult=other_result(result)))
    assert (code, error["code"]) == (1, 11)
    assert f"test/{pod} eth0" in error["msg"]
    assert elements(node) == before


def other_result(result: dict[str, Any]) -> dict[str, Any]:
    """The same bridge, another container's address."""
    return result | {"ips": [{"address": "10.77.0.200/24", "gateway": "10.77.0.1", "interface": 2}]}


def test_container_whose_address_changed_takes_its_port_over_from_itself(node: Node) -> None:
    """A kill in the middle of ADD leaves elements; the ADD that follows may get another address."""
    pod, result = start(node, mapping(8080))
    code, _ = node.call("ADD", "portmap", pod, portmap_conf(mapping(8080), prevResult=other_result(result)))
    assert code == 0
    assert "10.77.0.200 . 80" in sh("nsenter", f"--net=/run/netns/{node.name}", "nft", "list", "ruleset")


def test_check_finds_what_was_taken_away_and_add_puts_it_back(node: Node, client: str) -> None:
    pod, result = start(node, mapping(8080))
    conf = portmap_conf(mapping(8080), prevResult=result)
    assert node.call("CHECK", "portmap", pod, conf) == (0, {})
    sh("nsenter", f"--net=/run/netns/{node.name}", "nft", "flush", "ruleset")
    code, error = node.call("CHECK", "portmap", pod, conf)
    assert (code, "tcp 8080" in error["msg"]) == (1, True)
    assert node.call("ADD", "portmap", pod, conf)[0] == 0
    assert node.call("CHECK", "portmap", pod, conf) == (0, {})
    with serving(pod, 80):
        assert ask(client, "tcp", NODE_IP, 8080) == CLIENT_IP


def test_garbage_of_unknown_containers_is_collected(node: Node) -> None:
    kept, _ = start(node, mapping(8080))
    start(node, mapping(8081))
    valid = [{"containerID": kept, "ifname": "eth0"}]
    conf = portmap_conf(cniVersion="1.1.0", **{"cni.dev/valid-attachments": valid})
    assert node.call("GC", "portmap", "", conf | {"name": "another"}) == (0, {})
    assert len(set(elements(node))) == 2
    assert node.call("GC", "portmap", "", conf) == (0, {})
    assert set(elements(node)) == {f"test/{kept} eth0"}


def test_udp_flow_that_began_before_the_mapping_is_led_to_the_pod(node: Node, client: str) -> None:
    with serving(node.name, 8080):
        assert ask(client, "udp", NODE_IP, 8080) == CLIENT_IP  # the node itself answers: the kernel knows the flow now
    start(node, mapping(8080, protocol="udp"))
    listing = sh("nsenter", f"--net=/run/netns/{node.name}", "conntrack", "-L", "-p", "udp", check=False)
    assert "dport=8080" not in listing
