"""What every name of the cluster's zone means, from Services and EndpointSlices. Pure.

Source: the specification of DNS for Kubernetes Services and Pods, schema version 1.1.0
(kubernetes/dns, docs/specification.md).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address

from tiphys.api.core.v1.service_pb2 import Service
from tiphys.api.discovery.v1.discovery_pb2 import EndpointSlice

SCHEMA_VERSION = "1.1.0"
SERVICE_NAME_LABEL = "kubernetes.io/service-name"


@dataclass(frozen=True, slots=True)
class Record:
    """One resource record: its type, and its value in the form of a zone file."""

    kind: str
    value: str


@dataclass(slots=True)
class Names:
    """Records by full name in lower case without the last dot; a name with no records is an empty one in between."""

    records: dict[str, tuple[Record, ...]] = field(default_factory=dict)

    def add(self, name: str, *records: Record) -> None:
        """Adds records, each once, and the empty names above them."""
        have = self.records.get(name, ())
        self.records[name] = (*have, *(r for r in dict.fromkeys(records) if r not in have))
        while (name := name.partition(".")[2]) and name not in self.records:
            self.records[name] = ()


@dataclass(frozen=True, slots=True)
class Backend:
    """One endpoint of a headless service."""

    address: str
    hostname: str

    @property
    def label(self) -> str:
        """The name it goes by below its service: its hostname, else its address with dashes."""
        return self.hostname or self.address.replace(".", "-").replace(":", "-")


def address_record(address: str) -> Record:
    """An A or AAAA record."""
    return Record("A" if ip_address(address).version == 4 else "AAAA", address)


def reverse_name(address: str) -> str:
    """The name under in-addr.arpa or ip6.arpa."""
    return ip_address(address).reverse_pointer


def service_names(service: Service, slices: Sequence[EndpointSlice], domain: str) -> dict[str, tuple[Record, ...]]:
    """Every name that one service has, with its records. Services share no names but empty ones."""
    names = Names()
    name = f"{service.metadata.name}.{service.metadata.namespace}.svc.{domain}"
    spec = service.spec
    if spec.type == "ExternalName":
        names.add(name, Record("CNAME", spec.externalName.rstrip(".") + "."))
    elif spec.clusterIP == "None":
        _add_headless(names, name, service, slices)
    elif spec.clusterIP:
        _add_cluster_ip(names, name, service)
    return names.records


def _add_cluster_ip(names: Names, name: str, service: Service) -> None:
    addresses = list(service.spec.clusterIPs) or [service.spec.clusterIP]
    names.add(name, *(address_record(a) for a in addresses))
    for port in service.spec.ports:
        if port.name:
            names.add(_port_name(name, port.name, port.protocol), _srv(port.port, name))
    for address in addresses:
        names.add(reverse_name(address), Record("PTR", f"{name}."))


def _add_headless(names: Names, name: str, service: Service, slices: Sequence[EndpointSlice]) -> None:
    every = service.spec.publishNotReadyAddresses
    names.add(name)
    for endpoint_slice in slices:
        for endpoint in endpoint_slice.endpoints:
            if not every and endpoint.conditions.HasField("ready") and not endpoint.conditions.ready:
                continue
            for address in endpoint.addresses:
                backend = Backend(address, endpoint.hostname)
                own = f"{backend.label}.{name}".lower()
                names.add(name, address_record(address))
                names.add(own, address_record(address))
                for port in endpoint_slice.ports:
                    if port.name:
                        names.add(_port_name(name, port.name, port.protocol), _srv(port.port, own))
                names.add(reverse_name(address), Record("PTR", f"{own}."))


def _port_name(name: str, port: str, protocol: str) -> str:
    return f"_{port}._{(protocol or 'TCP').lower()}.{name}"


def _srv(port: int, target: str) -> Record:
    return Record("SRV", f"0 100 {port} {target}.")


class Zone:
    """The names of all services, kept service by service so that one change touches one service."""

    def __init__(self, domain: str = "cluster.local") -> None:
        self.domain = domain.strip(".").lower()
        self._by_service: dict[str, Mapping[str, tuple[Record, ...]]] = {}
        # Who has a name: several services share empty names, and a reverse name may have several owners.
        self._owners: dict[str, set[str]] = {}

    def set_service(self, key: str, names: Mapping[str, tuple[Record, ...]]) -> None:
        """Puts a service's names in place of those it had; an empty mapping removes it."""
        before = self._by_service.pop(key, {})
        for name in before:
            owners = self._owners[name]
            owners.discard(key)
            if not owners:
                del self._owners[name]
        if names:
            self._by_service[key] = names
        for name in names:
            self._owners.setdefault(name, set()).add(key)

    def is_inside(self, name: str) -> bool:
        """Whether the zone decides about a name: names of the domain, and reverse names that it has."""
        return name == self.domain or name.endswith(f".{self.domain}") or name in self._owners

    def lookup(self, name: str, kind: str) -> tuple[Record, ...] | None:
        """Records of that type; empty where the name has none of it; None where there is no such name.

        A CNAME is given whatever type was asked for.
        """
        found = self._find(name)
        if found is None:
            return None
        matching = tuple(r for r in found if r.kind in (kind, "CNAME") or kind == "ANY")
        return tuple(dict.fromkeys(matching))

    def _find(self, name: str) -> Iterable[Record] | None:
        owners = self._owners.get(name)
        if owners is not None:
            return [record for owner in sorted(owners) for record in self._by_service[owner][name]]
        if name in (self.domain, f"svc.{self.domain}", f"pod.{self.domain}"):
            return ()
        if name == f"dns-version.{self.domain}":
            return (Record("TXT", f'"{SCHEMA_VERSION}"'),)
        return self._pod(name)

    def _pod(self, name: str) -> Iterable[Record] | None:
        """1-2-3-4.NAMESPACE.pod.DOMAIN means just that address, whether or not a pod has it."""
        stem = name.removesuffix(f".pod.{self.domain}")
        label, _, namespace = stem.partition(".")
        if stem == name or not namespace or "." in namespace:
            return None
        for text in (label.replace("-", "."), label.replace("-", ":")):
            try:
                return (address_record(str(ip_address(text))),)
            except ValueError:
                continue
        return None
