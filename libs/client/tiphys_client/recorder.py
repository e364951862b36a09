"""Events for users: what happened to an object and why, seen by `kubectl describe`.

event() never waits and never fails: what can't be queued is counted and dropped. run() writes in batches, as core/v1
Events with this component as their source. Where more waits than goes into one call, several are under way: one after
the other took longer than all else of placing ten thousand pods, while server and recorder waited for each other.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from random import Random
from typing import Any, Literal

from google.protobuf.message import Message

from tiphys.api.core.v1.event_pb2 import Event
from tiphys.api.core.v1.reference_pb2 import ObjectReference
from tiphys_apimachinery.errors import APIError, NotFound
from tiphys_apimachinery.meta import format_time, to_time
from tiphys_client.client import Client
from tiphys_client.event_correlator import Decision, EventCorrelator, Occurrence, Verdict
from tiphys_client.resource_facts import facts_of
from tiphys_client.transport import is_retriable
from tiphys_component.app import start_loop
from tiphys_component.backoff import Backoff
from tiphys_component.clock import Clock
from tiphys_component.log import get_logger
from tiphys_component.metrics import Registry

EventKind = Literal["Normal", "Warning"]

_CAPACITY = 1000
_BATCH = 256
# Calls under way at most.
_LANES = 4
_WRITE_TRIES = 4
_FLUSH_TIMEOUT_S = 1.0
# Longer messages are cut. Source: kubernetes pkg/apis/core/validation/events.go, NoteLengthLimit.
_MESSAGE_LIMIT = 1024


@dataclass(slots=True)
class _Happened:
    reference: ObjectReference
    type: EventKind
    reason: str
    message: str
    action: str
    at: Any
    verdict: Verdict | None = field(default=None)


def reference_to(obj: Message, field_path: str = "") -> ObjectReference:
    """A reference to an object as Events have it; field_path such as spec.containers{main} names a part of it."""
    facts = facts_of(type(obj))
    metadata = obj.metadata  # type: ignore[attr-defined]
    return ObjectReference(
        kind=facts.kind,
        namespace=metadata.namespace,
        name=metadata.name,
        uid=metadata.uid,
        apiVersion=facts.api_version,
        resourceVersion=metadata.resourceVersion,
        fieldPath=field_path,
    )


class EventRecorder:
    """Records events of one component, such as kubelet on one host."""

    def __init__(
        self,
        client: Client,
        component: str,
        *,
        clock: Clock,
        host: str = "",
        registry: Registry | None = None,
        capacity: int = _CAPACITY,
        rng: Random | None = None,
    ) -> None:
        self._client = client
        self._rng = rng
        self._component = component
        self._host = host
        self._clock = clock
        self._queue: asyncio.Queue[_Happened] = asyncio.Queue(capacity)
        # Set while a whole batch waits.
        self._is_full = asyncio.Event()
        # Names of the Events whose creation is under way: they can't be counted yet.
        self._creating: set[str] = set()
        # Older Events that were seen again, by name, as they were seen last. One lane at a time counts them.
        self._again: dict[str, tuple[_Happened, Verdict]] = {}
        self._is_counting = False
        self._correlator = EventCorrelator()
        self._serial = 0
        self.dropped = 0
        """How many events were not written: the queue was full, they were too many of one object, or writing failed."""
        self._dropped_metric = (
            registry.counter("events_discarded_total", "Events that were not written", ("reason",))
            if registry
            else None
        )
        self._log = get_logger("recorder", component=component)

    def event(
        self,
        obj: Message | ObjectReference,
        type: EventKind,
        reason: str,
        message: str,
        *,
        action: str = "",
        field_path: str = "",
    ) -> None:
        """Say what happened to an object; reason is one CamelCase word, message a sentence for a user."""
        reference = obj if isinstance(obj, ObjectReference) else reference_to(obj, field_path)
        happened = _Happened(reference, type, reason, message[:_MESSAGE_LIMIT], action, self._clock.now())
        try:
            self._queue.put_nowait(happened)
        except asyncio.QueueFull:
            self._drop(1, "overload")
            return
        if self._queue.qsize() >= _BATCH:
            self._is_full.set()

    async def run(self) -> None:
        """Write events until cancelled, then what is still queued, if that takes no longer than a second."""
        try:
            async with asyncio.TaskGroup() as group:
                start_loop(group, self._write_all(), "event recorder")
                for lane in range(1, _LANES):
                    start_loop(group, self._write_full(), f"event recorder {lane}")
        finally:
            rest = self._queued(_BATCH)
            if rest:
                try:
                    async with asyncio.timeout(_FLUSH_TIMEOUT_S):
                        await self._write(rest)
                except TimeoutError:
                    self._drop(len(rest), "shutdown")

    async def _write_all(self) -> None:
        """The lane that writes at once whatever there is."""
        while True:
            first = await self._queue.get()
            await self._write([first, *self._queued(_BATCH - 1)])

    async def _write_full(self) -> None:
        """A lane that helps where more waits than the others take."""
        while True:
            await self._is_full.wait()
            batch = self._queued(_BATCH)
            if self._queue.qsize() < _BATCH:
                self._is_full.clear()
            await self._write(batch)

    def _queued(self, most: int) -> list[_Happened]:
        return [self._queue.get_nowait() for _ in range(min(most, self._queue.qsize()))]

    async def _write(self, batch: list[_Happened]) -> None:
        """Write a batch: new events together, then one change for each older event that was seen again."""
        by_namespace: dict[str, list[tuple[_Happened, Event]]] = {}
        for made in self._sort(batch):
            by_namespace.setdefault(made[1].metadata.namespace, []).append(made)
        for together in by_namespace.values():
            try:
                await self._create(together)
            finally:
                self._creating.difference_update(event.metadata.name for _, event in together)
        await self._count_up()

    def _sort(self, batch: list[_Happened]) -> list[tuple[_Happened, Event]]:
        """Those of a batch that are to be created; the others are noted to be counted."""
        new: dict[Occurrence, tuple[_Happened, Event]] = {}
        for happened in batch:
            verdict = self._judge(happened)
            if verdict.decision is Decision.DROP:
                self._drop(1, "spam")
            elif verdict.decision is Decision.CREATE:
                event = self._make(happened, verdict)
                self._correlator.created(verdict.key, event.metadata.name)
                self._creating.add(event.metadata.name)
                new[verdict.key] = (happened, event)
            elif verdict.key in new:
                event = new[verdict.key][1]
                event.count, event.message = verdict.count, verdict.message
                event.lastTimestamp.CopyFrom(to_time(happened.at))
            else:
                self._again[verdict.name] = (happened, verdict)
        return list(new.values())

    async def _count_up(self) -> None:
        """Write the newest count of each Event that was seen again and that is there.

        Whoever creates one that was seen again meanwhile counts it afterwards: a count must not come before its Event,
        nor a lower one after a higher.
        """
        if self._is_counting:
            # That lane looks again before it ends.
            return
        self._is_counting = True
        try:
            while name := next((name for name in self._again if name not in self._creating), ""):
                await self._count(*self._again.pop(name))
        finally:
            self._is_counting = False

    def _judge(self, happened: _Happened) -> Verdict:
        reference = happened.reference
        key = f"{reference.kind} {reference.namespace}/{reference.name} {reference.uid} {reference.fieldPath}"
        occurrence = Occurrence(
            reference.namespace or "default", key, happened.type, happened.reason, happened.message, self._component
        )
        verdict = self._correlator.judge(occurrence, self._clock.monotonic())
        happened.verdict = verdict
        return verdict

    def _make(self, happened: _Happened, verdict: Verdict) -> Event:
        self._serial += 1
        event = Event(
            involvedObject=happened.reference,
            reason=happened.reason,
            message=verdict.message,
            type=happened.type,
            count=1,
            action=happened.action,
            reportingComponent=self._component,
            reportingInstance=self._host,
        )
        event.metadata.namespace = happened.reference.namespace or "default"
        # Unique in this process by the serial, and among processes by time and reporter.
        stamp = int(happened.at.timestamp() * 1e6) << 12 | self._serial & 0xFFF
        event.metadata.name = f"{happened.reference.name}.{stamp:x}"
        event.source.component, event.source.host = self._component, self._host
        event.firstTimestamp.CopyFrom(to_time(happened.at))
        event.lastTimestamp.CopyFrom(to_time(happened.at))
        return event

    async def _create(self, made: list[tuple[_Happened, Event]]) -> None:
        backoff = Backoff(0.5, 5.0, jitter=0.5, rng=self._rng)
        for _ in range(_WRITE_TRIES):
            made = await self._try_create(made)
            if not made:
                return
            await self._clock.sleep(backoff.next())
        for happened, event in made:
            self._give_up(happened, event, None)

    async def _try_create(self, made: list[tuple[_Happened, Event]]) -> list[tuple[_Happened, Event]]:
        """Write events of one namespace; returns those that may pass later."""
        results: list[APIError | None]
        try:
            results = await self._client.batch_store([event for _, event in made])
        except APIError as err:
            results = [err] * len(made)
        later = []
        for (happened, event), result in zip(made, results, strict=True):
            if is_retriable(result):
                later.append((happened, event))
            elif result is not None:
                self._give_up(happened, event, result)
        return later

    async def _count(self, happened: _Happened, verdict: Verdict) -> None:
        change: dict[str, Any] = {
            "count": verdict.count,
            "lastTimestamp": format_time(happened.at),
            "message": verdict.message,
        }
        try:
            await self._client.patch(Event, verdict.name, verdict.key.namespace, change)
        except NotFound:
            # It has expired: events live for an hour.
            event = self._make(happened, verdict)
            self._correlator.created(verdict.key, event.metadata.name)
            await self._create([(happened, event)])
        except APIError as err:
            self._log.debug("event not counted", event_name=verdict.name, err=str(err))
            self._drop(1, "failed")

    def _give_up(self, happened: _Happened, event: Event, err: APIError | None) -> None:
        if happened.verdict is not None:
            self._correlator.forget(happened.verdict.key)
        self._drop(1, "failed")
        self._log.debug("event not written", event_name=event.metadata.name, err=str(err) if err else "too many tries")

    def _drop(self, count: int, reason: str) -> None:
        self.dropped += count
        if self._dropped_metric is not None:
            self._dropped_metric.labels(reason).inc(count)
