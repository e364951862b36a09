"""Node.status.volumesInUse: which attached volumes this node uses, so that nobody detaches them under it.

A volume is told of before anything is mounted, and until nothing of it is mounted any more. Places hold volumes: the
directory of a pod's volume, and the one where it is staged.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path

from tiphys.api.core.v1.node_pb2 import Node
from tiphys_apimachinery.errors import APIError
from tiphys_component.backoff import Backoff
from tiphys_component.clock import Clock
from tiphys_component.log import get_logger
from tiphys_component.proc import to_thread
from tiphys_kubelet.api import ApiClient
from tiphys_kubelet.volumes.interface import VolumeWaiting

REPORT_TIMEOUT_S = 10.0


class VolumesInUse:
    """Keeps the list true; `run` for ever. Volumes are known by their unique names.

    `left` gives the places that an earlier life of the kubelet left, and blocks.
    """

    def __init__(
        self, node_name: str, client: ApiClient, clock: Clock, *, left: Callable[[], Mapping[Path, str]]
    ) -> None:
        self._node_name = node_name
        self._left = left
        self._client = client
        self._clock = clock
        self._held: dict[Path, str] = {}
        # None until the node's status is known, as an earlier life may have told of volumes.
        self._reported: frozenset[str] | None = None
        self._wake = asyncio.Event()
        self._told = asyncio.Event()
        self._log = get_logger("kubelet.volumes", node=node_name)

    async def hold(self, place: Path, name: str) -> None:
        """Returns when the node's status names the volume. Raises VolumeWaiting where that can't be written."""
        self.keep(place, name)
        try:
            async with asyncio.timeout(REPORT_TIMEOUT_S):
                while name not in (self._reported or ()):
                    self._told.clear()
                    await self._told.wait()
        except TimeoutError as err:
            text = "volume has not been added to the list of VolumesInUse in the node's volume status"
            raise VolumeWaiting(text) from err

    def keep(self, place: Path, name: str) -> None:
        """The same without waiting, for a volume that is told of already."""
        self._held[place] = name
        self._wake.set()

    def drop(self, place: Path) -> None:
        """The place holds its volume no more; told in time."""
        if self._held.pop(place, None) is not None:
            self._wake.set()

    def node_seen(self, node: Node) -> None:
        """The node's object was read: what its status says is what counts, also where somebody else wrote it."""
        seen = frozenset(node.status.volumesInUse)
        if seen != self._reported:
            self._reported = seen
            self._wake.set()

    async def run(self) -> None:
        """Writes the list when it changes."""
        self._held = dict(await to_thread(self._left)) | self._held
        self._wake.set()
        backoff = Backoff(0.1, 10.0)
        while True:
            await self._wake.wait()
            self._wake.clear()
            wanted = frozenset(self._held.values())
            # Before the node's object is there it has no status to write; its first sight wakes us.
            if wanted == self._reported or self._reported is None:
                self._told.set()
                continue
            try:
                status = {"status": {"volumesInUse": sorted(wanted)}}
                await self._client.patch(Node, self._node_name, "", status, type="merge", subresource="status")
            except APIError as err:
                self._log.debug("volumes in use can't be reported, will retry", err=err.message)
                await self._clock.sleep(backoff.next())
                self._wake.set()
                continue
            backoff.reset()
            self._reported = wanted
            self._told.set()
