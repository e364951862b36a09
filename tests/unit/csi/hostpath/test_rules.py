from __future__ import annotations

import grpc
import pytest

from tiphys.thirdparty.csi.v1 import csi_pb2
from tiphys_csi.hostpath import rules
from tiphys_csi.hostpath.state import Volume, id_for
from tiphys_sdk.csi.status import CsiError

GIB = 1 << 30
LIMITS = rules.Limits(max_volume_bytes=4 * GIB, capacity_bytes=0)
Mode = csi_pb2.VolumeCapability.AccessMode


def bounds(required: int = 0, limit: int = 0) -> csi_pb2.CapacityRange:
    return csi_pb2.CapacityRange(required_bytes=required, limit_bytes=limit)


@pytest.mark.parametrize(
    ("asked", "least", "size"),
    [
        (bounds(), 0, GIB),
        (bounds(1), 0, 4096),
        (bounds(1, 2), 0, 1),
        (bounds(0, 4096), 0, 4096),
        (bounds(), 2 * GIB, 2 * GIB),
        (bounds(4 * GIB), 0, 4 * GIB),
    ],
    ids=["default", "whole sectors", "within the limit", "limit alone", "as the source", "largest"],
)
def test_size_is_chosen_within_the_bounds(asked: csi_pb2.CapacityRange, least: int, size: int) -> None:
    assert rules.size_for(asked, LIMITS, least) == size


@pytest.mark.parametrize(
    ("asked", "least"),
    [(bounds(5 * GIB), 0), (bounds(GIB), 2 * GIB), (bounds(0, GIB), 2 * GIB)],
    ids=["over the largest", "less than the source", "limit below the source"],
)
def test_size_that_cannot_be_is_out_of_range(asked: csi_pb2.CapacityRange, least: int) -> None:
    with pytest.raises(CsiError) as raised:
        rules.size_for(asked, LIMITS, least)
    assert raised.value.code is grpc.StatusCode.OUT_OF_RANGE


def test_room_counts_all_volumes_where_there_is_a_limit() -> None:
    limits = rules.Limits(4 * GIB, 3 * GIB)
    volumes = [Volume(id=id_for("a"), name="a", capacity_bytes=2 * GIB)]
    left = rules.available_bytes(limits, volumes, free_bytes=99 * GIB)
    assert left == GIB
    rules.check_room(GIB, left, limits)
    with pytest.raises(CsiError) as raised:
        rules.check_room(GIB + 1, left, limits)
    assert raised.value.code is grpc.StatusCode.RESOURCE_EXHAUSTED


def capability(mode: Mode.Mode.ValueType, *, block: bool = False) -> csi_pb2.VolumeCapability:
    made = csi_pb2.VolumeCapability()
    made.block.SetInParent() if block else made.mount.SetInParent()
    made.access_mode.mode = mode
    return made


@pytest.mark.parametrize(
    ("capabilities", "is_possible"),
    [
        ([capability(Mode.SINGLE_NODE_WRITER)], True),
        ([capability(Mode.SINGLE_NODE_MULTI_WRITER)], True),
        ([capability(Mode.MULTI_NODE_MULTI_WRITER)], False),
        ([capability(Mode.SINGLE_NODE_WRITER), capability(Mode.MULTI_NODE_READER_ONLY)], False),
        ([capability(Mode.SINGLE_NODE_WRITER), capability(Mode.SINGLE_NODE_WRITER, block=True)], False),
    ],
)
def test_only_one_node_and_one_kind(capabilities: list[csi_pb2.VolumeCapability], is_possible: bool) -> None:
    assert (not rules.problem_of(capabilities)) == is_possible


def test_pages_go_on_after_a_volume_of_the_page_before_was_deleted() -> None:
    ids = [id_for(str(number)) for number in range(5)]
    first, token = rules.page(ids, "", 2)
    rest, end = rules.page([one for one in ids if one not in first], token, 0)
    assert sorted(first + rest) == sorted(ids)
    assert end == ""


def test_token_of_nobody_is_aborted() -> None:
    with pytest.raises(CsiError) as raised:
        rules.page([], "nonsense", 0)
    assert raised.value.code is grpc.StatusCode.ABORTED
