"""What the driver knows, all of it on disk and nowhere else: one folder a volume or snapshot.

    ROOT/volumes/ID/volume.json     what it is
    ROOT/volumes/ID/data            its files; `disk.img` for a block volume
    ROOT/snapshots/ID/snapshot.json
    ROOT/snapshots/ID/data

A folder appears under its name when it is whole, by a rename, and is renamed before it is taken apart; what a killed
process left has a name with a dot and is removed at the next start. So there is nothing to repair, and a driver whose
disk was lost says of each volume that it does not exist. Everything here blocks: call it through a thread.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from tiphys_component.log import get_logger

Kind = Literal["mount", "block"]
_ID = re.compile(r"[0-9a-f]{32}")
_log = get_logger("hostpath.state")


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume:
    """A volume. source is what filled it, such as snapshot:ID; attached is by node, True for read-only."""

    id: str
    name: str
    capacity_bytes: int
    kind: Kind = "mount"
    source: str = ""
    attached: Mapping[str, bool] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A snapshot: a copy of a volume's data at one moment, in nanoseconds since the epoch."""

    id: str
    name: str
    source_volume_id: str
    size_bytes: int
    kind: Kind = "mount"
    created_ns: int = 0


def id_for(name: str) -> str:
    """The id that a thing of this name gets, always the same: so a call that was cut short can't make a second one."""
    return hashlib.sha256(name.encode()).hexdigest()[:32]


class Store:
    """The folders below root. Callers see to it that one thing is changed by one call at a time."""

    def __init__(self, root: Path) -> None:
        self._volumes = root / "volumes"
        self._snapshots = root / "snapshots"

    def recover(self) -> None:
        """Make the folders and remove what calls that were cut short left behind."""
        for folder in (self._volumes, self._snapshots):
            folder.mkdir(parents=True, exist_ok=True)
            for left in folder.glob(".*"):
                _log.info("removed what a call that was cut short left", path=str(left))
                shutil.rmtree(left)

    def free_bytes(self) -> int:
        """What the file system below has left."""
        found = os.statvfs(self._volumes)
        return found.f_bavail * found.f_frsize

    def volume(self, volume_id: str) -> Volume | None:
        """The volume, None if there is no such one."""
        values = _read(self._volumes, volume_id, "volume.json")
        return None if values is None else Volume(**values)

    def volumes(self) -> list[Volume]:
        """All volumes, by id."""
        return [found for name in _names(self._volumes) if (found := self.volume(name)) is not None]

    def data(self, volume: Volume) -> Path:
        """The volume's folder, or the image file of a block volume."""
        return self._volumes / volume.id / _content(volume.kind)

    def add_volume(self, volume: Volume) -> None:
        """Make an empty volume. Raises FileExistsError."""
        self._add(self._volume_file(volume), asdict(volume), lambda path: _make_empty(path, volume))

    def copy_volume(self, volume: Volume, content: Path) -> None:
        """Make a volume with a copy of the content. Raises FileExistsError; FileNotFoundError where that is gone."""

        def fill(path: Path) -> None:
            _copy(content, path)
            if volume.kind == "block":
                os.truncate(path, volume.capacity_bytes)

        self._add(self._volume_file(volume), asdict(volume), fill)

    def change_volume(self, volume: Volume, **changes: Any) -> Volume:
        """Store the volume with changes and return it. A block volume's image gets its new size first."""
        changed = replace(volume, **changes)
        if volume.kind == "block" and changed.capacity_bytes > volume.capacity_bytes:
            os.truncate(self.data(volume), changed.capacity_bytes)
        _write(self._volume_file(volume), asdict(changed))
        return changed

    def remove_volume(self, volume_id: str) -> None:
        """Delete the volume and its data; succeeds where there is none."""
        _remove(self._volumes, volume_id)

    def snapshot(self, snapshot_id: str) -> Snapshot | None:
        """The snapshot, None if there is no such one."""
        values = _read(self._snapshots, snapshot_id, "snapshot.json")
        return None if values is None else Snapshot(**values)

    def snapshots(self) -> list[Snapshot]:
        """All snapshots, by id."""
        return [found for name in _names(self._snapshots) if (found := self.snapshot(name)) is not None]

    def snapshot_data(self, snapshot: Snapshot) -> Path:
        """The snapshot's folder or image."""
        return self._snapshots / snapshot.id / _content(snapshot.kind)

    def add_snapshot(self, snapshot: Snapshot, content: Path) -> None:
        """Copy the content into a new snapshot. Raises FileExistsError; FileNotFoundError where it is gone."""
        file = self._snapshots / snapshot.id / "snapshot.json"
        self._add(file, asdict(snapshot), lambda path: _copy(content, path))

    def remove_snapshot(self, snapshot_id: str) -> None:
        """Delete the snapshot; succeeds where there is none."""
        _remove(self._snapshots, snapshot_id)

    def _volume_file(self, volume: Volume) -> Path:
        return self._volumes / volume.id / "volume.json"

    def _add(self, path: Path, values: Mapping[str, Any], fill: Callable[[Path], None]) -> None:
        """Make the folder of path with that file in it, and the content that fill makes beside it."""
        folder, identity, file = path.parent.parent, path.parent.name, path.name
        final, making = folder / identity, folder / f".new-{identity}"
        if final.exists():
            raise FileExistsError(f"{final} exists")
        if making.exists():
            shutil.rmtree(making)
        making.mkdir()
        fill(making / _content(values["kind"]))
        _write(making / file, values)
        _sync_all(making)
        making.rename(final)
        _sync_folder(folder)


