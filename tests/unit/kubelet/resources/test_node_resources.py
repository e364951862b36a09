"""Devices in the node's status, beside what an administrator wrote there."""

from __future__ import annotations

from datetime import UTC, datetime

from tiphys.api.core.v1.node_pb2 import NodeStatus
from tiphys_kubelet.machine import Machine
from tiphys_kubelet.node_status import NodeFacts, NodeIdentity, is_unsettled, make_status, status_change

MACHINE = Machine(2, 2**30, 2**30, "m", "s", "b", "6.1", "Debian", "amd64")
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def status(previous: NodeStatus, **devices: tuple[int, int]) -> NodeStatus:
    told = {f"example.com/{name}": counts for name, counts in devices.items()}
    return make_status(NodeIdentity("n", ["10.0.0.1"], 10250), NodeFacts(MACHINE, devices=told), previous, NOW)


def test_devices_are_counted_as_they_are() -> None:
    found = status(NodeStatus(), gpu=(8, 7))
    assert found.capacity["example.com/gpu"].string == "8"
    assert found.allocatable["example.com/gpu"].string == "7"


def test_I17_a_capacity_written_by_hand_stays_and_becomes_allocatable() -> None:
    previous = status(NodeStatus())
    previous.capacity["example.com/dongle"].string = "4"
    assert is_unsettled(previous, {})
    found = status(previous)
    assert found.allocatable["example.com/dongle"].string == "4"
    assert status_change(previous, found) == {"allocatable": {"example.com/dongle": "4"}}
    assert not is_unsettled(found, {})


def test_only_amounts_that_changed_are_written() -> None:
    before = status(NodeStatus(), gpu=(8, 8), fpga=(1, 1))
    after = status(before, gpu=(8, 0), fpga=(1, 1))
    assert status_change(before, after) == {"allocatable": {"example.com/gpu": "0"}}
