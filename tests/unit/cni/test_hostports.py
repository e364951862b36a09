from __future__ import annotations

import json
from ipaddress import ip_interface

import pytest

from tiphys_cni.hostports import Element, Mapping, belongs_to, elements, owner, parse, rules
from tiphys_cni.meta.portmap import PLUGIN, mappings
from tiphys_sdk.cni.conf import Call
from tiphys_sdk.cni.spec import CNIError, ErrorCode

V4, V6 = ip_interface("10.1.0.5/24"), ip_interface("fd00::5/64")


@pytest.mark.parametrize(
    ("mapping", "keys"),
    [
        (Mapping(8080, 80, "tcp"), ["ports4 tcp 8080", "ports6 tcp 8080"]),
        (Mapping(53, 53, "udp", "0.0.0.0"), ["ports4 udp 53"]),
        (Mapping(53, 53, "udp", "::"), ["ports6 udp 53"]),
        (Mapping(80, 80, "sctp", "192.0.2.1"), ["host_ports4 192.0.2.1 sctp 80"]),
        (Mapping(80, 80, "tcp", "2001:db8::1"), ["host_ports6 2001:db8::1 tcp 80"]),
    ],
    ids=["every address", "every v4", "every v6", "one v4", "one v6"],
)
def test_mapping_becomes_elements(mapping: Mapping, keys: list[str]) -> None:
    found = elements([mapping], (V4, V6), snat=False, everything=False)

    assert [f"{e.holder} {' '.join(e.key)}" for e in found] == keys


@pytest.mark.parametrize(
    ("snat", "everything", "sources"),
    [
        (True, False, ["10.1.0.0/24", "127.0.0.0/8"]),
        (False, False, []),
        (True, True, ["0.0.0.0/0"]),
    ],
    ids=["own subnet and loopback", "off", "all"],
)
def test_who_is_hidden_behind_the_node(snat: bool, everything: bool, sources: list[str]) -> None:
    found = elements([Mapping(8080, 80, "tcp")], (V4,), snat=snat, everything=everything)

    assert [e.key for e in found if e.holder == "snat4"] == [(source, "10.1.0.5", "tcp", "80") for source in sources]


def test_two_host_ports_of_one_container_port_share_what_they_can() -> None:
    found = elements([Mapping(1, 80, "tcp"), Mapping(2, 80, "tcp")], (V4,), snat=True, everything=False)

    assert len(found) == len(set(found)) == 4


@pytest.mark.parametrize(
    ("network", "container", "ifname"),
    [
        ("net", "a" * 64, "eth0"),
        ("n" * 200, "a" * 300, "eth0"),
        ("net", "abc", 'e"; flush'),
    ],
    ids=["usual", "long", "strange"],
)
def test_owner_is_a_comment_that_the_kernel_takes(network: str, container: str, ifname: str) -> None:
    found = owner(network, container, ifname)

    assert len(found) <= 127
    assert '"' not in found
    assert belongs_to(found, network)
    assert not belongs_to(found, network + "x")
    assert found != owner(network, container, "eth1")


def test_listing_is_read_back() -> None:
    listing = {
        "nftables": [
            {"metainfo": {}},
            {
                "map": {
                    "name": "ports4",
                    "elem": [
                        [
                            {"elem": {"val": {"concat": ["tcp", 8080]}, "comment": "n/c eth0"}},
                            {"concat": ["10.1.0.5", 80]},
                        ]
                    ],
                }
            },
            {
                "set": {
                    "name": "snat4",
                    "elem": [
                        {
                            "elem": {
                                "val": {"concat": [{"prefix": {"addr": "127.0.0.0", "len": 8}}, "10.1.0.5", "tcp", 80]},
                                "comment": "n/c eth0",
                            }
                        }
                    ],
                }
            },
            {"map": {"name": "ports6"}},
        ]
    }

    assert parse(json.dumps(listing).encode()) == {
        Element("ports4", ("tcp", "8080"), ("10.1.0.5", "80")): "n/c eth0",
        Element("snat4", ("127.0.0.0/8", "10.1.0.5", "tcp", "80")): "n/c eth0",
    }


def test_rules_name_no_container() -> None:
    text = rules()

    assert "add element" not in text
    assert text.count("flush chain") == 4


def call(conf: dict[str, object]) -> Call:
    return Call("ADD", "c", "/n", -1, "eth0", "", "/opt", {"cniVersion": "1.0.0", "name": "net", **conf})


@pytest.mark.parametrize(
    ("entry", "word"),
    [
        ({"hostPort": 70000, "containerPort": 80}, "70000"),
        ({"hostPort": True, "containerPort": 80}, "True"),
        ({"hostPort": 80}, "containerPort"),
        ({"hostPort": 80, "containerPort": 80, "protocol": "icmp"}, "icmp"),
        ({"hostPort": 80, "containerPort": 80, "hostIP": "localhost"}, "localhost"),
        ("80:80", "80:80"),
    ],
    ids=["port", "bool", "no container port", "protocol", "host ip", "text"],
)
def test_bad_mapping_is_named(entry: object, word: str) -> None:
    with pytest.raises(CNIError, match=word) as caught:
        mappings(call({"runtimeConfig": {"portMappings": [entry]}}))
    assert caught.value.code == ErrorCode.INVALID_CONFIG


def test_mapping_without_host_port_is_none() -> None:
    entries = [{"hostPort": 0, "containerPort": 80}, {"hostPort": 8080, "containerPort": 80, "protocol": "UDP"}]

    assert mappings(call({"runtimeConfig": {"portMappings": entries}})) == (Mapping(8080, 80, "udp"),)
    assert mappings(call({})) == ()


def test_containerd_writes_the_names_of_fields_in_another_case() -> None:
    entry = {"HostPort": 8080, "ContainerPort": 80, "Protocol": "tcp", "HostIP": ""}

    assert mappings(call({"runtimeConfig": {"portMappings": [entry]}})) == (Mapping(8080, 80, "tcp"),)


@pytest.mark.parametrize(
    ("conf", "code", "word"),
    [
        ({}, ErrorCode.INVALID_CONFIG, "prevResult"),
        ({"conditionsV4": ["!", "-d"]}, ErrorCode.UNSUPPORTED_FIELD, "conditionsV4"),
        ({"backend": "iptables"}, ErrorCode.UNSUPPORTED_FIELD, "iptables"),
        (
            {"prevResult": {"ips": []}, "runtimeConfig": {"portMappings": [{"hostPort": 1, "containerPort": 1}]}},
            ErrorCode.INVALID_CONFIG,
            "no address",
        ),
    ],
    ids=["alone", "conditions", "backend", "no address"],
)
def test_chain_that_makes_no_sense_is_refused(conf: dict[str, object], code: ErrorCode, word: str) -> None:
    with pytest.raises(CNIError, match=word) as caught:
        PLUGIN.add(call(conf))
    assert caught.value.code == code


def test_without_ports_the_previous_result_goes_on() -> None:
    previous = {"ips": [{"address": "10.1.0.5/24"}], "routes": [{"dst": "0.0.0.0/0", "mtu": 1400}]}

    answer = PLUGIN.add(call({"prevResult": previous})).to_json("1.1.0")

    assert answer["routes"] == previous["routes"]
