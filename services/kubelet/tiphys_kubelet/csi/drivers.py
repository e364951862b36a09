"""The CSI drivers that have registered on this node."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from tiphys_apimachinery.errors import APIError
from tiphys_kubelet.csi.node_client import CsiError, NodeClient
from tiphys_kubelet.plugin_watcher import PluginError
from tiphys_kubelet.volumes.interface import VolumeError

# Who the node is, is asked by a plugin that waits for its registration: it must not take as long as a mount may.
INFO_TIMEOUT_S = 10.0
_VERSION = re.compile(r"v?(\d+)(?:\.\d+){0,2}(?:[-+].*)?")


class DriverNotFound(VolumeError):
    """No driver of the name is registered now."""

    def __init__(self, name: str) -> None:
        super().__init__(f"driver name {name} not found in the list of registered CSI drivers")


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """What a driver tells of the node: its id there, where it is, how many volumes it takes (0: as many as wanted)."""

    node_id: str
    segments: Mapping[str, str] = field(default_factory=dict)
    max_volumes: int = 0


class DriverRecord(Protocol):
    """Where the drivers of the node are written down for all to see."""

    async def add(self, name: str, facts: NodeFacts) -> None:
        """Raises APIError, or ValueError where the facts can't be."""

    def remove(self, name: str) -> None:
        """Never waits; seen to in time."""


@dataclass(slots=True)
class Driver:
    """One registered driver; its capabilities are asked for once."""

    name: str
    client: NodeClient
    _capabilities: frozenset[int] | None = None

    async def can(self, capability: int) -> bool:
        """Whether it has a capability of its node service. Raises CsiError."""
        if self._capabilities is None:
            self._capabilities = await self.client.capabilities()
        return capability in self._capabilities


class CsiDrivers:
    """The drivers by name, and the PluginHandler of type CSIPlugin. `on_change` is told when one came."""

    def __init__(self, record: DriverRecord, on_change: Callable[[], None], *, timeout_s: float | None = None) -> None:
        self._record = record
        self._on_change = on_change
        self._timeout_s = timeout_s
        self._drivers: dict[str, Driver] = {}

    def get(self, name: str) -> Driver:
        """Raises DriverNotFound."""
        driver = self._drivers.get(name)
        if driver is None:
            raise DriverNotFound(name)
        return driver

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._drivers))

    async def validate(self, name: str, endpoint: str, versions: Sequence[str]) -> None:
        """Takes drivers that speak CSI 1."""
        if not any(_major(version) == 1 for version in versions):
            told = ", ".join(f'"{version}"' for version in versions)
            raise PluginError(
                f"validation of CSI driver {name} at endpoint {endpoint} failed: "
                f"none of the CSI versions [{told}] reported by this driver are supported"
            )

    async def register(self, name: str, endpoint: str, versions: Sequence[str]) -> None:
        """Asks who the node is to the driver, writes that down, and gives the driver volumes from then on."""
        try:
            info = await NodeClient(endpoint, INFO_TIMEOUT_S).info()
        except CsiError as err:
            raise PluginError(f"error during CSI NodeGetInfo() call: {err}") from err
        if not info.node_id:
            raise PluginError("error updating CSINode object with CSI driver node info: error: nodeID is empty")
        facts = NodeFacts(info.node_id, dict(info.accessible_topology.segments), max(0, info.max_volumes_per_node))
        # Volumes may be mounted before the API server has heard of the driver: pods here may be waiting for it.
        client = NodeClient(endpoint) if self._timeout_s is None else NodeClient(endpoint, self._timeout_s)
        self._drivers[name] = Driver(name, client)
        self._on_change()
        try:
            await self._record.add(name, facts)
        except APIError as err:
            raise PluginError(f"error updating CSINode object with CSI driver node info: {err.message}") from err
        except ValueError as err:
            raise PluginError(f"error updating CSINode object with CSI driver node info: {err}") from err

    async def deregister(self, name: str) -> None:
        """Gives the driver no more volumes."""
        self._drivers.pop(name, None)
        self._record.remove(name)


def _major(version: str) -> int:
    found = _VERSION.fullmatch(version)
    return int(found[1]) if found else -1
