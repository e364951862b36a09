"""cluster-dns' entry."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from tiphys.api.core.v1.service_pb2 import Service
from tiphys.api.discovery.v1.discovery_pb2 import EndpointSlice
from tiphys_apimachinery.errors import APIError
from tiphys_client.client import Client
from tiphys_client.counted_transport import counted_transport
from tiphys_client.grpc_status import reply_for
from tiphys_client.informer import Informer
from tiphys_client.kubeconfig import load
from tiphys_cluster_dns.chain import Chain
from tiphys_cluster_dns.listener import Listener
from tiphys_cluster_dns.options import Options
from tiphys_cluster_dns.plugins.forward import Forward, resolv_conf_servers
from tiphys_cluster_dns.plugins.kubernetes import Kubernetes
from tiphys_cluster_dns.published import publish
from tiphys_cluster_dns.servicer import servicer
from tiphys_cluster_dns.watcher import Watcher
from tiphys_cluster_dns.zone import Zone
from tiphys_component import log
from tiphys_component.app import run, start_loop
from tiphys_component.backoff import Backoff
from tiphys_component.clock import SystemClock
from tiphys_component.health import Health
from tiphys_component.metrics import Registry
from tiphys_component.options import parse
from tiphys_component.serving import Face
from tiphys_component.zpages import ZPages

_log = log.get_logger("cluster-dns")


def upstreams(options: Options) -> list[tuple[str, int]]:
    """The resolvers to forward to, without this server itself."""
    if options.forward:
        pairs = [text.rpartition(":") if text.count(":") == 1 else (text, "", "53") for text in options.forward]
        return [(address, int(port)) for address, _, port in pairs]
    text = options.resolv_conf.read_text() if options.resolv_conf.exists() else ""
    return [found for found in resolv_conf_servers(text) if found != (options.bind_address, options.dns_port)]


class ClusterDns:
    """The service: informers, the zone, listeners and faces."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._clock = SystemClock()

    async def run(self) -> None:
        """Works until cancelled."""
        options = self._options
        registry, health = Registry(process_metrics=True), Health()
        client = Client(counted_transport(load(options.kubeconfig), registry), field_manager="cluster-dns")
        services: Informer[Service, object] = Informer(client, Service, clock=self._clock)
        slices: Informer[EndpointSlice, object] = Informer(client, EndpointSlice, clock=self._clock)
        zone = Zone(options.cluster_domain)
        Watcher(zone, services, slices)
        chain = Chain((Kubernetes(zone), Forward(upstreams(options))))
        opened = health.gate("zone")
        face = Face(
            options.bind_address,
            options.grpc_port,
            options.metrics_port,
            (servicer(chain),),
            registry,
            health,
            options.tls,
            reply_for,
            ZPages("cluster-dns", options),
        )
        try:
            async with asyncio.TaskGroup() as group:
                start_loop(group, services.run(), "services informer")
                start_loop(group, slices.run(), "endpoint slices informer")
                start_loop(group, face.run(), "faces")
                await services.wait_synced()
                await slices.wait_synced()
                # Before the zone is whole every name would be denied, and clients remember that.
                start_loop(group, Listener(options.bind_address, options.dns_port, chain).run(), "listener")
                opened()
                if options.cluster_dns_ip:
                    await self._publish(client)
        finally:
            await client.close()

    async def _publish(self, client: Client) -> None:
        options, backoff = self._options, Backoff(base_s=0.2, cap_s=10.0)
        while True:
            try:
                await publish(
                    client, cluster_ip=options.cluster_dns_ip, address=options.bind_address, port=options.dns_port
                )
                return
            except APIError as err:
                delay_s = backoff.next()
                _log.warning("kube-dns is not published yet", err=str(err), retry_after_s=delay_s)
                await self._clock.sleep(delay_s)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs cluster-dns; returns the exit code."""
    options = parse(Options, argv, prog="cluster-dns")
    log.configure(options.log_level, options.log_format)
    return run(ClusterDns(options), name="cluster-dns")
