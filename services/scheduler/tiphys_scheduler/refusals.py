"""Writes the condition PodScheduled=False, with the reason, on pods that fit nowhere; the newest message wins."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import islice

from tiphys_apimachinery.meta import format_time
from tiphys_client.client import Client
from tiphys_component.clock import Clock
from tiphys_component.log import get_logger
from tiphys_scheduler.batches import MOST_IN_CALL, by_namespace, patch_statuses
from tiphys_scheduler.pod_info import PodInfo

_log = get_logger("scheduler.refusals")
_CALLS_IN_FLIGHT = 4


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
            for _ in range(_CALLS_IN_FLIGHT):
                group.create_task(self._work())

    async def _work(self) -> None:
        while True:
            await self._has_work.wait()
            keys = list(islice(self._todo, MOST_IN_CALL))
            batch = [self._todo.pop(key) for key in keys]
            if not self._todo:
                self._has_work.clear()
            for namespace, some in by_namespace(batch, lambda refusal: refusal[0].namespace):
                await self._write(namespace, some)

    async def _write(self, namespace: str, refusals: Sequence[tuple[PodInfo, str, str]]) -> None:
        since = format_time(self._clock.now())
        patches = []
        for pod, message, nominated in refusals:
            condition = {
                "type": "PodScheduled",
                "status": "False",
                "reason": "Unschedulable",
                "message": message,
                "lastTransitionTime": since,
            }
            status: dict[str, object] = {"conditions": [condition]}
            if nominated != pod.nominated_node:
                status["nominatedNodeName"] = nominated or None
            patches.append((pod, status))
        errors = await patch_statuses(self._client, namespace, patches)
        for (pod, _), error in zip(patches, errors, strict=True):
            if error is not None:
                # The pod is tried again and refused again, which writes again.
                _log.debug("refusal not written", pod=pod.key, err=str(error))
