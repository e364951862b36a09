"""Flags of the kubelet; names and defaults are Kubernetes' where it has them."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tiphys.api.core.v1.scheduling_pb2 import Taint
from tiphys_component.options import flag
from tiphys_component.serving import ServingOptions

EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options(ServingOptions):
    """kubelet: runs the pods of a node on a container runtime."""

    kubeconfig: Path = flag("--kubeconfig", help="how to reach the API server, and who this node is")
    hostname_override: str = flag("--hostname-override", "--node-name", default="", help="name of this node")
    node_ip: tuple[str, ...] = flag("--node-ip", default=(), help="addresses of this node, the first is the main one")
    address: str = flag("--address", default="0.0.0.0", help="address of the HTTPS and gRPC servers")
    port: int = flag("--port", default=10250, help="port of the HTTPS server")
    grpc_port: int = flag("--grpc-port", default=10251, help="port of the gRPC server")
    root_dir: Path = flag("--root-dir", default=Path("/var/lib/kubelet"), help="where pods' directories lie")
    pod_log_dir: Path = flag("--pod-log-dir", default=Path("/var/log/pods"), help="where containers' logs lie")
    pod_manifest_path: Path | None = flag(
        "--pod-manifest-path",
        default=None,
        help="directory of static pods; they are not run yet, and what lies there is warned of",
    )
    container_runtime_endpoint: str = flag(
        "--container-runtime-endpoint", default="unix:///run/containerd/containerd.sock", help="socket of the runtime"
    )
    cni_socket: Path | None = flag(
        "--cni-socket",
        default=None,
        help="gRPC socket of the node's CNI service, to ask for its state and have it free what is left over",
    )
    image_service_endpoint: str = flag(
        "--image-service-endpoint", default="", help="socket of the image service, if it is another"
    )
    pod_infra_container_image: str = flag(
        "--pod-infra-container-image", default="", help="accepted and not used: the runtime knows its pause image"
    )
    cgroups_per_qos: bool = flag("--cgroups-per-qos", default=True, help="put pods under groups of their own")
    cgroup_root: str = flag("--cgroup-root", default="/", help="group under which kubepods lies")
    cluster_dns: tuple[str, ...] = flag("--cluster-dns", default=(), help="addresses of the cluster's DNS service")
    cluster_domain: str = flag("--cluster-domain", default="cluster.local", help="domain of the cluster")
    resolv_conf: Path = flag("--resolv-conf", default=Path("/etc/resolv.conf"), help="the node's own resolver file")
    max_pods: int = flag("--max-pods", default=110, help="how many pods the node takes")
    node_labels: Mapping[str, str] = flag("--node-labels", default={}, help="labels to register the node with")
    register_with_taints: tuple[str, ...] = flag(
        "--register-with-taints", default=(), help="taints to register the node with, key=value:effect"
    )

    @property
    def node_name(self) -> str:
        """The node's name."""
        return (self.hostname_override or socket.gethostname()).lower()

    @property
    def addresses(self) -> tuple[str, ...]:
        """The node's addresses; without the flag the one that its name or its default route stands for."""
        return self.node_ip or (_default_address(),)

    @property
    def taints(self) -> list[Taint]:
        """The taints as messages. Raises ValueError."""
        return [parse_taint(text) for text in self.register_with_taints]


def parse_taint(text: str) -> Taint:
    """key[=value]:effect. Raises ValueError."""
    pair, separator, effect = text.rpartition(":")
    if not separator or effect not in EFFECTS or not pair:
        raise ValueError(f'taint "{text}" must be key=value:effect with effect one of {", ".join(EFFECTS)}')
    key, _, value = pair.partition("=")
    return Taint(key=key, value=value, effect=effect)


def _default_address() -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            # Nothing is sent: connecting a datagram socket only looks the route up.
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return "127.0.0.1"
        return str(probe.getsockname()[0])
