from __future__ import annotations

import grpc
import pytest
from google.protobuf.message import Message

from tiphys.thirdparty.csi.v1 import csi_pb2
from tiphys_sdk.csi.checks import LOCKED, REQUIRED, check, lock_keys
from tiphys_sdk.csi.status import CsiError


def capability() -> csi_pb2.VolumeCapability:
    made = csi_pb2.VolumeCapability()
    made.mount.SetInParent()
    made.access_mode.mode = csi_pb2.VolumeCapability.AccessMode.SINGLE_NODE_WRITER
    return made


def complete(kind: type[Message]) -> Message:
    """A request that has every field which the contract requires."""
    request = kind()
    for name in REQUIRED[kind]:
        field = request.DESCRIPTOR.fields_by_name[name]
        if name == "volume_capabilities":
            getattr(request, name).append(capability())
        elif name == "volume_capability":
            getattr(request, name).CopyFrom(capability())
        elif field.message_type is not None:
            getattr(request, name).SetInParent()
        else:
            setattr(request, name, "/path" if name.endswith("path") else "id")
    return request


@pytest.mark.parametrize("kind", REQUIRED, ids=lambda kind: kind.DESCRIPTOR.name)
def test_complete_request_passes(kind: type[Message]) -> None:
    check(complete(kind))


@pytest.mark.parametrize(
    ("kind", "field"),
    [(kind, field) for kind, fields in REQUIRED.items() for field in fields],
    ids=lambda value: value if isinstance(value, str) else value.DESCRIPTOR.name,
)
def test_missing_field_is_named(kind: type[Message], field: str) -> None:
    request = complete(kind)
    request.ClearField(field)
    with pytest.raises(CsiError, match=field) as raised:
        check(request)
    assert raised.value.code is grpc.StatusCode.INVALID_ARGUMENT


def _create(**bounds: int) -> csi_pb2.CreateVolumeRequest:
    request = csi_pb2.CreateVolumeRequest(name="a", volume_capabilities=[capability()])
    for name, value in bounds.items():
        setattr(request.capacity_range, name, value)
    return request


def _without(field: str) -> csi_pb2.CreateVolumeRequest:
    request = _create()
    only: Message = request.volume_capabilities[0]
    only.ClearField(field)
    return request


@pytest.mark.parametrize(
    ("request_", "code", "word"),
    [
        (_create(required_bytes=-1), grpc.StatusCode.INVALID_ARGUMENT, "capacity_range"),
        (_create(required_bytes=2, limit_bytes=1), grpc.StatusCode.OUT_OF_RANGE, "capacity_range"),
        (_without("access_mode"), grpc.StatusCode.INVALID_ARGUMENT, r"volume_capabilities\[0\].access_mode"),
        (_without("mount"), grpc.StatusCode.INVALID_ARGUMENT, r"volume_capabilities\[0\].access_type"),
        (csi_pb2.DeleteVolumeRequest(volume_id="x" * 129), grpc.StatusCode.INVALID_ARGUMENT, "volume_id"),
        (csi_pb2.ListVolumesRequest(max_entries=-1), grpc.StatusCode.INVALID_ARGUMENT, "max_entries"),
        (
            csi_pb2.NodeUnpublishVolumeRequest(volume_id="a", target_path="relative"),
            grpc.StatusCode.INVALID_ARGUMENT,
            "target_path",
        ),
    ],
    ids=["negative", "bounds crossed", "no mode", "no type", "long id", "negative page", "relative path"],
)
def test_nonsense_is_refused(request_: Message, code: grpc.StatusCode, word: str) -> None:
    with pytest.raises(CsiError, match=word) as raised:
        check(request_)
    assert raised.value.code is code


def test_calls_that_change_a_volume_share_its_lock_and_readers_take_none() -> None:
    changing = [csi_pb2.DeleteVolumeRequest, csi_pb2.NodePublishVolumeRequest, csi_pb2.ControllerExpandVolumeRequest]
    assert {lock_keys(kind(volume_id="a")) for kind in changing} == {("volume a",)}
    assert lock_keys(csi_pb2.CreateSnapshotRequest(name="s", source_volume_id="a")) == ("volume a", "name s")
    for kind in REQUIRED:
        assert bool(lock_keys(complete(kind))) == (kind in LOCKED)
