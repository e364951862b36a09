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

from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys.api.core.v1.volume_pb2 import Volume
from tiphys_apimachinery.quantity import Quantity
from tiphys_kubelet.objects import Objects


class VolumeError(Exception):
    """The volume can't be set up; the message is shown to users."""


@dataclass(frozen=True, slots=True)
class VolumeRequest:
    """One volume of one pod. `path` is where it belongs; its parent exists."""

    pod: Pod
    volume: Volume
    path: Path
    objects: Objects
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
