"""Writes a set of files so that a reader sees all of the old or all of the new.

The layout is an interface: files lie in a directory with a time in its name, `..data` is a link to it, and what the
user sees are links through `..data`. An update writes a new directory and renames one link.
Source: the documented behaviour of ConfigMap volumes; programs that watch files depend on these names.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

DATA_LINK = "..data"
_NEW_LINK = "..data_tmp"


@dataclass(frozen=True, slots=True)
class FileContent:
    """One file: its bytes, its mode, and the owner where it is not root."""

    data: bytes
    mode: int = 0o644
    uid: int | None = None


class PathError(ValueError):
    """A path that leaves the volume, or is not allowed in it."""


def check_path(path: str) -> str:
    """The path as it is. Raises PathError if it is empty, absolute or climbs up."""
    parts = path.split("/")
    if not path or path.startswith(("/", "..")) or ".." in parts:
        raise PathError(f"invalid path {path!r}: must be relative and must not contain or begin with '..'")
    return path


def write_files(target: Path, files: Mapping[str, FileContent], *, now: datetime, fs_group: int | None = None) -> bool:
    """Makes the directory hold exactly these files; true if anything changed. Blocks. Raises PathError or OSError."""
    for path in files:
        check_path(path)
    target.mkdir(parents=True, exist_ok=True)
    link = target / DATA_LINK
    old = Path(os.readlink(link)) if link.is_symlink() else None
    if old is not None and _holds(target / old, files):
        _link_names(target, files)
        return False
    fresh = Path(tempfile.mkdtemp(prefix=now.strftime("..%Y_%m_%d_%H_%M_%S."), dir=target))
    try:
        _fill(fresh, files, fs_group)
        new_link = target / _NEW_LINK
        new_link.unlink(missing_ok=True)
        new_link.symlink_to(fresh.name)
        new_link.rename(link)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise
    _link_names(target, files)
    _remove_stale(target, keep=fresh.name, files=files)
    return True


def _holds(directory: Path, files: Mapping[str, FileContent]) -> bool:
    if not directory.is_dir():
        return False
    found = {str(p.relative_to(directory)): p for p in directory.rglob("*") if p.is_file() and not p.is_symlink()}
    return found.keys() == files.keys() and all(
        p.stat().st_mode & 0o7777 == files[name].mode and p.read_bytes() == files[name].data
        for name, p in found.items()
    )


def _fill(directory: Path, files: Mapping[str, FileContent], fs_group: int | None) -> None:
    directory.chmod(0o755)
    for name, content in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.data)
        if fs_group is not None or content.uid is not None:
            os.chown(path, -1 if content.uid is None else content.uid, -1 if fs_group is None else fs_group)
        # After the owner: changing that may clear bits of the mode. The umask has no say.
        path.chmod(content.mode)


def _link_names(target: Path, files: Mapping[str, FileContent]) -> None:
    for first in {name.split("/", 1)[0] for name in files}:
        visible, wanted = target / first, f"{DATA_LINK}/{first}"
        if visible.is_symlink() and os.readlink(visible) == wanted:
            continue
        visible.unlink(missing_ok=True)
        visible.symlink_to(wanted)


def _remove_stale(target: Path, *, keep: str, files: Mapping[str, FileContent]) -> None:
    visible = {name.split("/", 1)[0] for name in files}
    for entry in target.iterdir():
        if entry.name in (DATA_LINK, keep) or entry.name in visible:
            continue
        if entry.is_symlink():
            entry.unlink()
        elif entry.name.startswith(".."):
            shutil.rmtree(entry)
