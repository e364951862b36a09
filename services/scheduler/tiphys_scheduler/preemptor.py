"""Ends the victims of preemption: says so in their condition, has them end with the grace that they ask for."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys_apimachinery.errors import APIError, Conflict, NotFound
from tiphys_apimachinery.meta import format_time
from tiphys_client.client import Client
from tiphys_component.app import start_loop
from tiphys_component.clock import Clock
from tiphys_component.log import get_logger
from tiphys_scheduler.pod_info import PodInfo

_log = get_logger("scheduler.preemption")
_WORKERS = 16


@dataclass(frozen=True, slots=True)
class Preemption:
    """One pod's room on one node, and who has to leave it."""

    pod: PodInfo
    node: str
    victims: tuple[PodInfo, ...]


class Preemptor:
    """Writes in the background, so that no placement waits for it. failed hears of preemptions that came to nothing."""

    def __init__(
        self,
        client: Client,
        clock: Clock,
        *,
        told: Callable[[PodInfo, str], None],
        failed: Callable[[Preemption], None],
        counts: Callable[[int], None] = lambda _: None,
    ) -> None:
        """counts hears how many victims each preemption has."""
        self._client = client
        self._clock = clock
        # Tells a victim's users of its end.
        self._told = told
        self._failed = failed
        self._counts = counts
        self._todo: deque[Preemption] = deque()
        self._has_work = asyncio.Event()

    def preempt(self, pod: PodInfo, node: str, victims: Sequence[PodInfo]) -> None:
        """Notes that the victims must go from the node in favour of the pod."""
        self._counts(len(victims))
        self._todo.append(Preemption(pod, node, tuple(victims)))
        self._has_work.set()

    async def run(self) -> None:
        """Writes until cancelled."""
        async with asyncio.TaskGroup() as group:
            for number in range(_WORKERS):
                start_loop(group, self._work(), f"preemption {number}")

    async def _work(self) -> None:
        while True:
            await self._has_work.wait()
            if not self._todo:
                self._has_work.clear()
                continue
            preemption = self._todo.popleft()
            try:
                for victim in preemption.victims:
                    await self._end(preemption, victim)
            except APIError as err:
                _log.warning("preemption failed", pod=preemption.pod.key, node=preemption.node, err=str(err))
                self._failed(preemption)

    async def _end(self, preemption: Preemption, victim: PodInfo) -> None:
        if victim.is_deleting:
            return
        condition = {
            "type": "DisruptionTarget",
            "status": "True",
            "reason": "PreemptionByScheduler",
            "message": f"{preemption.pod.scheduler_name}: preempting to accommodate a higher priority pod",
            "lastTransitionTime": format_time(self._clock.now()),
        }
        patch = {"metadata": {"uid": victim.uid}, "status": {"conditions": [condition]}}
        try:
            await self._client.patch(Pod, victim.name, victim.namespace, patch, type="strategic", subresource="status")
            await self._client.delete(Pod, victim.name, victim.namespace, preconditions_uid=victim.uid)
        except (NotFound, Conflict):
            # Gone, or another pod of its name: nothing to end.
            return
        self._told(victim, f"Preempted by pod {preemption.pod.uid} on node {preemption.node}")
