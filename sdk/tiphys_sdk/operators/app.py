"""An operator: reconcile functions by kind, and the loops that call them.

    operator = Operator("site-operator")

    @operator.reconciles(Site, owns=(Deployment, ConfigMap))
    async def reconcile(site: Site, work: Work) -> None: ...

    if __name__ == "__main__":
        raise SystemExit(operator.main())

A reconcile function is told an object and never what happened to it. It returns None, or RequeueAfter to be called
again later; it raises Terminal to stop trying, and anything else to be called again with backoff. It is called for all
objects at the start, when one changes, and when a child of one does; for one object once at a time.
"""

from __future__ import annotations

import asyncio
import random
import socket
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from tiphys_client.client import Client
from tiphys_client.controller import RequeueAfter, Terminal
from tiphys_client.counted_transport import counted_transport
from tiphys_client.kubeconfig import load
from tiphys_client.leader_election import LeaderElector
from tiphys_client.rest import PathReader, RestReader
from tiphys_client.transport import FencedTransport, Transport
from tiphys_component import log, status_server
from tiphys_component.app import run, start_loop
from tiphys_component.clock import Clock, SystemClock
from tiphys_component.health import Health, NotReady
from tiphys_component.metrics import Registry
from tiphys_component.options import parse
from tiphys_component.zpages import ZPages
from tiphys_sdk.operators.duties import Duty, Finalize, Reconcile, Watch
from tiphys_sdk.operators.kinds import Custom
from tiphys_sdk.operators.loops import Loops
from tiphys_sdk.operators.options import Options
from tiphys_sdk.operators.work import Work

__all__ = ["Custom", "Operator", "Options", "RequeueAfter", "Terminal", "Watch", "Work"]

T = TypeVar("T")


@dataclass(slots=True)
class Operator:
    """One program. name is its field manager, its Lease and its finalizer; every such program has one of its own."""

    name: str
    options: type[Options] = Options
    duties: list[Duty] = field(default_factory=list)
    # How the API is read by path: metrics of pods, for instance. There while the operator runs.
    rest: PathReader | None = None
    # The flags that the program was started with.
    chosen: Options | None = None

    def reconciles(
        self, cls: type[T], *, owns: Sequence[Any] = (), watches: Sequence[Watch] = ()
    ) -> Callable[[Reconcile[T]], Reconcile[T]]:
        """Have the function below called for every object of a kind."""

        def take(function: Reconcile[T]) -> Reconcile[T]:
            self.duties.append(Duty(cls, function, owns, watches))
            return function

        return take

    def finalizes(self, cls: type[T]) -> Callable[[Finalize[T]], Finalize[T]]:
        """Have the function below called before an object goes; it stays until the function returns."""

        def take(function: Finalize[T]) -> Finalize[T]:
            next(duty for duty in self.duties if duty.cls is cls).finalize = function
            return function

        return take

    async def run(
        self,
        options: Options,
        transport: Transport,
        *,
        clock: Clock,
        registry: Registry | None = None,
        health: Health | None = None,
        rng: random.Random | None = None,
    ) -> None:
        """Work until cancelled. Raises LeadershipLost when another process has taken over."""
        elector = LeaderElector(
            Client(transport, field_manager=self.name),
            name=self.name,
            namespace=options.leader_elect_namespace,
            identity=options.leader_elect_identity or f"{socket.gethostname()}_{uuid.uuid4()}",
            clock=clock,
            rng=rng,
        )
        fenced = FencedTransport(transport, elector.is_leader) if options.leader_elect else transport
        client = Client(fenced, field_manager=self.name)
        loops = Loops(self.name, self.duties, options, client=client, clock=clock, rng=rng, registry=registry)

        def check_synced() -> None:
            # One that waits for the lease is ready: it is there to take over.
            if (elector.is_leader() or not options.leader_elect) and not loops.is_synced():
                raise NotReady("informers are not filled")

        if health is not None:
            health.add_readiness("informers", check_synced)
        await (elector.run(loops.run) if options.leader_elect else loops.run())

    def main(self, argv: Sequence[str] | None = None) -> int:
        """The program: flags, log, signals, metrics and health; the exit code."""
        options = self.chosen = parse(self.options, argv, prog=self.name)
        log.configure(options.log_level, options.log_format)

        async def work() -> None:
            registry, health, clock = Registry(process_metrics=True), Health(), SystemClock()
            config = load(options.kubeconfig)
            transport, self.rest = counted_transport(config, registry), RestReader(config)
            try:
                async with asyncio.TaskGroup() as group:
                    if options.healthz_port:
                        pages = ZPages(self.name, options, clock=clock)
                        where = (options.bind_address, options.healthz_port)
                        faces = status_server.serve(*where, registry, health, pages=pages, flag="--healthz-port")
                        start_loop(group, faces, "metrics and health")
                    running = self.run(options, transport, clock=clock, registry=registry, health=health)
                    start_loop(group, running, self.name)
            finally:
                await self.rest.close()
                await transport.close()

        return run(work, name=self.name)
