"""Flags of the CNI service."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tiphys_cni.flannel.subnet import DEFAULT_PATH
from tiphys_cni.install import DEFAULT_SOCKET
from tiphys_component.options import LogOptions, flag


@dataclass(frozen=True, slots=True, kw_only=True)
class Options(LogOptions):
    """The CNI service of a node: does what the executables ask, and writes the node's network configuration."""

    socket: Path = flag("--socket", default=Path(DEFAULT_SOCKET), help="unix socket on which launchers call")
    grpc_socket: Path | None = flag(
        "--grpc-socket", default=None, help="unix socket of the gRPC face; beside --socket when not given"
    )
    bin_dir: Path | None = flag("--bin-dir", default=None, help="folder to install the executables into at start")
    conf_dir: Path | None = flag("--conf-dir", default=None, help="folder for the network configuration list")
    data_dir: Path | None = flag("--data-dir", default=None, help="folder where host-local keeps addresses")
    pod_cidr: str = flag("--pod-cidr", default="", help="the node's pod range; without it the Node's podCIDR is used")
    kubeconfig: Path | None = flag("--kubeconfig", default=None, help="how to reach the API server for the Node")
    node_name: str = flag("--node-name", default="", help="name of this node")
    mtu: int = flag("--mtu", default=0, help="MTU of pod interfaces; 0 leaves the kernel's, or flannel's")
    network: Literal["bridge", "flannel", "file"] = flag(
        "--network",
        default="bridge",
        help="pod network: the node's own bridge, flannel's over all nodes, or as --conf-file says",
    )
    conf_file: Path | None = flag(
        "--conf-file", default=None, help="network configuration list of --network=file; {{podCIDR}} is filled in"
    )
    plugin_dir: Path | None = flag(
        "--plugin-dir", default=None, help="folder of other plugins, linked into --bin-dir in place of ours"
    )
    subnet_file: Path = flag(
        "--subnet-file", default=DEFAULT_PATH, help="where the flannel service writes the node's subnet"
    )
