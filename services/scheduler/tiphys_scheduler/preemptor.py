"""Ends the victims of preemption: says so in their condition, has them end with the grace that they ask for.

Many to a call: one call a victim would limit how fast room is made.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys_apimachinery.errors import APIError, Conflict, NotFound
from tiphys_apimachinery.meta import format_time
from tiphys_client.client import Client
from tiphys_component.app import start_loop
from tiphys_component.clock import Clock
from tiphys_component.log import get_logger
from tiphys_scheduler.batches import MOST_IN_CALL, answers, by_namespace, patch_statuses
from tiphys_scheduler.pod_info import PodInfo

_log = get_logger("scheduler.preemption")
_CALLS_IN_FLIGHT = 4


@dataclass(frozen=True, slots=True)
class Preemption:
    """One pod's room on one node, and who has to leave it."""

    pod: PodInfo
    node: str
    victims: tuple[PodInfo, ...]


@dataclass(frozen=True, slots=True)
class _Ending:
    """One victim on its way out."""

    preemption: Preemption
    victim: PodInfo


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
            for number in range(_CALLS_IN_FLIGHT):
                start_loop(group, self._work(), f"preemption {number}")

    async def _work(self) -> None:
        while True:
            await self._has_work.wait()
            endings = self._next()
            if endings:
                await self._end_all(endings)

    def _next(self) -> list[_Ending]:
        """The victims of what waits, whole preemptions, as many as go into one call."""
        found: list[_Ending] = []
        while self._todo and (not found or len(found) + len(self._todo[0].victims) <= MOST_IN_CALL):
            preemption = self._todo.popleft()
            found.extend(_Ending(preemption, victim) for victim in preemption.victims if not victim.is_deleting)
        if not self._todo:
            self._has_work.clear()
        return found

    async def _end_all(self, endings: Sequence[_Ending]) -> None:
        failed: set[str] = set()
        marked = await self._each(endings, self._mark, failed)
        # Nobody else goes for a pod that will not have its room: it looks for it anew.
        gone = await self._each([one for one in marked if one.preemption.pod.key not in failed], self._delete, failed)
        for one in gone:
            preemption = one.preemption
            self._told(one.victim, f"Preempted by pod {preemption.pod.uid} on node {preemption.node}")

    async def _each(
        self,
        endings: Sequence[_Ending],
        write: Callable[[str, Sequence[_Ending]], Awaitable[Sequence[APIError | None]]],
        failed: set[str],
    ) -> list[_Ending]:
        """Those for which the write went well. Of the others the preemption has failed, unless they are gone anyway."""
        done: list[_Ending] = []
        for namespace, some in by_namespace(endings, lambda one: one.victim.namespace):
            for one, error in zip(some, await write(namespace, some), strict=True):
                if error is None:
                    done.append(one)
                elif not isinstance(error, NotFound | Conflict):
                    # Those two: gone, or another pod of its name, so that there is nothing to end.
                    self._fail(one.preemption, error, failed)
        return done

    def _fail(self, preemption: Preemption, error: APIError, failed: set[str]) -> None:
        key = preemption.pod.key
        if key not in failed:
            failed.add(key)
            _log.warning("preemption failed", pod=key, node=preemption.node, err=str(error))
            self._failed(preemption)

    async def _mark(self, namespace: str, endings: Sequence[_Ending]) -> Sequence[APIError | None]:
        since = format_time(self._clock.now())
        patches = []
        for one in endings:
            condition = {
                "type": "DisruptionTarget",
                "status": "True",
                "reason": "PreemptionByScheduler",
                "message": f"{one.preemption.pod.scheduler_name}: preempting to accommodate a higher priority pod",
                "lastTransitionTime": since,
            }
            patches.append((one.victim, {"conditions": [condition]}))
        return await patch_statuses(self._client, namespace, patches)

    async def _delete(self, namespace: str, endings: Sequence[_Ending]) -> Sequence[APIError | None]:
        wanted = [(one.victim.name, one.victim.uid) for one in endings]
        return await answers(self._client.batch_delete(Pod, namespace, wanted), len(wanted))
