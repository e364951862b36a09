"""Flags of kube-proxy."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tiphys_component.options import flag
from tiphys_component.serving import ServingOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class Options(ServingOptions):
    """kube-proxy: programs the service data plane of a node."""

    kubeconfig: Path = flag("--kubeconfig", help="how to reach the API server")
    node_name: str = flag("--hostname-override", help="name of this node, for local endpoints")
    bind_address: str = flag("--bind-address", default="127.0.0.1", help="address of the health and gRPC ports")
    proxy_mode: Literal["nftables"] = flag("--proxy-mode", default="nftables", help="back end that programs the kernel")
    cluster_cidr: str = flag(
        "--cluster-cidr", default="", help="range of pod addresses; traffic from elsewhere to services is masqueraded"
    )
    masquerade_all: bool = flag("--masquerade-all", default=False, help="masquerade all traffic to services")
    min_sync_period_s: float = flag(
        "--nftables-min-sync-period", default=0.05, duration=True, help="least time between two syncs"
    )
    healthz_port: int = flag("--healthz-port", default=10256, help="port of metrics and health")
    grpc_port: int = flag("--grpc-port", default=10266, help="port of the gRPC face")
    cleanup: bool = flag("--cleanup", default=False, help="remove every rule of kube-proxy and exit")
