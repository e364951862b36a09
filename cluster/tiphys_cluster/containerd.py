"""containerd as a node of ours runs it: its own root, state, socket and CNI folders, nothing of the host's.

Works with 1.6, 1.7 (configuration version 2) and with 2.x, which reads version 2 too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from tiphys_cluster.layout import NodeLayout

# Parts that a node never uses; each costs time at start, some log errors where their kernel module is missing.
_DISABLED = (
    "io.containerd.snapshotter.v1.aufs",
    "io.containerd.snapshotter.v1.btrfs",
    "io.containerd.snapshotter.v1.devmapper",
    "io.containerd.snapshotter.v1.zfs",
    "io.containerd.tracing.processor.v1.otlp",
    "io.containerd.internal.v1.tracing",
)


@dataclass(frozen=True, slots=True)
class ContainerdOptions:
    """What differs between machines. can_lower_oom_score is CAP_SYS_RESOURCE: without it no sandbox would start."""

    sandbox_image: str
    can_lower_oom_score: bool
    snapshotter: str = "overlayfs"


def choose_snapshotter(file_system: str) -> str:
    """How layers are laid upon each other where containerd's root is on this file system.

    The kernel takes no overlay as the upper part of an overlay: inside a container whole copies are made instead.
    """
    return "native" if file_system in ("overlay", "aufs") else "overlayfs"


def render_config(node: NodeLayout, options: ContainerdOptions) -> str:
    """The configuration file."""
    cri = "io.containerd.grpc.v1.cri"
    sections: dict[str, dict[str, object]] = {
        "": {
            "version": 2,
            "root": str(node.containerd_root),
            "state": str(node.containerd_state),
            "oom_score": 0,
            "disabled_plugins": list(_DISABLED),
        },
        "grpc": {"address": str(node.containerd_socket)},
        "ttrpc": {"address": f"{node.containerd_socket}.ttrpc"},
        'plugins."io.containerd.internal.v1.opt"': {"path": str(node.containerd_root / "opt")},
        f'plugins."{cri}"': {
            "sandbox_image": options.sandbox_image,
            "stream_server_address": "127.0.0.1",
            "stream_server_port": "0",
            "restrict_oom_score_adj": not options.can_lower_oom_score,
            "enable_unprivileged_ports": True,
            "enable_unprivileged_icmp": True,
            "netns_mounts_under_state_dir": True,
            # 1.6 knows no CDI and passes over both.
            "enable_cdi": True,
            "cdi_spec_dirs": [str(node.cdi), "/etc/cdi"],
        },
        f'plugins."{cri}".cni': {"bin_dir": str(node.cni_bin), "conf_dir": str(node.cni_conf)},
        f'plugins."{cri}".registry': {"config_path": str(node.registries)},
        f'plugins."{cri}".containerd': {"snapshotter": options.snapshotter, "default_runtime_name": "runc"},
        f'plugins."{cri}".containerd.runtimes.runc': {"runtime_type": "io.containerd.runc.v2"},
        # cgroupfs: the kubelet names the groups by path, and no systemd is needed.
        f'plugins."{cri}".containerd.runtimes.runc.options': {"SystemdCgroup": False},
    }
    return "\n".join(_section(name, values) for name, values in sections.items())


def _section(name: str, values: Mapping[str, object]) -> str:
    # The strings, numbers, truth values and lists used here are written alike in TOML and JSON.
    lines = [f"{key} = {json.dumps(value)}" for key, value in values.items()]
    return "\n".join([*([f"[{name}]"] if name else []), *lines, ""])


def command(node: NodeLayout) -> tuple[str, ...]:
    """How containerd is started."""
    return ("containerd", "--config", str(node.containerd_config))
