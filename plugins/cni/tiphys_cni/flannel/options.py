"""Flags of the flannel service."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Literal

from tiphys_cni.flannel.backend.interface import Settings
from tiphys_cni.flannel.subnet import DEFAULT_PATH
from tiphys_component.options import flag
from tiphys_component.serving import ServingOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class Options(ServingOptions):
    """flannel: holds the node's subnet and carries packets to the subnets of the other nodes."""

    subnet_manager: Literal["kube", "etcd"] = flag(
        "--subnet-manager", default="kube", help="where leases are kept: at the Nodes, or in etcd without Kubernetes"
    )
    kubeconfig: Path | None = flag("--kubeconfig", default=None, help="how to reach the API server; needed for kube")
    etcd_endpoints: tuple[str, ...] = flag(
        "--etcd-endpoints", default=("http://127.0.0.1:2379",), help="members of etcd, for etcd"
    )
    etcd_prefix: str = flag("--etcd-prefix", default="/coreos.com/network", help="what keys in etcd begin with")
    etcd_cafile: Path | None = flag("--etcd-cafile", default=None, help="authority of etcd's certificate, PEM")
    etcd_certfile: Path | None = flag("--etcd-certfile", default=None, help="certificate for etcd, PEM")
    etcd_keyfile: Path | None = flag("--etcd-keyfile", default=None, help="its key, PEM")
    node_name: str = flag("--node-name", help="name of this node")
    backend: Literal["vxlan", "host-gw", "udp"] = flag(
        "--backend", default="vxlan", help="how packets get to other nodes"
    )
    iface: str = flag("--iface", default="", help="device to run over; else that of --node-ip or the default route")
    node_ip: str = flag("--node-ip", default="", help="address that other nodes send to; else the device's first")
    pod_cidr: str = flag("--pod-cidr", default="10.244.0.0/16", help="range of all pods of the cluster")
    subnet_file: Path = flag("--subnet-file", default=DEFAULT_PATH, help="where the CNI plugin reads the node's subnet")
    ip_masq: bool = flag("--ip-masq", default=True, help="masquerade what pods send out of the range of pods")
    vni: int = flag("--vni", default=1, help="number of the VXLAN; names the device")
    port: int = flag("--port", default=0, help="UDP port of the back end; 0: 8472 for vxlan, 8285 for udp")
    direct_routing: bool = flag("--direct-routing", default=False, help="vxlan: plain routes to nodes on the same link")
    mtu: int = flag("--mtu", default=0, help="MTU of the overlay; 0: the device's less what the back end adds")
    bind_address: str = flag("--grpc-address", default="127.0.0.1", help="address of the gRPC and metrics ports")
    grpc_port: int = flag("--grpc-port", default=10270, help="port of the gRPC face")
    metrics_port: int = flag("--metrics-port", default=10271, help="port of metrics and health")

    def __post_init__(self) -> None:
        """Raises ValueError naming the flag."""
        self.settings()
        if self.subnet_manager == "kube" and self.kubeconfig is None:
            raise ValueError("--kubeconfig: needed with --subnet-manager=kube")
        if self.subnet_manager == "etcd" and not self.node_ip:
            raise ValueError("--node-ip: needed with --subnet-manager=etcd, whose leases are known by it")
        for name, value, last in (("--vni", self.vni, 2**24 - 1), ("--port", self.port, 2**16 - 1)):
            if not 0 <= value <= last:
                raise ValueError(f"{name}: {value} is not between 0 and {last}")

    def settings(self) -> Settings:
        """What the flags ask of the back end. Raises ValueError."""
        try:
            network = IPv4Network(self.pod_cidr)
        except ValueError as err:
            raise ValueError(f"--pod-cidr: {err}") from err
        try:
            address = IPv4Address(self.node_ip) if self.node_ip else None
        except ValueError as err:
            raise ValueError(f"--node-ip: {err}") from err
        return Settings(network, self.iface, address, self.vni, self.port, self.direct_routing, self.mtu)
