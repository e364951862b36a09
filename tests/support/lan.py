"""A switch, nodes and pods that are network namespaces: two segments with a router between them.

with Lan("x") as lan:
    first, second = lan.node("a", 11), lan.node("b", 12)
    pod = first.pod("10.244.1.0/24")
    pod.run("ping", "-c1", "10.244.2.2")

Everything lies in namespaces of its own, so that neither firewalls nor bridges of the machine matter. Needs root.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from ipaddress import IPv4Network
from types import TracebackType
from typing import Any, Self

_numbers = itertools.count()
_TIMEOUT_S = 60


def sh(*command: str, check: bool = True) -> str:
    """Run a command to its end; returns what it printed."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    assert not check or done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


@dataclass
class Space:
    """A network namespace."""

    name: str

    @property
    def path(self) -> str:
        return f"/run/netns/{self.name}"

    def enter(self, *command: str) -> tuple[str, ...]:
        """The command line that runs a command inside."""
        return ("nsenter", f"--net={self.path}", *command)

    def run(self, *command: str, check: bool = True) -> str:
        return sh(*self.enter(*command), check=check)

    def ip(self, *arguments: str, check: bool = True) -> str:
        return sh("ip", "-n", self.name, *arguments, check=check)

    def link(self, name: str) -> dict[str, Any]:
        """A device as `ip -j` shows it."""
        found: list[dict[str, Any]] = json.loads(self.ip("-j", "link", "show", name))
        return found[0]

    def can_ping(self, address: str, *, timeout_s: float = 1.0, size: int = 56) -> bool:
        """Whether one packet, that must not be cut up, comes back; size is that of its data, as ping counts."""
        command = self.enter(sys.executable, "-S", "-c", _PING, address, str(timeout_s), str(size))
        return subprocess.run(command, timeout=_TIMEOUT_S, check=False, stderr=subprocess.DEVNULL).returncode == 0


@dataclass
class Pod(Space):
    """A namespace on a node's bridge."""

    address: str = ""


@dataclass
class LanNode(Space):
    """A node: eth0 is its port on the switch."""

    lan: Lan = field(repr=False, kw_only=True)
    address: str = field(kw_only=True)
    port: str = field(kw_only=True)
    pods: list[Pod] = field(default_factory=list)

    def pod(self, subnet: str, *, mtu: int = 1450) -> Pod:
        """A pod on cni0, the bridge with the first address of the subnet."""
        network = IPv4Network(subnet)
        if not self.pods:
            self.ip("link", "add", "cni0", "mtu", str(mtu), "type", "bridge")
            self.ip("addr", "add", f"{network[1]}/{network.prefixlen}", "dev", "cni0")
            self.ip("link", "set", "cni0", "up")
        number = len(self.pods)
        made = Pod(self.lan.space(f"{self.name}p{number}").name, str(network[2 + number]))
        self.pods.append(made)
        self.ip("link", "add", f"veth{number}", "mtu", str(mtu), "master", "cni0", "up", "type", "veth", "peer", "name",
                "eth0", "mtu", str(mtu), "netns", made.name)  # fmt: skip
        made.ip("addr", "add", f"{made.address}/{network.prefixlen}", "dev", "eth0")
        made.ip("link", "set", "eth0", "up")
        made.ip("route", "add", "default", "via", str(network[1]))
        return made

    def set_plugged(self, plugged: bool) -> None:
        """Cuts the node off, or brings it back."""
        self.lan.switch.ip("link", "set", self.port, "up" if plugged else "down")


class Lan:
    """Two segments, 198.18.1.0/24 and 198.18.2.0/24, each with the router at .1, which is also the way out."""

    def __init__(self, prefix: str) -> None:
        self._prefix = f"{prefix}{os.getpid() % 100000}{next(_numbers)}"
        self._stack = ExitStack()
        self.switch = Space("")
        self.gateway = "198.18.1.1"

    def __enter__(self) -> Self:
        with self._stack as undo:
            self.switch = self.space(f"{self._prefix}sw")
            self.switch.run("sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
            for segment in (1, 2):
                self.switch.ip("link", "add", f"br{segment}", "type", "bridge")
                self.switch.ip("addr", "add", f"198.18.{segment}.1/24", "dev", f"br{segment}")
                self.switch.ip("link", "set", f"br{segment}", "up")
            self._stack = undo.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, err: BaseException | None, tb: TracebackType | None) -> None:
        self._stack.close()

    def space(self, name: str) -> Space:
        """A namespace that goes with the others."""
        sh("ip", "netns", "add", name)
        self._stack.callback(sh, "ip", "netns", "del", name)
        made = Space(name)
        made.ip("link", "set", "lo", "up")
        return made

    def node(self, name: str, number: int, *, segment: int = 1) -> LanNode:
        """A node at address .number of a segment."""
        made = self.space(f"{self._prefix}{name}")
        port, address = f"port{name}", f"198.18.{segment}.{number}"
        self.switch.ip("link", "add", port, "master", f"br{segment}", "up", "type", "veth", "peer", "name", "eth0",
                       "netns", made.name)  # fmt: skip
        made.ip("addr", "add", f"{address}/24", "dev", "eth0")
        made.ip("link", "set", "eth0", "up")
        made.ip("route", "add", "default", "via", f"198.18.{segment}.1")
        return LanNode(made.name, lan=self, address=address, port=port)


