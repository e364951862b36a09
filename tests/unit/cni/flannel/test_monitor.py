"""Which of the kernel's messages count."""

from __future__ import annotations

import struct

import pytest

from tiphys_cni.flannel.monitor import Monitor, messages
from tiphys_cni.netlink import attribute

_LO = 1  # The one device that every namespace has.


def link(name: str) -> bytes:
    return struct.pack("=BxHiII", 0, 0, 5, 0, 0) + attribute(3, name.encode() + b"\0")


def neighbour(index: int) -> bytes:
    return struct.pack("=BxxxiHBB", 2, index, 0x80, 0, 0)


def route(table: int, kind: int = 1) -> bytes:
    return struct.pack("=BBBBBBBBI", 2, 24, 0, 0, table, 241, 0, kind, 0)


@pytest.mark.parametrize(
    ("kind", "body", "counts"),
    [
        (17, link("flannel.1"), True),
        (16, link("eth0"), True),
        (16, link("veth1234"), False),
        (25, route(254), True),
        (24, route(254, 7), True),
        (24, route(255), False),
        (29, neighbour(_LO), True),
        (29, neighbour(999_999), True),
        (21, struct.pack("=BBBBi", 2, 32, 0, 0, _LO), False),
        (3, b"", False),
    ],
    ids=[
        "own device gone",
        "underlay",
        "a pod's",
        "route of the main table",
        "route that leads nowhere",
        "route of the local table",
        "entry of the overlay",
        "entry of a device that is gone",
        "address of another device",
        "no message",
    ],
)
def test_what_wakes(kind: int, body: bytes, counts: bool) -> None:
    monitor = Monitor(lambda: None, lambda: {"flannel.1", "eth0"}, lambda: "lo")
    assert monitor.counts(kind, body) is counts


def test_messages_of_one_datagram_are_told_apart() -> None:
    def message(kind: int, body: bytes) -> bytes:
        whole = struct.pack("=IHHII", 16 + len(body), kind, 0, 0, 0) + body
        return whole + b"\0" * (-len(whole) % 4)

    assert messages(message(16, b"abcde") + message(25, b"xy") + b"\1\2") == [(16, b"abcde"), (25, b"xy")]
