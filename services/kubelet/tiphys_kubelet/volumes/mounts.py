"""Mounting and unmounting, by the kernel's calls. All of it blocks: call it through a thread."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from pathlib import Path

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT, MS_BIND, MS_REC = 1, 2, 4, 8, 32, 4096, 16384
UMOUNT_NOFOLLOW, MNT_DETACH = 8, 2
_ESCAPES = {"\\040": " ", "\\011": "\t", "\\012": "\n", "\\134": "\\"}


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def mount(source: str, target: Path, fstype: str = "", *, flags: int = 0, data: str = "") -> None:
    """mount(2); raises OSError."""
    result = _libc().mount(
        os.fsencode(source), os.fsencode(target), fstype.encode(), ctypes.c_ulong(flags), data.encode()
    )
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"mount of {fstype or source}: {os.strerror(number)}", str(target))


def unmount(target: Path) -> None:
    """Takes one mount off, lazily where something still holds it; succeeds where nothing is mounted."""
    if _libc().umount2(os.fsencode(target), UMOUNT_NOFOLLOW) == 0:
        return
    number = ctypes.get_errno()
    if number in (22, 2):  # EINVAL: no mount point; ENOENT: no such path
        return
    if _libc().umount2(os.fsencode(target), UMOUNT_NOFOLLOW | MNT_DETACH) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"unmount: {os.strerror(number)}", str(target))


def ensure_tmpfs(target: Path, size_bytes: int = 0) -> None:
    """A tmpfs on the path, made if it does not exist; size 0 leaves the kernel's default."""
    target.mkdir(parents=True, exist_ok=True)
    if not os.path.ismount(target):
        mount("tmpfs", target, "tmpfs", data=f"size={size_bytes}" if size_bytes else "")


def mounts_below(path: Path) -> list[Path]:
    """All mount points at or below the path, the deepest first."""
    prefix = os.path.realpath(path)
    found = [point for point in _mount_points() if point == prefix or point.startswith(prefix + "/")]
    return [Path(point) for point in sorted(found, key=len, reverse=True)]


def _mount_points() -> Iterator[str]:
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as lines:
        for line in lines:
            point = line.split(" ", 5)[4]
            for escaped, char in _ESCAPES.items():
                point = point.replace(escaped, char)
            yield point
