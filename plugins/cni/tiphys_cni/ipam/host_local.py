"""host-local: addresses out of ranges, kept on this node's disk."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Any

from tiphys_cni.ipam.store import IPAddress, Owner, Store
from tiphys_sdk.cni.conf import Call
from tiphys_sdk.cni.skel import Plugin
from tiphys_sdk.cni.spec import Address, CNIError, ErrorCode, Result, Route


@dataclass(frozen=True, slots=True)
class Range:
    """One range of a set; first and last are given out too, the gateway never."""

    subnet: IPv4Network | IPv6Network
    first: IPAddress
    last: IPAddress
    gateway: IPAddress

    def __contains__(self, address: IPAddress) -> bool:
        return int(self.first) <= int(address) <= int(self.last) and address.version == self.subnet.version

    def interface(self, address: IPAddress) -> str:
        """The address with the subnet's prefix length."""
        return f"{address}/{self.subnet.prefixlen}"


def _parse(key: str, text: Any) -> IPAddress:
    try:
        return ip_address(text)
    except ValueError as err:
        raise CNIError(ErrorCode.INVALID_CONFIG, f"ipam.{key}: {text!r} is no IP address") from err


def parse_range(data: Mapping[str, Any]) -> Range:
    """One range of the configuration. Raises CNIError naming field and value."""
    try:
        subnet = ip_network(data.get("subnet", ""))
    except ValueError as err:
        raise CNIError(ErrorCode.INVALID_CONFIG, f"ipam.subnet: {data.get('subnet')!r}: {err}") from err
    if subnet.num_addresses < 4:
        raise CNIError(ErrorCode.INVALID_CONFIG, f"ipam.subnet: {subnet} is too small to allocate from")
    edge = 2 if subnet.version == 4 else 1
    first = _parse("rangeStart", data["rangeStart"]) if data.get("rangeStart") else subnet[1]
    last = _parse("rangeEnd", data["rangeEnd"]) if data.get("rangeEnd") else subnet[-edge]
    gateway = _parse("gateway", data["gateway"]) if data.get("gateway") else subnet[1]
    for key, address in (("rangeStart", first), ("rangeEnd", last)):
        if address not in subnet:
            raise CNIError(ErrorCode.INVALID_CONFIG, f"ipam.{key}: {address} is not in {subnet}")
    if int(first) > int(last):
        raise CNIError(ErrorCode.INVALID_CONFIG, f"ipam.rangeStart: {first} is above rangeEnd {last}")
    return Range(subnet, first, last, gateway)


def range_sets(ipam: Mapping[str, Any]) -> list[list[Range]]:
    """The sets of ranges; every container gets one address of each set."""
    sets = [[parse_range(entry) for entry in entries] for entries in ipam.get("ranges") or ()]
    if ipam.get("subnet"):
        sets.insert(0, [parse_range(ipam)])
    if not sets:
        raise CNIError(ErrorCode.INVALID_CONFIG, "ipam: neither subnet nor ranges are given")
    return sets


def candidates(ranges: Sequence[Range], after: IPAddress | None) -> Iterator[tuple[Range, IPAddress]]:
    """Every address of a set once, beginning behind the one given out last."""
    start = next((i for i, r in enumerate(ranges) if after is not None and after in r), 0)
    begin = int(after) + 1 if after is not None and after in ranges[start] else int(ranges[start].first)
    kind = type(ranges[start].first)
    for number in range(begin, int(ranges[start].last) + 1):
        yield ranges[start], kind(number)
    for current in [*ranges[start + 1 :], *ranges[:start]]:
        for number in range(int(current.first), int(current.last) + 1):
            yield current, type(current.first)(number)
    for number in range(int(ranges[start].first), begin):
        yield ranges[start], kind(number)


def _store(call: Call) -> Store:
    return Store(call.network, str(call.conf.get("ipam", {}).get("dataDir", "")))


def add(call: Call) -> Result:
    """One address of each range set. The same container and interface get the same addresses again."""
    ipam = call.conf.get("ipam", {})
    owner = Owner(call.container_id, call.ifname)
    store = _store(call)
    addresses: list[Address] = []
    with store.locked():
        taken = store.taken()
        try:
            for index, ranges in enumerate(range_sets(ipam)):
                addresses.append(_one_address(store, taken, ranges, index, owner=owner))
        except CNIError:
            store.release(owner)
            raise
    routes = tuple(Route(str(r.get("dst", "")), str(r.get("gw", ""))) for r in ipam.get("routes") or ())
    return Result(ips=tuple(addresses), routes=routes)


def _one_address(
    store: Store, taken: Mapping[IPAddress, Owner], ranges: Sequence[Range], index: int, *, owner: Owner
) -> Address:
    for address, holder in taken.items():
        home = next((r for r in ranges if address in r), None)
        if holder == owner and home is not None:
            return Address(home.interface(address), str(home.gateway))
    for home, address in candidates(ranges, store.last_reserved(index)):
        if address != home.gateway and address not in taken and store.reserve(address, owner, index):
            return Address(home.interface(address), str(home.gateway))
    span = ", ".join(f"{r.first}-{r.last}" for r in ranges)
    raise CNIError(ErrorCode.ADDRESSES_EXHAUSTED, f"no IP addresses left in range {span}")


def delete(call: Call) -> None:
    """Frees the container's addresses; those of a container that is long gone are freed already."""
    store = _store(call)
    with store.locked():
        store.release(Owner(call.container_id, call.ifname))


def check(call: Call) -> None:
    """Fails where the container has no address here."""
    store = _store(call)
    with store.locked():
        if Owner(call.container_id, call.ifname) not in store.taken().values():
            message = f"host-local: no address of container {call.container_id} interface {call.ifname}"
            raise CNIError(ErrorCode.CHECK_FAILED, message)


def status(call: Call) -> None:
    """Fails where no address is left: with a code of its own, as containers that have one are well."""
    store = _store(call)
    with store.locked():
        taken = store.taken()
        for ranges in range_sets(call.conf.get("ipam", {})):
            if all(a in taken or a == r.gateway for r, a in candidates(ranges, None)):
                span = ", ".join(f"{r.first}-{r.last}" for r in ranges)
                raise CNIError(ErrorCode.ADDRESSES_EXHAUSTED, f"no IP addresses left in range {span}")


def collect(call: Call) -> None:
    """Frees the addresses of every container that is not among the valid attachments."""
    valid = {Owner(a.container_id, a.ifname) for a in call.valid_attachments}
    store = _store(call)
    with store.locked():
        for owner in set(store.taken().values()) - valid:
            store.release(owner)


PLUGIN = Plugin("host-local", add, delete, check, status, collect)
