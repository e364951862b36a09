"""What a cluster was started with, kept in its home so that the next `up` starts the same one."""

from __future__ import annotations

import ipaddress
import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from tiphys_cluster.errors import ClusterError
from tiphys_cluster.ports import Ports

StoreKind = Literal["sqlite", "etcd"]
FlannelBackend = Literal["vxlan", "host-gw", "udp"]

# 198.18.0.0/15 is set aside for measuring network gear (RFC 2544): nobody routes it, so it can't hide a real network.
NETWORKS = ipaddress.IPv4Network("198.18.0.0/15")
NETWORK_COUNT = 512
MAX_NODES = 200
DEFAULT_POD_CIDR = "10.244.0.0/16"
_FIRST_NODE_HOST = 11


@dataclass(frozen=True, slots=True)
class Member:
    """A node of a cluster. number fixes its address and its port of the switch, whichever others come and go.

    devices are those that a device plugin simulates there, as "gpu:8"; empty for none.
    """

    name: str
    number: int
    devices: str = ""


def numbered(*names: str, devices: str = "") -> tuple[Member, ...]:
    """Nodes of these names with the first numbers."""
    return tuple(Member(name, number, devices) for number, name in enumerate(names))


@dataclass(frozen=True, slots=True)
class Settings:
    """A cluster's own choices.

    network is the index of its /24 in 198.18.0.0/15, unique on the machine; etcd_port and the next one are etcd's, 0 as
    long as there is no etcd. cni_conf is the text of a network configuration list in place of ours, cni_bin_dir a
    folder of plugins in place of ours of the same names; both empty where our own are used.
    """

    name: str
    store: StoreKind = "sqlite"
    port_offset: int = 0
    network: int = 0
    members: tuple[Member, ...] = (Member("node-1", 0),)
    etcd_port: int = 0
    flannel_backend: FlannelBackend = "vxlan"
    pod_cidr: str = DEFAULT_POD_CIDR
    cni_conf: str = ""
    cni_bin_dir: str = ""

    service_cidr = "10.96.0.0/12"
    kubernetes_service_ip = "10.96.0.1"
    dns_service_ip = "10.96.0.10"
    cluster_domain = "cluster.local"

    @property
    def ports(self) -> Ports:
        """The ports with this cluster's offset."""
        return Ports(self.port_offset)

    @property
    def subnet(self) -> ipaddress.IPv4Network:
        """The network of the virtual switch."""
        return ipaddress.IPv4Network((int(NETWORKS.network_address) + self.network * 256, 24))

    @property
    def leg_ip(self) -> str:
        """The control plane's address on the switch, which nodes and pods reach."""
        return str(self.subnet.network_address + 1)

    @property
    def nodes(self) -> tuple[str, ...]:
        """The names of the nodes."""
        return tuple(member.name for member in self.members)

    def member(self, node: str) -> Member:
        """The node of that name. Raises KeyError when there is none."""
        return {member.name: member for member in self.members}[node]

    def node_ip(self, node: str) -> str:
        """The address of a node on the switch."""
        return str(self.subnet.network_address + _FIRST_NODE_HOST + self.member(node).number)

    def with_node(self, name: str, *, devices: str = "") -> Settings:
        """With one node more, which has the first number that is free. Raises ClusterError where it does not fit."""
        if name in self.nodes:
            raise ClusterError(f"cluster {self.name!r} has a node {name!r} already", "Choose another name.")
        number = _first_free(member.number for member in self.members)
        if number >= MAX_NODES:
            raise ClusterError(f"a cluster on one machine has at most {MAX_NODES} nodes")
        members = (*self.members, Member(name, number, devices))
        return replace(self, members=tuple(sorted(members, key=lambda member: member.number)))

    def without_node(self, name: str) -> Settings:
        """With one node less; the others keep their numbers."""
        return replace(self, members=tuple(member for member in self.members if member.name != name))

    def free_node_name(self) -> str:
        """node-N with the lowest N that no node has, from 1 on."""
        taken = {int(name[5:]) for name in self.nodes if name.startswith("node-") and name[5:].isdecimal()}
        return f"node-{_first_free(taken, start=1)}"

    def to_json(self) -> str:
        """The settings as they are kept on disk."""
        return json.dumps(asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Settings:
        """Settings read back. Raises ValueError for what to_json has not written."""
        data = json.loads(text)
        if not isinstance(data, dict) or data.get("store") not in get_args(StoreKind):
            raise ValueError("not the settings of a cluster")
        known = {key: value for key, value in data.items() if key in cls.__dataclass_fields__}
        return cls(**{**known, "members": _read_members(data)})


def _first_free(taken: Iterable[int], *, start: int = 0) -> int:
    used = set(taken)
    return next(number for number in range(start, start + len(used) + 1) if number not in used)


def _read_members(data: dict[str, Any]) -> tuple[Member, ...]:
    if "members" in data:
        return tuple(Member(**entry) for entry in data["members"])
    # As homes of the first version have it: names only, numbered by their place.
    return numbered(*data.get("nodes", ("node-1",)))


def load(path: Path) -> Settings | None:
    """The settings kept at path, None when there are none. Raises ClusterError when they can't be read."""
    try:
        return Settings.from_json(path.read_text())
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, OSError) as err:
        raise ClusterError(f"cannot read cluster settings {path}: {err}", "Repair or delete the file.") from err


def save(path: Path, settings: Settings) -> None:
    """Keep the settings at path, whole or not at all."""
    write_atomic(path, settings.to_json())


def write_atomic(path: Path, text: str | bytes, mode: int = 0o600) -> None:
    """Replace a file in one step, so that a reader or a crash never meets half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = text.encode() if isinstance(text, str) else text
    part = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(file.fileno(), mode)
        file.write(data)
    part.replace(path)
