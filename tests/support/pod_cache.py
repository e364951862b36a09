"""A running cache of small pods, for tests of the watch cache."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import orjson
from google.protobuf.message import Message

from tiphys.api.core.v1 import pod_pb2
from tiphys_apimachinery.fields import FieldSelector
from tiphys_apimachinery.labels import Selector
from tiphys_apiserver.storage.cacher import Cacher, CacherSettings
from tiphys_apiserver.storage.interface import Store
from tiphys_apiserver.storage.objects import ObjectFormat
from tiphys_apiserver.storage.selection import Selection
from tiphys_apiserver.storage.watch_event import EventBatch, WatchEvent
from tiphys_apiserver.storage.watch_stream import WatchStream
from tiphys_component.clock import Clock

PREFIX = "/registry/pods/"


class CountingJson:
    """Makes JSON that tests can read, and counts how often."""

    def __init__(self) -> None:
        self.made = 0

    def __call__(self, message: Message) -> bytes:
        self.made += 1
        pod: Any = message
        return orjson.dumps({"name": pod.metadata.name, "rv": pod.metadata.resourceVersion})


def pod_format(dumps: CountingJson | None = None) -> ObjectFormat:
    """The format of pods with two fields to select by."""
    return ObjectFormat(
        pod_pb2.Pod,
        api_version="v1",
        kind="Pod",
        dumps=dumps or CountingJson(),
        field_names=("spec.nodeName", "status.phase"),
        read_fields=lambda pod: {"spec.nodeName": pod.spec.nodeName, "status.phase": pod.status.phase},
    )


def pod_value(
    name: str,
    namespace: str = "a",
    *,
    node: str = "",
    labels: Mapping[str, str] | None = None,
    owner_uid: str = "",
    note: str = "",
) -> bytes:
    """A pod as it is stored."""
    pod = pod_pb2.Pod()
    pod.metadata.name = name
    pod.metadata.namespace = namespace
    pod.metadata.labels.update(labels or {})
    pod.spec.nodeName = node
    if note:
        pod.metadata.annotations["note"] = note
    if owner_uid:
        pod.metadata.ownerReferences.add(uid=owner_uid, name="owner", kind="ReplicaSet", apiVersion="apps/v1")
    return pod_format().enveloped(pod.SerializeToString())


def key(name: str, namespace: str = "a") -> str:
    """The key of a pod."""
    return f"{PREFIX}{namespace}/{name}"


def selection(labels: str = "", fields: str = "", namespace: str = "") -> Selection:
    """A selection from the texts of a request."""
    return Selection(namespace, Selector.parse(labels), FieldSelector.parse(fields))


@asynccontextmanager
async def running_cacher(
    store: Store, clock: Clock, *, settings: CacherSettings | None = None, dumps: CountingJson | None = None
) -> AsyncIterator[Cacher]:
    """A filled cache that follows the store until the block ends."""
    cacher = Cacher(PREFIX, pod_format(dumps), store, clock, settings=settings or CacherSettings())
    async with asyncio.TaskGroup() as group:
        task = group.create_task(cacher.run())
        await cacher.ready()
        yield cacher
        task.cancel()


class Recorder:
    """A sink that keeps what it gets, as a connection with an endless buffer would."""

    def __init__(self) -> None:
        self.batches: list[EventBatch] = []
        self.errors: list[object] = []

    def deliver(self, batch: EventBatch) -> None:
        self.batches.append(batch)

    def ended(self, error: object) -> None:
        self.errors.append(error)

    @property
    def events(self) -> list[WatchEvent]:
        return [event for batch in self.batches for event in batch.events]


def told(events: Sequence[WatchEvent]) -> list[tuple[str, str, int]]:
    """Type, name and resourceVersion of each event."""
    return [(event.type, event.object.name, event.object.rv) for event in events]


async def take(stream: WatchStream, count: int) -> list[WatchEvent]:
    """The next events; fails when they do not come."""
    events: list[WatchEvent] = []
    async with asyncio.timeout(20):
        while len(events) < count:
            events.extend((await stream.__anext__()).events)
    return events


async def settle() -> None:
    """Let callbacks and tasks of the loop come to rest."""
    for _ in range(20):
        await asyncio.sleep(0)
