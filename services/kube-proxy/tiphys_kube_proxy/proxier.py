"""The loop: wait for a change, work out what is wanted, have the back end apply it."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import Protocol

from tiphys.api.core.v1.service_pb2 import Service
from tiphys.api.discovery.v1.discovery_pb2 import EndpointSlice
from tiphys_client.informer import Informer
from tiphys_component.backoff import Backoff
from tiphys_component.clock import Clock
from tiphys_component.log import get_logger
from tiphys_component.metrics import Registry
from tiphys_kube_proxy import conntrack
from tiphys_kube_proxy.backends.nftables import NftError
from tiphys_kube_proxy.change_tracker import ChangeTracker
from tiphys_kube_proxy.service_map import SERVICE_NAME_LABEL, ServicePort, service_ports

_log = get_logger("kube-proxy")


class Backend(Protocol):
    """Puts service ports into the kernel."""

    async def apply(self, ports: list[ServicePort]) -> int:
        """Makes the kernel serve exactly these; returns the bytes written. Raises NftError; may be repeated."""
        ...

    def forget(self) -> None:
        """Has the next apply write everything."""
        ...


class Proxier:
    """Owns what is programmed. `ports` is what the kernel has since the last sync that succeeded."""

    def __init__(
        self,
        services: Informer[Service, object],
        slices: Informer[EndpointSlice, object],
        backend: Backend,
        *,
        node: str,
        clock: Clock,
        min_period_s: float,
        registry: Registry,
    ) -> None:
        self._services = services
        self._slices = slices
        self._backend = backend
        self._node = node
        self._clock = clock
        self._tracker = ChangeTracker(clock, min_period_s=min_period_s)
        self._syncs = registry.counter("kubeproxy_sync_proxy_rules_total", "Syncs of the rules.", ("result",))
        self._bytes = registry.counter("kubeproxy_sync_proxy_rules_bytes_total", "Bytes of rules written.")
        # Two syncs at once, of the loop and of a caller, would each undo what the other knows.
        self._lock = asyncio.Lock()
        self.ports: list[ServicePort] = []
        self.is_synced = False
        for informer in (services, slices):
            informer.add_handler(self._tracker.mark, self._tracker.mark, self._tracker.mark)

    async def run(self) -> None:
        """Follows the API until cancelled. Informers are run by the caller."""
        await self._services.wait_synced()
        await self._slices.wait_synced()
        self._tracker.mark()
        backoff = Backoff(base_s=0.2, cap_s=30.0)
        while True:
            await self._tracker.wait_due()
            try:
                await self.sync()
            except NftError as err:
                self._syncs.labels("failed").inc()
                delay_s = backoff.next()
                _log.error("rules not applied", err=str(err), retry_after_s=delay_s)
                await self._clock.sleep(delay_s)
                self._tracker.mark()
            else:
                backoff.reset()

    async def sync(self, *, everything: bool = False) -> int:
        """Applies what the API says now; returns the bytes written. Raises NftError."""
        async with self._lock:
            return await self._sync(everything=everything)

    async def _sync(self, *, everything: bool) -> int:
        if everything:
            self._backend.forget()
        by_service: defaultdict[str, list[EndpointSlice]] = defaultdict(list)
        for found in self._slices.list():
            owner = found.metadata.labels.get(SERVICE_NAME_LABEL)
            if owner:
                by_service[f"{found.metadata.namespace}/{owner}"].append(found)
        wanted = service_ports(self._services.list(), by_service, node=self._node)
        written = await self._backend.apply(wanted)
        before, self.ports, self.is_synced = self.ports, wanted, True
        self._syncs.labels("done").inc()
        self._bytes.inc(written)
        await conntrack.forget(conntrack.stale_flows(before, wanted))
        return written
