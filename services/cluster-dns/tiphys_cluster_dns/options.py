"""Flags of cluster-dns."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tiphys_component.options import flag
from tiphys_component.serving import ServingOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class Options(ServingOptions):
    """cluster-dns: answers DNS for services and pods from EndpointSlices."""

    kubeconfig: Path = flag("--kubeconfig", help="how to reach the API server")
    bind_address: str = flag("--bind-address", default="127.0.0.1", help="address of every port")
    dns_port: int = flag("--dns-port", default=53, help="port of DNS, UDP and TCP")
    metrics_port: int = flag("--metrics-port", default=9153, help="port of metrics and health")
    grpc_port: int = flag("--grpc-port", default=9154, help="port of the gRPC face")
    cluster_domain: str = flag("--cluster-domain", default="cluster.local", help="the cluster's zone")
    cluster_dns_ip: str = flag(
        "--cluster-dns-ip",
        default="",
        help="cluster address of Service kube-system/kube-dns, which is then ensured with this process as its endpoint",
    )
    forward: tuple[str, ...] = flag(
        "--forward",
        default=(),
        help="resolvers for other names as ADDRESS or ADDRESS:PORT; else those of --resolv-conf",
    )
    resolv_conf: Path = flag("--resolv-conf", default=Path("/etc/resolv.conf"), help="where resolvers are read from")
