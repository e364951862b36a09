from __future__ import annotations

from pathlib import Path

import pytest

from tiphys_cluster import mounts

MOUNTINFO = """\
22 27 0:21 / /proc rw,relatime - proc proc rw
43 27 254:0 /a /run/t/x/ns rw,relatime - ext4 /dev/vda rw
44 43 0:4 net:[1] /run/t/x/ns/switch.net rw - nsfs nsfs rw
45 27 0:4 / /run/t/xy rw - tmpfs tmpfs rw
46 27 0:4 / /home/with\\040space/m rw - tmpfs tmpfs rw
"""


def test_only_mounts_in_the_directory_itself_count_the_deepest_first() -> None:
    points = mounts.parse_mount_points(MOUNTINFO)

    assert mounts.points_below(points, [Path("/run/t/x")]) == ["/run/t/x/ns/switch.net", "/run/t/x/ns"]


def test_the_last_of_several_mounts_on_one_point_goes_first() -> None:
    assert mounts.points_below(["/a", "/a/b", "/a"], [Path("/a")]) == ["/a/b", "/a", "/a"]


def test_escaped_names_are_read() -> None:
    points = mounts.parse_mount_points(MOUNTINFO)

    assert mounts.points_below(points, [Path("/home/with space")]) == ["/home/with space/m"]


@pytest.mark.parametrize(
    ("path", "kind"),
    [("/run/t/xy/z", "tmpfs"), ("/proc/1", "proc"), ("/run/t/x/ns/a", "ext4"), ("/elsewhere", "")],
)
def test_the_file_system_of_a_path_is_that_of_the_deepest_mount_above_it(path: str, kind: str) -> None:
    assert mounts.parse_file_system(MOUNTINFO, Path(path)) == kind
