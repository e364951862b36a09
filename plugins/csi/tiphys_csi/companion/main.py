"""The companion's entry."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from tiphys_client.client import Client
from tiphys_client.counted_transport import counted_transport
from tiphys_client.grpc_status import reply_for
from tiphys_client.kubeconfig import load
from tiphys_client.rate_limiter import ItemBackoff
from tiphys_client.recorder import EventRecorder
from tiphys_client.workqueue_metrics import WorkMetrics
from tiphys_component import log
from tiphys_component.app import run, start_loop
from tiphys_component.clock import Clock, SystemClock
from tiphys_component.health import Health, NotReady
from tiphys_component.metrics import Registry
from tiphys_component.options import parse
from tiphys_component.serving import Face
from tiphys_component.zpages import ZPages
from tiphys_csi.companion.attacher import Attacher
from tiphys_csi.companion.deleter import Deleter
from tiphys_csi.companion.drivers import Drivers
from tiphys_csi.companion.duty import Duty
from tiphys_csi.companion.frame import Context, Informers, Room, RoomLoop
from tiphys_csi.companion.options import Options
from tiphys_csi.companion.provisioner import Provisioner
from tiphys_csi.companion.resizer import Resizer

NAME: Final = "csi-companion"
# The rooms, in order. Snapshots come with their kinds, which are not built in but made by CustomResourceDefinitions.
ROOMS: Final = (Provisioner, Deleter, Attacher, Resizer)


class Companion:
    """The work itself, without faces. Its client is the caller's."""

    def __init__(self, options: Options, client: Client, *, clock: Clock, registry: Registry) -> None:
        self._options = options
        self._informers = Informers(client, clock)
        self._events = EventRecorder(client, NAME, clock=clock, host=options.node_name, registry=registry)
        self.drivers = Drivers(options.plugins_registry, options.csi_address, clock, options.timeout_s)
        self._duty = Duty(self.drivers, client, clock, node=options.node_name, namespace=options.leader_elect_namespace)
        context = Context(
            client=client,
            informers=self._informers,
            drivers=self.drivers,
            duty=self._duty,
            events=self._events,
            clock=clock,
        )
        metrics = WorkMetrics(registry)
        self._rooms: list[tuple[str, RoomLoop]] = []
        for make in ROOMS:
            room: Room = make(context)
            loop = RoomLoop(
                room,
                context,
                metrics,
                workers=options.workers,
                retry=ItemBackoff(options.retry_start_s, options.retry_max_s),
                timeout_s=options.timeout_s,
            )
            self._rooms.append((room.name, loop))

    def is_synced(self) -> bool:
        """Whether the informers have their first lists."""
        return self._informers.is_synced()

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as group:
            start_loop(group, self._informers.run(), "informers")
            start_loop(group, self._events.run(), "events")
            await self._informers.wait_synced()
            start_loop(group, self._duty.run(), "leases")
            for name, loop in self._rooms:
                start_loop(group, loop.run(), name)
            start_loop(group, self.drivers.run(), "drivers")


class CompanionService:
    """The process: the companion and its faces."""

    def __init__(self, options: Options) -> None:
        self._options = options

    async def run(self) -> None:
        """Work until cancelled. What is half done is found and finished by the next one."""
        options = self._options
        registry, health = Registry(process_metrics=True), Health()
        client = Client(counted_transport(load(options.kubeconfig), registry), field_manager=NAME)
        companion = Companion(options, client, clock=SystemClock(), registry=registry)
        registry.gauge_function("csi_companion_drivers", "Drivers that answer", lambda: len(companion.drivers.names()))

        def check_synced() -> None:
            if not companion.is_synced():
                raise NotReady("informers are not filled")

        health.add_readiness("informers", check_synced)
        face = Face(
            options.bind_address,
            options.grpc_port,
            options.healthz_port,
            (),
            registry,
            health,
            options.tls,
            reply_for,
            ZPages(NAME, options),
        )
        try:
            async with asyncio.TaskGroup() as group:
                start_loop(group, face.run(), "faces")
                start_loop(group, companion.run(), "companion")
        finally:
            await client.close()


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the companion; returns the exit code."""
    options = parse(Options, argv, prog=NAME)
    log.configure(options.log_level, options.log_format)
    return run(CompanionService(options), name=NAME)


if __name__ == "__main__":
    raise SystemExit(main())
