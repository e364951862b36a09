"""Puts a pod's volumes in place, keeps them true, and takes them away.

What is on disk is the only record: root/pods/UID/volumes/PLUGIN/NAME, as in Kubernetes. After a crash setting up again
finds everything in place, and tearing down asks the kernel what is mounted there.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

from tiphys.api.core.v1.container_pb2 import Container
from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys.api.core.v1.volume_pb2 import Volume, VolumeMount
from tiphys.thirdparty.cri.v1 import api_pb2 as cri
from tiphys_apimachinery.quantity import Quantity
from tiphys_component.proc import to_thread
from tiphys_kubelet.objects import Objects
from tiphys_kubelet.runtime.expansion import expand
from tiphys_kubelet.volumes.claims import Resolved, resolve
from tiphys_kubelet.volumes.interface import (
    MountedVolume,
    VolumeError,
    VolumePlugin,
    VolumeRequest,
    VolumesFailed,
    VolumeWaiting,
)
from tiphys_kubelet.volumes.mounts import mounts_below, unmount
from tiphys_kubelet.volumes.subpath import bind_subpath

_PROPAGATION = {
    "": cri.PROPAGATION_PRIVATE,
    "None": cri.PROPAGATION_PRIVATE,
    "HostToContainer": cri.PROPAGATION_HOST_TO_CONTAINER,
    "Bidirectional": cri.PROPAGATION_BIDIRECTIONAL,
}
MountedVolumes = Mapping[str, MountedVolume]


@dataclass(frozen=True, slots=True)
class VolumeSurroundings:
    """What the content of volumes may depend on besides the pod."""

    objects: Objects
    pod_ips: Sequence[str] = ()
    host_ips: Sequence[str] = ()
    allocatable: Mapping[str, Quantity] = field(default_factory=dict)


class VolumeManager:
    """All volumes of the node's pods."""

    def __init__(self, pods_root: Path, plugins: Sequence[VolumePlugin]) -> None:
        self._pods_root = pods_root
        self._plugins = plugins

    async def ensure(self, pod: Pod, surroundings: VolumeSurroundings) -> MountedVolumes:
        """Sets all volumes up, side by side; those in place are brought up to date. Raises VolumesFailed."""
        errors: list[tuple[VolumeError, str]] = []

        async def one(volume: Volume) -> MountedVolume | None:
            name = volume.name
            try:
                resolved = resolve(pod, volume, surroundings.objects)
                name = resolved.volume.name
                return await self._set_up(pod, resolved, surroundings)
            except VolumeError as err:
                errors.append((err, f'{err.step} failed for volume "{name}" : {err}'))
            except OSError as err:
                text = f"{err.filename}: {err.strerror}" if err.filename else str(err)
                errors.append((VolumeError(text), f'MountVolume.SetUp failed for volume "{name}" : {text}'))
            return None

        async with asyncio.TaskGroup() as group:
            tasks = {volume.name: group.create_task(one(volume)) for volume in pod.spec.volumes}
        if errors:
            waiting = all(isinstance(err, VolumeWaiting) for err, _ in errors)
            raise VolumesFailed([(err.reason, text) for err, text in errors], waiting=waiting)
        return {name: mounted for name, task in tasks.items() if (mounted := task.result()) is not None}

    async def mounts_of(
        self, pod: Pod, container: Container, volumes: MountedVolumes, env: Mapping[str, str]
    ) -> list[cri.Mount]:
        """What the runtime is to mount into a container. Raises VolumeError."""
        return [
            await self._mount(pod, container, index, volumes=volumes, env=env)
            for index in range(len(container.volumeMounts))
        ]

    def devices_of(self, container: Container, volumes: MountedVolumes) -> list[cri.Device]:
        """The volumes that a container gets as devices. Raises VolumeError."""
        devices = []
        for wanted in container.volumeDevices:
            mounted = volumes.get(wanted.name)
            if mounted is None or not mounted.is_device:
                raise VolumeError(f'cannot find volume "{wanted.name}" to pass into container "{container.name}"')
            permissions = "r" if mounted.read_only else "mrw"
            device = cri.Device(
                container_path=wanted.devicePath, host_path=str(mounted.host_path), permissions=permissions
            )
            devices.append(device)
        return devices

    async def release(self, uid: str) -> None:
        """Takes every volume of the pod away; what its containers left to say stays. Succeeds where there is none.

        Raises VolumeError if one can't be taken away now; the others are gone then.
        """
        root = self._pods_root / uid
        # Parts of volumes are mounted from them and must go first.
        await to_thread(_remove, root / "volume-subpaths")
        errors: list[VolumeError] = []

        async def one(plugin: VolumePlugin, path: Path) -> None:
            try:
                await plugin.tear_down(path)
            except VolumeError as err:
                errors.append(VolumeError(f'{err.step} failed for volume "{path.name}" : {err}'))

        async with asyncio.TaskGroup() as group:
            for plugin in self._plugins:
                for path in _children(root / "volumes" / escaped(plugin.name)):
                    group.create_task(one(plugin, path))
        if errors:
            raise errors[0]
        await to_thread(_remove, root / "volumes")

    async def tear_down(self, uid: str) -> None:
        """Takes every volume of the pod away, and the pod's directory. Succeeds where there is none."""
        await self.release(uid)
        await to_thread(_remove, self._pods_root / uid)

    def uids(self) -> set[str]:
        """The pods that have a directory."""
        return {path.name for path in _children(self._pods_root)}

    async def _set_up(self, pod: Pod, resolved: Resolved, surroundings: VolumeSurroundings) -> MountedVolume:
        volume = resolved.volume
        plugin = next((p for p in self._plugins if p.supports(volume)), None)
        if plugin is None:
            kinds = ", ".join(field.name for field, _ in volume.volumeSource.ListFields())
            raise VolumeError(f"no volume plugin matched: {kinds} is not supported on this node")
        path = self._pods_root / pod.metadata.uid / "volumes" / escaped(plugin.name) / volume.name
        await to_thread(path.parent.mkdir, parents=True, exist_ok=True)
        request = VolumeRequest(
            pod=pod,
            volume=volume,
            path=path,
            objects=surroundings.objects,
            persistent=resolved.persistent,
            claim=resolved.claim,
            read_only=resolved.read_only,
            pod_ips=surroundings.pod_ips,
            host_ips=surroundings.host_ips,
            allocatable=surroundings.allocatable,
        )
        mounted = await plugin.set_up(request)
        return replace(mounted, read_only=True) if resolved.read_only else mounted

    async def _mount(
        self, pod: Pod, container: Container, index: int, *, volumes: MountedVolumes, env: Mapping[str, str]
    ) -> cri.Mount:
        mount = container.volumeMounts[index]
        mounted = volumes.get(mount.name)
        if mounted is None:
            raise VolumeError(f'cannot find volume "{mount.name}" to mount into container "{container.name}"')
        path = mounted.host_path
        subpath = expand(mount.subPathExpr, env) if mount.subPathExpr else mount.subPath
        if subpath:
            target = self._pods_root / pod.metadata.uid / "volume-subpaths" / mount.name / container.name / str(index)
            path = await to_thread(bind_subpath, path, subpath, target)
        return cri.Mount(
            container_path=_absolute(mount),
            host_path=str(path),
            readonly=mount.readOnly or mounted.read_only,
            propagation=_PROPAGATION[mount.mountPropagation],
        )


def next_refresh(volumes: MountedVolumes) -> datetime | None:
    """When the content of one of them must be made anew."""
    return min((v.refresh_at for v in volumes.values() if v.refresh_at is not None), default=None)


def escaped(plugin_name: str) -> str:
    """A plugin's name as the name of a directory."""
    return plugin_name.replace("/", "~")


def _absolute(mount: VolumeMount) -> str:
    return mount.mountPath if mount.mountPath.startswith("/") else f"/{mount.mountPath}"


def _children(path: Path) -> list[Path]:
    return sorted(path.iterdir()) if path.is_dir() else []


def _remove(root: Path) -> None:
    if not root.is_dir():
        return
    for point in mounts_below(root):
        unmount(point)
    if mounts_below(root):
        # Deleting through a mount that stayed would delete what it shows.
        raise OSError(16, "something is still mounted below", str(root))
    shutil.rmtree(root)
