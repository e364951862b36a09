"""A node's namespaces and containerd for real, and what is left when it is torn down."""

from __future__ import annotations

import os
import shutil
import subprocess
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path
from signal import SIGKILL

import pytest

from tests.integration.cluster.bed import NETWORK, NODE, Bed, mount_points, traces
from tests.integration.cluster.conftest import recorded, wait_for
from tiphys_cluster import claims, network
from tiphys_cluster.errors import ClusterError
from tiphys_cluster.images import loading
from tiphys_cluster.images.builtin import PAUSE, ensure_archives
from tiphys_cluster.layout import CACHE
from tiphys_cluster.network import Wiring
from tiphys_cluster.settings import Settings

pytestmark = [
    pytest.mark.netns,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
]


@pytest.fixture
async def bed(tmp_path: Path) -> AsyncIterator[Bed]:
    bed = Bed(tmp_path, "itest-a", NETWORK)
    yield bed
    await bed.down()
    for directory in (bed.layout.run_root, bed.layout.run_root.parent):
        if directory.is_dir() and not any(directory.iterdir()):
            directory.rmdir()


async def test_a_node_and_the_control_plane_reach_each_other(bed: Bed) -> None:
    await bed.wire()

    bed.inside("busybox", "ping", "-c1", "-W2", bed.settings.leg_ip)
    subprocess.run(
        ["busybox", "ping", "-c1", "-W2", bed.settings.node_ip(NODE)], check=True, capture_output=True, timeout=10
    )

    assert bed.inside("cat", "/proc/sys/net/ipv4/ip_forward").strip() == "1"


async def test_wiring_twice_changes_nothing(bed: Bed) -> None:
    await bed.wire()
    before = bed.inside("ip", "-o", "link")
    await bed.wire()

    assert bed.inside("ip", "-o", "link") == before


async def test_mounts_of_a_node_spread_inside_it_and_not_outside(bed: Bed, tmp_path: Path) -> None:
    await bed.wire()
    bed.inside("mount", "-t", "tmpfs", "tmpfs", str(tmp_path))

    assert str(tmp_path) not in mount_points()
    (line,) = [line for line in bed.inside("cat", "/proc/self/mountinfo").splitlines() if f" {tmp_path} " in line]
    assert "shared:" in line


async def test_a_node_has_its_own_of_what_containerd_keeps_at_fixed_places(bed: Bed) -> None:
    await bed.wire()

    for fixed, own in network.private_directories(bed.layout, NODE).items():
        bed.inside("touch", str(fixed / "mark"))
        assert (own / "mark").exists()
        assert not (fixed / "mark").exists()


async def test_a_node_sees_cgroups(bed: Bed) -> None:
    await bed.wire()

    assert bed.inside("ls", "/sys/fs/cgroup").split()


async def test_one_cluster_going_down_leaves_its_neighbour_alone(bed: Bed, tmp_path: Path) -> None:
    other = Bed(tmp_path, "itest-b", NETWORK + 1)
    await bed.wire()
    await other.wire()
    await other.down()

    bed.inside("busybox", "ping", "-c1", "-W2", bed.settings.leg_ip)
    assert traces(other.layout, other.settings) == []
    # The node's mounts were copied when the neighbour's namespaces stood; none of them may live on in there.
    assert "itest-b" not in bed.inside("cat", "/proc/self/mountinfo")


@pytest.mark.containerd
async def test_images_are_loaded_once(bed: Bed) -> None:
    await bed.wire()
    files = bed.layout.node(NODE)
    async with await bed.start_containerd():
        loading.fill_pool(bed.layout.images, ensure_archives(CACHE / "images"))
        first = await loading.ensure_images(bed.layout.images, bed.layout.node(NODE))
        second = await loading.ensure_images(bed.layout.images, bed.layout.node(NODE))

    assert {PAUSE, "docker.io/library/busybox:latest", "tiphys.dev/httpd:1", "tiphys.dev/httpd:2"} <= set(first)
    assert second == []
    listed = bed.inside(
        "ctr", "--address", str(files.containerd_socket), "--namespace", "k8s.io", "images", "list", "-q"
    )
    assert PAUSE in listed.split()


@pytest.mark.containerd
async def test_pause_and_httpd_run(bed: Bed) -> None:
    await bed.wire()
    files = bed.layout.node(NODE)
    async with await bed.start_containerd():
        loading.fill_pool(bed.layout.images, ensure_archives(CACHE / "images"))
        await loading.ensure_images(bed.layout.images, bed.layout.node(NODE))
        ctr = ("ctr", "--address", str(files.containerd_socket), "--namespace", "k8s.io")
        for image, name in ((PAUSE, "pause"), ("docker.io/library/busybox:latest", "box")):
            # Unpacks the image; a container without a terminal and without /dev/null as input would wait for it.
            bed.inside(*ctr, "images", "mount", image, str(_made(files.home / name)))
            bed.inside(*ctr, "images", "unmount", "--rm", str(files.home / name))
        bed.inside(*ctr, "run", "-d", "--net-host", "tiphys.dev/httpd:1", "web")
        answer = await wait_for(lambda: _fetch(bed.settings.node_ip(NODE), 8080))
        bed.inside(*ctr, "task", "kill", "--signal", "KILL", "web")

    assert answer.split()[-1] == "1"


