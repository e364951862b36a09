"""Which node a packet is for."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

import pytest

from tiphys_cni.flannel.backend.udp import SubnetMap

MAP = SubnetMap(
    {
        IPv4Network("10.244.1.0/24"): ("192.0.2.1", 8285),
        IPv4Network("10.244.2.0/24"): ("192.0.2.2", 8285),
        IPv4Network("10.244.64.0/20"): ("192.0.2.3", 8285),
    }
)


@pytest.mark.parametrize(
    ("address", "node"),
    [
        ("10.244.1.0", "192.0.2.1"),
        ("10.244.1.255", "192.0.2.1"),
        ("10.244.2.9", "192.0.2.2"),
        ("10.244.79.255", "192.0.2.3"),
        ("10.244.80.0", ""),
        ("10.244.3.1", ""),
        ("8.8.8.8", ""),
    ],
)
def test_F11_address_belongs_to_the_node_of_its_subnet(address: str, node: str) -> None:
    found = MAP.find(int(IPv4Address(address)))
    assert found == ((node, 8285) if node else None)
