"""emptyDir: a directory that lives as long as the pod, on disk or in memory."""

from __future__ import annotations

from pathlib import Path

from tiphys.api.core.v1.volume_pb2 import Volume
from tiphys_apimachinery.quantity import Quantity
from tiphys_component.proc import to_thread
from tiphys_kubelet.volumes.interface import MountedVolume, VolumeError, VolumeRequest
from tiphys_kubelet.volumes.mounts import ensure_tmpfs
from tiphys_kubelet.volumes.ownership import set_group


class EmptyDirPlugin:
    """Medium "" is the node's disk, Memory a tmpfs no larger than sizeLimit."""

    @property
    def name(self) -> str:
        """Kubernetes' name of the plugin."""
        return "kubernetes.io/empty-dir"

    def supports(self, volume: Volume) -> bool:
        """The volume is an emptyDir; a volume that names no source is one too."""
        source = volume.volumeSource
        return source.HasField("emptyDir") or not source.ListFields()

    async def set_up(self, request: VolumeRequest) -> MountedVolume:
        """Makes the directory, writable for all."""
        source = request.volume.volumeSource.emptyDir
        if source.medium not in ("", "Memory"):
            raise VolumeError(f'volume {request.volume.name}: emptyDir medium "{source.medium}" is not supported')
        limit = source.sizeLimit.string
        size_bytes = Quantity.parse(limit).value() if limit else 0
        await to_thread(_make, request.path, source.medium == "Memory", size_bytes, request.fs_group)
        return MountedVolume(request.path)

    async def tear_down(self, path: Path) -> None:
        """Nothing beyond what the manager does."""


def _make(path: Path, in_memory: bool, size_bytes: int, fs_group: int | None) -> None:
    existed = path.is_dir()
    if in_memory:
        ensure_tmpfs(path, size_bytes)
    path.mkdir(parents=True, exist_ok=True)
    # The mode is an interface: containers of any user write here. A tmpfs comes with the sticky bit, and keeps it.
    mode = 0o1777 if in_memory else 0o777
    path.chmod(mode)
    if fs_group is not None and not existed:
        set_group(path, fs_group)
        path.chmod(mode | 0o2000)