def _made(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    return path


def _fetch(address: str, port: int) -> str:
    try:
        with urllib.request.urlopen(f"http://{address}:{port}/", timeout=2) as answer:
            return str(answer.read().decode())
    except OSError:
        return ""


@pytest.mark.containerd
async def test_a_killed_containerd_comes_back(bed: Bed) -> None:
    await bed.wire()
    async with await bed.start_containerd():
        old = recorded(bed.layout, f"containerd-{NODE}")
        assert old is not None
        old.send(SIGKILL)
        await wait_for(lambda: (new := recorded(bed.layout, f"containerd-{NODE}")) and new != old)
        await bed.wait_served()


@pytest.mark.containerd
@pytest.mark.parametrize("killed", ["nothing", "zygote", "run-directory", "all-records"])
async def test_down_leaves_nothing_whatever_was_lost(bed: Bed, killed: str) -> None:
    await bed.wire()
    files = bed.layout.node(NODE)
    async with await bed.start_containerd():
        loading.fill_pool(bed.layout.images, ensure_archives(CACHE / "images"))
        await loading.ensure_images(bed.layout.images, bed.layout.node(NODE))
        ctr = ("ctr", "--address", str(files.containerd_socket), "--namespace", "k8s.io")
        bed.inside(*ctr, "run", "-d", "docker.io/library/busybox:latest", "sleeper", "sleep", "1000")
    if killed == "zygote":
        for name in ("keeper", f"containerd-{NODE}"):
            process = recorded(bed.layout, name)
            assert process is not None
            process.send(SIGKILL)
    if killed == "run-directory":
        for path in bed.layout.run.glob("*.*"):
            path.unlink()
    if killed == "all-records":
        shutil.rmtree(bed.layout.children)

    await bed.down()

    assert traces(bed.layout, bed.settings) == []


async def test_down_of_what_was_never_up_succeeds(bed: Bed) -> None:
    await bed.down()
    await bed.down()

    assert traces(bed.layout, bed.settings) == []


async def test_a_half_made_switch_is_made_anew(bed: Bed) -> None:
    network.prepare_namespace_directory(bed.layout)
    _make_leg(bed.settings, owner=str(bed.layout.run))
    await bed.wire()

    bed.inside("busybox", "ping", "-c1", "-W2", bed.settings.leg_ip)


@pytest.mark.parametrize("owner", ["/run/elsewhere/other", ""], ids=["another-run-root", "says-not"])
async def test_anothers_leg_is_neither_taken_nor_deleted(bed: Bed, owner: str) -> None:
    leg = _make_leg(bed.settings, owner=owner)
    try:
        with pytest.raises(ClusterError, match="cannot set up the network"):
            await bed.wire()
        await bed.down()

        assert network.leg_owner(bed.settings.network) == Path(owner)
    finally:
        subprocess.run(["ip", "link", "delete", leg], check=True, timeout=10)


async def test_a_namesake_under_another_run_root_is_left_alone(bed: Bed) -> None:
    leg = _make_leg(bed.settings, owner=f"/run/elsewhere/{bed.layout.name}")
    try:
        with pytest.raises(ClusterError, match="runs on this machine already, under /run/elsewhere"):
            await bed.down()
    finally:
        subprocess.run(["ip", "link", "delete", leg], check=True, timeout=10)


def _make_leg(settings: Settings, *, owner: str) -> str:
    leg = network.leg_name(settings)
    subprocess.run(["ip", "link", "add", leg, "type", "bridge"], check=True, timeout=10)
    subprocess.run(["ip", "link", "set", leg, "alias", owner], check=True, timeout=10)
    return leg


async def test_a_node_whose_switch_was_lost_is_plugged_into_the_new_one(bed: Bed) -> None:
    await bed.wire()
    before = bed.layout.node(NODE).netns.stat().st_ino
    subprocess.run(["ip", "link", "delete", network.leg_name(bed.settings)], check=True, timeout=10)
    await bed.wire()

    bed.inside("busybox", "ping", "-c1", "-W2", bed.settings.leg_ip)
    assert bed.layout.node(NODE).netns.stat().st_ino == before


@pytest.mark.parametrize("lost", ["eth0", "port1"])
async def test_a_node_that_lost_its_interface_is_plugged_in_again(bed: Bed, lost: str) -> None:
    await bed.wire()
    namespace = bed.layout.node(NODE).netns if lost == "eth0" else bed.layout.switch_netns
    subprocess.run(["nsenter", f"--net={namespace}", "ip", "link", "delete", lost], check=True, timeout=10)
    assert await network.look_at_node(bed.layout, bed.settings, NODE) is Wiring.UNPLUGGED
    await bed.wire()

    bed.inside("busybox", "ping", "-c1", "-W2", bed.settings.leg_ip)


@pytest.mark.parametrize("kind", ["netns", "mntns"])
async def test_a_node_that_lost_a_namespace_is_made_anew(bed: Bed, kind: str) -> None:
    await bed.wire()
    subprocess.run(["umount", getattr(bed.layout.node(NODE), kind)], check=True, timeout=10)
    assert await network.look_at_node(bed.layout, bed.settings, NODE) is Wiring.LOST
    await bed.wire()

    bed.inside("busybox", "ping", "-c1", "-W2", bed.settings.leg_ip)


async def test_a_removed_node_leaves_nothing_and_the_switch_stays(bed: Bed) -> None:
    await bed.wire()
    await network.remove_node(bed.layout, bed.settings, NODE)
    await network.remove_node(bed.layout, bed.settings, NODE)

    assert not [point for point in mount_points() if NODE in point and str(bed.layout.run) in point]
    switch = ["nsenter", f"--net={bed.layout.switch_netns}", "ip", "-oneline", "link"]
    assert "port1" not in subprocess.run(switch, check=True, capture_output=True, text=True, timeout=10).stdout
    assert network.has_leg(bed.layout, bed.settings)


async def test_a_network_is_held_by_one_start_at_a_time() -> None:
    held = claims.reserve_network(NETWORK)
    assert held is not None
    with held:
        assert claims.reserve_network(NETWORK) is None
    again = claims.reserve_network(NETWORK)
    assert again is not None
    again.close()