def _content(kind: Kind) -> str:
    return "disk.img" if kind == "block" else "data"


def _names(folder: Path) -> list[str]:
    try:
        return sorted(name for name in os.listdir(folder) if _ID.fullmatch(name))
    except FileNotFoundError:
        return []


def _read(folder: Path, identity: str, file: str) -> dict[str, Any] | None:
    # An id that this driver can't have made never reaches the file system.
    if _ID.fullmatch(identity) is None:
        return None
    try:
        values: dict[str, Any] = json.loads((folder / identity / file).read_bytes())
    except FileNotFoundError:
        return None
    return values


def _write(path: Path, values: Mapping[str, Any]) -> None:
    """Replace a file as a whole, for good: after a crash it has the old content or the new."""
    making = path.with_name(f".{path.name}")
    with open(making, "wb") as file:
        file.write(json.dumps(values, sort_keys=True).encode())
        file.flush()
        os.fsync(file.fileno())
    making.replace(path)
    _sync_folder(path.parent)


def _make_empty(path: Path, volume: Volume) -> None:
    if volume.kind == "block":
        with open(path, "wb") as image:
            image.truncate(volume.capacity_bytes)
        return
    path.mkdir()
    # Pods of any user write here; who may reach the node's folder is decided above it.
    path.chmod(0o777)


def _copy(source: Path, target: Path) -> None:
    if not source.exists():
        raise FileNotFoundError(f"{source} is gone")
    # Owners, links, extended attributes and holes are kept, and blocks shared where the file system can.
    command = ["cp", "--archive", "--reflink=auto", "--sparse=auto", "--no-target-directory", str(source), str(target)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise OSError(f"copy of {source}: {done.stderr.strip()[-500:]}")
    subprocess.run(["sync", "--file-system", str(target)], check=True)


def _remove(folder: Path, identity: str) -> None:
    if _ID.fullmatch(identity) is None:
        return
    going = folder / f".gone-{identity}"
    if going.exists():
        shutil.rmtree(going)
    try:
        (folder / identity).rename(going)
    except FileNotFoundError:
        return
    _sync_folder(folder)
    shutil.rmtree(going)


def _sync_all(folder: Path) -> None:
    for name in os.listdir(folder):
        if (folder / name).is_dir():
            _sync_folder(folder / name)
    _sync_folder(folder)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
