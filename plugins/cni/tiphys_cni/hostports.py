"""Host ports as elements of nftables maps, in one table of the node for all networks.

The rules are always the same few; a container is only elements, each with a comment that names it. So ADD is one
transaction, a packet costs two look-ups however many ports there are, and DEL, CHECK and GC find a container's own
without any note on disk. The reference plugin writes a chain a container by iptables instead.
"""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv6Interface, ip_address
from typing import Any

from tiphys_sdk.cni.spec import CNIError, ErrorCode

TABLE = "cni_hostport"
PROTOCOLS = ("tcp", "udp", "sctp")
_TIMEOUT_S = 10.0
# The bit that upstream's portmap marks packets with, too: this connection goes to a host port.
_MARK = 0x2000
# The kernel keeps at most 127 bytes of an element's comment.
_LONGEST_NAME = 40
_LONGEST_ATTACHMENT = 80
_PLAIN = re.compile(r"[\w.\- ]+")


@dataclass(frozen=True, slots=True)
class Mapping:
    """One port of a container that the node answers on; host_ip None means every address of the node."""

    host_port: int
    container_port: int
    protocol: str
    host_ip: str | None = None


@dataclass(frozen=True, slots=True)
class Element:
    """An element of one of the table's maps or sets; in a set the value is empty."""

    holder: str
    key: tuple[str, ...]
    value: tuple[str, ...] = ()

    def text(self, owner: str = "") -> str:
        """As nft reads it."""
        comment = f' comment "{owner}"' if owner else ""
        value = f" : {' . '.join(self.value)}" if self.value else ""
        return f"{self.holder} {{ {' . '.join(self.key)}{comment}{value} }}"


def owner(network: str, container_id: str, ifname: str) -> str:
    """The comment of a container's elements; what is too long or strange for one is hashed."""
    return _short(network, _LONGEST_NAME) + "/" + _short(f"{container_id} {ifname}", _LONGEST_ATTACHMENT)


def belongs_to(comment: str, network: str) -> bool:
    """Whether a comment is that of a container of the network."""
    return comment.startswith(_short(network, _LONGEST_NAME) + "/")


def _short(text: str, longest: int) -> str:
    if len(text) <= longest and _PLAIN.fullmatch(text):
        return text
    return "sha256-" + hashlib.sha256(text.encode()).hexdigest()[:32]


def elements(
    mappings: Iterable[Mapping], addresses: Sequence[IPv4Interface | IPv6Interface], *, snat: bool, everything: bool
) -> tuple[Element, ...]:
    """What a container's mappings need. Pure.

    snat also hides those behind the node who could not be answered otherwise: the container's own subnet, whose answers
    would not come back through the node, and the node's loopback. everything hides every client.
    """
    found: dict[Element, None] = {}
    for mapping in mappings:
        for address in addresses:
            version = address.version
            wanted = ip_address(mapping.host_ip) if mapping.host_ip else None
            if wanted is not None and wanted.version != version:
                continue
            port = (mapping.protocol, str(mapping.host_port))
            target = (str(address.ip), str(mapping.container_port))
            if wanted is None or wanted.is_unspecified:
                found[Element(f"ports{version}", port, target)] = None
            else:
                found[Element(f"host_ports{version}", (str(wanted), *port), target)] = None
            loopback, anyone = ("127.0.0.0/8", "0.0.0.0/0") if version == 4 else ("::1", "::/0")
            sources = (anyone,) if everything else (str(address.network), loopback) if snat else ()
            for source in sources:
                found[Element(f"snat{version}", (source, str(address.ip), mapping.protocol, target[1]))] = None
    return tuple(found)


def rules() -> str:
    """The table without any container; writing it again changes nothing that containers have. Pure."""
    lines = [f"add table inet {TABLE}"]
    for version in (4, 6):
        port, address = "inet_proto . inet_service", f"ipv{version}_addr"
        lines.append(f"add map inet {TABLE} ports{version} {{ type {port} : {address} . inet_service; }}")
        lines.append(
            f"add map inet {TABLE} host_ports{version} {{ type {address} . {port} : {address} . inet_service; }}"
        )
        lines.append(f"add set inet {TABLE} snat{version} {{ type {address} . {address} . {port}; flags interval; }}")
    mark = f"meta mark and {_MARK:#x} == {_MARK:#x}"
    # dnat ends the chain where the map knows the port; who comes to the last rule came to no host port.
    hostports = [f"meta mark set meta mark or {_MARK:#x}"]
    hostports += [
        f"dnat {ip} to {key}meta l4proto . th dport map @{name}{version}"
        for ip, version in (("ip", 4), ("ip6", 6))
        for key, name in ((f"{ip} daddr . ", "host_ports"), ("", "ports"))
    ]
    hostports.append(f"meta mark set meta mark and {0xFFFFFFFF ^ _MARK:#x}")
    source = [
        f"{mark} {ip} saddr . {ip} daddr . meta l4proto . th dport @snat{version} masquerade"
        for ip, version in (("ip", 4), ("ip6", 6))
    ]
    to_node = ["fib daddr type local jump hostports"]
    chains = (
        ("hostports", "", hostports),
        ("prerouting", "{ type nat hook prerouting priority dstnat; }", to_node),
        ("output", "{ type nat hook output priority -100; }", to_node),
        ("postrouting", "{ type nat hook postrouting priority srcnat; }", source),
    )
    for name, hook, body in chains:
        lines += [f"add chain inet {TABLE} {name} {hook}".rstrip(), f"flush chain inet {TABLE} {name}"]
        lines += [f"add rule inet {TABLE} {name} {rule}" for rule in body]
    return "\n".join(lines) + "\n"


