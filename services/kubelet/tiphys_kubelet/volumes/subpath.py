"""A part of a volume, mounted by itself, in a way that a container can't turn against the node.

A container that shares the volume may exchange a directory for a link to the node's own files between our check and the
runtime's mount. So the path is opened step by step without following links, and what was opened is bind-mounted to a
place of ours, which is what the runtime gets.
"""

from __future__ import annotations

import os
from pathlib import Path

from tiphys_kubelet.volumes.interface import VolumeError
from tiphys_kubelet.volumes.mounts import ensure_bind

_DIRECTORY_MODE = 0o755


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
        ensure_bind(f"/proc/self/fd/{handle}", target)
    finally:
        os.close(handle)
    return target


def _open_below(root: Path, parts: tuple[str, ...]) -> int:
    """A handle of the last part, every part opened without following links, and made if missing."""
    handle = os.open(root, os.O_PATH | os.O_NOFOLLOW)
    try:
        for part in parts:
            try:
                deeper = os.open(part, os.O_PATH | os.O_NOFOLLOW, dir_fd=handle)
            except FileNotFoundError:
                os.mkdir(part, _DIRECTORY_MODE, dir_fd=handle)
                deeper = os.open(part, os.O_PATH | os.O_NOFOLLOW, dir_fd=handle)
            os.close(handle)
            handle = deeper
            if _is_link(handle):
                raise VolumeError(f'"{part}" became a link while it was opened')
    except BaseException:
        os.close(handle)
        raise
    return handle


def _is_link(handle: int) -> bool:
    return (os.fstat(handle).st_mode & 0o170000) == 0o120000


def _make_like(handle: int, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if (os.fstat(handle).st_mode & 0o170000) == 0o040000:
        target.mkdir(exist_ok=True)
    elif not target.exists():
        target.touch()
