"""What becomes of a VolumeAttachment; pure."""

from __future__ import annotations

from enum import Enum, auto
from typing import Final

from tiphys.api.storage.v1 import storage_pb2
from tiphys_apimachinery.meta import has_finalizer, is_being_deleted
from tiphys_csi.companion.driver import ControllerRpc, DriverFacts

# Where the volume's id is kept while it is attached: its PersistentVolume may be gone when it is to be detached.
HANDLE_ANNOTATION: Final = "csi-companion.tiphys.dev/volume-handle"
NODE_ANNOTATION: Final = "csi.alpha.kubernetes.io/node-id"


class AttachStep(Enum):
    """The next step of an attachment."""

    NOTHING = auto()
    ATTACH = auto()
    # The driver attaches nothing, and the kubelet waits for a word.
    SAY_ATTACHED = auto()
    DETACH = auto()
    # It is going, and nothing was begun, or the driver does not detach.
    LET_GO = auto()


def finalizer_of(driver_name: str) -> str:
    """The finalizer that holds an attachment until the driver has detached.

    Source: external-attacher pkg/controller/util.go, GetFinalizerName.
    """
    return "external-attacher/" + "".join(one if one.isalnum() else "-" for one in driver_name)


def plan(attachment: storage_pb2.VolumeAttachment, facts: DriverFacts, *, is_ours: bool) -> AttachStep:
    """The next step of an attachment whose attacher is the driver."""
    if not is_ours:
        return AttachStep.NOTHING
    attaches = facts.can(ControllerRpc.PUBLISH_UNPUBLISH_VOLUME)
    if is_being_deleted(attachment):
        if not has_finalizer(attachment, finalizer_of(facts.name)):
            return AttachStep.NOTHING
        return AttachStep.DETACH if attaches else AttachStep.LET_GO
    if attachment.status.attached:
        return AttachStep.NOTHING
    return AttachStep.ATTACH if attaches else AttachStep.SAY_ATTACHED
