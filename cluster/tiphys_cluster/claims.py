"""Which clusters run on this machine: one record each under /run/tiphys, taken under a lock of the machine.

The record is how `down` finds the home of a cluster by its name, and how two clusters get different networks.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from ipaddress import IPv4Address
from pathlib import Path

from tiphys_cluster.errors import ClusterError
from tiphys_cluster.layout import Layout
from tiphys_cluster.settings import NETWORK_COUNT, NETWORKS, Settings, write_atomic


@dataclass(frozen=True, slots=True)
class Claim:
    """One running (or half-stopped) cluster."""

    home: Path
    settings: Settings


@contextlib.contextmanager
def machine_lock(run_root: Path) -> Iterator[None]:
    """Hold the lock on what the machine's clusters share, waiting for it; for the moment of a choice only."""
    with _locked(run_root, fcntl.LOCK_EX):
        yield


@contextlib.contextmanager
def cluster_lock(layout: Layout) -> Iterator[None]:
    """Hold the lock on one cluster, while it starts or stops. Raises ClusterError when another tiphys holds it."""
    try:
        with _locked(layout.run, fcntl.LOCK_EX | fcntl.LOCK_NB):
            yield
    except BlockingIOError as err:
        raise ClusterError(
            f"another tiphys up or down works on cluster {layout.name!r}", "Wait until it ends, then try again."
        ) from err
    finally:
        with contextlib.suppress(OSError):
            layout.run_root.rmdir()


@contextlib.contextmanager
def _locked(directory: Path, operation: int) -> Iterator[None]:
    """Hold a lock on the directory itself, so that nothing is left behind: it goes when it is empty at the end."""
    descriptor = _open_locked(directory, operation)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            directory.rmdir()
        os.close(descriptor)


def _open_locked(directory: Path, operation: int) -> int:
    while True:
        directory.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, operation)
        except BaseException:
            os.close(descriptor)
            raise
        if _is_same(directory, descriptor):
            return descriptor
        # Whoever held it took the directory away at its end.
        os.close(descriptor)


def _is_same(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def read_claims(run_root: Path) -> dict[str, Claim]:
    """Every cluster with a record, by name; unreadable records are passed over."""
    claims: dict[str, Claim] = {}
    for path in sorted(run_root.glob("*/cluster.json")):
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
            data = json.loads(path.read_text())
            claims[path.parent.name] = Claim(
                home=Path(data["home"]), settings=Settings.from_json(json.dumps(data["settings"]))
            )
    return claims


def write_claim(layout: Layout, settings: Settings) -> None:
    """Record that the cluster runs."""
    record = {"home": str(layout.home), "settings": json.loads(settings.to_json())}
    write_atomic(layout.claim, json.dumps(record, indent=2) + "\n")


def networks_in_use(routes: str) -> set[int]:
    """Indexes of our networks that this machine has routes to, whoever made them; routes is /proc/net/route's text.

    Records tell only of clusters under one --run-root; the addresses of a machine are shared by all of them.
    """
    found = set()
    for line in routes.splitlines()[1:]:
        words = line.split("\t")
        destination = IPv4Address(int.from_bytes(bytes.fromhex(words[1]), "little"))
        if destination in NETWORKS:
            found.add((int(destination) - int(NETWORKS.network_address)) // 256)
    return found


def reserve_network(index: int) -> socket.socket | None:
    """Hold a network for as long as the answer is open; None when another start holds it.

    By an abstract socket, because it is known to every start on this machine, whatever its run root, exactly where
    interfaces are: in one network namespace. It ends with the process, and leaves no file.
    """
    held = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        held.bind(f"\0tiphys-network-{index}")
    except OSError:
        held.close()
        return None
    return held


def choose_network(settings: Settings, taken: Collection[int]) -> Settings:
    """The settings with a network that nobody has: their own if it is free, otherwise the first free one.

    Raises ClusterError when all are taken.
    """
    if settings.network not in taken:
        return settings
    for index in range(NETWORK_COUNT):
        if index not in taken:
            return replace(settings, network=index)
    raise ClusterError("every network of 198.18.0.0/15 is in use on this machine", "Stop one: tiphys down --name N")
