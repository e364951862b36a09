"""What of CSI volumes is on disk: where they lie, and the notes that a kubelet leaves itself before it acts.

These notes are the only record of what is staged and published. They are written before a driver is called and removed
after it has undone everything, so whoever dies in between, what may be there is always written down.

    ROOT/pods/UID/volumes/kubernetes.io~csi/NAME/{vol_data.json,mount}
    ROOT/plugins/kubernetes.io/csi/DRIVER/SHA256/{vol_data.json,globalmount}

Source: the places and the keys of the notes are Kubernetes', and drivers and tools know them. All of it blocks.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import orjson

from tiphys_kubelet.volumes.mounts import mounts_below, unmount

PLUGIN_NAME = "kubernetes.io/csi"
DATA_FILE = "vol_data.json"


@dataclass(frozen=True, slots=True)
class VolumeData:
    """A note. `attachment_id` is empty where nothing had to be attached; `mode` is Persistent or Ephemeral."""

    driver: str
    handle: str
    spec_name: str = ""
    node: str = ""
    attachment_id: str = ""
    mode: str = "Persistent"

    @property
    def unique_name(self) -> str:
        """The volume's name in a node's status."""
        return f"{PLUGIN_NAME}/{self.driver}^{self.handle}"


@dataclass(frozen=True, slots=True)
class CsiPaths:
    """Where volumes lie below a kubelet's root."""

    root: Path

    def staging(self, driver: str, handle: str) -> Path:
        """The directory of a staged volume; the mount in it is `globalmount`."""
        return self._plugin / driver / hashlib.sha256(handle.encode()).hexdigest()

    @property
    def _plugin(self) -> Path:
        return self.root / "plugins" / "kubernetes.io" / "csi"

    def staged(self) -> Iterator[tuple[Path, VolumeData]]:
        """Every volume that is or may be staged, with its directory."""
        yield from _notes(self._plugin.glob(f"*/*/{DATA_FILE}"))

    def empty(self) -> tuple[Path, ...]:
        """Directories without a note: whoever made or removed one died in between."""
        return tuple(path for path in self._plugin.glob("*/*") if path.is_dir() and not (path / DATA_FILE).exists())

    def published(self) -> Iterator[tuple[Path, VolumeData]]:
        """Every volume that is or may be published to a pod, with its directory."""
        yield from _notes((self.root / "pods").glob(f"*/volumes/kubernetes.io~csi/*/{DATA_FILE}"))

    def attached_places(self) -> dict[Path, str]:
        """The directories that hold attached volumes, with the volumes' unique names."""
        found = (*self.published(), *self.staged())
        return {directory: data.unique_name for directory, data in found if data.attachment_id}

    def is_used(self, driver: str, handle: str) -> bool:
        """Some pod has the volume."""
        return any((data.driver, data.handle) == (driver, handle) for _, data in self.published())


def staging_mount(directory: Path) -> Path:
    """What a driver is given to stage on."""
    return directory / "globalmount"


def publish_mount(directory: Path) -> Path:
    """What a driver is given to publish on."""
    return directory / "mount"


def write_note(directory: Path, data: VolumeData) -> None:
    """Leaves a note in the directory, which is made; whole, or not at all, also when the power fails."""
    directory.mkdir(mode=0o750, parents=True, exist_ok=True)
    if read_note(directory) == data:
        return
    text = orjson.dumps(
        {
            "attachmentID": data.attachment_id,
            "driverName": data.driver,
            "nodeName": data.node,
            "specVolID": data.spec_name,
            "volumeHandle": data.handle,
            "volumeLifecycleMode": data.mode,
        }
    )
    fresh = directory / f".{DATA_FILE}.new"
    with open(fresh, "wb") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    fresh.rename(directory / DATA_FILE)


def read_note(directory: Path) -> VolumeData | None:
    """The note, None where there is none that can be read."""
    try:
        found = orjson.loads((directory / DATA_FILE).read_bytes())
        return VolumeData(
            driver=found["driverName"],
            handle=found["volumeHandle"],
            spec_name=found.get("specVolID", ""),
            node=found.get("nodeName", ""),
            attachment_id=found.get("attachmentID", ""),
            mode=found.get("volumeLifecycleMode", "Persistent"),
        )
    except (FileNotFoundError, NotADirectoryError, orjson.JSONDecodeError, KeyError, TypeError):
        return None


def remove_directory(directory: Path, mount: Path) -> None:
    """Removes a directory whose volume was undone, the note last; a mount that its driver forgot is taken off.

    Raises OSError where the driver left something that holds data: that is never deleted here.
    """
    for point in mounts_below(mount):
        unmount(point)
    if mount.is_dir() and not mount.is_symlink():
        mount.rmdir()
    else:
        mount.unlink(missing_ok=True)
    (directory / f".{DATA_FILE}.new").unlink(missing_ok=True)
    (directory / DATA_FILE).unlink(missing_ok=True)
    try:
        directory.rmdir()
    except FileNotFoundError:
        return


def _notes(paths: Iterator[Path]) -> Iterator[tuple[Path, VolumeData]]:
    for path in paths:
        data = read_note(path.parent)
        if data is not None:
            yield path.parent, data
