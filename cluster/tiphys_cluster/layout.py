"""Where a cluster keeps its files: what lasts under its home, what ends with it under /run/tiphys.

The run directory is short because Unix socket paths may have 107 bytes only, and on a file system that a reboot
empties because everything recorded there (processes, namespaces, addresses) ends with the machine too.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from tiphys_cluster.errors import ClusterError

HOMES = Path("/var/lib/tiphys")
RUN = Path("/run/tiphys")
CACHE = Path("/var/cache/tiphys")

# A node's directory lies beside two of these in the run directory, its namespace and its cgroup beside the others.
_RESERVED_NODES = ("children", "ns", "switch", "system")
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,29}[a-z0-9])?")


def check_name(name: str) -> str:
    """The name, if a cluster may have it: a DNS label of at most 31 characters. Raises ClusterError."""
    if not _NAME.fullmatch(name):
        raise ClusterError(
            f"cluster name {name!r} is not allowed",
            "Use lower-case letters, digits and inner hyphens, at most 31 characters: --name my-cluster",
        )
    return name


def check_node_name(name: str) -> str:
    """The name, if a node may have it. Raises ClusterError."""
    if not _NAME.fullmatch(name) or name in _RESERVED_NODES:
        raise ClusterError(
            f"node name {name!r} is not allowed",
            "Use lower-case letters, digits and inner hyphens, at most 31 characters, as node-2; "
            f"not {', '.join(_RESERVED_NODES)}.",
        )
    return name


@dataclass(frozen=True, slots=True)
class NodeLayout:
    """The files of one node."""

    home: Path
    run: Path
    netns: Path
    mntns: Path

    @property
    def pki(self) -> Path:
        """The kubelet's serving certificate and key."""
        return self.home / "pki"

    @property
    def kubelet_conf(self) -> Path:
        """The kubelet's kubeconfig."""
        return self.home / "kubelet.conf"

    @property
    def kube_proxy_conf(self) -> Path:
        """kube-proxy's kubeconfig."""
        return self.home / "kube-proxy.conf"

    @property
    def flannel_conf(self) -> Path:
        """flannel's kubeconfig."""
        return self.home / "flannel.conf"

    @property
    def csi_companion_conf(self) -> Path:
        """The CSI companion's kubeconfig."""
        return self.home / "csi-companion.conf"

    @property
    def csi_hostpath(self) -> Path:
        """The volumes of the hostpath driver; lasts."""
        return self.home / "csi-hostpath"

    @property
    def device_state(self) -> Path:
        """What simulated devices consist of; ends with the node."""
        return self.run / "devices"

    @property
    def cdi(self) -> Path:
        """What containerd is told of devices of claims; ends with the node."""
        return self.run / "cdi"

    @property
    def kubelet_root(self) -> Path:
        """The kubelet's own directory: pods, plugins, checkpoints. On the node it is /var/lib/kubelet."""
        return self.home / "kubelet"

    @property
    def manifests(self) -> Path:
        """Static pods."""
        return self.home / "manifests"

    @property
    def pod_logs(self) -> Path:
        """Container logs of all pods."""
        return self.home / "pod-logs"

    @property
    def containerd_root(self) -> Path:
        """Images and snapshots; lasts."""
        return self.home / "containerd"

    @property
    def containerd_config(self) -> Path:
        """containerd's configuration file."""
        return self.home / "containerd.toml"

    @property
    def containerd_state(self) -> Path:
        """Running tasks; ends with the node."""
        return self.run / "containerd"

    @property
    def containerd_socket(self) -> Path:
        """containerd's gRPC socket: CRI, content, images."""
        return self.run / "containerd.sock"

    @property
    def imported_images(self) -> Path:
        """Which images of the pool this node's containerd was given; in its root, so they go together."""
        return self.containerd_root / "tiphys-images.json"

    @property
    def registries(self) -> Path:
        """Per-registry settings (hosts.toml) that containerd reads on each pull."""
        return self.home / "certs.d"

    @property
    def cni_bin(self) -> Path:
        """CNI plugins that containerd executes."""
        return self.home / "cni" / "bin"

    @property
    def cni_conf(self) -> Path:
        """CNI network configuration lists."""
        return self.home / "cni" / "net.d"

    @property
    def cni_template(self) -> Path:
        """The user's own network configuration list, before the node's range is filled in."""
        return self.home / "cni" / "network.conflist"

    @property
    def cni_state(self) -> Path:
        """CNI address leases."""
        return self.home / "cni" / "state"

    @property
    def cni_socket(self) -> Path:
        """The resident CNI service's socket."""
        return self.run / "cni.sock"

    @property
    def cni_grpc_socket(self) -> Path:
        """Where the CNI service's gRPC face listens."""
        return self.run / "cni-grpc.sock"


@dataclass(frozen=True, slots=True)
class Layout:
    """The files of one cluster. home lasts until `tiphys down --delete`, run until `tiphys down`."""

    name: str
    home: Path
    run_root: Path = field(default=RUN)

    @property
    def run(self) -> Path:
        """Sockets, process records and namespaces."""
        return self.run_root / self.name

    @property
    def settings(self) -> Path:
        """What the cluster was started with."""
        return self.home / "cluster.json"

    @property
    def claim(self) -> Path:
        """The machine-wide record that this cluster runs, and with which addresses."""
        return self.run / "cluster.json"

    @property
    def namespaces(self) -> Path:
        """A private mount that holds the cluster's network and mount namespaces."""
        return self.run / "ns"

    @property
    def switch_netns(self) -> Path:
        """The namespace of the virtual switch."""
        return self.namespaces / "switch.net"

    @property
    def children(self) -> Path:
        """One record per supervised process."""
        return self.run / "children"

    @property
    def zygote_socket(self) -> Path:
        """The zygote's control socket."""
        return self.run / "zygote.sock"

    @property
    def zygote_pid(self) -> Path:
        """The zygote's own process record."""
        return self.run / "zygote.pid"

    @property
    def pki(self) -> Path:
        """Certificates and keys of the control plane."""
        return self.home / "pki"

    @property
    def logs(self) -> Path:
        """One log file per process."""
        return self.home / "logs"

    @property
    def images(self) -> Path:
        """The pool of images that were loaded, whose blobs the nodes' content stores link."""
        return self.home / "images"

    @property
    def store(self) -> Path:
        """The API server's data."""
        return self.home / "store"

    @property
    def admin_conf(self) -> Path:
        """The user's kubeconfig."""
        return self.home / "admin.conf"

    @property
    def cgroup(self) -> str:
        """The cgroup, in every hierarchy, under which all processes of the cluster live."""
        return f"tiphys-{self.name}"

    def conf(self, component: str) -> Path:
        """The kubeconfig of a control-plane component."""
        return self.home / f"{component}.conf"

    def log(self, process: str) -> Path:
        """The log file of a process."""
        return self.logs / f"{process}.log"

    def child(self, process: str) -> Path:
        """The record of a supervised process."""
        return self.children / f"{process}.json"

    def node(self, node: str) -> NodeLayout:
        """The files of one node."""
        return NodeLayout(
            home=self.home / "nodes" / node,
            run=self.run / node,
            netns=self.namespaces / f"{node}.net",
            mntns=self.namespaces / f"{node}.mnt",
        )


def default_home(name: str) -> Path:
    """Where a cluster of this name lives unless --home says otherwise."""
    return HOMES / name
