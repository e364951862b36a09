"""What the contract demands of each request, checked before a driver sees it: pure, and the same for every driver."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from google.protobuf.message import Message

from tiphys.thirdparty.csi.v1 import csi_pb2
from tiphys_sdk.csi.status import invalid_argument, out_of_range

# Source: csi.v1's specification, fields marked REQUIRED.
REQUIRED: Final[Mapping[type[Message], tuple[str, ...]]] = {
    csi_pb2.CreateVolumeRequest: ("name", "volume_capabilities"),
    csi_pb2.DeleteVolumeRequest: ("volume_id",),
    csi_pb2.ControllerPublishVolumeRequest: ("volume_id", "node_id", "volume_capability"),
    csi_pb2.ControllerUnpublishVolumeRequest: ("volume_id",),
    csi_pb2.ValidateVolumeCapabilitiesRequest: ("volume_id", "volume_capabilities"),
    csi_pb2.CreateSnapshotRequest: ("name", "source_volume_id"),
    csi_pb2.DeleteSnapshotRequest: ("snapshot_id",),
    csi_pb2.GetSnapshotRequest: ("snapshot_id",),
    csi_pb2.ControllerExpandVolumeRequest: ("volume_id", "capacity_range"),
    csi_pb2.ControllerGetVolumeRequest: ("volume_id",),
    csi_pb2.ControllerModifyVolumeRequest: ("volume_id",),
    csi_pb2.NodeStageVolumeRequest: ("volume_id", "staging_target_path", "volume_capability"),
    csi_pb2.NodeUnstageVolumeRequest: ("volume_id", "staging_target_path"),
    csi_pb2.NodePublishVolumeRequest: ("volume_id", "target_path", "volume_capability"),
    csi_pb2.NodeUnpublishVolumeRequest: ("volume_id", "target_path"),
    csi_pb2.NodeGetVolumeStatsRequest: ("volume_id", "volume_path"),
    csi_pb2.NodeExpandVolumeRequest: ("volume_id", "volume_path"),
}
# What two calls at once would quarrel about; the second gets ABORTED. Calls that only read are not here.
LOCKED: Final[Mapping[type[Message], tuple[str, ...]]] = {
    csi_pb2.CreateVolumeRequest: ("name",),
    csi_pb2.DeleteVolumeRequest: ("volume_id",),
    csi_pb2.ControllerPublishVolumeRequest: ("volume_id",),
    csi_pb2.ControllerUnpublishVolumeRequest: ("volume_id",),
    csi_pb2.CreateSnapshotRequest: ("source_volume_id", "name"),
    csi_pb2.DeleteSnapshotRequest: ("snapshot_id",),
    csi_pb2.ControllerExpandVolumeRequest: ("volume_id",),
    csi_pb2.ControllerModifyVolumeRequest: ("volume_id",),
    csi_pb2.NodeStageVolumeRequest: ("volume_id",),
    csi_pb2.NodeUnstageVolumeRequest: ("volume_id",),
    csi_pb2.NodePublishVolumeRequest: ("volume_id",),
    csi_pb2.NodeUnpublishVolumeRequest: ("volume_id",),
    csi_pb2.NodeExpandVolumeRequest: ("volume_id",),
}
_KINDS: Final = {"volume_id": "volume", "source_volume_id": "volume", "name": "name", "snapshot_id": "snapshot"}
_PATHS: Final = ("staging_target_path", "target_path", "volume_path")
# Source: csi.v1's specification, "Size Limits".
_MAX_TEXT_BYTES: Final = 128
_SHORT_TEXTS: Final = ("name", "volume_id", "node_id", "snapshot_id", "source_volume_id")
_MODES: Final = csi_pb2.VolumeCapability.AccessMode


def check(request: Message) -> None:
    """Raises CsiError with INVALID_ARGUMENT, or OUT_OF_RANGE for bounds that no size meets; names the field."""
    for field in REQUIRED.get(type(request), ()):
        if not _is_set(request, field):
            raise invalid_argument(field, "is required")
    names = request.DESCRIPTOR.fields_by_name
    for field in _SHORT_TEXTS:
        if field in names and len(str(getattr(request, field)).encode()) > _MAX_TEXT_BYTES:
            raise invalid_argument(field, f"is longer than {_MAX_TEXT_BYTES} bytes")
    for field in _PATHS:
        path = getattr(request, field, "")
        if path and not path.startswith("/"):
            raise invalid_argument(field, f"must be an absolute path, is {path!r}")
    if "max_entries" in names and getattr(request, "max_entries") < 0:  # noqa: B009  # no such field on Message itself
        raise invalid_argument("max_entries", "must not be negative")
    if "capacity_range" in names and request.HasField("capacity_range"):
        _check_range(request.capacity_range)  # type: ignore[attr-defined]
    for field, capability in _capabilities(request):
        _check_capability(field, capability)


def lock_keys(request: Message) -> tuple[str, ...]:
    """What the call needs for itself; empty for a call that only reads."""
    fields = LOCKED.get(type(request), ())
    return tuple(f"{_KINDS[field]} {getattr(request, field)}" for field in fields)


def _is_set(request: Message, field: str) -> bool:
    if request.DESCRIPTOR.fields_by_name[field].message_type is not None and field != "volume_capabilities":
        return request.HasField(field)
    return bool(getattr(request, field))


def _check_range(bounds: csi_pb2.CapacityRange) -> None:
    if bounds.required_bytes < 0 or bounds.limit_bytes < 0:
        raise invalid_argument("capacity_range", "bounds must not be negative")
    if bounds.limit_bytes and bounds.required_bytes > bounds.limit_bytes:
        raise out_of_range(
            f"capacity_range: required_bytes {bounds.required_bytes} is over limit_bytes {bounds.limit_bytes}"
        )


def _capabilities(request: Any) -> Iterable[tuple[str, csi_pb2.VolumeCapability]]:
    names = request.DESCRIPTOR.fields_by_name
    if "volume_capabilities" in names:
        for index, capability in enumerate(request.volume_capabilities):
            yield f"volume_capabilities[{index}]", capability
    if "volume_capability" in names and request.HasField("volume_capability"):
        yield "volume_capability", request.volume_capability


def _check_capability(field: str, capability: csi_pb2.VolumeCapability) -> None:
    if capability.WhichOneof("access_type") is None:
        raise invalid_argument(f"{field}.access_type", "is required: block or mount")
    if capability.access_mode.mode == _MODES.UNKNOWN:
        raise invalid_argument(f"{field}.access_mode", "is required")
