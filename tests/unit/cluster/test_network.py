from __future__ import annotations

from pathlib import Path

import pytest

from tiphys_cluster import network
from tiphys_cluster.layout import Layout
from tiphys_cluster.settings import Settings, numbered

LAYOUT = Layout("a", Path("/home-of-a"), Path("/r"))


def text(steps: list[network.Step]) -> str:
    return "\n".join(f"{' '.join(step.argv)}\n{step.stdin}" for step in steps)


def test_the_leg_is_the_only_thing_put_into_the_root_namespace_and_says_whose_it_is_before() -> None:
    made, outside = network.switch_steps(LAYOUT, Settings("a", network=9), pid=77)[1:]

    assert made.argv[:2] == ("nsenter", "--net=/r/a/ns/switch.net")
    assert made.stdin.splitlines()[-2:] == ['link set tph9 alias "/r/a"', "link set tph9 netns 77"]
    assert outside.stdin.splitlines() == ["address add 198.18.9.1/24 dev tph9", "link set tph9 up"]


def test_two_nodes_get_different_ports_and_addresses() -> None:
    settings = Settings("a", members=numbered("one", "two"))
    plans = [text(network.plug_steps(LAYOUT, settings, node)) for node in settings.nodes]

    assert "port1" in plans[0]
    assert "198.18.0.11/24" in plans[0]
    assert "port2" in plans[1]
    assert "198.18.0.12/24" in plans[1]


def test_only_taking_an_old_port_away_may_fail() -> None:
    plan = [*network.namespace_steps(LAYOUT, "node-1"), *network.plug_steps(LAYOUT, Settings("a"), "node-1")]

    assert [step.stdin for step in plan if step.may_fail] == ["link delete port1\n"]


def test_a_node_reaches_everything_over_the_leg() -> None:
    plan = text(network.plug_steps(LAYOUT, Settings("a", network=2), "node-1"))

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
