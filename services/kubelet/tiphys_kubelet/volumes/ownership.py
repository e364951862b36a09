"""Giving a volume to the pod's fsGroup."""

from __future__ import annotations

import os
import stat
from pathlib import Path


def set_group(path: Path, group: int, *, read_only: bool = False) -> None:
    """Gives everything at and below the path to the group, readable, and writable unless read_only. Blocks.

    Directories get the setgid bit, so that what is made in them belongs to the group too.
    """
    _set_one(path, group, read_only)
    for folder, folders, files in os.walk(path):
        for name in (*folders, *files):
            _set_one(Path(folder) / name, group, read_only)


def give_to_group(path: Path, group: int, *, only_on_mismatch: bool) -> None:
    """Gives a volume to the group; with only_on_mismatch not if its root looks as if that were done. Blocks."""
    info = path.stat()
    if only_on_mismatch and info.st_gid == group and stat.S_IMODE(info.st_mode) & 0o2770 == 0o2770:
        return
    set_group(path, group)


def _set_one(path: Path, group: int, read_only: bool) -> None:
    info = path.lstat()
    os.lchown(path, -1, group)
    if stat.S_ISLNK(info.st_mode):
        return
    mode = stat.S_IMODE(info.st_mode) | (0o440 if read_only else 0o660)
    if stat.S_ISDIR(info.st_mode):
        mode |= 0o2110
    path.chmod(mode)
