"""Which of many companions does what, without asking each other.

A driver with topology has volumes that some nodes reach: what concerns one of these is done on such a node. A driver
without serves all nodes alike: one companion holds the driver's Lease and does all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from tiphys.api.core.v1 import scheduling_pb2
from tiphys_client.client import Client
from tiphys_client.leader_election import LeaderElector, LeadershipLost
from tiphys_component.clock import Clock
from tiphys_component.log import get_logger
from tiphys_csi.companion.driver import Driver
from tiphys_csi.companion.drivers import Drivers

_log = get_logger("csi.duty")


def reaches(segments: Mapping[str, str], affinity: scheduling_pb2.NodeSelector) -> bool:
    """Whether a node at this place is among those that reach the volume: some term wants no other value."""
    return any(
        term.matchExpressions
        and all(
            wanted.operator == "In" and segments.get(wanted.key) in list(wanted.values)
            for wanted in term.matchExpressions
        )
        for term in affinity.nodeSelectorTerms
    )


class Duty:
    """Answers whether this companion is the one to act. run() takes part in the elections of central drivers."""

    def __init__(self, drivers: Drivers, client: Client, clock: Clock, *, node: str, namespace: str) -> None:
        self._drivers = drivers
        self._client = client
        self._clock = clock
        self.node = node
        self._namespace = namespace
        self._electors: dict[str, LeaderElector] = {}
        self._listeners: list[Callable[[str], None]] = []
        self._changed: asyncio.Queue[str] = asyncio.Queue(1024)
        drivers.on_change(self._on_driver)

    def on_lead(self, listener: Callable[[str], None]) -> None:
        """Have listener called with the name of a driver whose Lease this companion now holds."""
        self._listeners.append(listener)

    def is_for_node(self, driver: Driver, node: str) -> bool:
        """Whether we act for a volume that is wanted on this node."""
        return node == self.node if driver.facts.has_topology else self._leads(driver.name)

    def is_for_volume(self, driver: Driver, affinity: bytes) -> bool:
        """Whether we act for a volume with this node affinity, a serialized NodeSelector.

        A volume of a driver with topology that names no place is nobody's: no companion could tell where it is.
        """
        if not driver.facts.has_topology:
            return self._leads(driver.name)
        return reaches(dict(driver.facts.segments), scheduling_pb2.NodeSelector.FromString(affinity))

    async def run(self) -> None:
        """Elect until cancelled: for each central driver that is here, and no longer when it is gone."""
        tasks: dict[str, asyncio.Task[None]] = {}
        async with asyncio.TaskGroup() as group:
            while True:
                name = await self._changed.get()
                driver = self._drivers.get(name)
                if driver is None:
                    if name in tasks:
                        tasks.pop(name).cancel()
                elif not driver.facts.has_topology and name not in tasks:
                    tasks[name] = group.create_task(self._elect(name), name=f"lease of {name}")

    def _leads(self, name: str) -> bool:
        elector = self._electors.get(name)
        return elector is not None and elector.is_leader()

    def _on_driver(self, name: str) -> None:
        try:
            self._changed.put_nowait(name)
        except asyncio.QueueFull:
            _log.error("drivers come and go faster than leases can follow", driver=name)

    async def _elect(self, name: str) -> None:
        async def lead() -> None:
            for listener in self._listeners:
                listener(name)
            await asyncio.get_running_loop().create_future()

        elector = self._electors[name] = LeaderElector(
            self._client,
            name=f"csi-companion-{name.lower()}",
            namespace=self._namespace,
            identity=self.node,
            clock=self._clock,
        )
        try:
            while True:
                try:
                    await elector.run(lead)
                except LeadershipLost as err:
                    _log.warning("lease lost", driver=name, err=str(err))
        finally:
            self._electors.pop(name, None)
