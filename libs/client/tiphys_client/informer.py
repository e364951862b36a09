"""A local copy of a resource, kept true by a reflector, and handlers that hear of its changes.

What a caller may rely on:
- After wait_synced() the copy has everything that existed when run() began.
- A handler hears of each object: on_add, then on_update any number of times, then on_delete; then on_add may follow for
  another object of the same name. Changes that happen while the history is lost may be skipped or joined into one.
- Handlers are called one after another in the loop, in the order of changes, and must not block: they fill queues.
- The copy is changed before handlers hear of it, and may be behind the server.
- Objects handed out are freshly parsed; those given to handlers are shared by all of them and read-only.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from google.protobuf.message import Message

from tiphys_client.client import Client, EventType, WatchEvent
from tiphys_client.indexer import Entry, Indexer, IndexFunc
from tiphys_client.reflector import Reflector
from tiphys_component.clock import Clock, SystemClock
from tiphys_component.log import get_logger

MessageT = TypeVar("MessageT", bound=Message)
ProjectionT = TypeVar("ProjectionT")

# A list is taken over in slices of so many objects, some 5 ms each, between which the loop serves others.
_SLICE = 200


@dataclass(frozen=True, slots=True)
class _Handler(Generic[MessageT]):
    on_add: Callable[[MessageT], None] | None
    on_update: Callable[[MessageT, MessageT], None] | None
    on_delete: Callable[[MessageT], None] | None
    on_set: Callable[[MessageT], None] | None


class Informer(Generic[MessageT, ProjectionT]):
    """A local copy of the objects of one class that the namespace and selectors choose.

    projection makes, once for each version of an object, the little that a loop over thousands needs; the objects
    themselves are kept as bytes. renewal does it instead for a newer version of an object that is there already, with
    the help of what was made of the version before. indexes are by name, and may be added until run() begins.
    """

    def __init__(
        self,
        client: Client,
        cls: type[MessageT],
        namespace: str | None = None,
        label_selector: str | None = None,
        *,
        field_selector: str | None = None,
        clock: Clock | None = None,
        projection: Callable[[MessageT], ProjectionT] | None = None,
        renewal: Callable[[MessageT, ProjectionT], ProjectionT] | None = None,
        indexes: Mapping[str, IndexFunc[MessageT]] | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self._cls = cls
        self.store: Indexer[MessageT, ProjectionT] = Indexer(
            cls, indexes=indexes, projection=projection, renewal=renewal
        )
        self.reflector: Reflector[MessageT] = Reflector(
            client,
            cls,
            self,
            clock=clock or SystemClock(),
            namespace=namespace,
            label_selector=label_selector,
            field_selector=field_selector,
            rng=rng,
        )
        self._handlers: list[_Handler[MessageT]] = []
        self._wants_old = False
        self._synced = asyncio.Event()
        self._log = get_logger("informer", kind=cls.DESCRIPTOR.name)

    async def run(self) -> None:
        """Keep the copy true until cancelled."""
        await self.reflector.run()

    async def wait_synced(self) -> None:
        """Return when the first list has been taken over and handlers have heard of it."""
        await self._synced.wait()

    def is_synced(self) -> bool:
        """Whether the first list has been taken over."""
        return self._synced.is_set()

    def add_handler(
        self,
        on_add: Callable[[MessageT], None] | None = None,
        on_update: Callable[[MessageT, MessageT], None] | None = None,
        on_delete: Callable[[MessageT], None] | None = None,
        *,
        on_set: Callable[[MessageT], None] | None = None,
    ) -> None:
        """Hear of changes from now on; of objects that are here already by on_add, before this returns.

        on_set hears of each version, be the object new or not: for those who need not see the version before, which has
        to be parsed anew.
        """
        handler = _Handler(on_add, on_update, on_delete, on_set)
        self._handlers.append(handler)
        self._wants_old = self._wants_old or on_update is not None
        for on_new in (on_add, on_set):
            if on_new is not None:
                for obj in self.store.list():
                    self._call(on_new, obj)

    def add_index(self, name: str, function: IndexFunc[MessageT]) -> None:
        """Add an index before run(); raises ValueError afterwards or if the name is taken."""
        self.store.add_index(name, function)

    def get(self, key: str) -> MessageT | None:
        """The object with this key, namespace/name or name."""
        return self.store.get(key)

    def list(self) -> list[MessageT]:
        """All objects, each parsed anew: some 5 µs each."""
        return self.store.list()

    def keys(self) -> Iterator[str]:
        """The keys of all objects."""
        return iter(self.store.keys())

    def by_index(self, index: str, key: str) -> Any:
        """The list of objects under one key of an index; raises KeyError if there is no such index."""
        return self.store.by_index(index, key)

    def projection(self, key: str) -> ProjectionT | None:
        """The projection of one object."""
        return self.store.projection(key)

    def __len__(self) -> int:
        return len(self.store)

    async def replace(self, items: Any) -> None:
        """For the reflector: take over a whole state, a list of bytes, and tell handlers what is different."""
        seen: set[str] = set()
        for start in range(0, len(items), _SLICE):
            for raw in items[start : start + _SLICE]:
                obj = self._cls.FromString(raw)
                entry = self.store.make(raw, obj)
                seen.add(entry.key)
                self._put(entry, obj)
            await asyncio.sleep(0)
        for gone in set(self.store.keys()) - seen:
            self._drop(gone, None)
        self._synced.set()

    def apply(self, event: WatchEvent[MessageT]) -> None:
        """For the reflector: take over one change and tell handlers."""
        entry = self.store.make(event.raw, event.object)
        if event.type is EventType.DELETED:
            self._drop(entry.key, event.object)
        else:
            self._put(entry, event.object)

    def _put(self, entry: Entry[MessageT, ProjectionT], obj: MessageT) -> None:
        known = self.store.entry(entry.key)
        if known is not None:
            if known.uid != entry.uid:
                # Deleted and made again while nobody looked: two objects, not one that changed.
                self._drop(entry.key, None)
                known = None
            elif known.resource_version == entry.resource_version:
                return
        self.store.put(entry)
        for handler in self._handlers:
            if handler.on_set is not None:
                self._call(handler.on_set, obj)
        if known is None:
            for handler in self._handlers:
                if handler.on_add is not None:
                    self._call(handler.on_add, obj)
        elif self._wants_old:
            old = self._cls.FromString(known.raw)
            for handler in self._handlers:
                if handler.on_update is not None:
                    self._call(handler.on_update, old, obj)

    def _drop(self, key: str, last: MessageT | None) -> None:
        known = self.store.remove(key)
        if known is None:
            return
        obj = last if last is not None else self._cls.FromString(known.raw)
        for handler in self._handlers:
            if handler.on_delete is not None:
                self._call(handler.on_delete, obj)

    def _call(self, handler: Callable[..., None], *objs: MessageT) -> None:
        try:
            handler(*objs)
        except Exception as err:
            # One handler's fault must not keep the others, or the copy, from the truth.
            self._log.error("handler failed", err=str(err), exc_info=err)