# Of our own, as not every machine has a ping, nor every ping the option to forbid fragments.
_PING = """
import socket, struct, sys, time
address, timeout_s, size = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])
peer = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
peer.setsockopt(socket.IPPROTO_IP, 10, 2)  # IP_MTU_DISCOVER, IP_PMTUDISC_DO
body = b"\\x08\\0\\0\\0" + struct.pack("!HH", 7, 1) + bytes(size)
total = sum(struct.unpack(f"!{len(body) // 2}H", body)); total = (total >> 16) + (total & 0xFFFF)
total += total >> 16
peer.sendto(body[:2] + struct.pack("!H", ~total & 0xFFFF) + body[4:], (address, 0))
end = time.monotonic() + timeout_s
while (left := end - time.monotonic()) > 0:
    peer.settimeout(left)
    data, sender = peer.recvfrom(65536)
    if sender[0] == address and data[20] == 0 and len(data) == 28 + size:
        sys.exit(0)
sys.exit(1)
"""
_WHO = """
import socket, sys
server = socket.create_server(("", 7001)); print("up", flush=True)
peer, address = server.accept(); print(address[0], flush=True)
"""
_VNI = """
import select, socket, sys
ear = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)); print("up", flush=True)
while select.select([ear], [], [], 5)[0]:
    frame = ear.recv(65536)
    if frame[12:14] == b"\\x08\\0" and frame[23] == 17 and frame[36:38] == (8472).to_bytes(2, "big"):
        print(int.from_bytes(frame[46:49], "big"), flush=True)
        break
"""


def seen_source(source: Space, sink: Space, address: str) -> str:
    """As whom a connection from one namespace is seen in another."""
    return _heard(sink, _WHO, lambda: source.run(sys.executable, "-S", "-c", _CONNECT, address))


def seen_vni(switch: Space, act: Callable[[], object]) -> str:
    """Number of the first VXLAN frame that passes the switch while something is done."""
    return _heard(switch, _VNI, act)


_CONNECT = "import socket, sys; socket.create_connection((sys.argv[1], 7001), 5).recv(1)"


def _heard(space: Space, program: str, act: Callable[[], object]) -> str:
    command = space.enter(sys.executable, "-S", "-c", program)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as listener:
        try:
            assert listener.stdout is not None
            assert listener.stdout.readline() == "up\n"
            act()
            return listener.stdout.readline().strip()
        finally:
            listener.kill()


_SINK = """
import socket, sys
server = socket.create_server((sys.argv[1], 7000)); print("up", flush=True)
peer, _ = server.accept()
total, buffer = 0, bytearray(1 << 20)
while (size := peer.recv_into(buffer)):
    total += size
print(total, flush=True)
"""
_SOURCE = """
import socket, sys, time
peer = socket.create_connection((sys.argv[1], 7000), 5)
end = time.monotonic() + float(sys.argv[2]); began = time.monotonic(); total, data = 0, bytes(1 << 20)
while time.monotonic() < end:
    total += peer.send(data)
peer.shutdown(socket.SHUT_WR); peer.recv(1)
print(total / (time.monotonic() - began) * 8 / 1e9)
"""


def throughput_gbit_s(source: Space, sink: Pod, *, seconds: float) -> float:
    """What one TCP connection carries from one pod to another; a second or so is enough to compare."""
    command = sink.enter(sys.executable, "-S", "-c", _SINK, sink.address)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            server.stdout.readline()
            said = source.run(sys.executable, "-S", "-c", _SOURCE, sink.address, str(seconds))
            server.wait(timeout=10)
        finally:
            server.kill()
    return float(said)
