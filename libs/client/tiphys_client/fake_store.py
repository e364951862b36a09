"""What the fake API server remembers: objects, one revision for all, the history of changes, and who watches."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

from google.protobuf.message import Message

from tiphys.apiserver.v1 import wire_pb2
from tiphys_apimachinery.errors import APIError, Expired
from tiphys_apimachinery.fields import FieldSelector
from tiphys_apimachinery.labels import Selector
from tiphys_client.client import EventType
from tiphys_client.resource_facts import facts_of, read_field

MessageT = TypeVar("MessageT", bound=Message)

Key = tuple[str, str, str]
"""Full name of the class, namespace, name."""


@dataclass(frozen=True, slots=True)
class Change:
    """One change of one object: raw after it (as it was last, when deleted) and before it (None when created)."""

    revision: int
    cls: type[Any]
    type: EventType
    raw: bytes
    previous: bytes | None


@dataclass(frozen=True, slots=True)
class Selection:
    """Which objects of a class a list or watch is about."""

    cls: type[Any]
    namespace: str
    labels: Selector
    fields: FieldSelector

    def matches(self, obj: Any) -> bool:
        """Whether the object belongs to the selection."""
        if self.namespace and obj.metadata.namespace != self.namespace:
            return False
        if self.labels and not self.labels.matches(obj.metadata.labels):
            return False
        if not self.fields:
            return True
        names = ("metadata.name", "metadata.namespace", *facts_of(self.cls).selectable_fields)
        return self.fields.matches({name: read_field(obj, name) for name in names})

    def event(self, change: Change) -> wire_pb2.Event | None:
        """The change as a watcher of this selection sees it: entering is ADDED and leaving is DELETED."""
        if change.cls is not self.cls:
            return None
        was = change.previous is not None and self.matches(self.cls.FromString(change.previous))
        new = self.cls.FromString(change.raw)
        now = change.type is not EventType.DELETED and self.matches(new)
        if now:
            return _event(EventType.MODIFIED if was else EventType.ADDED, change.raw)
        if not was:
            return None
        gone = self.cls.FromString(change.previous or b"")
        gone.metadata.resourceVersion = new.metadata.resourceVersion
        return _event(EventType.DELETED, gone.SerializeToString())


class FakeStore:
    """Objects as bytes under one growing revision. Not for more than one event loop."""

    def __init__(self) -> None:
        self.revision = 1
        self._objects: dict[Key, bytes] = {}
        self._history: list[Change] = []
        self._compacted = 0
        # Each open watch: told of changes and of its end by this future, which is replaced each time.
        self._changed: asyncio.Future[None] | None = None
        self._cuts: list[tuple[int, APIError | None]] = []
        self._bookmarks: list[int] = []

    def get(self, cls: type[MessageT], namespace: str, name: str) -> MessageT | None:
        """A copy of the object, or None."""
        raw = self._objects.get((cls.DESCRIPTOR.full_name, namespace, name))
        return None if raw is None else cls.FromString(raw)

    def put(self, obj: Any) -> Any:
        """Store the object under the next revision, which it gets as its resource version."""
        key = (obj.DESCRIPTOR.full_name, obj.metadata.namespace, obj.metadata.name)
        previous = self._objects.get(key)
        self.revision += 1
        obj.metadata.resourceVersion = str(self.revision)
        raw = obj.SerializeToString(deterministic=True)
        self._objects[key] = raw
        kind = EventType.ADDED if previous is None else EventType.MODIFIED
        self._append(Change(self.revision, type(obj), kind, raw, previous))
        return obj

    def remove(self, obj: Any) -> Any:
        """Drop the object; returns it with the revision of its deletion."""
        previous = self._objects.pop((obj.DESCRIPTOR.full_name, obj.metadata.namespace, obj.metadata.name))
        self.revision += 1
        obj.metadata.resourceVersion = str(self.revision)
        raw = obj.SerializeToString(deterministic=True)
        self._append(Change(self.revision, type(obj), EventType.DELETED, raw, previous))
        return obj

    def select(self, selection: Selection) -> list[tuple[Key, bytes]]:
        """The objects of a selection, ordered by namespace and name."""
        full_name = selection.cls.DESCRIPTOR.full_name
        return [
            (key, raw)
            for key, raw in sorted(self._objects.items())
            if key[0] == full_name and selection.matches(selection.cls.FromString(raw))
        ]

    def compact(self) -> None:
        """Forget all changes so far: a watch from before now gets Expired."""
        self._compacted = self.revision
        self._history.clear()
        self._wake()

    def cut(self, error: APIError | None) -> None:
        """End every watch that is open now, with an error or, for None, as if the server had closed it."""
        self._cuts.append((len(self._cuts) + 1, error))
        self._wake()

    def bookmark(self) -> None:
        """Tell every watch that is open the current revision."""
        self._bookmarks.append(self.revision)
        self._wake()

    async def watch(
        self, selection: Selection, after: int, *, initial: bool, end_of_initial: bool, batch: Callable[[], int]
    ) -> AsyncIterator[list[wire_pb2.Event]]:
        """Batches of at most batch() events after a revision; initial sends the current state first.

        Raises Expired when changes after the revision were forgotten, and the error of cut().
        """
        cuts, bookmarks = len(self._cuts), len(self._bookmarks)
        if initial:
            after = self.revision
            ready = [_event(EventType.ADDED, raw) for _, raw in self.select(selection)]
            if end_of_initial:
                ready.append(_bookmark(selection.cls, after, initial_end=True))
            for chunk in _chunks(ready, batch):
                yield chunk
        while True:
            if len(self._cuts) > cuts:
                error = self._cuts[cuts][1]
                if error is not None:
                    raise error
                return
            if after < self._compacted:
                raise Expired.of(after, self._compacted)
            news = [change for change in self._history if change.revision > after]
            if news:
                after = news[-1].revision
                events = [event for change in news if (event := selection.event(change)) is not None]
                for chunk in _chunks(events, batch):
                    yield chunk
                    if len(self._cuts) > cuts:
                        break
                continue
            if len(self._bookmarks) > bookmarks:
                bookmarks = len(self._bookmarks)
                yield [_bookmark(selection.cls, after)]
                continue
            await self._wait()

    def _append(self, change: Change) -> None:
        self._history.append(change)
        self._wake()

    def _wake(self) -> None:
        changed, self._changed = self._changed, None
        if changed is not None and not changed.done():
            changed.set_result(None)

    async def _wait(self) -> None:
        if self._changed is None:
            self._changed = asyncio.get_running_loop().create_future()
        await asyncio.shield(self._changed)


def _chunks(events: list[wire_pb2.Event], size: Callable[[], int]) -> Iterable[list[wire_pb2.Event]]:
    start = 0
    while start < len(events):
        end = start + max(1, size())
        yield events[start:end]
        start = end


def _event(kind: EventType, raw: bytes) -> wire_pb2.Event:
    return wire_pb2.Event(type=wire_pb2.EventType.ValueType(kind), object=raw)


def _bookmark(cls: type[Any], revision: int, *, initial_end: bool = False) -> wire_pb2.Event:
    obj = cls()
    obj.metadata.resourceVersion = str(revision)
    if initial_end:
        obj.metadata.annotations["k8s.io/initial-events-end"] = "true"
    return _event(EventType.BOOKMARK, obj.SerializeToString())
