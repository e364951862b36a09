"""The rule set of nftables mode: verdict maps lead from an address and port straight to a service's chain. Pure.

The work for a packet is the same with ten services or ten thousand; upstream's layout of the same
name was the model, and the table's name is the same so that the two never fight unseen.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from tiphys_kube_proxy.ruleset import Chain, Map, RuleSet
from tiphys_kube_proxy.service_map import Endpoint, ServicePort, family

TABLE = "kube-proxy"
_MARK = "0x4000"


@dataclass(frozen=True, slots=True)
class Settings:
    """What rules depend on besides services. cluster_cidr empty means that sources are not told apart."""

    cluster_cidr: str = ""
    masquerade_all: bool = False


def _name(prefix: str, *parts: object) -> str:
    digest = hashlib.sha256("\0".join(map(str, parts)).encode()).hexdigest()[:10]
    return f"{prefix}-{digest}"


def service_chain(port: ServicePort) -> str:
    """Chain that picks an endpoint for traffic to the cluster address."""
    return _name("service", port.key)


def external_chain(port: ServicePort) -> str:
    """Chain for traffic by node port, external address or balancer."""
    return _name("external", port.key)


def endpoint_chain(port: ServicePort, endpoint: Endpoint) -> str:
    """Chain that sends traffic to one endpoint."""
    return _name("endpoint", port.key, endpoint.address, endpoint.port)


def affinity_set(port: ServicePort, endpoint: Endpoint) -> str:
    """Set of the clients that an endpoint keeps."""
    return _name("affinity", port.key, endpoint.address, endpoint.port)


def rule_set(ports: Iterable[ServicePort], settings: Settings, *, version: int = 4) -> RuleSet:
    """The whole table of one IP family."""
    builder = _Builder(settings, version)
    for port in ports:
        builder.add(port)
    return builder.build()


class _Builder:
    """Collects chains and elements service by service."""

    def __init__(self, settings: Settings, version: int) -> None:
        self._settings = settings
        self._version = version
        self._ip = "ip" if version == 4 else "ip6"
        self._address_type = "ipv4_addr" if version == 4 else "ipv6_addr"
        self._chains: dict[str, Chain] = {}
        self._service_ips: dict[str, str] = {}
        self._node_ports: dict[str, str] = {}
        self._no_endpoint_ips: dict[str, str] = {}
        self._no_endpoint_ports: dict[str, str] = {}
        self._affinity: dict[str, Map] = {}

    def add(self, port: ServicePort) -> None:
        """Adds one service port; addresses of the other family are passed over."""
        cluster_ips = [ip for ip in port.cluster_ips if family(ip) == self._version]
        external_ips = [ip for ip in port.external_ips if family(ip) == self._version]
        if not cluster_ips:
            return
        internal = self._of_family(port.endpoints.local if port.internal_local else port.endpoints.cluster)
        for ip in cluster_ips:
            key = f"{ip} . {port.protocol} . {port.port}"
            if internal:
                self._service_ips[key] = f"goto {service_chain(port)}"
            else:
                self._no_endpoint_ips[key] = self._refusal(port.internal_local, port)
        if internal:
            self._add_service_chain(port, internal, cluster_ips)
        if port.node_port or external_ips:
            self._add_external(port, external_ips, internal)

    def _of_family(self, endpoints: tuple[Endpoint, ...]) -> list[Endpoint]:
        return [e for e in endpoints if family(e.address) == self._version]

    @staticmethod
    def _refusal(is_local: bool, port: ServicePort) -> str:
        """Local policy without a local endpoint drops: another node may well have one."""
        return "drop" if is_local and port.endpoints.cluster else "goto reject-chain"

    def _add_service_chain(self, port: ServicePort, endpoints: list[Endpoint], cluster_ips: list[str]) -> None:
        rules = []
        for ip in cluster_ips:
            target = f"{self._ip} daddr {ip} {port.protocol} dport {port.port}"
            if self._settings.masquerade_all:
                rules.append(f"{target} jump mark-for-masquerade")
            elif self._settings.cluster_cidr:
                rules.append(f"{target} {self._ip} saddr != {self._settings.cluster_cidr} jump mark-for-masquerade")
        self._chains[service_chain(port)] = Chain((*rules, *self._choice(port, endpoints)))

    def _choice(self, port: ServicePort, endpoints: list[Endpoint]) -> list[str]:
        """Rules that pick an endpoint, the one that keeps this client first; adds the endpoints' chains."""
        rules = []
        for endpoint in endpoints:
            self._add_endpoint_chain(port, endpoint)
            if port.affinity_s:
                name = affinity_set(port, endpoint)
                rules.append(f"{self._ip} saddr @{name} goto {endpoint_chain(port, endpoint)}")
        verdicts = ", ".join(f"{i} : goto {endpoint_chain(port, e)}" for i, e in enumerate(endpoints))
        return [*rules, f"numgen random mod {len(endpoints)} vmap {{ {verdicts} }}"]

    def _add_endpoint_chain(self, port: ServicePort, endpoint: Endpoint) -> None:
        address = endpoint.address if self._version == 4 else f"[{endpoint.address}]"
        rules = [f"{self._ip} saddr {endpoint.address} jump mark-for-masquerade"]
        if port.affinity_s:
            name = affinity_set(port, endpoint)
            rules.append(f"update @{name} {{ {self._ip} saddr }}")
            kind = f"type {self._address_type}\nflags dynamic,timeout\ntimeout {port.affinity_s}s"
            self._affinity[name] = Map(kind, is_dynamic=True)
        rules.append(f"meta l4proto {port.protocol} dnat to {address}:{endpoint.port}")
        self._chains[endpoint_chain(port, endpoint)] = Chain(tuple(rules))

    def _add_external(self, port: ServicePort, external_ips: list[str], internal: list[Endpoint]) -> None:
        endpoints = self._of_family(port.endpoints.local if port.external_local else port.endpoints.cluster)
        chain = external_chain(port)
        if endpoints:
            mark = [] if port.external_local else ["jump mark-for-masquerade"]
            self._chains[chain] = Chain((*mark, *self._choice(port, endpoints)))
        for ip in external_ips:
            key = f"{ip} . {port.protocol} . {port.port}"
            if endpoints:
                self._service_ips[key] = f"goto {chain}"
            else:
                self._no_endpoint_ips[key] = self._refusal(port.external_local, port)
        if port.node_port:
            key = f"{port.protocol} . {port.node_port}"
            if endpoints:
                self._node_ports[key] = f"goto {chain}"
            else:
                self._no_endpoint_ports[key] = self._refusal(port.external_local, port)

    def build(self) -> RuleSet:
        """The table: fixed chains first, then the services'."""
        by_address = f"type {self._address_type} . inet_proto . inet_service : verdict"
        by_port = "type inet_proto . inet_service : verdict"
        maps = {
            "service-ips": Map(by_address, self._service_ips),
            "service-nodeports": Map(by_port, self._node_ports),
            "no-endpoint-services": Map(by_address, self._no_endpoint_ips),
            "no-endpoint-nodeports": Map(by_port, self._no_endpoint_ports),
            **self._affinity,
        }
        return RuleSet(self._ip, TABLE, {**self._fixed_chains(), **self._chains}, maps)

    def _fixed_chains(self) -> dict[str, Chain]:
        loopback = "127.0.0.0/8" if self._version == 4 else "::1"
        node_port = f"fib daddr type local {self._ip} daddr != {loopback} meta l4proto . th dport vmap"
        refuse = (
            f"{self._ip} daddr . meta l4proto . th dport vmap @no-endpoint-services",
            f"{node_port} @no-endpoint-nodeports",
        )
        filters = {
            f"filter-{hook}": Chain(
                ("ct state new jump no-endpoints",), f"type filter hook {hook} priority -110; policy accept;"
            )
            for hook in ("input", "forward", "output")
        }
        entries = {
            f"nat-{hook}": Chain(("jump services",), f"type nat hook {hook} priority -100; policy accept;")
            for hook in ("prerouting", "output")
        }
        return {
            **filters,
            **entries,
            "nat-postrouting": Chain(
                (
                    f"meta mark & {_MARK} != {_MARK} return",
                    f"meta mark set meta mark ^ {_MARK}",
                    "masquerade fully-random",
                ),
                "type nat hook postrouting priority 100; policy accept;",
            ),
            "services": Chain(
                (f"{self._ip} daddr . meta l4proto . th dport vmap @service-ips", f"{node_port} @service-nodeports")
            ),
            "no-endpoints": Chain(refuse),
            "reject-chain": Chain(("reject",)),
            "mark-for-masquerade": Chain((f"meta mark set meta mark | {_MARK}",)),
        }
