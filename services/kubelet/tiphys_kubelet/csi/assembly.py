"""The parts that make CSI volumes work, made and joined."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tiphys.api.storage.v1.storage_pb2 import VolumeAttachment
from tiphys_apimachinery.errors import APIError, Forbidden, NotFound
from tiphys_component.app import Service
from tiphys_component.clock import Clock
from tiphys_kubelet.api import ApiClient, EventSink
from tiphys_kubelet.csi.csi_node import CsiNodeWriter
from tiphys_kubelet.csi.drivers import CsiDrivers
from tiphys_kubelet.volumes.csi import CsiPlugin, CsiSurroundings
from tiphys_kubelet.volumes.csi_disk import CsiPaths
from tiphys_kubelet.volumes.expansion import Expander
from tiphys_kubelet.volumes.in_use import VolumesInUse
from tiphys_kubelet.volumes.interface import VolumeError
from tiphys_kubelet.volumes.projected import RequestToken


class CsiSupport:
    """The drivers, the plugin that mounts their volumes, and the loops behind both.

    `on_driver` is told of each driver that comes.
    """

    def __init__(
        self,
        root: Path,
        node_name: str,
        *,
        client: ApiClient,
        clock: Clock,
        events: EventSink,
        request_token: RequestToken,
        on_driver: Callable[[], None],
        timeout_s: float | None = None,
    ) -> None:
        self._client = client
        self._on_driver = on_driver
        paths = CsiPaths(root)
        self.writer = CsiNodeWriter(node_name, client, clock)
        self.drivers = CsiDrivers(self.writer, self._driver_came, timeout_s=timeout_s)
        self.in_use = VolumesInUse(node_name, client, clock, left=paths.attached_places)
        self.plugin = CsiPlugin(
            CsiSurroundings(
                drivers=self.drivers,
                paths=paths,
                in_use=self.in_use,
                expander=Expander(client, events),
                request_token=request_token,
                fetch_attachment=self._fetch_attachment,
                clock=clock,
            )
        )

    def loops(self) -> tuple[Service, ...]:
        """What runs for ever."""
        return (self.writer, self.in_use, self.plugin)

    def _driver_came(self) -> None:
        self.plugin.look_again()
        self._on_driver()

    async def _fetch_attachment(self, name: str) -> VolumeAttachment | None:
        try:
            return await self._client.get(VolumeAttachment, name)
        except (NotFound, Forbidden):
            # A node may not know of an attachment that does not exist: nothing tells that it would be its own.
            return None
        except APIError as err:
            raise VolumeError(f"volume attachment {name} can't be read: {err.message}") from err
