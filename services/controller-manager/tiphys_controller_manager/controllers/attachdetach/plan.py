"""Which volumes a node should have attached, and when one may be taken off it; pure.

Source: kubernetes pkg/controller/volume/attachdetach/reconciler and pkg/volume/csi/csi_attacher.go.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Final

from tiphys.api.storage.v1 import storage_pb2
from tiphys_apimachinery.meta import is_being_deleted
from tiphys_apimachinery.persistent_volumes import VolumeView

# How long a volume that its node does not let go of stays attached, once the node is lost.
# Source: kubernetes pkg/controller/volume/attachdetach, reconcilerMaxWaitForUnmountDuration.
MAX_WAIT_FOR_UNMOUNT_S: Final = 360.0
_SHARED_MODES: Final = frozenset({"ReadOnlyMany", "ReadWriteMany"})


@dataclass(frozen=True, slots=True)
class AttachmentView:
    """One VolumeAttachment; volume is the name of a PersistentVolume."""

    name: str
    uid: str
    driver: str
    volume: str
    node: str
    is_attached: bool
    is_deleting: bool
    error: str


@dataclass(frozen=True, slots=True)
class NodeState:
    """What is known of a node: volumes its kubelet uses, and whether it is well. is_off says that it will not write."""

    name: str
    in_use: Set[str]
    is_well: bool
    is_off: bool


@dataclass(frozen=True, slots=True)
class Steps:
    """What to do for one node. blocked are volumes that another node has for itself, with that node's name."""

    attach: tuple[VolumeView, ...]
    detach: tuple[AttachmentView, ...]
    blocked: Mapping[str, str]
    # Unique names of volumes that the node may mount, for its status.
    attached: tuple[str, ...]
    # Seconds until a volume may be taken off by force; None where there is none to wait for.
    again_in_s: float | None


def attachment_view(item: storage_pb2.VolumeAttachment) -> AttachmentView:
    """The view of an attachment."""
    return AttachmentView(
        name=item.metadata.name,
        uid=item.metadata.uid,
        driver=item.spec.attacher,
        volume=item.spec.source.persistentVolumeName,
        node=item.spec.nodeName,
        is_attached=item.status.attached,
        is_deleting=is_being_deleted(item),
        error=item.status.attachError.message,
    )


def attachment_name(handle: str, driver: str, node: str) -> str:
    """The name of the attachment of a volume to a node: whoever makes it, it is one object."""
    return f"csi-{hashlib.sha256(f'{handle}{driver}{node}'.encode()).hexdigest()}"


def unique_name(volume: VolumeView) -> str:
    """The volume's name in a node's status."""
    return f"kubernetes.io/csi/{volume.driver}^{volume.handle}"


def is_exclusive(volume: VolumeView) -> bool:
    """Whether only one node at a time may have the volume."""
    return not _SHARED_MODES & set(volume.access_modes)


def plan(
    node: NodeState,
    wanted: Mapping[str, VolumeView],
    attachments: Sequence[AttachmentView],
    *,
    elsewhere: Mapping[str, str],
    unwanted_for_s: Mapping[str, float],
    volumes: Mapping[str, VolumeView],
) -> Steps:
    """The next steps for a node.

    wanted are the volumes that its pods need, attachments those it has, both by volume; elsewhere says which other node
    has a volume; unwanted_for_s how long each attachment has not been wanted; volumes are those known of attachments.
    """
    has = {item.volume: item for item in attachments}
    blocked = {
        name: elsewhere[name]
        for name, item in wanted.items()
        if name in elsewhere and is_exclusive(item) and name not in has
    }
    attach = tuple(item for name, item in wanted.items() if name not in has and name not in blocked)
    detach: list[AttachmentView] = []
    attached: list[str] = []
    waits: list[float] = []
    for item in attachments:
        volume = volumes.get(item.volume)
        if item.volume in wanted:
            if item.is_attached and not item.is_deleting and volume is not None:
                attached.append(unique_name(volume))
            continue
        if item.is_deleting:
            continue
        is_mounted = volume is not None and unique_name(volume) in node.in_use
        left_s = MAX_WAIT_FOR_UNMOUNT_S - unwanted_for_s.get(item.name, 0.0)
        if not is_mounted or node.is_off or (not node.is_well and left_s <= 0):
            detach.append(item)
            continue
        if item.is_attached and volume is not None:
            attached.append(unique_name(volume))
        if not node.is_well:
            waits.append(left_s)
    return Steps(attach, tuple(detach), blocked, tuple(sorted(attached)), min(waits, default=None))
