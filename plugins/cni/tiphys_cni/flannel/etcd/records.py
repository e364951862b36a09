"""What flannel writes into etcd: keys, values, and which subnet is free. Pure.

Source: flannel pkg/subnet/etcd (registry.go, local_manager.go) and pkg/subnet/config.go: these keys and values.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from tiphys_cni.flannel.etcd.client import Entry
from tiphys_cni.flannel.lease import Announcement, Claim, Lease

# Of a network smaller than a /22 each node gets a quarter.
_USUAL_LENGTH = 24
_LEAST_GAP = 2


def subnet_key(prefix: str, subnet: IPv4Network) -> str:
    """Where the lease of a subnet stands."""
    return f"{prefix}/subnets/{subnet.network_address}-{subnet.prefixlen}"


def parse_key(key: str) -> IPv4Network | None:
    """The subnet of a lease's key; None for a key that is none."""
    address, _, length = key.rpartition("/")[2].partition("-")
    try:
        return IPv4Network(f"{address}/{length}")
    except ValueError:
        return None


def reserved(public_ip: IPv4Address) -> bytes:
    """The value while a node holds the subnet and its back end is not there yet."""
    return json.dumps({"PublicIP": str(public_ip)}).encode()


def announced(told: Announcement) -> bytes:
    """The value of a lease that others can use."""
    value: dict[str, Any] = {"PublicIP": str(told.public_ip), "PublicIPv6": None, "BackendType": told.backend}
    if told.data is not None:
        value["BackendData"] = dict(told.data)
    return json.dumps(value, separators=(",", ":")).encode()


def claim_of(entry: Entry) -> Claim | None:
    """What a lease says; None for a key that is none. Nodes are known by their public address."""
    subnet = parse_key(entry.key)
    if subnet is None:
        return None
    age, where = (entry.created, 0, entry.key), str(subnet)
    try:
        value = json.loads(entry.value)
        public_ip = IPv4Address(value["PublicIP"])
        data = value.get("BackendData") or {}
        if not isinstance(data, dict):
            raise TypeError("BackendData is no object")
    except (ValueError, KeyError, TypeError, AttributeError) as err:
        return Claim(where, age, None, None, f"lease of {subnet} in etcd can't be read: {err!r}", {})
    backend, node = str(value.get("BackendType", "")), str(public_ip)
    told = Announcement(backend, public_ip, value.get("BackendData"))
    lease = Lease(node, subnet, public_ip, backend, data) if backend else None
    return Claim(node, age, subnet, lease, "", told.annotations() if backend else {})


def subnet_length(config: bytes, network: IPv4Network) -> int:
    """Length of each node's subnet, by the network's configuration in etcd. Raises ValueError, naming both."""
    try:
        value = json.loads(config)
        configured, length = IPv4Network(value["Network"]), int(value.get("SubnetLen") or usual_length(network))
    except (ValueError, KeyError, TypeError) as err:
        raise ValueError(f"the network's configuration in etcd can't be read: {err!r}") from err
    if configured != network:
        raise ValueError(f"the network in etcd is {configured}, --pod-cidr says {network}")
    if not network.prefixlen + 1 <= length <= 30:
        raise ValueError(f"SubnetLen {length} in etcd does not fit the network {network}")
    return length


def usual_length(network: IPv4Network) -> int:
    """Length of each node's subnet where nobody says another."""
    return max(_USUAL_LENGTH, network.prefixlen + _LEAST_GAP)


def configuration(network: IPv4Network, backend: str) -> bytes:
    """The network's configuration, for the first node that finds none."""
    return json.dumps({"Network": str(network), "Backend": {"Type": backend}}).encode()


def free_subnets(
    network: IPv4Network, length: int, taken: Iterable[IPv4Network], *, start: int
) -> Iterator[IPv4Network]:
    """The subnets that overlap no other, from number `start` on and around; never the network's first, as upstream."""
    step, count = 2 ** (32 - length), 2 ** (length - network.prefixlen)
    held = sorted((int(one.network_address), int(one.broadcast_address)) for one in taken)
    for number in range(count - 1):
        first = int(network.network_address) + (1 + (start + number) % (count - 1)) * step
        if not any(low <= first + step - 1 and first <= high for low, high in held):
            yield IPv4Network((first, length))
