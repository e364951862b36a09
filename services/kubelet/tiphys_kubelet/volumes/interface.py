"""What a kind of volume must offer, and what it is given.

A plugin sets a volume up for a pod below the path that it is handed, or names another place on the node. Both calls may
be repeated: setting up what is in place brings its content up to date, tearing down what is gone succeeds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Protocol

from tiphys.api.core.v1.persistent_volume_claim_pb2 import PersistentVolumeClaim
from tiphys.api.core.v1.persistent_volume_pb2 import PersistentVolume
from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys.api.core.v1.volume_pb2 import Volume
from tiphys_apimachinery.quantity import Quantity
from tiphys_kubelet.objects import Objects


class VolumeError(Exception):
    """The volume can't be set up; the message is shown to users.

    `step` and `reason` are those of the event, with Kubernetes' words: what failed, and of which kind it is.
    """

    step: str = "MountVolume.SetUp"
    reason: str = "FailedMount"


class VolumeMapError(VolumeError):
    """A volume that is to be a device can't be."""

    step = "MapVolume.SetUpDevice"
    reason = "FailedMapVolume"


class VolumeWaiting(VolumeError):
    """Something that others do is not done yet, and its doing will be heard of: no fault before it takes long."""


class VolumesFailed(VolumeError):
    """Some volumes of a pod failed; `texts` tells of each, with the event's reason."""

    def __init__(self, texts: Sequence[tuple[str, str]], *, waiting: bool) -> None:
        super().__init__(texts[0][1])
        self.texts = texts
        self.waiting = waiting


@dataclass(frozen=True, slots=True)
class VolumeRequest:
    """One volume of one pod. `path` is where it belongs; its parent exists.

    For a claim `volume` has the source of the persistent volume behind it, and its name.
    """

    pod: Pod
    volume: Volume
    path: Path
    objects: Objects
    persistent: PersistentVolume | None = None
    claim: PersistentVolumeClaim | None = None
    read_only: bool = False
    pod_ips: Sequence[str] = ()
    host_ips: Sequence[str] = ()
    allocatable: Mapping[str, Quantity] = field(default_factory=dict)

    @property
    def fs_group(self) -> int | None:
        """The group that must be able to use the volume."""
        context = self.pod.spec.securityContext
        return context.fsGroup if context.HasField("fsGroup") else None


@dataclass(frozen=True, slots=True)
class MountedVolume:
    """Where a volume lies on the node. At `refresh_at` its content must be made anew."""

    host_path: Path
    refresh_at: datetime | None = None
    # Content made by us changes by exchange of links; a container must not be able to write there.
    read_only: bool = False
    # A block device, for volumeDevices and not for volumeMounts.
    is_device: bool = False


class VolumePlugin(Protocol):
    """One kind of volume."""

    @property
    def name(self) -> str:
        """Kubernetes' name of the plugin, such as kubernetes.io/empty-dir."""

    def supports(self, volume: Volume) -> bool:
        """The volume is of this kind."""

    async def set_up(self, request: VolumeRequest) -> MountedVolume:
        """Puts the volume in place. Raises VolumeError."""

    async def tear_down(self, path: Path) -> None:
        """Undoes set_up; mounts below the path are taken off and the path removed by the manager afterwards."""
