"""Growing a file system on the node, after its volume has grown in the storage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tiphys.api.core.v1.persistent_volume_claim_pb2 import PersistentVolumeClaim
from tiphys.thirdparty.csi.v1 import csi_pb2
from tiphys_apimachinery.codec.json_codec import to_json
from tiphys_apimachinery.errors import APIError, Conflict, NotFound
from tiphys_apimachinery.quantity import Quantity
from tiphys_kubelet.api import ApiClient, EventSink
from tiphys_kubelet.csi.drivers import Driver
from tiphys_kubelet.csi.node_client import Capability
from tiphys_kubelet.volumes.csi_disk import publish_mount, staging_mount
from tiphys_kubelet.volumes.csi_requests import CsiVolume, DriverAbilities, capability, secrets
from tiphys_kubelet.volumes.interface import VolumeError, VolumeRequest

_DONE_CONDITIONS = ("FileSystemResizePending", "Resizing")


def wanted_bytes(request: VolumeRequest) -> int:
    """The size to grow to; 0 where the claim already tells of all that the volume has. Pure."""
    if request.persistent is None or request.claim is None or request.read_only:
        return 0
    has = request.claim.status.capacity["storage"].string if "storage" in request.claim.status.capacity else ""
    size = request.persistent.spec.capacity["storage"].string if "storage" in request.persistent.spec.capacity else ""
    if not has or not size or Quantity.parse(size) <= Quantity.parse(has):
        return 0
    return Quantity.parse(size).value()


def claim_change(claim: PersistentVolumeClaim, capacity: str) -> dict[str, Any]:
    """What a merge must change in a claim whose volume has this size now. Pure."""
    conditions = to_json(claim.status, with_type_meta=False).get("conditions") or []
    status: dict[str, Any] = {
        "capacity": {"storage": capacity},
        "conditions": [c for c in conditions if c["type"] not in _DONE_CONDITIONS],
    }
    if "storage" in claim.status.allocatedResourceStatuses:
        status["allocatedResourceStatuses"] = {"storage": None}
    return {"metadata": {"resourceVersion": claim.metadata.resourceVersion}, "status": status}


class Expander:
    """Has drivers grow volumes and tells the claims so."""

    def __init__(self, client: ApiClient, events: EventSink) -> None:
        self._client = client
        self._events = events

    async def ensure(self, volume: CsiVolume, driver: Driver, abilities: DriverAbilities, staging: Path | None) -> bool:
        """Grows the volume if it must be; false if that failed, which is told by events and has to be tried again."""
        request = volume.request
        size_bytes = wanted_bytes(request)
        if not size_bytes or request.claim is None or request.persistent is None:
            return True
        name = request.volume.name
        try:
            # A driver that grows nothing on nodes has nothing to do here: the volume is as large as it can be.
            if await driver.can(Capability.EXPAND_VOLUME):
                await driver.client.expand(self._request(volume, abilities, staging, size_bytes))
                text = f'MountVolume.NodeExpandVolume succeeded for volume "{name}" {request.pod.spec.nodeName}'
                self._tell(request, "Normal", "FileSystemResizeSuccessful", text)
            change = claim_change(request.claim, request.persistent.spec.capacity["storage"].string)
            meta = request.claim.metadata
            await self._client.patch(
                PersistentVolumeClaim, meta.name, meta.namespace, change, type="merge", subresource="status"
            )
        except (Conflict, NotFound):
            # It has changed, and its change brings us here again.
            return True
        except (VolumeError, APIError) as err:
            self._tell(request, "Warning", "VolumeResizeFailed", f'NodeExpandVolume failed for volume "{name}" : {err}')
            return False
        return True

    def _request(
        self, volume: CsiVolume, abilities: DriverAbilities, staging: Path | None, size_bytes: int
    ) -> csi_pb2.NodeExpandVolumeRequest:
        return csi_pb2.NodeExpandVolumeRequest(
            volume_id=volume.handle,
            volume_path=str(publish_mount(volume.request.path)),
            capacity_range=csi_pb2.CapacityRange(required_bytes=size_bytes),
            staging_target_path=str(staging_mount(staging)) if staging is not None else "",
            volume_capability=capability(volume, abilities),
            secrets=secrets(volume, "nodeExpandSecretRef"),
        )

    def _tell(self, request: VolumeRequest, kind: str, reason: str, text: str) -> None:
        self._events.event(request.pod, kind, reason, text)
        if request.claim is not None:
            self._events.event(request.claim, kind, reason, text)
