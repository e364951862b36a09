"""How full claimed volumes are, as their drivers tell: for metrics and for the summary of the node."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tiphys.thirdparty.csi.v1 import csi_pb2
from tiphys_component.clock import Clock
from tiphys_component.log import get_logger
from tiphys_component.metrics import Registry
from tiphys_kubelet.csi.drivers import CsiDrivers
from tiphys_kubelet.csi.node_client import Capability
from tiphys_kubelet.objects import claim_name_of
from tiphys_kubelet.volumes.csi_disk import publish_mount
from tiphys_kubelet.volumes.csi_requests import CsiVolume
from tiphys_kubelet.volumes.interface import VolumeError

# Source: how often a kubelet works out what volumes hold.
COLLECT_S = 60.0
_LABELS = ("namespace", "persistentvolumeclaim")
_METRICS = {
    "capacity_bytes": "Capacity of the volume in bytes.",
    "available_bytes": "Bytes of the volume that are free.",
    "used_bytes": "Bytes of the volume that are used.",
    "inodes": "Inodes of the volume.",
    "inodes_free": "Inodes of the volume that are free.",
    "inodes_used": "Inodes of the volume that are used.",
}


@dataclass(frozen=True, slots=True)
class VolumeUse:
    """One claim in one pod: the pod's name for it, and the figures by the names of the metrics."""

    pod_uid: str
    volume: str
    namespace: str
    claim: str
    figures: Mapping[str, int]


class VolumeStats:
    """Asks the drivers every minute; `run` for ever. `volumes` gives those that are mounted now."""

    def __init__(
        self, volumes: Callable[[], Sequence[CsiVolume]], drivers: CsiDrivers, registry: Registry, clock: Clock
    ) -> None:
        self._volumes = volumes
        self._drivers = drivers
        self._clock = clock
        self._uses: tuple[VolumeUse, ...] = ()
        self._gauges = {
            name: registry.gauge(f"kubelet_volume_stats_{name}", text, _LABELS) for name, text in _METRICS.items()
        }
        self._log = get_logger("kubelet.csi")

    @property
    def uses(self) -> Sequence[VolumeUse]:
        """The figures found last."""
        return self._uses

    async def run(self) -> None:
        """Keeps the figures young."""
        while True:
            await self.collect()
            await self._clock.sleep(COLLECT_S)

    async def collect(self) -> None:
        """Asks for all volumes, side by side; one that can't be told of is left out."""
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._ask(volume)) for volume in self._volumes()]
        self._uses = tuple(use for task in tasks if (use := task.result()) is not None)
        for name, gauge in self._gauges.items():
            gauge.clear()
            for use in self._uses:
                if name in use.figures:
                    gauge.labels(use.namespace, use.claim).set(use.figures[name])

    async def _ask(self, volume: CsiVolume) -> VolumeUse | None:
        request = volume.request
        if request.claim is None:
            return None
        path = str(publish_mount(request.path))
        try:
            driver = self._drivers.get(volume.driver)
            if not await driver.can(Capability.GET_VOLUME_STATS):
                return None
            asked = csi_pb2.NodeGetVolumeStatsRequest(volume_id=volume.handle, volume_path=path)
            answer = await driver.client.stats(asked)
        except VolumeError as err:
            self._log.debug("volume statistics can't be had", volume=volume.handle, err=str(err))
            return None
        name = request.claim.metadata.name
        own = next((v.name for v in request.pod.spec.volumes if claim_name_of(request.pod, v) == name), name)
        return VolumeUse(request.pod.metadata.uid, own, request.claim.metadata.namespace, name, figures_of(answer))


def figures_of(answer: csi_pb2.NodeGetVolumeStatsResponse) -> dict[str, int]:
    """The figures by the names of the metrics. Pure."""
    figures: dict[str, int] = {}
    for usage in answer.usage:
        if usage.unit == csi_pb2.VolumeUsage.BYTES:
            figures |= {"capacity_bytes": usage.total, "available_bytes": usage.available, "used_bytes": usage.used}
        elif usage.unit == csi_pb2.VolumeUsage.INODES:
            figures |= {"inodes": usage.total, "inodes_free": usage.available, "inodes_used": usage.used}
    return figures
