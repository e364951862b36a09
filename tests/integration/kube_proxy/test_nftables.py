"""Rules in a real kernel: packets go where they should, and changes end where a fresh table would."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from tests.unit.kube_proxy.test_nft_rules import PORT
from tiphys_kube_proxy.nft_rules import Settings, rule_set
from tiphys_kube_proxy.ruleset import change, replace_all
from tiphys_kube_proxy.service_map import Endpoint, Endpoints, ServicePort

pytestmark = pytest.mark.netns
_numbers = itertools.count()

SERVER = """
import socket, sys, threading
def serve(address):
    listener = socket.create_server((address, 8080), backlog=64)
    while True:
        connection, peer = listener.accept()
        connection.sendall(f"{address} {peer[0]}".encode()); connection.close()
for address in sys.argv[1:]:
    threading.Thread(target=serve, args=(address,)).start()
print("up", flush=True)
"""
CLIENT = """
import socket, sys
for _ in range(int(sys.argv[3])):
    try:
        with socket.create_connection((sys.argv[1], int(sys.argv[2])), 3) as s:
            print(s.recv(99).decode())
    except OSError as err:
        print(type(err).__name__)
"""


def sh(*command: str, stdin: str = "") -> str:
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}\n{stdin}"
    return done.stdout


class Net:
    """A node, and a second namespace behind a veth that has the pods' addresses 10.1.0.2 to 10.1.0.4."""

    def __init__(self) -> None:
        self.node = f"kpt{os.getpid() % 10000}x{next(_numbers)}"
        self.pods = self.node + "p"

    def ip(self, namespace: str, *words: str) -> None:
        sh("ip", "-n", namespace, *words)

    def nft(self, text: str) -> None:
        sh("nsenter", f"--net=/run/netns/{self.node}", "nft", "-f", "-", stdin=text)

    def listing(self) -> str:
        text = sh("nsenter", f"--net=/run/netns/{self.node}", "nft", "-j", "list", "table", "ip", "kube-proxy")
        found = [e for e in json.loads(text)["nftables"] if "metainfo" not in e]
        lines = sorted(json.dumps(_without_handles(e), sort_keys=True) for e in found)
        return "\n".join(lines)

    def ask(self, address: str, port: int, *, count: int = 1, namespace: str = "") -> list[str]:
        where = f"--net=/run/netns/{namespace or self.node}"
        return sh("nsenter", where, sys.executable, "-c", CLIENT, address, str(port), str(count)).split("\n")[:-1]


def _without_handles(value: object) -> object:
    if isinstance(value, dict):
        return {k: _without_handles(v) for k, v in value.items() if k not in ("handle", "index")}
    if isinstance(value, list):
        return (
            sorted((_without_handles(v) for v in value), key=str) if _is_set(value) else [*map(_without_handles, value)]
        )
    return value


def _is_set(value: list[object]) -> bool:
    return all(isinstance(v, (list, str)) for v in value)


@pytest.fixture
def net() -> Iterator[Net]:
    found = Net()
    sh("ip", "netns", "add", found.node)
    sh("ip", "netns", "add", found.pods)
    server = None
    try:
        found.ip(found.node, "link", "add", "veth0", "type", "veth", "peer", "name", "eth0", "netns", found.pods)
        found.ip(found.node, "addr", "add", "10.1.0.1/24", "dev", "veth0")
        for namespace, device in ((found.node, "veth0"), (found.node, "lo"), (found.pods, "eth0"), (found.pods, "lo")):
            found.ip(namespace, "link", "set", device, "up")
        for i in (2, 3, 4):
            found.ip(found.pods, "addr", "add", f"10.1.0.{i}/24", "dev", "eth0")
        found.ip(found.pods, "route", "add", "default", "via", "10.1.0.1")
        found.ip(found.node, "route", "add", "default", "dev", "veth0")
        sh("nsenter", f"--net=/run/netns/{found.node}", "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
        addresses = [f"10.1.0.{i}" for i in (2, 3, 4)]
        server = subprocess.Popen(
            ["nsenter", f"--net=/run/netns/{found.pods}", sys.executable, "-c", SERVER, *addresses],
            stdout=subprocess.PIPE,
        )
        assert server.stdout is not None
        server.stdout.readline()
        yield found
    finally:
        if server is not None and server.stdout is not None:
            server.kill()
            server.wait()
            server.stdout.close()
        sh("ip", "netns", "del", found.node)
        sh("ip", "netns", "del", found.pods)


def port(*addresses: str, **changes: Any) -> ServicePort:
    endpoints = tuple(Endpoint(a, 8080) for a in addresses)
    return replace(PORT, endpoints=Endpoints(endpoints, ()), **changes)


def test_G8_connections_spread_over_all_endpoints(net: Net) -> None:
    net.nft(replace_all(rule_set([port("10.1.0.2", "10.1.0.3", "10.1.0.4")], Settings())))
    found = Counter(line.split()[0] for line in net.ask("10.96.0.9", 80, count=90))
    assert set(found) == {"10.1.0.2", "10.1.0.3", "10.1.0.4"}
    assert min(found.values()) > 10


def test_a_service_without_endpoints_refuses_at_once(net: Net) -> None:
    net.nft(replace_all(rule_set([port()], Settings())))
    assert net.ask("10.96.0.9", 80) == ["ConnectionRefusedError"]


def test_G11_node_port_answers_on_the_node_address(net: Net) -> None:
    net.nft(replace_all(rule_set([port("10.1.0.2", node_port=30080)], Settings())))
    assert net.ask("10.1.0.1", 30080, namespace=net.pods) == ["10.1.0.2 10.1.0.1"]


def test_pod_reaches_itself_through_its_service(net: Net) -> None:
    net.nft(replace_all(rule_set([port("10.1.0.2")], Settings())))
    assert net.ask("10.96.0.9", 80, namespace=net.pods) == ["10.1.0.2 10.1.0.1"]


def test_G14_a_client_stays_with_its_endpoint(net: Net) -> None:
    sticky = port("10.1.0.2", "10.1.0.3", "10.1.0.4", affinity_s=60)
    net.nft(replace_all(rule_set([sticky], Settings())))
    first = set(net.ask("10.96.0.9", 80, count=20))
    assert len(first) == 1


def test_changes_end_where_a_fresh_table_would(net: Net) -> None:
    steps = [
        [port("10.1.0.2")],
        [port("10.1.0.2", "10.1.0.3", node_port=30080)],
        [port("10.1.0.3", node_port=30080), port("10.1.0.4", name="other", cluster_ips=("10.96.0.10",))],
        [port(node_port=30081)],
        [port("10.1.0.2", affinity_s=60)],
        [],
        [port("10.1.0.2")],
    ]
    before = rule_set([], Settings())
    net.nft(replace_all(before))
    for step in steps:
        wanted = rule_set(step, Settings())
        net.nft(change(before, wanted))
        changed = net.listing()
        net.nft(replace_all(wanted))
        assert changed == net.listing()
        before = wanted
