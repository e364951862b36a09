"""kube-proxy's entry."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from tiphys.api.core.v1.service_pb2 import Service
from tiphys.api.discovery.v1.discovery_pb2 import EndpointSlice
from tiphys_client.client import Client
from tiphys_client.counted_transport import counted_transport
from tiphys_client.grpc_status import reply_for
from tiphys_client.informer import Informer
from tiphys_client.kubeconfig import load
from tiphys_component import log
from tiphys_component.app import run, start_loop
from tiphys_component.clock import SystemClock
from tiphys_component.health import Health, NotReady
from tiphys_component.metrics import Registry
from tiphys_component.options import parse
from tiphys_component.serving import Face
from tiphys_component.zpages import ZPages
from tiphys_kube_proxy.backends.nftables import Nftables
from tiphys_kube_proxy.nft_rules import Settings
from tiphys_kube_proxy.options import Options
from tiphys_kube_proxy.proxier import Proxier
from tiphys_kube_proxy.servicer import servicer


class KubeProxy:
    """The service: informers, the loop, and the faces."""

    def __init__(self, options: Options) -> None:
        self._options = options

    async def run(self) -> None:
        """Works until cancelled. Rules stay in the kernel when it ends, so traffic goes on."""
        options = self._options
        backend = Nftables(Settings(options.cluster_cidr, options.masquerade_all))
        if options.cleanup:
            await backend.remove()
            return
        clock, registry, health = SystemClock(), Registry(process_metrics=True), Health()
        client = Client(counted_transport(load(options.kubeconfig), registry), field_manager="kube-proxy")
        services: Informer[Service, object] = Informer(client, Service, clock=clock)
        slices: Informer[EndpointSlice, object] = Informer(client, EndpointSlice, clock=clock)
        proxier = Proxier(
            services,
            slices,
            backend,
            node=options.node_name,
            clock=clock,
            min_period_s=options.min_sync_period_s,
            registry=registry,
        )

        def check_synced() -> None:
            if not proxier.is_synced:
                raise NotReady("no rules were written yet")

        health.add_readiness("rules", check_synced)
        face = Face(
            options.bind_address,
            options.grpc_port,
            options.healthz_port,
            (servicer(proxier),),
            registry,
            health,
            options.tls,
            reply_for,
            ZPages("kube-proxy", options),
        )
        try:
            async with asyncio.TaskGroup() as group:
                start_loop(group, services.run(), "services informer")
                start_loop(group, slices.run(), "endpoint slices informer")
                start_loop(group, proxier.run(), "proxier")
                start_loop(group, face.run(), "faces")
        finally:
            await client.close()


def main(argv: Sequence[str] | None = None) -> int:
    """Runs kube-proxy; returns the exit code."""
    options = parse(Options, argv, prog="kube-proxy")
    log.configure(options.log_level, options.log_format)
    return run(KubeProxy(options), name="kube-proxy")
