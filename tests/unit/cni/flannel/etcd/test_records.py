"""What stands in etcd, and which subnet is free."""

from __future__ import annotations

import json
from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiphys_cni.flannel.etcd import records
from tiphys_cni.flannel.etcd.client import Entry
from tiphys_cni.flannel.lease import Announcement

NETWORK = IPv4Network("10.5.0.0/16")
IP = IPv4Address("192.0.2.1")
KEY = "/coreos.com/network/subnets/10.5.34.0-24"


def test_F15_keys_and_values_are_those_of_flannel() -> None:
    told = Announcement("vxlan", IP, {"VNI": 1, "VtepMAC": "02:00:00:00:00:01"})

    assert records.subnet_key("/coreos.com/network", IPv4Network("10.5.34.0/24")) == KEY
    assert json.loads(records.announced(told)) == {
        "PublicIP": "192.0.2.1",
        "PublicIPv6": None,
        "BackendType": "vxlan",
        "BackendData": {"VNI": 1, "VtepMAC": "02:00:00:00:00:01"},
    }


def test_F15_what_is_announced_is_read_back() -> None:
    told = Announcement("vxlan", IP, {"VNI": 1, "VtepMAC": "02:00:00:00:00:01"})
    claim = records.claim_of(Entry(KEY, records.announced(told), 7, 9, 1))

    assert claim is not None
    assert (claim.node, claim.subnet, claim.announced) == ("192.0.2.1", IPv4Network("10.5.34.0/24"), told.annotations())
    assert claim.lease is not None
    assert claim.lease.vtep_mac == "02:00:00:00:00:01"


def test_a_subnet_that_is_only_reserved_is_nobodys_way() -> None:
    claim = records.claim_of(Entry(KEY, records.reserved(IP), 7, 7, 1))

    assert claim is not None
    assert (claim.subnet, claim.lease) == (IPv4Network("10.5.34.0/24"), None)


@pytest.mark.parametrize(
    "value", [b"", b"[]", b"{}", b'{"PublicIP": "x"}', b'{"PublicIP": "192.0.2.1", "BackendData": 1}']
)
def test_a_lease_that_can_not_be_read_is_refused_by_its_subnet(value: bytes) -> None:
    claim = records.claim_of(Entry(KEY, value, 7, 7, 1))

    assert claim is not None
    assert claim.problem.startswith("lease of 10.5.34.0/24 in etcd can't be read")


def test_another_key_is_no_lease() -> None:
    assert records.claim_of(Entry("/coreos.com/network/subnets/rubbish", b"{}", 1, 1, 0)) is None


@pytest.mark.parametrize(
    ("config", "length"),
    [
        ('{"Network": "10.5.0.0/16"}', 24),
        ('{"Network": "10.5.0.0/16", "SubnetLen": 26, "Backend": {"Type": "vxlan"}}', 26),
        ('{"Network": "10.6.0.0/16"}', "the network in etcd is 10.6.0.0/16, --pod-cidr says 10.5.0.0/16"),
        ('{"Network": "10.5.0.0/16", "SubnetLen": 16}', "SubnetLen 16 in etcd does not fit"),
        ("rubbish", "can't be read"),
    ],
)
def test_length_of_subnets_is_as_configured(config: str, length: int | str) -> None:
    if isinstance(length, int):
        assert records.subnet_length(config.encode(), NETWORK) == length
    else:
        with pytest.raises(ValueError, match=length):
            records.subnet_length(config.encode(), NETWORK)


@given(start=st.integers(0, 10_000), taken=st.sets(st.integers(0, 63)))
def test_F15_free_subnets_overlap_no_other_and_leave_none_out(start: int, taken: set[int]) -> None:
    network = IPv4Network("10.5.0.0/20")
    held = [IPv4Network((int(network.network_address) + number * 64, 26)) for number in taken]
    free = list(records.free_subnets(network, 26, held, start=start))

    every = set(network.subnets(new_prefix=26)) - {IPv4Network("10.5.0.0/26")}
    assert sorted(free) == sorted(every - set(held))
