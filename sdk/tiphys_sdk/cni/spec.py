"""The CNI specification's values: versions, error codes, and results in every version asked for.

Source: containernetworking/cni SPEC.md 1.1.0, sections 2 (execution), 5 (results) and the list of error codes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import IntEnum
from ipaddress import ip_interface
from typing import Any

SUPPORTED_VERSIONS = ("0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
NEWEST_VERSION = SUPPORTED_VERSIONS[-1]

JSON = dict[str, Any]


class ErrorCode(IntEnum):
    """Codes that the specification reserves, and ours from 100 on."""

    INCOMPATIBLE_VERSION = 1
    UNSUPPORTED_FIELD = 2
    UNKNOWN_CONTAINER = 3
    INVALID_ENVIRONMENT = 4
    IO_FAILURE = 5
    DECODING_FAILURE = 6
    INVALID_CONFIG = 7
    TRY_AGAIN = 11
    PLUGIN_NOT_AVAILABLE = 50
    LIMITED_CONNECTIVITY = 51
    NETLINK_FAILURE = 100
    ADDRESSES_EXHAUSTED = 101
    CHECK_FAILED = 102
    INTERNAL = 999


class CNIError(Exception):
    """A failure that the caller gets as the specification's error object."""

    def __init__(self, code: int, message: str, details: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.details = details

    def to_json(self, version: str) -> JSON:
        """The error object in the version that was asked for."""
        found: JSON = {"cniVersion": version, "code": int(self.code), "msg": self.message}
        return found | ({"details": self.details} if self.details else {})


@dataclass(frozen=True, slots=True)
class Interface:
    """An interface that a plugin made; sandbox is the path of its namespace, empty on the host."""

    name: str
    mac: str = ""
    sandbox: str = ""
    mtu: int = 0
    socket_path: str = ""
    pci_id: str = ""


@dataclass(frozen=True, slots=True)
class Address:
    """An address with prefix length; `interface` is an index into the result's interfaces."""

    address: str
    gateway: str = ""
    interface: int | None = None


@dataclass(frozen=True, slots=True)
class Route:
    """A route inside the container; an empty gateway means the address's own. None leaves a value to the kernel."""

    dst: str
    gw: str = ""
    mtu: int | None = None
    advmss: int | None = None
    priority: int | None = None
    table: int | None = None
    scope: int | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """What ADD achieved. Kept in the newest version's terms and written in the one asked for."""

    interfaces: tuple[Interface, ...] = ()
    ips: tuple[Address, ...] = ()
    routes: tuple[Route, ...] = ()
    dns: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self, version: str) -> JSON:
        """The result object of one version; containerd 1.6 refuses what is newer than 1.0.0."""
        if version in ("0.1.0", "0.2.0"):
            return self._to_json_020(version)
        old = version.startswith("0.")
        newest = version == NEWEST_VERSION
        found: JSON = {"cniVersion": version}
        if self.interfaces:
            found["interfaces"] = [_interface_json(i, newest=newest) for i in self.interfaces]
        if self.ips:
            found["ips"] = [_address_json(a, with_version=old) for a in self.ips]
        if self.routes:
            found["routes"] = [_route_json(r, newest=newest) for r in self.routes]
        return found | {"dns": dict(self.dns)}

    def _to_json_020(self, version: str) -> JSON:
        found: JSON = {"cniVersion": version}
        for address in self.ips:
            number = ip_interface(address.address).version
            routes = [_route_json(r) for r in self.routes if ip_interface(r.dst).version == number]
            entry: JSON = {"ip": address.address}
            if address.gateway:
                entry["gateway"] = address.gateway
            found.setdefault(f"ip{number}", entry | ({"routes": routes} if routes else {}))
        return found | {"dns": dict(self.dns)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Result:
        """Reads a result of any version, such as prevResult. Raises CNIError."""
        try:
            if "ip4" in data or "ip6" in data:
                return cls._from_json_020(data)
            return cls(
                tuple(_interface(i) for i in data.get("interfaces") or ()),
                tuple(Address(a["address"], a.get("gateway", ""), a.get("interface")) for a in data.get("ips") or ()),
                tuple(_route(r) for r in data.get("routes") or ()),
                data.get("dns") or {},
            )
        except (KeyError, TypeError, AttributeError) as err:
            raise CNIError(ErrorCode.DECODING_FAILURE, f"prevResult is not a CNI result: {err!r}") from err

    @classmethod
    def _from_json_020(cls, data: Mapping[str, Any]) -> Result:
        entries = [data[key] for key in ("ip4", "ip6") if data.get(key)]
        return cls(
            ips=tuple(Address(e["ip"], e.get("gateway", "")) for e in entries),
            routes=tuple(_route(r) for e in entries for r in e.get("routes") or ()),
            dns=data.get("dns") or {},
        )

    def on_interface(self, index: int) -> Result:
        """The same with every address on the interface of that index."""
        return replace(self, ips=tuple(replace(a, interface=index) for a in self.ips))


def _interface(data: Mapping[str, Any]) -> Interface:
    facts = (data["name"], data.get("mac", ""), data.get("sandbox", ""), data.get("mtu", 0))
    return Interface(*facts, data.get("socketPath", ""), data.get("pciID", ""))


def _route(data: Mapping[str, Any]) -> Route:
    return Route(data["dst"], data.get("gw", ""), **{key: data.get(key) for key in _ROUTE_NUMBERS})


_ROUTE_NUMBERS = ("mtu", "advmss", "priority", "table", "scope")


def _interface_json(interface: Interface, *, newest: bool) -> JSON:
    found: JSON = {"name": interface.name, "mac": interface.mac, "sandbox": interface.sandbox}
    if newest:
        found |= {"mtu": interface.mtu, "socketPath": interface.socket_path, "pciID": interface.pci_id}
    return {key: value for key, value in found.items() if value}


def _address_json(address: Address, *, with_version: bool) -> JSON:
    found: JSON = {"version": str(ip_interface(address.address).version)} if with_version else {}
    if address.interface is not None:
        found["interface"] = address.interface
    found["address"] = address.address
    return found | ({"gateway": address.gateway} if address.gateway else {})


def _route_json(route: Route, *, newest: bool = False) -> JSON:
    found: JSON = {"dst": route.dst} | ({"gw": route.gw} if route.gw else {})
    numbers = {key: getattr(route, key) for key in _ROUTE_NUMBERS} if newest else {}
    return found | {key: value for key, value in numbers.items() if value is not None}
