"""Services, for pods that follow others of their service."""

from __future__ import annotations

from collections.abc import Iterable

from tiphys.api.core.v1.service_pb2 import Service
from tiphys_apimachinery.labels import Selector
from tiphys_client.client import Client
from tiphys_client.informer import Informer
from tiphys_component.clock import Clock
from tiphys_scheduler.pod_info import PodInfo


def _selector(service: Service) -> Selector:
    return Selector.from_set(service.spec.selector) if service.spec.selector else Selector.nothing()


class Services:
    """Which pods are of one service."""

    def __init__(self, client: Client, clock: Clock) -> None:
        self._informer: Informer[Service, Selector] = Informer(client, Service, clock=clock, projection=_selector)

    async def run(self) -> None:
        """Follows the API until cancelled."""
        await self._informer.run()

    async def wait_synced(self) -> None:
        """Returns when all services are known."""
        await self._informer.wait_synced()

    def peers(self, pod: PodInfo, placed: Iterable[PodInfo]) -> list[PodInfo]:
        """Those of the placed pods that a service of the pod selects as well."""
        selectors = []
        for key in self._informer.store.keys():  # noqa: SIM118 - a store is no mapping
            selector = self._informer.projection(key)
            if key.partition("/")[0] == pod.namespace and selector is not None and selector.matches(pod.labels):
                selectors.append(selector)
        if not selectors:
            return []
        return [
            other
            for other in placed
            if other.namespace == pod.namespace and any(selector.matches(other.labels) for selector in selectors)
        ]
