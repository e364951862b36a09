"""What pod workers and containers' starts ask of the device manager, and the manager of a node without devices."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from tiphys.api.core.v1.container_pb2 import Container, ResourceStatus
from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys_kubelet.resources.grants import DeviceGrant


class PodDevices(Protocol):
    """Devices of pods. What a pod holds it keeps until `release`, whatever restarts meanwhile."""

    async def allocate(self, pod: Pod, running: Collection[str] = ()) -> None:
        """Gives the pod all its devices or none; repeating it changes nothing. `running` containers are left alone.

        Raises allocation.Refused if they can't be had, allocation.NotYet if they may be soon, and OSError.
        """

    async def prepare(self, pod: Pod, container: Container) -> DeviceGrant:
        """What a container that is about to start is made with. Raises PluginFailure and allocation.NotYet."""

    def release(self, pod_uid: str) -> None:
        """Takes back what the pod holds; succeeds where it holds nothing."""

    def owners(self) -> Collection[str]:
        """Uids of the pods that hold devices."""

    def health(self, pod: Pod) -> Mapping[str, Sequence[ResourceStatus]]:
        """The health of each container's devices."""


class NoDevices:
    """A node without device plugins."""

    async def allocate(self, pod: Pod, running: Collection[str] = ()) -> None:
        """Nothing is given, and nothing is refused."""

    async def prepare(self, pod: Pod, container: Container) -> DeviceGrant:
        """Nothing is added."""
        return DeviceGrant()

    def release(self, pod_uid: str) -> None:
        """Nothing is held."""

    def owners(self) -> Collection[str]:
        """Nobody."""
        return ()

    def health(self, pod: Pod) -> Mapping[str, Sequence[ResourceStatus]]:
        """There is none."""
        return {}
