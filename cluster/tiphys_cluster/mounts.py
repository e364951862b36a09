"""Mount points under given directories, read from the kernel and taken away, the deepest first."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tiphys_cluster import kernel


def parse_mount_points(mountinfo: str) -> list[str]:
    """The mount points in the text of /proc/self/mountinfo, in its order, with octal escapes undone."""
    points = [line.split()[4] for line in mountinfo.splitlines() if line]
    return [point.encode().decode("unicode_escape") if "\\" in point else point for point in points]


def parse_file_system(mountinfo: str, path: Path) -> str:
    """The type of the file system that holds the path, as ext4 or overlay, by the text of /proc/self/mountinfo."""
    found, length = "", -1
    for line in mountinfo.splitlines():
        point = parse_mount_points(line)[0]
        # The last of several mounts on one point is the one that is seen.
        if path.is_relative_to(point) and len(point) >= length:
            found, length = line.partition(" - ")[2].split()[0], len(point)
    return found


def points_below(points: Iterable[str], directories: Iterable[Path]) -> list[str]:
    """Those points that are or lie below one of the directories, last mounted and deepest first."""
    roots = [str(directory) for directory in directories]
    inside = [point for point in points if any(point == root or point.startswith(f"{root}/") for root in roots)]
    inside.reverse()
    return sorted(inside, key=lambda point: -point.count("/"))


def unmount_below(*directories: Path) -> list[str]:
    """Unmount everything in and below the directories; what was unmounted. Raises OSError for what resists."""
    points = points_below(parse_mount_points(Path("/proc/self/mountinfo").read_text()), directories)
    for point in points:
        kernel.unmount_detached(point)
    return points
