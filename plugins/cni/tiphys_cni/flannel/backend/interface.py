"""What a back end is: four methods, each of which may be repeated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from typing import Any, Protocol

from tiphys_cni.flannel.lease import Announcement, Lease


class BackendError(Exception):
    """The node's own side can't be made; the message says what is missing."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What the flags ask of a back end. iface and node_ip choose the underlay; both empty: the default route's."""

    network: IPv4Network
    iface: str = ""
    node_ip: IPv4Address | None = None
    vni: int = 1
    port: int = 0
    direct_routing: bool = False
    mtu: int = 0


@dataclass(frozen=True, slots=True)
class Opened:
    """The node's own side. mtu is that of pods; changes counts what had to be made or put right."""

    mtu: int
    changes: int = 0


@dataclass(frozen=True, slots=True)
class Applied:
    """The way to the other nodes. refused says by node why its lease can't be used; the others are in place."""

    changes: int = 0
    refused: Mapping[str, str] = field(default_factory=dict)


class Backend(Protocol):
    """Carries packets between nodes. One task calls it, one call at a time.

    A caller may rely on: every method may be repeated and then puts right what others changed; what is in the kernel
    goes on working when the process ends, as far as it can without a process.
    """

    @property
    def name(self) -> str:
        """As annotations and flags write it."""
        ...

    @property
    def devices(self) -> frozenset[str]:
        """Names of the devices whose changes matter: its own, and what it runs over. Valid after open."""
        ...

    @property
    def overlay(self) -> str:
        """Name of its own device; empty where it has none. Such a device of any other back end is left over."""
        ...

    async def open(self, subnet: IPv4Network, announced: Mapping[str, Any]) -> Opened:
        """Ensures the node's own side for its subnet. announced is the data that this node told last, {} for none.

        Raises BackendError or OSError.
        """
        ...

    def announce(self) -> Announcement:
        """What the other nodes must know. Valid after open."""
        ...

    async def apply(self, leases: Sequence[Lease]) -> Applied:
        """Ensures the way to exactly these leases: others' entries go. Raises OSError; open comes first."""
        ...

    async def close(self) -> None:
        """Frees what the process holds. The kernel's entries stay, so that traffic goes on over a restart."""
        ...
