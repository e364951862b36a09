"""What a cluster needs of the machine, asked before anything is touched; every problem is found and told at once."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from tiphys_cluster.errors import ClusterError, PreflightError
from tiphys_cluster.settings import Settings

# Program, and the Debian package that has it.
_PROGRAMS = {
    "containerd": "containerd",
    "runc": "runc",
    "ip": "iproute2",
    "nft": "nftables",
    "iptables": "iptables",
    "conntrack": "conntrack",
    "unshare": "util-linux",
    "nsenter": "util-linux",
    "mount": "mount",
    "busybox": "busybox-static",
}

_MIN_FREE_BYTES = 500 << 20


@dataclass(frozen=True, slots=True)
class Machine:
    """How the checks look at the machine; a test gives its own."""

    effective_uid: Callable[[], int] = os.geteuid
    which: Callable[[str], str | None] = shutil.which
    port_owner: Callable[[str, int], str | None] = lambda host, port: find_port_owner(host, port)
    free_bytes: Callable[[Path], int] = lambda path: free_bytes(path)


def check(
    settings: Settings,
    home: Path,
    machine: Machine,
    *,
    needs_compiler: bool,
    own_ports: Collection[int] = (),
) -> None:
    """Raises PreflightError with every problem found; returns when there is none.

    own_ports are held by the cluster itself and may be in use.
    """
    problems = [
        *_check_root("up", machine),
        *_check_programs(settings, machine, needs_compiler=needs_compiler),
        *_check_ports(settings, machine, own_ports),
        *_check_disk(home, machine),
    ]
    if problems:
        raise PreflightError(tuple(problems))


def _check_root(verb: str, machine: Machine) -> Iterable[ClusterError]:
    if machine.effective_uid() != 0:
        yield ClusterError(
            f"tiphys {verb} must run as root: it works with network namespaces, mounts and containers",
            f'Run it with sudo: sudo "$(command -v tiphys)" {verb}',
        )


def check_root(verb: str, machine: Machine | None = None) -> None:
    """Raises ClusterError unless this process is root's."""
    for problem in _check_root(verb, machine or Machine()):
        raise problem


def _check_programs(settings: Settings, machine: Machine, *, needs_compiler: bool) -> Iterable[ClusterError]:
    wanted = dict(_PROGRAMS)
    if settings.store == "etcd":
        wanted["etcd"] = "etcd-server"
    if needs_compiler:
        wanted["gcc"] = "gcc libc6-dev"
    for program, package in wanted.items():
        if machine.which(program) is None:
            yield ClusterError(f"{program} is not installed", f"Install it: apt-get install {package}")


def _check_ports(settings: Settings, machine: Machine, own_ports: Collection[int]) -> Iterable[ClusterError]:
    for port, use in settings.ports.on_loopback().items():
        owner = None if port in own_ports else machine.port_owner("127.0.0.1", port)
        if owner is not None:
            yield ClusterError(
                f"port {port} ({use}) is in use by {owner or 'another process'}",
                f"Stop it, or move all ports of this cluster: --port-offset {settings.port_offset + 1000}",
            )


def _check_disk(home: Path, machine: Machine) -> Iterable[ClusterError]:
    free = machine.free_bytes(home)
    if free < _MIN_FREE_BYTES:
        yield ClusterError(
            f"only {free >> 20} MB are free for {home}, at least {_MIN_FREE_BYTES >> 20} are needed",
            "Free some space, or keep the cluster elsewhere: --home DIR",
        )


def free_bytes(path: Path) -> int:
    """Free space where the path is or would be."""
    existing = next(parent for parent in (path, *path.parents) if parent.exists())
    return shutil.disk_usage(existing).free


def find_port_owner(host: str, port: int) -> str | None:
    """Who listens on a TCP port of this machine: its command and number; empty if unknown; None when it is free."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As servers do: a port whose last connections are in TIME_WAIT is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return _describe_owner(port)
    return None


def _describe_owner(port: int) -> str:
    inodes = _listening_inodes(port)
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            for descriptor in (entry / "fd").iterdir():
                target = os.readlink(descriptor)
                if target.startswith("socket:[") and target[8:-1] in inodes:
                    return f"{(entry / 'comm').read_text().strip()} (process {entry.name})"
    return ""


def _listening_inodes(port: int) -> set[str]:
    inodes: set[str] = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(OSError):
            for line in Path(table).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:
                    inodes.add(fields[9])
    return inodes
