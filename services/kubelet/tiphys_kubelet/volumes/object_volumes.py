"""ConfigMap, Secret and downward API volumes: their files, kept true while the pod lives."""

from __future__ import annotations

from pathlib import Path

from tiphys.api.core.v1.volume_pb2 import Volume
from tiphys_component.clock import Clock
from tiphys_component.proc import to_thread
from tiphys_kubelet.volumes.atomic_writer import PathError, write_files
from tiphys_kubelet.volumes.content import DEFAULT_MODE, Files, config_map_files, downward_files, secret_files
from tiphys_kubelet.volumes.interface import MountedVolume, VolumeError, VolumeRequest
from tiphys_kubelet.volumes.mounts import ensure_tmpfs


async def write_volume(request: VolumeRequest, files: Files, clock: Clock, *, in_memory: bool) -> None:
    """Puts the files in place, on a tmpfs where they must not reach a disk. Raises VolumeError."""

    def write() -> None:
        if in_memory:
            ensure_tmpfs(request.path)
        write_files(request.path, files, now=clock.now(), fs_group=request.fs_group)

    try:
        await to_thread(write)
    except (PathError, OSError) as err:
        raise VolumeError(f"volume {request.volume.name}: {err}") from err


class ConfigMapPlugin:
    """The keys of a ConfigMap as files."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    @property
    def name(self) -> str:
        """Kubernetes' name of the plugin."""
        return "kubernetes.io/configmap"

    def supports(self, volume: Volume) -> bool:
        """The volume is a ConfigMap."""
        return volume.volumeSource.HasField("configMap")

    async def set_up(self, request: VolumeRequest) -> MountedVolume:
        """Writes the files."""
        source = request.volume.volumeSource.configMap
        mode = source.defaultMode if source.HasField("defaultMode") else DEFAULT_MODE
        name = source.localObjectReference.name
        files = config_map_files(request, name, source.items, mode, optional=source.optional)
        await write_volume(request, files, self._clock, in_memory=False)
        return MountedVolume(request.path, read_only=True)

    async def tear_down(self, path: Path) -> None:
        """Nothing beyond what the manager does."""


class SecretPlugin:
    """The keys of a Secret as files, in memory."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    @property
    def name(self) -> str:
        """Kubernetes' name of the plugin."""
        return "kubernetes.io/secret"

    def supports(self, volume: Volume) -> bool:
        """The volume is a Secret."""
        return volume.volumeSource.HasField("secret")

    async def set_up(self, request: VolumeRequest) -> MountedVolume:
        """Writes the files."""
        source = request.volume.volumeSource.secret
        mode = source.defaultMode if source.HasField("defaultMode") else DEFAULT_MODE
        files = secret_files(request, source.secretName, source.items, mode, optional=source.optional)
        await write_volume(request, files, self._clock, in_memory=True)
        return MountedVolume(request.path, read_only=True)

    async def tear_down(self, path: Path) -> None:
        """Nothing beyond what the manager does."""


class DownwardAPIPlugin:
    """What the pod may know of itself, as files."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    @property
    def name(self) -> str:
        """Kubernetes' name of the plugin."""
        return "kubernetes.io/downward-api"

    def supports(self, volume: Volume) -> bool:
        """The volume is of the downward API."""
        return volume.volumeSource.HasField("downwardAPI")

    async def set_up(self, request: VolumeRequest) -> MountedVolume:
        """Writes the files."""
        source = request.volume.volumeSource.downwardAPI
        mode = source.defaultMode if source.HasField("defaultMode") else DEFAULT_MODE
        await write_volume(request, downward_files(request, source.items, mode), self._clock, in_memory=True)
        return MountedVolume(request.path, read_only=True)

    async def tear_down(self, path: Path) -> None:
        """Nothing beyond what the manager does."""
