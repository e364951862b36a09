"""What a result, an error and a list of versions must look like. Pure: each function gives what is wrong."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address, ip_interface, ip_network
from typing import Any

# Versions whose result has the form with interfaces and ips; older ones have ip4 and ip6.
LISTED = ("0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")


def faults_of_versions(found: Any) -> Iterator[str]:
    """SPEC.md 1.1.0, section 5, version result."""
    if not isinstance(found, dict):
        yield "the answer is no JSON object"
        return
    if not isinstance(found.get("cniVersion"), str):
        yield "cniVersion is missing"
    versions = found.get("supportedVersions")
    if not isinstance(versions, list) or not versions or not all(isinstance(v, str) for v in versions):
        yield f"supportedVersions is {versions!r}, not a list of versions"


def faults_of_error(found: Any) -> Iterator[str]:
    """SPEC.md 1.1.0, section 5, error."""
    if not isinstance(found, dict):
        yield "the answer is no JSON object"
        return
    if not isinstance(found.get("code"), int):
        yield f"code is {found.get('code')!r}, no number"
    if not isinstance(found.get("msg"), str) or not found["msg"]:
        yield "msg is missing"


def faults_of_result(found: Any, version: str, *, ipam: bool = False, strict: bool = False) -> Iterator[str]:
    """SPEC.md 1.1.0, section 5, ADD success; an ipam plugin's has no interfaces."""
    if not isinstance(found, dict):
        yield "the answer is no JSON object"
        return
    if found.get("cniVersion") != version:
        yield f"cniVersion is {found.get('cniVersion')!r} where {version!r} was asked for"
    interfaces, ips = found.get("interfaces") or [], found.get("ips") or []
    if not isinstance(interfaces, list) or not isinstance(ips, list):
        yield "interfaces and ips are lists"
        return
    if ipam and interfaces:
        yield "an ipam plugin's result has no interfaces"
    for interface in interfaces:
        if not isinstance(interface, dict) or not interface.get("name"):
            yield f"interface {interface!r} has no name"
    for entry in ips:
        yield from _faults_of_ip(entry, version, len(interfaces), strict=strict)
    for route in found.get("routes") or []:
        yield from _faults_of_route(route)
    if not isinstance(found.get("dns", {}), dict):
        yield "dns is no object"


def _faults_of_ip(entry: Any, version: str, interfaces: int, *, strict: bool) -> Iterator[str]:
    if not isinstance(entry, dict):
        yield f"ips has {entry!r}, no object"
        return
    try:
        if "/" not in entry["address"]:
            yield f"address {entry['address']} has no prefix length"
        address = ip_interface(entry["address"])
        if entry.get("gateway"):
            ip_address(entry["gateway"])
    except (KeyError, TypeError, ValueError) as err:
        yield f"ips has {entry!r}: {err!r}"
        return
    index = entry.get("interface")
    if index is not None and not (isinstance(index, int) and 0 <= index < interfaces):
        yield f"address {address} is on interface {index}, of {interfaces}"
    family = entry.get("version")
    if version < "1" and family != str(address.version) and (strict or family is not None):
        yield f"version {version} demands a version in each address, {address} has {family!r}"
    if version >= "1" and family is not None:
        yield f"addresses have no version since 1.0.0, {address} has {family!r}"


def _faults_of_route(route: Any) -> Iterator[str]:
    try:
        ip_network(route["dst"])
        if route.get("gw"):
            ip_address(route["gw"])
    except (KeyError, TypeError, ValueError, AttributeError) as err:
        yield f"routes has {route!r}: {err!r}"
