"""Flags of the CSI companion."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tiphys_component.options import flag
from tiphys_component.serving import ServingOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class Options(ServingOptions):
    """CSI companion: provisions, attaches and resizes volumes for every CSI driver of this node."""

    kubeconfig: Path = flag("--kubeconfig", help="how to reach the API server")
    node_name: str = flag("--node-name", help="name of this node")
    plugins_registry: Path = flag(
        "--plugins-registry",
        default=Path("/var/lib/kubelet/plugins_registry"),
        help="folder in which drivers put their registration sockets",
    )
    csi_address: tuple[str, ...] = flag(
        "--csi-address", default=(), help="sockets of drivers that don't register with the kubelet"
    )
    timeout_s: float = flag(
        "--timeout", default=15.0, duration=True, help="how long one call of a driver may take before it is made again"
    )
    workers: int = flag("--worker-threads", default=16, help="volumes worked on at once, in each room")
    retry_start_s: float = flag(
        "--retry-interval-start", default=0.5, duration=True, help="pause after a first failure; it doubles"
    )
    retry_max_s: float = flag("--retry-interval-max", default=60.0, duration=True, help="longest pause")
    leader_elect_namespace: str = flag(
        "--leader-election-namespace", default="kube-system", help="namespace of the Leases of central drivers"
    )
    bind_address: str = flag("--bind-address", default="127.0.0.1", help="address of the health and gRPC ports")
    healthz_port: int = flag("--healthz-port", default=10272, help="port of metrics and health")
    grpc_port: int = flag("--grpc-port", default=10271, help="port of the gRPC face")
