from __future__ import annotations

from pathlib import Path

import pytest

from tiphys_cluster import network
from tiphys_cluster.layout import Layout
from tiphys_cluster.settings import Settings

LAYOUT = Layout("a", Path("/home-of-a"), Path("/r"))


def text(steps: list[network.Step]) -> str:
    return "\n".join(f"{' '.join(step.argv)}\n{step.stdin}" for step in steps)


def test_the_leg_is_the_only_thing_made_in_the_root_namespace() -> None:
    plan = network.switch_steps(LAYOUT, Settings("a", network=9))

    outside = [step for step in plan if step.argv[0] == "ip"]

    assert [line.split()[:3] for line in outside[0].stdin.splitlines()] == [
        ["link", "add", "tph9"],
        ["address", "add", "198.18.9.1/24"],
        ["link", "set", "tph9"],
    ]
    assert len(outside) == 1


def test_two_nodes_get_different_ports_and_addresses() -> None:
    settings = Settings("a", nodes=("one", "two"))
    plans = [text(network.node_steps(LAYOUT, settings, node)) for node in settings.nodes]

    assert "port1" in plans[0]
    assert "198.18.0.11/24" in plans[0]
    assert "port2" in plans[1]
    assert "198.18.0.12/24" in plans[1]


def test_a_node_reaches_everything_over_the_leg() -> None:
    plan = text(network.node_steps(LAYOUT, Settings("a", network=2), "node-1"))

    assert "route add default via 198.18.2.1" in plan


def test_interface_names_fit_the_kernel_for_every_network() -> None:
    assert len(network.leg_name(Settings("x" * 31, network=511))) <= 15


def test_namespaces_of_other_clusters_are_let_go_in_a_nodes_mounts() -> None:
    step = network.mount_namespace_step(LAYOUT, "node-1")

    assert step.argv[:2] == ("unshare", "--mount=/r/a/ns/node-1.mnt")
    lines = step.stdin.splitlines()
    shared = lines.index("mount --make-rshared /")
    assert "/r/*/ns" in lines[shared - 1]
    assert "mount --bind /r/a/node-1/run-containerd /run/containerd" in lines[shared + 1 :]


@pytest.mark.parametrize(
    ("seen", "kept"),
    [
        ("/run/containerd", "/r/a/node-1/run-containerd"),
        ("/var/lib/cni", "/home-of-a/nodes/node-1/cni/cache"),
        ("/var/lib/kubelet", "/home-of-a/nodes/node-1/kubelet"),
        ("/run/flannel", "/r/a/node-1/flannel"),
    ],
)
def test_a_node_sees_its_own_files_where_the_world_looks_for_them(seen: str, kept: str) -> None:
    lines = network.mount_namespace_step(LAYOUT, "node-1").stdin.splitlines()

    at = lines.index(f"mount --bind {kept} {seen}")

    # A peer group of its own: a volume mounted there must not turn up a second time among the kept files.
    assert lines[at + 1 : at + 3] == [f"mount --make-private {seen}", f"mount --make-shared {seen}"]
    assert Path(seen) in network.SHARED_DIRECTORIES
