"""What has to change in the kernel: entries that are there, entries that are wanted, and the difference. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network


@dataclass(frozen=True, slots=True)
class Route:
    """A route of the main table that is ours. gateway None means that the destination is on the device itself."""

    destination: IPv4Network
    index: int
    gateway: IPv4Address | None = None
    onlink: bool = False


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A permanent answer to the question who has an address."""

    index: int
    address: IPv4Address
    mac: str


@dataclass(frozen=True, slots=True)
class Forward:
    """An entry of a VXLAN device's forwarding table: frames for the address go to a node."""

    index: int
    mac: str
    remote: IPv4Address


@dataclass(frozen=True, slots=True)
class Entries:
    """Entries of all three kinds."""

    routes: frozenset[Route] = field(default_factory=frozenset)
    neighbours: frozenset[Neighbour] = field(default_factory=frozenset)
    forwards: frozenset[Forward] = field(default_factory=frozenset)

    def __len__(self) -> int:
        return len(self.routes) + len(self.neighbours) + len(self.forwards)


@dataclass(frozen=True, slots=True)
class Changes:
    """What to write and what to remove. A write replaces what has the same place, so nothing is removed for it."""

    write: Entries
    remove: Entries

    def __len__(self) -> int:
        return len(self.write) + len(self.remove)


def plan(current: Entries, wanted: Entries) -> Changes:
    """The changes that make the current entries the wanted ones."""
    routed = {route.destination for route in wanted.routes}
    answered = {(entry.index, entry.address) for entry in wanted.neighbours}
    return Changes(
        write=Entries(
            wanted.routes - current.routes,
            wanted.neighbours - current.neighbours,
            wanted.forwards - current.forwards,
        ),
        remove=Entries(
            frozenset(r for r in current.routes if r.destination not in routed),
            frozenset(n for n in current.neighbours if (n.index, n.address) not in answered),
            # Several may stand for one address, and each is removed by itself.
            current.forwards - wanted.forwards,
        ),
    )
