"""Pods that wait for a node: ready ones in the order of QueueSort, others by the time or the event that frees them.

Each pod is in exactly one place: active, backoff, unschedulable, or gated (held outside by a PreEnqueue plugin). A pod
that an event frees goes through backoff, so that a cluster that changes all the time does not try hopeless pods all
the time. Unschedulable pods of equal needs, refused by the same plugins, are one group: an event is judged once for
all of them, and by no group that does not listen for it; gated pods are looked at by nobody.
Source of the times: kube-scheduler, podInitialBackoffSeconds 1, podMaxBackoffSeconds 10, and the
flush of unschedulable pods after 5 minutes.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from tiphys_component.backoff import backoff_delay
from tiphys_component.clock import Clock
from tiphys_scheduler.framework.interface import Change, Event
from tiphys_scheduler.pod_info import Needs, PodInfo

_FLUSH_S = 300.0
_TICK_S = 1.0
_NO_EVENTS: frozenset[Event] = frozenset()


@dataclass(frozen=True, slots=True)
class BackoffTimes:
    """First and longest wait of a pod between two tries."""

    initial_s: float = 1.0
    longest_s: float = 10.0


@dataclass(slots=True)
class Waiting:
    """One pod that waits; `place` is which queue it is in: active, backoff, unschedulable or gated."""

    pod: PodInfo
    order: int
    attempts: int = 0
    place: str = "active"
    ready_at_s: float = 0.0
    since_s: float | None = None
    # When it first came into the queue, past its gates.
    entered_s: float = -1.0
    refused_by: frozenset[str] = frozenset()
    # What the plugin that holds it outside says.
    held: str = ""


@dataclass(frozen=True, slots=True)
class Gates:
    """How plugins decide in the queue.

    admit names the PreEnqueue plugin that holds a pod back, with its reason; may_help says whether a change is worth
    another try of a pod that these plugins refused; sort_key is QueueSort's; meant_for names the pods for which room is
    being made on a node.
    """

    admit: Callable[[PodInfo], tuple[str, str]] = lambda _: ("", "")
    may_help: Callable[[PodInfo, frozenset[str], Change], bool] = lambda *_: True
    sort_key: Callable[[PodInfo, int], tuple[float, ...]] = lambda pod, order: (-pod.priority, order)
    meant_for: Callable[[str], Sequence[str]] = lambda _: ()


_GroupKey = tuple[str, Needs, frozenset[str]]


@dataclass(slots=True)
class _Group:
    """Unschedulable pods that one answer does for."""

    key: _GroupKey
    events: frozenset[Event]
    pods: dict[str, Waiting] = field(default_factory=dict)


class SchedulingQueue:
    """Owned by the scheduler's loop. Heaps may hold entries that have moved on; these are passed over."""

    def __init__(
        self,
        clock: Clock,
        events: Mapping[str, frozenset[Event]],
        *,
        gates: Gates | None = None,
        times: BackoffTimes | None = None,
    ) -> None:
        self._clock = clock
        # Plugin name -> events that may lift what it said.
        self._events = events
        self._gates = gates or Gates()
        self._times = times or BackoffTimes()
        self._waiting: dict[str, Waiting] = {}
        self._active: list[tuple[tuple[float, ...], int, str]] = []
        self._backoff: list[tuple[float, int, str]] = []
        self._groups: dict[_GroupKey, _Group] = {}
        self._listeners: dict[Event, dict[_GroupKey, _Group]] = {event: {} for event in Event}
        # Unschedulable pods by the time of their refusal, oldest first.
        self._refused: deque[tuple[float, Waiting]] = deque()
        # Gated pods by the plugin that holds them.
        self._gated: dict[str, dict[str, Waiting]] = {}
        # How many pods came into a queue, by its name and what brought them.
        self.incoming: Counter[tuple[str, str]] = Counter()
        self._order = 0
        # Pods by the claims that they need.
        self._by_claim: dict[str, set[str]] = {}
        self._has_work = asyncio.Event()

    def __len__(self) -> int:
        return len(self._waiting)

    def count(self, place: str) -> int:
        """How many pods are in one of the places."""
        if place == "gated":
            return sum(map(len, self._gated.values()))
        return sum(1 for waiting in self._waiting.values() if waiting.place == place)

    def add(self, pod: PodInfo) -> None:
        """A pod to place, or a newer version of one that waits."""
        found = self._waiting.get(pod.key)
        if found is None or found.pod.uid != pod.uid:
            self._order += 1
            self.remove(pod.key)
            found = self._waiting[pod.key] = Waiting(pod, self._order)
            for claim in pod.needs.awaited():
                self._by_claim.setdefault(claim, set()).add(pod.key)
            self._activate(found, "PodAdd")
            return
        known, found.pod = found.pod, pod
        if known.needs.resource_claims != pod.needs.resource_claims:
            self._follow_claims(known, pod)
        changed = (known.needs, known.priority, known.gates, known.labels) != (
            pod.needs,
            pod.priority,
            pod.gates,
            pod.labels,
        )
        if changed and found.place != "backoff":
            self._leave(found, known)
            self._activate(found, "PodUpdate")

    def _follow_claims(self, known: PodInfo, pod: PodInfo) -> None:
        """A newer version of a pod names claims that were made for it meanwhile."""
        for claim in set(known.needs.awaited()) - set(pod.needs.awaited()):
            self._by_claim.get(claim, set()).discard(pod.key)
        for claim in pod.needs.awaited():
            self._by_claim.setdefault(claim, set()).add(pod.key)

    def remove(self, key: str) -> None:
        """A pod that no longer waits."""
        gone = self._waiting.pop(key, None)
        if gone is None:
            return
        self._leave(gone)
        for claim in gone.pod.needs.awaited():
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
        now = waiting.since_s = self._clock.monotonic()
        if not plugins:
            self._back_off(waiting, "ScheduleAttemptFailure")
            return
        waiting.place = "unschedulable"
        self.incoming["unschedulable", "ScheduleAttemptFailure"] += 1
        self._refused.append((now, waiting))
        key = (waiting.pod.scheduler_name, waiting.pod.needs, plugins)
        group = self._groups.get(key)
        if group is None:
            events = frozenset().union(*(self._events.get(plugin, frozenset()) for plugin in plugins))
            group = self._groups[key] = _Group(key, events)
            for event in events:
                self._listeners[event][key] = group
        group.pods[waiting.pod.key] = waiting

    def restore(self, waiting: Waiting) -> None:
        """A pod whose binding failed goes to backoff; unless it was removed or replaced meanwhile."""
        known = self._waiting.get(waiting.pod.key)
        if known is not None and known is not waiting:
            return
        self._waiting[waiting.pod.key] = waiting
        for claim in waiting.pod.needs.awaited():
            self._by_claim.setdefault(claim, set()).add(waiting.pod.key)
        waiting.since_s = None
        self._back_off(waiting, "ScheduleAttemptFailure")

    def move_on(
        self, events: frozenset[Event], *, node: str = "", pod: PodInfo | None = None, subject: str = ""
    ) -> None:
        """Frees the pods that these events may help; node, pod and subject say where they happened and to whom."""
        for event in events:
            listeners = self._listeners[event]
            holders = [plugin for plugin in self._gated if event in self._events.get(plugin, _NO_EVENTS)]
            if not (listeners or holders):
                continue
            change = Change(event, node, pod, subject)
            meant = self._gates.meant_for(node) if listeners else ()
            for name in meant:
                favoured = self._waiting.get(name)
                if favoured is not None and favoured.place == "unschedulable":
                    plugins = favoured.refused_by
                    if self._listens(plugins, event) and self._gates.may_help(favoured.pod, plugins, change):
                        self._free(favoured, event.told)
            for key, group in list(listeners.items()):
                first = next((w for w in group.pods.values() if w.pod.key not in meant), None)
                if first is not None and self._gates.may_help(first.pod, key[2], change):
                    for waiting in list(group.pods.values()):
                        self._free(waiting, event.told)
            for plugin in holders:
                for waiting in list(self._gated.get(plugin, {}).values()):
                    self._leave(waiting)
                    self._activate(waiting, event.told)

    def claim_changed(self, claim: str) -> None:
        """Tries the pods that need this claim at once: they were refused for want of just this, not by chance."""
        for key in list(self._by_claim.get(claim, ())):
            waiting = self._waiting[key]
            if waiting.place in ("unschedulable", "gated"):
                self._leave(waiting)
                self._activate(waiting, Event.CLAIM.told)

    def activate(self, key: str) -> None:
        """Tries a pod at once that waits for something else, as plugins may ask for."""
        waiting = self._waiting.get(key)
        if waiting is not None and waiting.place in ("unschedulable", "backoff"):
            self._leave(waiting)
            self._activate(waiting, "ForceActivate")

    def retry(self, key: str) -> None:
        """Has a refused pod go through backoff, whatever refused it."""
        waiting = self._waiting.get(key)
        if waiting is not None and waiting.place == "unschedulable":
            self._free(waiting, "ScheduleAttemptFailure")

    def knows(self, pod: PodInfo) -> bool:
        """Whether this very pod waits here."""
        found = self._waiting.get(pod.key)
        return found is not None and found.pod.uid == pod.uid

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
                self._activate(found, "BackoffComplete")
        while self._refused and now - self._refused[0][0] >= _FLUSH_S:
            since_s, waiting = self._refused.popleft()
            is_known = self._waiting.get(waiting.pod.key) is waiting
            if is_known and waiting.place == "unschedulable" and waiting.since_s == since_s:
                self._leave(waiting)
                self._activate(waiting, "UnschedulableTimeout")

    def pending(self) -> dict[tuple[str, ...], int]:
        """How many pods are in each of the queues; one that is being tried is active."""
        found: dict[tuple[str, ...], int] = {(place,): 0 for place in ("active", "backoff", "unschedulable", "gated")}
        for waiting in self._waiting.values():
            found["active" if waiting.place == "popped" else waiting.place,] += 1
        return found

    def refused_by(self) -> dict[tuple[str, ...], int]:
        """How many pods wait because of each plugin, by plugin and profile."""
        found: Counter[tuple[str, ...]] = Counter()
        for (name, _, plugins), group in self._groups.items():
            for plugin in plugins:
                found[plugin, name] += len(group.pods)
        for plugin, held in self._gated.items():
            for waiting in held.values():
                found[plugin, waiting.pod.scheduler_name] += 1
        return found

    def snapshot(self) -> Iterator[Waiting]:
        """Everything that waits, for those who ask."""
        return iter(list(self._waiting.values()))

    def _listens(self, plugins: frozenset[str], event: Event) -> bool:
        return any(event in self._events.get(plugin, frozenset()) for plugin in plugins)

    def _until_next(self) -> float:
        if not self._backoff:
            return _TICK_S
        return min(max(self._backoff[0][0] - self._clock.monotonic(), 0.0), _TICK_S)

    def _leave(self, waiting: Waiting, known: PodInfo | None = None) -> None:
        """Out of its group or gate; known is the version of the pod that it went in with."""
        pod = known or waiting.pod
        if waiting.place == "gated":
            for plugin, held in list(self._gated.items()):
                held.pop(pod.key, None)
                if not held:
                    del self._gated[plugin]
        elif waiting.place == "unschedulable":
            key = (pod.scheduler_name, pod.needs, waiting.refused_by)
            group = self._groups.get(key)
            if group is not None and group.pods.pop(pod.key, None) is not None and not group.pods:
                del self._groups[key]
                for event in group.events:
                    del self._listeners[event][key]

    def _free(self, waiting: Waiting, why: str) -> None:
        self._leave(waiting)
        self._back_off(waiting, why)

    def _activate(self, waiting: Waiting, why: str) -> None:
        plugin, waiting.held = self._gates.admit(waiting.pod)
        if plugin:
            waiting.place, waiting.refused_by = "gated", frozenset({plugin})
            self._gated.setdefault(plugin, {})[waiting.pod.key] = waiting
            self.incoming["gated", why] += 1
            return
        waiting.place = "active"
        self.incoming["active", why] += 1
        if waiting.entered_s < 0:
            waiting.entered_s = self._clock.monotonic()
        key = self._gates.sort_key(waiting.pod, waiting.order)
        heapq.heappush(self._active, (key, waiting.order, waiting.pod.key))
        self._has_work.set()

    def _back_off(self, waiting: Waiting, why: str) -> None:
        now = self._clock.monotonic()
        times = self._times
        delay_s = backoff_delay(max(waiting.attempts - 1, 0), base_s=times.initial_s, cap_s=times.longest_s)
        # What it has waited already since its last try counts.
        ready = max((now if waiting.since_s is None else waiting.since_s) + delay_s, now)
        if ready <= now:
            self._activate(waiting, why)
            return
        waiting.place, waiting.ready_at_s = "backoff", ready
        self.incoming["backoff", why] += 1
        heapq.heappush(self._backoff, (ready, waiting.order, waiting.pod.key))
