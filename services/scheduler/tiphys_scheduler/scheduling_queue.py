"""Pods that wait for a node: ready ones by priority, others by the time or the event that frees them.

Each pod is in exactly one of the three. A pod that an event frees goes through backoff, so that a
cluster that changes all the time does not try hopeless pods all the time.
Source of the times: kube-scheduler, podInitialBackoffSeconds 1, podMaxBackoffSeconds 10, and the
flush of unschedulable pods after 5 minutes.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tiphys_component.backoff import backoff_delay
from tiphys_component.clock import Clock
from tiphys_scheduler.framework.interface import Event
from tiphys_scheduler.pod_info import PodInfo

_BASE_S, _CAP_S = 1.0, 10.0
_FLUSH_S = 300.0
_TICK_S = 1.0


@dataclass(slots=True)
class Waiting:
    """One pod that waits; `place` is which queue it is in: active, backoff or unschedulable."""

    pod: PodInfo
    order: int
    attempts: int = 0
    place: str = "active"
    ready_at_s: float = 0.0
    since_s: float | None = None
    refused_by: frozenset[str] = frozenset()


class SchedulingQueue:
    """Owned by the scheduler's loop. Heaps may hold entries that have moved on; these are passed over."""

    def __init__(self, clock: Clock, events: Mapping[str, frozenset[Event]]) -> None:
        self._clock = clock
        self._events = events
        self._waiting: dict[str, Waiting] = {}
        self._active: list[tuple[int, int, str]] = []
        self._backoff: list[tuple[float, int, str]] = []
        self._order = 0
        # Pods by the claims that they need.
        self._by_claim: dict[str, set[str]] = {}
        self._has_work = asyncio.Event()

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, pod: PodInfo) -> None:
        """A pod to place, or a newer version of one that waits."""
        found = self._waiting.get(pod.key)
        if found is None or found.pod.uid != pod.uid:
            self._order += 1
            self.remove(pod.key)
            found = self._waiting[pod.key] = Waiting(pod, self._order)
            for claim in pod.needs.claims:
                self._by_claim.setdefault(claim, set()).add(pod.key)
            self._activate(found)
            return
        changed = found.pod.needs != pod.needs or found.pod.priority != pod.priority
        found.pod = pod
        if changed and found.place != "backoff":
            self._activate(found)

    def remove(self, key: str) -> None:
        """A pod that no longer waits."""
        gone = self._waiting.pop(key, None)
        for claim in gone.pod.needs.claims if gone is not None else ():
            keys = self._by_claim.get(claim, set())
            keys.discard(key)
            if not keys:
                self._by_claim.pop(claim, None)

    def pop(self) -> Waiting | None:
        """The next pod: highest priority, then oldest. It stays known until removed or refused."""
        while self._active:
            _, order, key = heapq.heappop(self._active)
            found = self._waiting.get(key)
            if found is not None and found.order == order and found.place == "active":
                found.place = "popped"
                found.attempts += 1
                return found
        self._has_work.clear()
        return None

    def refuse(self, waiting: Waiting, plugins: frozenset[str]) -> None:
        """No node fits; it waits for an event that these plugins care about. Without any plugin it goes to backoff."""
        if self._waiting.get(waiting.pod.key) is not waiting:
            return
        waiting.refused_by = plugins
        waiting.since_s = self._clock.monotonic()
        if plugins:
            waiting.place = "unschedulable"
        else:
            self._back_off(waiting)

    def restore(self, waiting: Waiting) -> None:
        """A pod whose binding failed goes to backoff; unless it was removed or replaced meanwhile."""
        known = self._waiting.get(waiting.pod.key)
        if known is not None and known is not waiting:
            return
        self._waiting[waiting.pod.key] = waiting
        for claim in waiting.pod.needs.claims:
            self._by_claim.setdefault(claim, set()).add(waiting.pod.key)
        waiting.since_s = None
        self._back_off(waiting)

    def move_on(self, events: frozenset[Event]) -> None:
        """Frees the pods that these events may help."""
        for waiting in self._waiting.values():
            if waiting.place != "unschedulable":
                continue
            if any(events & self._events.get(plugin, frozenset()) for plugin in waiting.refused_by):
                self._back_off(waiting)

    def claim_changed(self, claim: str) -> None:
        """Tries the pods that need this claim at once: they were refused for want of just this, not by chance."""
        for key in self._by_claim.get(claim, ()):
            waiting = self._waiting[key]
            if waiting.place == "unschedulable":
                self._activate(waiting)

    async def wait(self) -> None:
        """Returns when a pod may be ready."""
        await self._has_work.wait()

    async def run(self) -> None:
        """Moves pods whose backoff is over, and old unschedulable ones, until cancelled."""
        while True:
            await self._clock.sleep(self._until_next())
            self.flush()

    def flush(self) -> None:
        """Does what `run` does, once."""
        now = self._clock.monotonic()
        while self._backoff and self._backoff[0][0] <= now:
            _, order, key = heapq.heappop(self._backoff)
            found = self._waiting.get(key)
            if found is not None and found.order == order and found.place == "backoff":
                self._activate(found)
        for waiting in self._waiting.values():
            if waiting.place == "unschedulable" and now - (waiting.since_s or 0.0) >= _FLUSH_S:
                self._activate(waiting)

    def snapshot(self) -> Iterator[Waiting]:
        """Everything that waits, for those who ask."""
        return iter(list(self._waiting.values()))

    def _until_next(self) -> float:
        if not self._backoff:
            return _TICK_S
        return min(max(self._backoff[0][0] - self._clock.monotonic(), 0.0), _TICK_S)

    def _activate(self, waiting: Waiting) -> None:
        waiting.place = "active"
        heapq.heappush(self._active, (-waiting.pod.priority, waiting.order, waiting.pod.key))
        self._has_work.set()

    def _back_off(self, waiting: Waiting) -> None:
        now = self._clock.monotonic()
        delay_s = backoff_delay(max(waiting.attempts - 1, 0), base_s=_BASE_S, cap_s=_CAP_S)
        # What it has waited already since its last try counts.
        ready = max((now if waiting.since_s is None else waiting.since_s) + delay_s, now)
        if ready <= now:
            self._activate(waiting)
            return
        waiting.place, waiting.ready_at_s = "backoff", ready
        heapq.heappush(self._backoff, (ready, waiting.order, waiting.pod.key))