def parse(listing: bytes) -> dict[Element, str]:
    """The elements of `nft -j list table`, each with its comment. Pure."""
    found: dict[Element, str] = {}
    for entry in json.loads(listing)["nftables"]:
        holder: dict[str, Any] = entry.get("map") or entry.get("set") or {}
        for element in holder.get("elem") or ():
            key, value = element if isinstance(element, list) else (element, {"concat": []})
            inner = key.get("elem") or {"val": key, "comment": ""}
            words, target = inner["val"]["concat"], value["concat"]
            made = Element(holder["name"], tuple(map(_word, words)), tuple(map(_word, target)))
            found[made] = str(inner.get("comment", ""))
    return found


def _word(value: Any) -> str:
    if isinstance(value, dict):
        return f"{value['prefix']['addr']}/{value['prefix']['len']}"
    return str(value)


def present() -> dict[Element, str]:
    """Every element there is, with its owner; nothing where there is no table. Raises CNIError."""
    done = _nft("-j", "list", "table", "inet", TABLE)
    if done.returncode == 0:
        return parse(done.stdout)
    # No such table, or no way to know? The list of tables tells, and is needed only where no pod has a host port.
    tables = _nft("-j", "list", "tables")
    if tables.returncode != 0:
        raise CNIError(ErrorCode.IO_FAILURE, "nft lists no tables", tables.stderr.decode(errors="replace").strip())
    return {}


def ensure(wanted: Sequence[Element], mine: str) -> None:
    """Writes a container's elements, all or none; its older ones go. Raises CNIError, TRY_AGAIN for a port taken.

    The table is there after the first container of a node, so the short text is tried before the whole one.
    """
    added = "".join(f"add element inet {TABLE} {element.text(mine)}\n" for element in wanted)
    if _nft("-f", "-", text=added).returncode == 0:
        return
    there = present()
    for element in wanted:
        for other, comment in there.items():
            if comment != mine and (other.holder, other.key) == (element.holder, element.key):
                message = f"host port {' '.join(element.key)} is taken by {comment}"
                raise CNIError(ErrorCode.TRY_AGAIN, message)
    deleted = _deletions(element for element, comment in there.items() if comment == mine)
    done = _nft("-f", "-", text=rules() + deleted + added)
    if done.returncode != 0:
        raise CNIError(ErrorCode.IO_FAILURE, "nft refused the host ports", done.stderr.decode(errors="replace").strip())


def remove(owners: Iterable[str]) -> None:
    """Takes away whatever the owners have; nothing where they have nothing. Raises CNIError."""
    gone = set(owners)
    for attempt in range(_REMOVALS):
        mine = [element for element, comment in present().items() if comment in gone]
        if not mine:
            return
        done = _nft("-f", "-", text=_deletions(mine))
        if done.returncode == 0:
            return
        # Another DEL was quicker with one of them, and a transaction is all or nothing: look again.
        if attempt == _REMOVALS - 1:
            said = done.stderr.decode(errors="replace").strip()
            raise CNIError(ErrorCode.IO_FAILURE, "nft did not delete host ports", said)


_REMOVALS = 5


def _deletions(found: Iterable[Element]) -> str:
    # Without its value: an element is known by its key.
    return "".join(f"delete element inet {TABLE} {Element(e.holder, e.key).text()}\n" for e in found)


def forget_flows(mappings: Iterable[Mapping]) -> None:
    """Ends UDP flows to the host ports that began before the mapping: the kernel would go on sending them elsewhere."""
    for mapping in mappings:
        if mapping.protocol != "udp":
            continue
        command = ["conntrack", "-D", "-p", "udp", "--orig-port-dst", str(mapping.host_port)]
        if mapping.host_ip and not ip_address(mapping.host_ip).is_unspecified:
            command += ["--orig-dst", mapping.host_ip]
            if not isinstance(ip_address(mapping.host_ip), IPv4Address):
                command += ["-f", "ipv6"]
        try:
            # It also fails where there was no such flow, which is what is wanted.
            subprocess.run(command, capture_output=True, timeout=_TIMEOUT_S, check=False)
        except FileNotFoundError as err:
            message = "host ports over UDP need conntrack: install the package conntrack"
            raise CNIError(ErrorCode.IO_FAILURE, message) from err


def _nft(*arguments: str, text: str = "") -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(
            ["nft", *arguments], input=text.encode(), capture_output=True, timeout=_TIMEOUT_S, check=False
        )
    except FileNotFoundError as err:
        raise CNIError(ErrorCode.IO_FAILURE, "host ports need nft: install the package nftables") from err
    except subprocess.TimeoutExpired as err:
        raise CNIError(ErrorCode.IO_FAILURE, f"nft did not end within {_TIMEOUT_S:g} s") from err
