"""What the driver can and can't do, as functions of values."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tiphys.thirdparty.csi.v1 import csi_pb2
from tiphys_csi.hostpath.state import Kind, Snapshot, Volume
from tiphys_sdk.csi.status import aborted, invalid_argument, out_of_range, resource_exhausted

DRIVER_NAME = "hostpath.csi.tiphys.dev"
TOPOLOGY_KEY = "topology.hostpath.csi.tiphys.dev/node"

_Mode = csi_pb2.VolumeCapability.AccessMode
# A folder of one node: by any number of pods, but never by two nodes.
_MODES = frozenset(
    (
        _Mode.SINGLE_NODE_WRITER,
        _Mode.SINGLE_NODE_READER_ONLY,
        _Mode.SINGLE_NODE_SINGLE_WRITER,
        _Mode.SINGLE_NODE_MULTI_WRITER,
    )
)
DEFAULT_SIZE_BYTES = 1 << 30
# Images of block volumes are made of whole sectors.
_SECTOR_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes that the driver keeps to: of one volume, and of all together (0 for what the disk has)."""

    max_volume_bytes: int
    capacity_bytes: int


def problem_of(capabilities: Iterable[csi_pb2.VolumeCapability]) -> str:
    """Why a volume can't be used so; empty if it can."""
    kinds = set()
    for capability in capabilities:
        if capability.access_mode.mode not in _MODES:
            mode = _Mode.Mode.Name(capability.access_mode.mode)
            return f"access mode {mode}: a hostpath volume is reached from one node only"
        kinds.add(capability.WhichOneof("access_type"))
    return "block and mount at once" if len(kinds) > 1 else ""


def kind_of(capabilities: Iterable[csi_pb2.VolumeCapability]) -> Kind:
    """Whether a volume for these is a folder or a block device; raises CsiError for what can't be."""
    wanted = list(capabilities)
    problem = problem_of(wanted)
    if problem:
        raise invalid_argument("volume_capabilities", problem)
    return "block" if any(one.WhichOneof("access_type") == "block" for one in wanted) else "mount"


def size_for(bounds: csi_pb2.CapacityRange, limits: Limits, least_bytes: int = 0) -> int:
    """The size of a volume within the bounds, at least least_bytes; raises CsiError with OUT_OF_RANGE."""
    wanted = bounds.required_bytes or max(
        least_bytes, min(DEFAULT_SIZE_BYTES, bounds.limit_bytes or DEFAULT_SIZE_BYTES)
    )
    size = -(-wanted // _SECTOR_BYTES) * _SECTOR_BYTES
    if bounds.limit_bytes and size > bounds.limit_bytes:
        size = wanted
    if size < least_bytes:
        raise out_of_range(f"capacity_range: {size} bytes are less than the {least_bytes} of the source")
    if bounds.limit_bytes and size > bounds.limit_bytes:
        raise out_of_range(f"capacity_range: no size between {wanted} and {bounds.limit_bytes} bytes can be made")
    if size > limits.max_volume_bytes:
        raise out_of_range(f"capacity_range: {size} bytes are over the {limits.max_volume_bytes} of one volume")
    return size


def available_bytes(limits: Limits, volumes: Iterable[Volume], free_bytes: int) -> int:
    """How much may still be given out."""
    if not limits.capacity_bytes:
        return free_bytes
    return max(0, limits.capacity_bytes - sum(volume.capacity_bytes for volume in volumes))


def check_room(wanted_bytes: int, available: int, limits: Limits) -> None:
    """Raises CsiError with RESOURCE_EXHAUSTED where a limit on all volumes together would be passed.

    Without such a limit sizes are no promise, as folders share one disk, and any size is given.
    """
    if limits.capacity_bytes and wanted_bytes > available:
        raise resource_exhausted(f"{wanted_bytes} bytes are asked for and {available} are left on this node")


def difference(volume: Volume, request: csi_pb2.CreateVolumeRequest) -> str:
    """Why an existing volume is not what is asked for; empty if it is."""
    bounds = request.capacity_range
    if volume.capacity_bytes < bounds.required_bytes or (
        bounds.limit_bytes and volume.capacity_bytes > bounds.limit_bytes
    ):
        return f"with {volume.capacity_bytes} bytes"
    if volume.kind != kind_of(request.volume_capabilities):
        return f"as {volume.kind} volume"
    if volume.source != source_of(request):
        return f"made from {volume.source or 'nothing'}"
    return ""


def source_of(request: csi_pb2.CreateVolumeRequest) -> str:
    """What shall fill the volume, as Volume.source has it."""
    source = request.volume_content_source
    kind = source.WhichOneof("type")
    if kind is None:
        return ""
    return f"snapshot:{source.snapshot.snapshot_id}" if kind == "snapshot" else f"volume:{source.volume.volume_id}"


def check_place(request: csi_pb2.CreateVolumeRequest, node_id: str) -> None:
    """Raises CsiError with RESOURCE_EXHAUSTED where the volume must be reachable from other nodes than this one."""
    requisite = request.accessibility_requirements.requisite
    if requisite and not any(place.segments.get(TOPOLOGY_KEY) == node_id for place in requisite):
        raise resource_exhausted(f"the volume is wanted elsewhere, this is the driver of node {node_id}")


def volume_message(volume: Volume, node_id: str) -> csi_pb2.Volume:
    """A volume as callers see it."""
    message = csi_pb2.Volume(volume_id=volume.id, capacity_bytes=volume.capacity_bytes)
    kind, _, identity = volume.source.partition(":")
    if kind == "snapshot":
        message.content_source.snapshot.snapshot_id = identity
    elif kind == "volume":
        message.content_source.volume.volume_id = identity
    message.accessible_topology.add().segments[TOPOLOGY_KEY] = node_id
    return message


def snapshot_message(snapshot: Snapshot) -> csi_pb2.Snapshot:
    """A snapshot as callers see it."""
    message = csi_pb2.Snapshot(
        snapshot_id=snapshot.id,
        source_volume_id=snapshot.source_volume_id,
        size_bytes=snapshot.size_bytes,
        ready_to_use=True,
    )
    message.creation_time.FromNanoseconds(snapshot.created_ns)
    return message


def page(ids: list[str], token: str, max_entries: int) -> tuple[list[str], str]:
    """The ids of one page and the token of the next; a token is the last id of the page before.

    So a page is right whatever was deleted meanwhile. Raises CsiError with ABORTED for a token that no page gave.
    """
    if token and (len(token) != 32 or set(token) - set("0123456789abcdef")):
        raise aborted(f"starting_token {token!r} is not of this driver")
    rest = [one for one in sorted(ids) if one > token]
    chosen = rest[:max_entries] if max_entries else rest
    return chosen, chosen[-1] if len(chosen) < len(rest) else ""
