"""The flannel service's entry: `python -m tiphys_cni.flannel.main`."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from functools import partial

from tiphys.api.core.v1.node_pb2 import Node
from tiphys_client.client import Client
from tiphys_client.grpc_status import reply_for
from tiphys_client.informer import Informer
from tiphys_client.kubeconfig import load
from tiphys_client.recorder import EventRecorder
from tiphys_client.transport import GrpcTransport
from tiphys_cni.flannel import masquerade
from tiphys_cni.flannel.backend.registry import BACKENDS
from tiphys_cni.flannel.lease import claim_of
from tiphys_cni.flannel.manager import Config, Manager
from tiphys_cni.flannel.options import Options
from tiphys_cni.flannel.preparation import prepare
from tiphys_cni.flannel.servicer import servicer
from tiphys_component import log
from tiphys_component.app import run, start_loop
from tiphys_component.clock import SystemClock
from tiphys_component.health import Health, NotReady
from tiphys_component.metrics import Registry
from tiphys_component.options import parse
from tiphys_component.serving import Face


class Flannel:
    """The service: the informer of Nodes, the loop, and the faces."""

    def __init__(self, options: Options) -> None:
        self._options = options

    async def run(self) -> None:
        """Works until cancelled. Devices, entries and rules stay when it ends, so traffic goes on."""
        options = self._options
        clock, registry, health = SystemClock(), Registry(process_metrics=True), Health()
        client = Client(GrpcTransport(load(options.kubeconfig)), field_manager="flannel")
        nodes = Informer(client, Node, clock=clock, projection=claim_of)
        events = EventRecorder(client, "flannel", clock=clock, host=options.node_name, registry=registry)
        settings = options.settings()
        backend = BACKENDS[options.backend](settings)
        manager = Manager(
            Config(options.node_name, settings.network, options.subnet_file, options.ip_masq),
            backend,
            client,
            nodes,
            prepare=partial(prepare, backend.overlay, settings.network, ip_masq=options.ip_masq),
            clock=clock,
            registry=registry,
            events=events,
        )

        def check_lease() -> None:
            if manager.own is None:
                raise NotReady(manager.survey.problem or "no lease is held yet")

        health.add_readiness("lease", check_lease)
        face = Face(
            options.bind_address,
            options.grpc_port,
            options.metrics_port,
            (servicer(manager),),
            registry,
            health,
            options.tls,
            reply_for,
        )
        try:
            async with asyncio.TaskGroup() as group:
                start_loop(group, nodes.run(), "nodes informer")
                start_loop(group, events.run(), "events")
                start_loop(group, manager.run(), "manager")
                if options.ip_masq:
                    start_loop(group, masquerade.watch(manager.prepare_again), "masquerading monitor")
                start_loop(group, face.run(), "faces")
        finally:
            await client.close()


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the flannel service; returns the exit code."""
    options = parse(Options, argv, prog="flannel")
    log.configure(options.log_level, options.log_format)
    return run(Flannel(options), name="flannel")


if __name__ == "__main__":
    sys.exit(main())
