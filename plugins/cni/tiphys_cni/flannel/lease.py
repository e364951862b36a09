"""Leases of subnets, read from Nodes: which node has which subnet, and which leases can be believed. Pure.

A lease is the Node's spec.podCIDR with annotations that tell how to reach it.
Source: flannel pkg/subnet/kube, whose annotations these are, so that a node of either kind reads the other's.
"""

from __future__ import annotations

import json
from bisect import bisect_right, insort
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from tiphys.api.core.v1.node_pb2 import Node

_PREFIX = "flannel.alpha.coreos.com/"
BACKEND_TYPE = _PREFIX + "backend-type"
BACKEND_DATA = _PREFIX + "backend-data"
PUBLIC_IP = _PREFIX + "public-ip"
KUBE_SUBNET_MANAGER = _PREFIX + "kube-subnet-manager"


class LeaseError(Exception):
    """A node's annotations or its range can't be read; the message names the node and the value."""


@dataclass(frozen=True, slots=True)
class Announcement:
    """What a back end tells the other nodes: how to reach this one. data is written as JSON."""

    backend: str
    public_ip: IPv4Address
    data: Mapping[str, Any] | None = None

    def annotations(self) -> dict[str, str]:
        """The annotations of the Node."""
        data = None if self.data is None else dict(self.data)
        return {
            BACKEND_TYPE: self.backend,
            BACKEND_DATA: json.dumps(data, separators=(",", ":")),
            PUBLIC_IP: str(self.public_ip),
            KUBE_SUBNET_MANAGER: "true",
        }


@dataclass(frozen=True, slots=True)
class Lease:
    """A node's subnet and the way to it. data is the back end's own, such as {"VNI": 1, "VtepMAC": …}."""

    node: str
    subnet: IPv4Network
    public_ip: IPv4Address
    backend: str
    data: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @property
    def vtep_mac(self) -> str:
        """Address of the node's VXLAN device in lower case; empty where none is announced."""
        return str(self.data.get("VtepMAC", "")).lower()


@dataclass(frozen=True, slots=True)
class Survey:
    """What the Nodes say. own is this node's subnet, None with the problem told; refused tells why, by node.

    is_refused: the problem is that this node's own range can't be used, not that there is none yet.
    """

    own: IPv4Network | None
    problem: str
    announced: Mapping[str, str]
    peers: tuple[Lease, ...]
    refused: Mapping[str, str]
    is_refused: bool = False


@dataclass(frozen=True, slots=True)
class Claim:
    """What one Node says, read once for each version of it. problem tells why subnet or lease can't be read.

    subnet is None without a range, lease while nobody there has announced one. Elders come first by age.
    """

    node: str
    age: tuple[int, int, str]
    subnet: IPv4Network | None
    lease: Lease | None
    problem: str
    announced: Mapping[str, str]


def claim_of(node: Node) -> Claim:
    """What a Node says; never raises."""
    name, created = node.metadata.name, node.metadata.creationTimestamp
    subnet, lease, problem = None, None, ""
    try:
        subnet = parse_subnet(node)
        lease = parse_lease(node, subnet) if subnet is not None else None
    except LeaseError as err:
        problem = str(err)
    announced = {key: value for key, value in node.metadata.annotations.items() if key.startswith(_PREFIX)}
    return Claim(name, (created.seconds, created.nanos, name), subnet, lease, problem, announced)


def parse_subnet(node: Node) -> IPv4Network | None:
    """The node's IPv4 range; None while it has none. Raises LeaseError."""
    for text in (*node.spec.podCIDRs, node.spec.podCIDR):
        if text and ":" not in text:
            try:
                return IPv4Network(text)
            except ValueError as err:
                raise LeaseError(f"node {node.metadata.name}: spec.podCIDR {text!r} is no range: {err}") from err
    return None


