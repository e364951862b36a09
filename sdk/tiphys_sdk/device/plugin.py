"""What the author of a device plugin writes, and the values that it is written in."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Device:
    """A device that containers can have, with the NUMA nodes it is near. One that is not healthy is given to nobody."""

    id: str
    healthy: bool = True
    numa_nodes: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class DeviceNode:
    """A device file of the node. Permissions are of r, w and m (make nodes)."""

    host_path: str
    container_path: str = ""
    permissions: str = "rw"


@dataclass(frozen=True, slots=True)
class Mount:
    """A file or folder of the node."""

    host_path: str
    container_path: str = ""
    read_only: bool = True


@dataclass(frozen=True, slots=True)
class Grant:
    """What a container gets with its devices. CDI devices are written VENDOR/CLASS=NAME.

    Where a container_path is empty the path is the same as on the node.
    """

    env: Mapping[str, str] = field(default_factory=dict)
    nodes: Sequence[DeviceNode] = ()
    mounts: Sequence[Mount] = ()
    annotations: Mapping[str, str] = field(default_factory=dict)
    cdi_devices: Sequence[str] = ()


class Refusal(Exception):
    """The devices can't be given; the message goes to the pod's status."""


class DevicePlugin(ABC):
    """Devices of one resource. Calls may overlap and be repeated; a container that restarts is not allocated again.

    Override `prefer` or `pre_start` only if the plugin has something to say there: the kubelet is told of them then.
    """

    resource: str
    """The resource's name, as vendor.example/gpu."""

    @abstractmethod
    def devices(self) -> AsyncIterator[Sequence[Device]]:
        """All devices now, and again all of them at each change, for ever. It is asked for once."""

    @abstractmethod
    async def allocate(self, ids: Sequence[str]) -> Grant:
        """What a container needs to use these devices; the ids are known ones. Raises Refusal."""

    async def prefer(self, available: Sequence[str], must_include: Sequence[str], size: int) -> Sequence[str]:
        """The `size` devices of the available ones that fit best together, with all of must_include."""
        return tuple(dict.fromkeys([*must_include, *available]))[:size]

    async def pre_start(self, ids: Sequence[str]) -> None:  # noqa: B027 - only who needs it overrides it
        """A container with these devices starts now, for the first time or again. Raises Refusal."""
