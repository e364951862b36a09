"""What a cluster was started with, kept in its home so that the next `up` starts the same one."""

from __future__ import annotations

import ipaddress
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, get_args

from tiphys_cluster.errors import ClusterError
from tiphys_cluster.ports import Ports

StoreKind = Literal["sqlite", "etcd"]

# 198.18.0.0/15 is set aside for measuring network gear (RFC 2544): nobody routes it, so it can't hide a real network.
NETWORKS = ipaddress.IPv4Network("198.18.0.0/15")
NETWORK_COUNT = 512
_FIRST_NODE_HOST = 11


@dataclass(frozen=True, slots=True)
class Settings:
    """A cluster's own choices.

    network is the index of its /24 in 198.18.0.0/15, unique on the machine; etcd_port and the next one are etcd's, 0 as
    long as there is no etcd.
    """

    name: str
    store: StoreKind = "sqlite"
    port_offset: int = 0
    network: int = 0
    nodes: tuple[str, ...] = ("node-1",)
    etcd_port: int = 0

    service_cidr = "10.96.0.0/12"
    kubernetes_service_ip = "10.96.0.1"
    dns_service_ip = "10.96.0.10"
    pod_cidr = "10.244.0.0/16"
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

    def node_ip(self, node: str) -> str:
        """The address of a node on the switch."""
        return str(self.subnet.network_address + _FIRST_NODE_HOST + self.nodes.index(node))

    def node_pod_cidr(self, node: str) -> str:
        """The pod network that a node uses before the node IPAM controller has named one."""
        subnets = list(ipaddress.IPv4Network(self.pod_cidr).subnets(new_prefix=24))
        return str(subnets[self.nodes.index(node)])

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
        return cls(**{**known, "nodes": tuple(known.get("nodes", ("node-1",)))})


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
