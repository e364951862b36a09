"""A part of a volume, mounted by itself, in a way that a container can't turn against the node.

A container that shares the volume may exchange a directory for a link to the node's own files between our check and the
runtime's mount. So the path is opened step by step without following links, and what was opened is bind-mounted to a
place of ours, which is what the runtime gets.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from tiphys_kubelet.volumes.interface import VolumeError
from tiphys_kubelet.volumes.mounts import MS_BIND, MS_REC, mount, unmount


def bind_subpath(volume_path: Path, subpath: str, target: Path) -> Path:
    """Mounts the part on the target and returns the target; a part that does not exist becomes a directory.

    Blocks. Raises VolumeError if the path leaves the volume.
    """
    root = Path(os.path.realpath(volume_path))
    if os.path.isabs(subpath) or ".." in Path(subpath).parts:
        raise VolumeError(f'subPath "{subpath}" must be relative and must not contain ".."')
    resolved = Path(os.path.realpath(root / subpath))
    if not resolved.is_relative_to(root):
        raise VolumeError(f'subPath "{subpath}" leads out of its volume')
    handle = _open_below(root, resolved.relative_to(root).parts)
    try:
        _make_like(handle, target)
        _ensure_bound(handle, target)
    finally:
        os.close(handle)
    return target


def _open_below(root: Path, parts: tuple[str, ...]) -> int:
    """A handle of the last part, every part opened without following links, and made if missing."""
    handle = os.open(root, os.O_PATH | os.O_NOFOLLOW)
    # What is made is as open as the volume itself, or the container's user could not write there.
    mode = stat.S_IMODE(os.fstat(handle).st_mode)
    try:
        for part in parts:
            try:
                deeper = os.open(part, os.O_PATH | os.O_NOFOLLOW, dir_fd=handle)
            except FileNotFoundError:
                os.mkdir(part, mode, dir_fd=handle)
                deeper = os.open(part, os.O_PATH | os.O_NOFOLLOW, dir_fd=handle)
                os.chmod(f"/proc/self/fd/{deeper}", mode)
            os.close(handle)
            handle = deeper
            if _is_link(handle):
                raise VolumeError(f'"{part}" became a link while it was opened')
    except BaseException:
        os.close(handle)
        raise
    return handle


def _ensure_bound(handle: int, target: Path) -> None:
    """The target shows what the handle holds; an older version of it, from an earlier run, is taken off."""
    wanted, there = os.fstat(handle), target.stat()
    if (wanted.st_dev, wanted.st_ino) != (there.st_dev, there.st_ino):
        unmount(target)
        mount(f"/proc/self/fd/{handle}", target, flags=MS_BIND | MS_REC)


def _is_link(handle: int) -> bool:
    return stat.S_ISLNK(os.fstat(handle).st_mode)


def _make_like(handle: int, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if stat.S_ISDIR(os.fstat(handle).st_mode):
        target.mkdir(exist_ok=True)
    elif not target.exists():
        target.touch()