def parse_lease(node: Node, subnet: IPv4Network) -> Lease | None:
    """The node's lease; None while nobody there has announced one. Raises LeaseError."""
    notes, name = node.metadata.annotations, node.metadata.name
    if notes.get(KUBE_SUBNET_MANAGER) != "true":
        return None
    try:
        public_ip = IPv4Address(notes.get(PUBLIC_IP, ""))
    except ValueError as err:
        raise LeaseError(f"node {name}: annotation {PUBLIC_IP} {notes.get(PUBLIC_IP, '')!r} is no address") from err
    return Lease(name, subnet, public_ip, notes.get(BACKEND_TYPE, ""), parse_data(node))


def parse_data(node: Node) -> Mapping[str, Any]:
    """The back end's own part of a node's annotations; empty where there is none. Raises LeaseError."""
    text = node.metadata.annotations.get(BACKEND_DATA, "") or "null"
    try:
        data = json.loads(text)
    except ValueError as err:
        raise LeaseError(f"node {node.metadata.name}: annotation {BACKEND_DATA} {text!r} is not JSON") from err
    if data is not None and not isinstance(data, dict):
        raise LeaseError(f"node {node.metadata.name}: annotation {BACKEND_DATA} {text!r} is no object")
    return data or {}


def survey(claims: Iterable[Claim], own: str, network: IPv4Network) -> Survey:
    """What can be believed of all that the nodes claim.

    A range outside of the network is refused, and of two that overlap the younger node's: every node judges the same.
    """
    known = {claim.node: claim for claim in claims}
    # What this node announced itself is only its own to read, and is written anew where it is wrong.
    refused = {
        name: claim.problem for name, claim in known.items() if claim.problem and not (name == own and claim.subnet)
    }
    standing = _without_conflicts(known.values(), network, refused)
    mine = known.get(own)
    held = mine is not None and own in standing
    peers = [claim.lease for name, claim in standing.items() if claim.lease is not None and name != own]
    return Survey(
        own=mine.subnet if mine is not None and held else None,
        problem="" if held else refused.get(own) or _absence(mine, own),
        announced=mine.announced if mine is not None else {},
        peers=tuple(sorted(peers, key=lambda lease: lease.node)),
        refused={name: why for name, why in refused.items() if name != own},
        is_refused=not held and own in refused,
    )


def _absence(claim: Claim | None, name: str) -> str:
    return f"node {name} is not registered yet" if claim is None else f"node {name} has no spec.podCIDR yet"


def _without_conflicts(claims: Iterable[Claim], network: IPv4Network, refused: dict[str, str]) -> dict[str, Claim]:
    """The claims that stand, by node; tells in refused why the others do not."""
    standing: dict[str, Claim] = {}
    # By start of the range: what overlaps is next to each other, so that thousands of nodes are no squared work.
    taken: list[_Taken] = []
    least, most = int(network.network_address), int(network.broadcast_address)
    for claim in sorted(claims, key=lambda claim: claim.age):
        if claim.subnet is None:
            continue
        first, last = int(claim.subnet.network_address), int(claim.subnet.broadcast_address)
        if first < least or last > most:
            refused[claim.node] = f"node {claim.node}: spec.podCIDR {claim.subnet} is not inside the network {network}"
            continue
        other = _overlapping(taken, first, last)
        if other is not None:
            of = f"{other.subnet} of node {other.node}"
            refused[claim.node] = f"node {claim.node}: spec.podCIDR {claim.subnet} overlaps {of}"
            continue
        standing[claim.node] = claim
        insort(taken, (first, last, claim), key=_first)
    return standing


_Taken = tuple[int, int, Claim]


def _first(entry: _Taken) -> int:
    return entry[0]


def _overlapping(taken: list[_Taken], first: int, last: int) -> Claim | None:
    """The claim that a range overlaps; those taken are apart from each other, so only two can."""
    place = bisect_right(taken, first, key=_first)
    for begin, end, claim in taken[max(0, place - 1) : place + 1]:
        if begin <= last and first <= end:
            return claim
    return None
