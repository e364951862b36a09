"""Keeps the zone true: one service's names are made anew when it or one of its EndpointSlices changes."""

from __future__ import annotations

from tiphys.api.core.v1.service_pb2 import Service
from tiphys.api.discovery.v1.discovery_pb2 import EndpointSlice
from tiphys_client.informer import Informer
from tiphys_cluster_dns.zone import SERVICE_NAME_LABEL, Zone, service_names

_BY_SERVICE = "service"


class Watcher:
    """Handlers on two informers. Work is done in the handler: it is some 50 µs a change."""

    def __init__(
        self, zone: Zone, services: Informer[Service, object], slices: Informer[EndpointSlice, object]
    ) -> None:
        self._zone = zone
        self._services = services
        self._slices = slices
        slices.add_index(_BY_SERVICE, _service_of)
        services.add_handler(self._on_service, lambda _, new: self._on_service(new), self._on_service)
        slices.add_handler(self._on_slice, self._on_slice_change, self._on_slice)

    def _on_service(self, service: Service) -> None:
        self._renew(f"{service.metadata.namespace}/{service.metadata.name}")

    def _on_slice(self, found: EndpointSlice) -> None:
        for key in _service_of(found):
            self._renew(key)

    def _on_slice_change(self, old: EndpointSlice, new: EndpointSlice) -> None:
        for key in {*_service_of(old), *_service_of(new)}:
            self._renew(key)

    def _renew(self, key: str) -> None:
        service = self._services.get(key)
        if service is None:
            self._zone.set_service(key, {})
            return
        self._zone.set_service(key, service_names(service, self._slices.by_index(_BY_SERVICE, key), self._zone.domain))


def _service_of(found: EndpointSlice) -> list[str]:
    name = found.metadata.labels.get(SERVICE_NAME_LABEL, "")
    return [f"{found.metadata.namespace}/{name}"] if name else []
