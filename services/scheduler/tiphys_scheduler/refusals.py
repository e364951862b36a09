"""Writes the condition PodScheduled=False, with the reason, on pods that fit nowhere; the newest message wins."""

from __future__ import annotations

import asyncio

from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys_apimachinery.errors import APIError
from tiphys_apimachinery.meta import format_time
from tiphys_client.client import Client
from tiphys_component.clock import Clock
from tiphys_component.log import get_logger
from tiphys_scheduler.pod_info import PodInfo

_log = get_logger("scheduler.refusals")
_WORKERS = 4


class Refusals:
    """Patches status in the background, so that no placement waits for it."""

    def __init__(self, client: Client, clock: Clock) -> None:
        self._client = client
        self._clock = clock
        self._todo: dict[str, tuple[PodInfo, str, str]] = {}
        self._has_work = asyncio.Event()

    def add(self, pod: PodInfo, message: str, nominated: str = "") -> None:
        """Notes a refusal; nominated is the node on which room is being made for the pod."""
        self._todo[pod.key] = (pod, message, nominated)
        self._has_work.set()

    async def run(self) -> None:
        """Writes until cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(_WORKERS):
                group.create_task(self._work())

    async def _work(self) -> None:
        while True:
            await self._has_work.wait()
            if not self._todo:
                self._has_work.clear()
                continue
            key = next(iter(self._todo))
            pod, message, nominated = self._todo.pop(key)
            await self._write(pod, message, nominated)

    async def _write(self, pod: PodInfo, message: str, nominated: str) -> None:
        condition = {
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": message,
            "lastTransitionTime": format_time(self._clock.now()),
        }
        status: dict[str, object] = {"conditions": [condition]}
        if nominated != pod.nominated_node:
            status["nominatedNodeName"] = nominated or None
        patch = {"metadata": {"uid": pod.uid}, "status": status}
        try:
            await self._client.patch(Pod, pod.name, pod.namespace, patch, type="strategic", subresource="status")
        except APIError as err:
            # The pod is tried again and refused again, which writes again.
            _log.debug("refusal not written", pod=pod.key, err=str(err))
