"""Addresses and node ports of services: reserved before a write, released after it or after its failure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from random import Random
from typing import Any

from tiphys_apimachinery.errors import FieldError
from tiphys_apiserver.registry.core.number_allocator import (
    Full,
    NumberAllocator,
    Taken,
    address_static_size,
    port_static_size,
)

NONE = "None"
EXTERNAL_NAME = "ExternalName"
NODE_PORT_TYPES = ("NodePort", "LoadBalancer")


class AllocationError(Exception):
    """What was asked for cannot be had; error says so for the field."""

    def __init__(self, error: FieldError) -> None:
        super().__init__(str(error))
        self.error = error


class Reservations:
    """What one write has taken, so that it can be undone as a whole."""

    def __init__(self, resources: ServiceResources) -> None:
        self._resources = resources
        self.addresses: list[str] = []
        self.ports: list[int] = []

    def release(self) -> None:
        """Give everything back."""
        self._resources.release(self.addresses, self.ports)

    @property
    def items(self) -> list[str]:
        """Everything as text."""
        return items_of(self.addresses, self.ports)


class ServiceResources:
    """All cluster addresses and node ports of the cluster, as this server knows them."""

    def __init__(self, address_range: str, port_range: tuple[int, int], rng: Random) -> None:
        self._network = ipaddress.ip_network(address_range, strict=False)
        self._base = int(self._network.network_address)
        # Neither the network's own address nor, for IPv4, the broadcast address is for services.
        usable = self._network.num_addresses - (2 if self._network.version == 4 else 1)
        size = min(usable, 1 << 31)
        self._addresses = NumberAllocator(size, address_static_size(size), rng)
        self._first_port, self._last_port = port_range
        ports = self._last_port - self._first_port + 1
        self._ports = NumberAllocator(ports, port_static_size(ports), rng)

    @property
    def ip_family(self) -> str:
        """IPv4 or IPv6, whichever the range is of."""
        return f"IPv{self._network.version}"

    def adopt(self, service: Any) -> None:
        """Count what a stored service has as taken; for the start of the server."""
        self.mark(*held_by(service))

    def mark(self, addresses: Iterable[str], ports: Iterable[int]) -> None:
        """Count these as taken, if they are not yet."""
        for address in addresses:
            number = self._address_number(address)
            if number is not None and number not in self._addresses:
                self._addresses.reserve(number)
        for port in ports:
            if self._first_port <= port <= self._last_port and port - self._first_port not in self._ports:
                self._ports.reserve(port - self._first_port)

    def count_anew(self, services: Iterable[Any], under_way: Iterable[Reservations]) -> None:
        """Forget what was taken but for what these services have and these writes have reserved."""
        self._addresses.clear()
        self._ports.clear()
        for service in services:
            self.adopt(service)
        for taken in under_way:
            self.mark(taken.addresses, taken.ports)

    def release(self, addresses: Iterable[str], ports: Iterable[int]) -> None:
        """Give back addresses and ports; those outside the ranges were never ours."""
        for address in addresses:
            number = self._address_number(address)
            if number is not None:
                self._addresses.release(number)
        for port in ports:
            if self._first_port <= port <= self._last_port:
                self._ports.release(port - self._first_port)

    def fill(self, service: Any, held: tuple[frozenset[str], frozenset[int]]) -> Reservations:
        """Reserve what the service asks for and has not held before, and write what was chosen into it.

        Raises AllocationError with nothing left reserved.
        """
        taken = Reservations(self)
        try:
            self._fill_addresses(service.spec, held[0], taken)
            self._fill_ports(service.spec, held[1], taken)
        except AllocationError:
            taken.release()
            raise
        return taken

    def _fill_addresses(self, spec: Any, held: frozenset[str], taken: Reservations) -> None:
        if spec.type == EXTERNAL_NAME or spec.clusterIP == NONE:
            return
        if not spec.clusterIP:
            spec.clusterIP = self._next_address()
            del spec.clusterIPs[:]
            spec.clusterIPs.append(spec.clusterIP)
            taken.addresses.append(spec.clusterIP)
            return
        if spec.clusterIP in held:
            return
        self._reserve_address(spec.clusterIP)
        taken.addresses.append(spec.clusterIP)

    def _next_address(self) -> str:
        try:
            number = self._addresses.reserve_next()
        except Full:
            why = "failed to allocate a serviceIP: range is full"
            raise AllocationError(FieldError.internal("spec.clusterIPs", why)) from None
        return str(ipaddress.ip_address(self._base + 1 + number))

    def _reserve_address(self, address: str) -> None:
        number = self._address_number(address)
        if number is None:
            why = (
                f"failed to allocate IP {address}: the provided IP ({address}) is not in the valid range."
                f" The range of valid IPs is {self._network}"
            )
            raise AllocationError(FieldError.invalid("spec.clusterIPs", [address], why))
        try:
            self._addresses.reserve(number)
        except Taken:
            why = f"failed to allocate IP {address}: provided IP is already allocated"
            raise AllocationError(FieldError.invalid("spec.clusterIPs", [address], why)) from None

    def _address_number(self, address: str) -> int | None:
        """The number of an address in the range, None for one outside and for what is no address."""
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            return None
        number = int(parsed) - self._base - 1
        usable = self._network.num_addresses - (2 if self._network.version == 4 else 1)
        return number if parsed in self._network and 0 <= number < usable else None

    def _fill_ports(self, spec: Any, held: frozenset[int], taken: Reservations) -> None:
        if not wants_node_ports(spec):
            return
        mine = set(held)
        for index, port in enumerate(spec.ports):
            if not port.nodePort:
                port.nodePort = self._next_port(f"spec.ports[{index}].nodePort")
                taken.ports.append(port.nodePort)
            elif port.nodePort not in mine:
                # The same number for two protocols of one service is one reservation.
                self._reserve_port(port.nodePort, f"spec.ports[{index}].nodePort")
                taken.ports.append(port.nodePort)
            mine.add(port.nodePort)
        if wants_health_port(spec):
            path = "spec.healthCheckNodePort"
            if not spec.healthCheckNodePort:
                spec.healthCheckNodePort = self._next_port(path)
                taken.ports.append(spec.healthCheckNodePort)
            elif spec.healthCheckNodePort not in mine:
                self._reserve_port(spec.healthCheckNodePort, path)
                taken.ports.append(spec.healthCheckNodePort)

    def _next_port(self, path: str) -> int:
        try:
            return self._first_port + self._ports.reserve_next()
        except Full:
            raise AllocationError(FieldError.internal(path, "failed to allocate a nodePort: range is full")) from None

    def _reserve_port(self, port: int, path: str) -> None:
        if not self._first_port <= port <= self._last_port:
            why = (
                "provided port is not in the valid range. The range of valid ports is"
                f" {self._first_port}-{self._last_port}"
            )
            raise AllocationError(FieldError.invalid(path, port, why))
        try:
            self._ports.reserve(port - self._first_port)
        except Taken:
            raise AllocationError(FieldError.invalid(path, port, "provided port is already allocated")) from None


def items_of(addresses: Iterable[str], ports: Iterable[int]) -> list[str]:
    """Addresses and ports as text."""
    return [*addresses, *map(str, ports)]


def wants_node_ports(spec: Any) -> bool:
    """Whether each port of the service is to have a port on every node."""
    if spec.type == "LoadBalancer":
        return not spec.HasField("allocateLoadBalancerNodePorts") or bool(spec.allocateLoadBalancerNodePorts)
    return bool(spec.type == "NodePort")


def wants_health_port(spec: Any) -> bool:
    """Whether load balancers ask a port of their own which nodes have endpoints."""
    return bool(spec.type == "LoadBalancer" and spec.externalTrafficPolicy == "Local")


def held_by(service: Any) -> tuple[frozenset[str], frozenset[int]]:
    """The addresses and node ports that a stored service holds."""
    spec = service.spec
    addresses = {address for address in (spec.clusterIP, *spec.clusterIPs) if address and address != NONE}
    ports = {port.nodePort for port in spec.ports if port.nodePort}
    if spec.healthCheckNodePort:
        ports.add(spec.healthCheckNodePort)
    return frozenset(addresses), frozenset(ports)
