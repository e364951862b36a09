"""Bind mounts, by the kernel's calls. All of it blocks: call it through a thread."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterator
from pathlib import Path

MS_RDONLY, MS_REMOUNT, MS_BIND = 1, 32, 4096
UMOUNT_NOFOLLOW, MNT_DETACH = 8, 2
_ESCAPES = {"\\040": " ", "\\011": "\t", "\\012": "\n", "\\134": "\\"}
# More mounts on one path than this are not ours.
_MAX_LAYERS = 32


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _fail(what: str, target: Path) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, f"{what}: {os.strerror(number)}", str(target))


def bind(source: Path, target: Path) -> None:
    """Shows source at target too; raises OSError."""
    if _libc().mount(os.fsencode(source), os.fsencode(target), b"", ctypes.c_ulong(MS_BIND), None) != 0:
        raise _fail(f"bind mount of {source}", target)


def make_readonly(target: Path) -> None:
    """Makes one bind mount read-only, whatever its source is; raises OSError."""
    flags = ctypes.c_ulong(MS_REMOUNT | MS_BIND | MS_RDONLY)
    if _libc().mount(b"none", os.fsencode(target), b"", flags, None) != 0:
        raise _fail("read-only mount", target)


def unmount_all(target: Path) -> None:
    """Takes every mount off the path, lazily where something still holds it; succeeds where there is none."""
    for _ in range(_MAX_LAYERS):
        if not is_mount_point(target):
            return
        if _libc().umount2(os.fsencode(target), UMOUNT_NOFOLLOW) == 0:
            continue
        if ctypes.get_errno() in (errno.EINVAL, errno.ENOENT):
            return
        if _libc().umount2(os.fsencode(target), UMOUNT_NOFOLLOW | MNT_DETACH) != 0:
            raise _fail("unmount", target)
    raise OSError(errno.EBUSY, f"still mounted after {_MAX_LAYERS} unmounts", str(target))


def is_mount_point(path: Path) -> bool:
    """Whether something is mounted at exactly this path; a bind mount on the same file system counts."""
    wanted = os.path.join(os.path.realpath(path.parent), path.name)
    return any(point == wanted for point, _ in _mounts())


def is_readonly(path: Path) -> bool:
    """Whether the mount that the path is on is read-only."""
    return bool(os.statvfs(path).f_flag & os.ST_RDONLY)


def is_same(one: Path, other: Path) -> bool:
    """Whether both paths lead to one file or folder; False where one is missing."""
    try:
        return os.path.samefile(one, other)
    except FileNotFoundError:
        return False


def targets_of(source: Path) -> list[str]:
    """Where the folder or file is bind mounted in this mount namespace.

    By the end of its path only: the kernel tells the path from the root of the file system, not from ours. So give a
    path whose last parts occur once.
    """
    end = "/" + "/".join(source.parts[-3:])
    return [point for point, root in _mounts() if root.endswith(end)]


def _mounts() -> Iterator[tuple[str, str]]:
    """Mount point and root within its file system, of every mount."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as lines:
        for line in lines:
            words = line.split(" ", 5)
            yield _plain(words[4]), _plain(words[3])


def _plain(text: str) -> str:
    for escaped, char in _ESCAPES.items():
        text = text.replace(escaped, char)
    return text
