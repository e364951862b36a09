"""Keeps the Service default/kubernetes, its Endpoints and its EndpointSlice true."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Any

from tiphys.api.core.v1.endpoints_pb2 import Endpoints
from tiphys.api.core.v1.service_pb2 import Service
from tiphys.api.discovery.v1.discovery_pb2 import EndpointSlice
from tiphys_apimachinery.errors import AlreadyExists, APIError
from tiphys_apiserver.registry.objects import ObjectAccess
from tiphys_component.clock import Clock
from tiphys_component.log import Logger

NAMESPACE = "default"
NAME = "kubernetes"
_LABELS = {"component": "apiserver", "provider": "kubernetes"}
_MIRRORED = "endpointslice.kubernetes.io/skip-mirror"
_PORT_NAME = "https"
_SERVICE_PORT = 443
# Source: kube-apiserver, EndpointReconcileInterval.
INTERVAL_S = 10.0


@dataclass(frozen=True, slots=True)
class AdvertisedAddress:
    """Where nodes and pods reach this server, and the address of the Service in front of it."""

    address: str
    port: int
    service_cluster_ip_range: str

    @property
    def cluster_ip(self) -> str:
        """The first address of the range."""
        return str(ipaddress.ip_network(self.service_cluster_ip_range, strict=False)[1])


class KubernetesService:
    """Makes the three objects and looks after them. One server a cluster: its address is the only endpoint."""

    def __init__(self, objects: ObjectAccess, clock: Clock, advertised: AdvertisedAddress, log: Logger) -> None:
        self._objects = objects
        self._clock = clock
        self._advertised = advertised
        self._log = log

    async def run(self) -> None:
        """Reconcile again and again until cancelled."""
        while True:
            await self._clock.sleep(INTERVAL_S)
            try:
                await self.reconcile()
            except APIError as err:
                self._log.warning("kubernetes service not reconciled", err=str(err))

    async def reconcile(self) -> None:
        """Bring the three objects to what they should be; nothing is written where nothing differs."""
        await self._ensure(self._service(), _merge_service)
        if ipaddress.ip_address(self._advertised.address).is_loopback:
            # Nobody but this machine reaches it, and such endpoints are refused: the Service stays without any.
            return
        await self._ensure(self._endpoints(), _merge_endpoints)
        await self._ensure(self._slice(), _merge_slice)

    async def _ensure(self, wanted: Any, merge: Any) -> None:
        cls: Any = type(wanted)
        existing: Any = self._objects.get_nowait(cls, NAME, NAMESPACE)
        if existing is not None:
            merged = cls()
            merged.CopyFrom(existing)
            merge(merged, wanted)
            if merged == existing:
                return
        else:
            try:
                await self._objects.create(wanted)
                return
            except AlreadyExists:
                pass
        await self._objects.modify(cls, NAME, NAMESPACE, lambda stored: merge(stored, wanted))

    def _service(self) -> Any:
        service: Any = Service()
        _fill_metadata(service.metadata, _LABELS)
        service.spec.type = "ClusterIP"
        service.spec.sessionAffinity = "None"
        service.spec.clusterIP = self._advertised.cluster_ip
        service.spec.clusterIPs.append(self._advertised.cluster_ip)
        service.spec.ipFamilyPolicy = "SingleStack"
        port = service.spec.ports.add(name=_PORT_NAME, protocol="TCP", port=_SERVICE_PORT)
        port.targetPort.type = 0
        port.targetPort.intVal = self._advertised.port
        return service

    def _endpoints(self) -> Any:
        endpoints: Any = Endpoints()
        _fill_metadata(endpoints.metadata, {_MIRRORED: "true"})
        subset = endpoints.subsets.add()
        subset.addresses.add(ip=self._advertised.address)
        subset.ports.add(name=_PORT_NAME, port=self._advertised.port, protocol="TCP")
        return endpoints

    def _slice(self) -> Any:
        made: Any = EndpointSlice()
        _fill_metadata(made.metadata, {"kubernetes.io/service-name": NAME})
        version = ipaddress.ip_address(self._advertised.address).version
        made.addressType = f"IPv{version}"
        endpoint = made.endpoints.add(addresses=[self._advertised.address])
        endpoint.conditions.ready = True
        made.ports.add(name=_PORT_NAME, port=self._advertised.port, protocol="TCP")
        return made


def _fill_metadata(metadata: Any, labels: dict[str, str]) -> None:
    metadata.name = NAME
    metadata.namespace = NAMESPACE
    for key, value in labels.items():
        metadata.labels[key] = value


def _merge_service(stored: Any, wanted: Any) -> None:
    """The address of the Service stays what it is; the port behind it is ours."""
    if len(stored.spec.ports) != 1 or stored.spec.ports[0] != wanted.spec.ports[0]:
        del stored.spec.ports[:]
        stored.spec.ports.extend(wanted.spec.ports)


def _merge_endpoints(stored: Any, wanted: Any) -> None:
    stored.metadata.labels[_MIRRORED] = "true"
    if list(stored.subsets) != list(wanted.subsets):
        del stored.subsets[:]
        stored.subsets.extend(wanted.subsets)


def _merge_slice(stored: Any, wanted: Any) -> None:
    stored.metadata.labels["kubernetes.io/service-name"] = NAME
    for name in ("endpoints", "ports"):
        if list(getattr(stored, name)) != list(getattr(wanted, name)):
            stored.ClearField(name)
            getattr(stored, name).extend(getattr(wanted, name))
