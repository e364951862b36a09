"""The ports of a cluster's processes: the defaults of the design, all shifted by one offset."""

from __future__ import annotations

from dataclasses import dataclass

_MAX_OFFSET = 65535 - 10274


@dataclass(frozen=True, slots=True)
class Ports:
    """Every port a cluster listens on. Raises ValueError when the offset would push one past 65535."""

    offset: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.offset <= _MAX_OFFSET:
            raise ValueError(f"port offset must be between 0 and {_MAX_OFFSET}, got {self.offset}")

    @property
    def apiserver(self) -> int:
        """HTTPS."""
        return 6443 + self.offset

    @property
    def apiserver_grpc(self) -> int:
        """gRPC."""
        return 6444 + self.offset

    @property
    def apiserver_grpc_token(self) -> int:
        """gRPC for callers with a bearer token and no certificate."""
        return 6445 + self.offset

    @property
    def kubelet(self) -> int:
        """HTTPS, on the node."""
        return 10250 + self.offset

    @property
    def kubelet_grpc(self) -> int:
        """gRPC, on the node."""
        return 10251 + self.offset

    @property
    def kube_proxy_health(self) -> int:
        """HTTP health and metrics, on the node."""
        return 10256 + self.offset

    @property
    def kube_proxy_grpc(self) -> int:
        """gRPC, on the node."""
        return 10266 + self.offset

    @property
    def flannel_grpc(self) -> int:
        """gRPC, on the node."""
        return 10270 + self.offset

    @property
    def flannel_metrics(self) -> int:
        """HTTP health and metrics, on the node."""
        return 10271 + self.offset

    @property
    def csi_companion_health(self) -> int:
        """HTTP health and metrics of the CSI companion, on the node."""
        return 10272 + self.offset

    @property
    def csi_companion_grpc(self) -> int:
        """gRPC of the CSI companion, on the node."""
        return 10273 + self.offset

    @property
    def egress_proxy(self) -> int:
        """HTTP proxy by which the API server reaches pods and services, on the node."""
        return 10274 + self.offset

    @property
    def controller_manager(self) -> int:
        """HTTP health and metrics."""
        return 10257 + self.offset

    @property
    def controller_manager_grpc(self) -> int:
        """gRPC."""
        return 10267 + self.offset

    @property
    def scheduler(self) -> int:
        """HTTP health and metrics."""
        return 10259 + self.offset

    @property
    def scheduler_grpc(self) -> int:
        """gRPC."""
        return 10269 + self.offset

    @property
    def dns(self) -> int:
        """DNS, UDP and TCP, on the control plane's leg."""
        return 53 + self.offset

    @property
    def dns_metrics(self) -> int:
        """HTTP health and metrics of cluster-dns."""
        return 9153 + self.offset

    @property
    def dns_grpc(self) -> int:
        """gRPC of cluster-dns."""
        return 9154 + self.offset

    @property
    def registry_proxy(self) -> int:
        """HTTP proxy for image pulls, on the control plane's leg."""
        return 10271 + self.offset

    def on_loopback(self) -> dict[int, str]:
        """The ports taken on this machine's 127.0.0.1, with what listens there."""
        return {
            self.apiserver: "kube-apiserver HTTPS",
            self.apiserver_grpc: "kube-apiserver gRPC",
            self.apiserver_grpc_token: "kube-apiserver gRPC for tokens",
            self.controller_manager: "kube-controller-manager metrics",
            self.controller_manager_grpc: "kube-controller-manager gRPC",
            self.scheduler: "kube-scheduler metrics",
            self.scheduler_grpc: "kube-scheduler gRPC",
            self.dns_metrics: "cluster-dns metrics",
            self.dns_grpc: "cluster-dns gRPC",
        }
