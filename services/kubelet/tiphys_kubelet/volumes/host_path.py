"""hostPath: a path of the node itself."""

from __future__ import annotations

import stat
from pathlib import Path

from tiphys.api.core.v1.volume_pb2 import Volume
from tiphys_component.proc import to_thread
from tiphys_kubelet.volumes.interface import MountedVolume, VolumeError, VolumeRequest

_CHECKS = {
    "Directory": (stat.S_ISDIR, "a directory"),
    "DirectoryOrCreate": (stat.S_ISDIR, "a directory"),
    "File": (stat.S_ISREG, "a file"),
    "FileOrCreate": (stat.S_ISREG, "a file"),
    "Socket": (stat.S_ISSOCK, "a socket file"),
    "CharDevice": (stat.S_ISCHR, "a character device"),
    "BlockDevice": (stat.S_ISBLK, "a block device"),
}


class HostPathPlugin:
    """Checks the path's type as asked, and makes it where that is asked too."""

    @property
    def name(self) -> str:
        """Kubernetes' name of the plugin."""
        return "kubernetes.io/host-path"

    def supports(self, volume: Volume) -> bool:
        """The volume is a hostPath."""
        return volume.volumeSource.HasField("hostPath")

    async def set_up(self, request: VolumeRequest) -> MountedVolume:
        """Names the path itself. Without a type nothing is checked, and the runtime makes a directory if need be."""
        source = request.volume.volumeSource.hostPath
        if source.type:
            await to_thread(check_type, Path(source.path), source.type)
        return MountedVolume(Path(source.path))

    async def tear_down(self, path: Path) -> None:
        """The path is the node's; it stays."""


def check_type(path: Path, kind: str) -> None:
    """Blocks. Raises VolumeError if the path is not of the kind."""
    if kind not in _CHECKS:
        raise VolumeError(f'hostPath type check failed: "{kind}" is an unknown type')
    if kind == "DirectoryOrCreate":
        path.mkdir(mode=0o755, parents=True, exist_ok=True)
    elif kind == "FileOrCreate" and not path.exists():
        try:
            path.touch(mode=0o644)
        except FileNotFoundError as err:
            raise VolumeError(f"hostPath type check failed: the directory of {path} does not exist") from err
    is_kind, words = _CHECKS[kind]
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        mode = 0
    if not is_kind(mode):
        raise VolumeError(f"hostPath type check failed: {path} is not {words}")
