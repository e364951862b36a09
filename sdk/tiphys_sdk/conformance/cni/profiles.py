"""What the kit gives a plugin that it knows by its name: a configuration, and what part it plays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from tiphys_sdk.conformance.cni.scene import UPLINK

SUBNET = "10.201.0.0/24"
NETWORK = "cni-kit"
PORT_MAPPINGS = [{"hostPort": 18080, "containerPort": 80, "protocol": "tcp"}]


class Role(StrEnum):
    """What a plugin does: makes an interface, works on one, gives addresses, or brings lo up."""

    MAIN = "main"
    META = "meta"
    IPAM = "ipam"
    LOOPBACK = "loopback"


@dataclass(frozen=True, slots=True)
class Profile:
    """A plugin's part and its configuration without version and name."""

    role: Role
    conf: Mapping[str, Any]


def host_local(data: Path) -> Mapping[str, Any]:
    """Addresses that the kit can look after: one file each in data."""
    return {"type": "host-local", "dataDir": str(data), "ranges": [[{"subnet": SUBNET}]]}


def profiles(data: Path) -> Mapping[str, Profile]:
    """The plugins known by name."""
    ipam = {"ipam": host_local(data)}
    return {
        "bridge": Profile(Role.MAIN, {"bridge": "kit0", "isDefaultGateway": True, **ipam}),
        "ptp": Profile(Role.MAIN, ipam),
        "macvlan": Profile(Role.MAIN, {"master": UPLINK, "mode": "bridge", **ipam}),
        "ipvlan": Profile(Role.MAIN, {"master": UPLINK, "mode": "l2", **ipam}),
        "vlan": Profile(Role.MAIN, {"master": UPLINK, "vlanId": 7, **ipam}),
        "loopback": Profile(Role.LOOPBACK, {}),
        "host-local": Profile(Role.IPAM, ipam),
        "static": Profile(Role.IPAM, {"ipam": {"type": "static", "addresses": [{"address": "10.201.0.9/24"}]}}),
        "portmap": Profile(Role.META, {"capabilities": {"portMappings": True}}),
        "tuning": Profile(Role.META, {"sysctl": {"net.core.somaxconn": "500"}}),
        "firewall": Profile(Role.META, {"backend": "iptables"}),
        "bandwidth": Profile(Role.META, {"ingressRate": 1000000, "ingressBurst": 1000000}),
    }
