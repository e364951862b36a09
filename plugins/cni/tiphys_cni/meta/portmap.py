"""portmap: ports of the node that lead into the container (runtime capability portMappings)."""

from __future__ import annotations

import shutil
import socket
import struct
from ipaddress import IPv4Interface, IPv6Interface, ip_address, ip_interface
from pathlib import Path
from typing import Any

from tiphys_cni import hostports
from tiphys_cni.hostports import Mapping
from tiphys_cni.netlink import RTM_GETROUTE, RouteSocket, attribute, attributes
from tiphys_sdk.cni.conf import Call
from tiphys_sdk.cni.skel import Plugin
from tiphys_sdk.cni.spec import CNIError, ErrorCode, Result

_UNSUPPORTED = ("conditionsV4", "conditionsV6", "externalSetMarkChain")
_ROUTE = struct.Struct("=BBBBBBBBI")
_RTA_DST, _RTA_OIF = 1, 4


def mappings(call: Call) -> tuple[Mapping, ...]:
    """The mappings asked for; those without a host port are none. Raises CNIError naming field and value."""
    runtime = call.conf.get("runtimeConfig") or {}
    entries = runtime.get("portMappings") or () if isinstance(runtime, dict) else ()
    if not isinstance(entries, list | tuple):
        raise CNIError(ErrorCode.INVALID_CONFIG, f"runtimeConfig.portMappings: {entries!r} is no list")
    found = (_mapping(entry) for entry in entries)
    return tuple(mapping for mapping in found if mapping.host_port)


def _mapping(entry: Any) -> Mapping:
    if not isinstance(entry, dict):
        raise CNIError(ErrorCode.INVALID_CONFIG, f"runtimeConfig.portMappings: {entry!r} is no mapping")
    # containerd writes HostPort, others hostPort as the conventions do: Go's decoder takes both.
    given = {str(key).lower(): value for key, value in entry.items()}
    entry = {key: given.get(key.lower()) for key in ("hostPort", "containerPort", "protocol", "hostIP")}
    host_port, container_port = (_port(entry, key) for key in ("hostPort", "containerPort"))
    if host_port and not container_port:
        raise CNIError(ErrorCode.INVALID_CONFIG, f"portMappings: containerPort is missing beside hostPort {host_port}")
    protocol = str(entry.get("protocol") or "tcp").lower()
    if protocol not in hostports.PROTOCOLS:
        known = ", ".join(hostports.PROTOCOLS)
        raise CNIError(ErrorCode.INVALID_CONFIG, f"portMappings.protocol: {protocol!r} is none of {known}")
    host_ip = entry.get("hostIP") or None
    if host_ip is not None:
        try:
            ip_address(host_ip)
        except ValueError as err:
            raise CNIError(ErrorCode.INVALID_CONFIG, f"portMappings.hostIP: {host_ip!r} is no IP address") from err
    return Mapping(host_port, container_port, protocol, host_ip)


def _port(entry: dict[str, Any], key: str) -> int:
    value = entry.get(key) or 0
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 65536:
        raise CNIError(ErrorCode.INVALID_CONFIG, f"portMappings.{key}: {value!r} is no port")
    return value


def add(call: Call) -> Result:
    """Opens the host ports to the container's addresses; the result before it goes on unchanged."""
    _refuse_unsupported(call)
    previous = call.previous
    if previous is None:
        raise CNIError(ErrorCode.INVALID_CONFIG, "portmap works in a chain only: prevResult is missing")
    wanted = mappings(call)
    if not wanted:
        return previous
    addresses = _container_addresses(previous)
    if call.flag("snat", default=True):
        for address in addresses:
            _let_loopback_out(address)
    hostports.ensure(_elements(call, wanted, addresses), _owner(call))
    hostports.forget_flows(wanted)
    return previous


def _refuse_unsupported(call: Call) -> None:
    for key in _UNSUPPORTED:
        if call.conf.get(key):
            raise CNIError(ErrorCode.UNSUPPORTED_FIELD, f"{key}: {call.conf[key]!r} is not supported by this portmap")
    if call.conf.get("backend", "nftables") != "nftables":
        raise CNIError(ErrorCode.UNSUPPORTED_FIELD, f"backend: {call.conf['backend']!r}: this portmap is nftables only")


def _owner(call: Call) -> str:
    return hostports.owner(call.network, call.container_id, call.ifname)


def _elements(
    call: Call, wanted: tuple[Mapping, ...], addresses: tuple[IPv4Interface | IPv6Interface, ...]
) -> tuple[hostports.Element, ...]:
    snat = call.flag("snat", default=True)
    return hostports.elements(wanted, addresses, snat=snat, everything=call.flag("masqAll"))


def _container_addresses(previous: Result) -> tuple[IPv4Interface | IPv6Interface, ...]:
    """The first address of each family that is on an interface inside the container."""
    found: dict[int, IPv4Interface | IPv6Interface] = {}
    for address in previous.ips:
        index = address.interface
        if index is not None and 0 <= index < len(previous.interfaces) and not previous.interfaces[index].sandbox:
            continue
        interface = ip_interface(address.address)
        found.setdefault(interface.version, interface)
    if not found:
        raise CNIError(ErrorCode.INVALID_CONFIG, "portmap: the container has no address in prevResult")
    return tuple(found.values())


def _let_loopback_out(address: IPv4Interface | IPv6Interface) -> None:
    """Lets packets from 127.0.0.1 leave towards the container, for localhost:PORT; IPv6 has no such switch."""
    if address.version != 4:
        return
    with RouteSocket() as host:
        body = _ROUTE.pack(socket.AF_INET, 32, 0, 0, 0, 0, 0, 0, 0) + attribute(_RTA_DST, address.ip.packed)
        route = dict(attributes(host.request(RTM_GETROUTE, 0, body)[0][_ROUTE.size :]))
    name = socket.if_indextoname(struct.unpack("=I", route[_RTA_OIF])[0])
    switch = Path(f"/proc/sys/net/ipv4/conf/{name}/route_localnet")
    if switch.read_text().strip() != "1":
        switch.write_text("1")


def delete(call: Call) -> None:
    """Closes whatever the container has, also what the configuration no longer names."""
    hostports.remove([_owner(call)])


def check(call: Call) -> None:
    """Fails where a mapping is missing or leads elsewhere."""
    previous = call.previous
    if previous is None:
        raise CNIError(ErrorCode.INVALID_CONFIG, "CHECK needs prevResult")
    wanted = mappings(call)
    if not wanted:
        return
    there = hostports.present()
    for element in _elements(call, wanted, _container_addresses(previous)):
        if there.get(element) != _owner(call):
            message = f"portmap: {' '.join(element.key)} is missing in {element.holder}"
            raise CNIError(ErrorCode.CHECK_FAILED, message)


def status(call: Call) -> None:
    """Ready where nft is."""
    _refuse_unsupported(call)
    if shutil.which("nft") is None:
        raise CNIError(ErrorCode.PLUGIN_NOT_AVAILABLE, "portmap needs nft: install the package nftables")


def collect(call: Call) -> None:
    """Closes the ports of this network's containers that are not among the valid attachments."""
    valid = {hostports.owner(call.network, a.container_id, a.ifname) for a in call.valid_attachments}
    there = set(hostports.present().values())
    hostports.remove({one for one in there if hostports.belongs_to(one, call.network)} - valid)


PLUGIN = Plugin("portmap", add, delete, check, status, collect)
