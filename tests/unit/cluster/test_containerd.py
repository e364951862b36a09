from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from tiphys_cluster.containerd import ContainerdOptions, choose_snapshotter, render_config
from tiphys_cluster.layout import Layout

NODE = Layout("a", Path('/home/with "quote'), Path("/r")).node("node-1")


def config(**changes: Any) -> dict[str, Any]:
    options = ContainerdOptions(**{"sandbox_image": "pause:1", "can_lower_oom_score": True, **changes})
    return tomllib.loads(render_config(NODE, options))


def test_nothing_of_the_hosts_containerd_is_used() -> None:
    read = config()

    assert read["version"] == 2
    assert read["root"] == '/home/with "quote/nodes/node-1/containerd'
    assert read["state"] == "/r/a/node-1/containerd"
    assert read["grpc"]["address"] == "/r/a/node-1/containerd.sock"


@pytest.mark.parametrize("able", [True, False], ids=["with-capability", "without"])
def test_oom_scores_are_restricted_only_where_they_cannot_be_lowered(able: bool) -> None:
    cri = config(can_lower_oom_score=able)["plugins"]["io.containerd.grpc.v1.cri"]

    assert cri["restrict_oom_score_adj"] is not able


def test_cri_uses_the_nodes_own_cni_and_cgroupfs() -> None:
    cri = config()["plugins"]["io.containerd.grpc.v1.cri"]

    assert cri["sandbox_image"] == "pause:1"
    assert cri["cni"]["bin_dir"].endswith("/node-1/cni/bin")
    assert cri["containerd"]["snapshotter"] == "overlayfs"
    assert cri["containerd"]["runtimes"]["runc"]["options"] == {"SystemdCgroup": False}


@pytest.mark.parametrize(
    ("file_system", "snapshotter"), [("ext4", "overlayfs"), ("xfs", "overlayfs"), ("overlay", "native")]
)
def test_layers_are_copied_where_an_overlay_cannot_lie_on_an_overlay(file_system: str, snapshotter: str) -> None:
    assert choose_snapshotter(file_system) == snapshotter
