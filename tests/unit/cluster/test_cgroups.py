from __future__ import annotations

from pathlib import Path

import pytest

from tiphys_cluster import cgroups
from tiphys_cluster.cgroups import Hierarchy
from tiphys_cluster.errors import ClusterError

V1 = """\
32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu,cpuacct
39 31 0:36 / /sys/fs/cgroup/pids rw,relatime - cgroup cgroup rw,pids
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd
"""
V2 = "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw\n"
OTHER = "27 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard\n"


@pytest.mark.parametrize(
    ("mountinfo", "root"),
    [
        (OTHER + V2, "/sys/fs/cgroup/unified"),
        (OTHER + V1 + V2, "/sys/fs/cgroup/unified"),
        (OTHER + V1, "/sys/fs/cgroup/systemd"),
        (V1.splitlines()[0] + "\n", "/sys/fs/cgroup/cpu"),
    ],
    ids=["v2", "mixed", "v1", "only-cpu"],
)
def test_processes_are_tracked_in_the_best_hierarchy_there_is(mountinfo: str, root: str) -> None:
    assert str(cgroups.choose_tracking(cgroups.parse_hierarchies(mountinfo)).root) == root


def test_controllers_are_told_from_mount_options() -> None:
    assert cgroups.parse_hierarchies(V1)[0] == Hierarchy(Path("/sys/fs/cgroup/cpu"), 1, ("cpu", "cpuacct"))


def test_a_machine_without_cgroups_is_told_what_to_mount() -> None:
    with pytest.raises(ClusterError, match="mount -t cgroup2"):
        cgroups.choose_tracking([])


def test_a_tree_is_listed_deepest_first(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)

    assert list(cgroups.groups_below(tmp_path / "a")) == [tmp_path / "a" / "b", tmp_path / "a"]


def test_pids_of_a_whole_tree_are_found(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "cgroup.procs").write_text("")
    (tmp_path / "b" / "cgroup.procs").write_text("12\n13\n")

    assert cgroups.pids_below(tmp_path) == {12, 13}


def test_removal_of_an_absent_tree_succeeds(tmp_path: Path) -> None:
    assert cgroups.remove_tree(tmp_path / "absent")
