"""One informer for each resource of a process, however many controllers look at it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from google.protobuf.message import Message

from tiphys_client.client import Client
from tiphys_client.indexer import IndexFunc
from tiphys_client.informer import Informer
from tiphys_component.app import start_loop
from tiphys_component.clock import Clock

MessageT = TypeVar("MessageT", bound=Message)

_Key = tuple[type[Message], str, str, str]


class SharedInformers:
    """Makes informers before run(), each once, and runs them together; begin() and end() are for what comes later."""

    def __init__(self, client: Client, clock: Clock, rng: random.Random | None = None) -> None:
        self._client = client
        self._clock = clock
        self._rng = rng
        self._informers: dict[_Key, Informer[Any, Any]] = {}
        self._projections: dict[_Key, Callable[[Any], Any] | None] = {}
        self._group: asyncio.TaskGroup | None = None
        # Of kinds that came after run() began: nobody's readiness waits for these.
        self._late: dict[type[Message], tuple[Informer[Any, Any], asyncio.Task[Any]]] = {}

    def informer(
        self,
        cls: type[MessageT],
        namespace: str = "",
        *,
        label_selector: str = "",
        field_selector: str = "",
        projection: Callable[[MessageT], Any] | None = None,
        indexes: Mapping[str, IndexFunc[MessageT]] | None = None,
    ) -> Informer[MessageT, Any]:
        """The informer of this scope, made at the first call; indexes it does not have are added.

        Raises ValueError for a second projection, because an object has one, or a new index after run() began.
        """
        key = (cls, namespace, label_selector, field_selector)
        known = self._informers.get(key)
        if known is None:
            known = self._informers[key] = Informer(
                self._client,
                cls,
                namespace,
                label_selector,
                field_selector=field_selector,
                clock=self._clock,
                projection=lambda obj: self._project(key, obj),
                indexes=indexes,
                rng=self._rng,
            )
            self._projections[key] = projection
            return known
        if projection is not None and self._projections[key] not in (None, projection):
            raise ValueError(f"{cls.DESCRIPTOR.name} has another projection: agree on one")
        if projection is not None and len(known):
            raise ValueError(f"{cls.DESCRIPTOR.name}: a projection comes too late, objects are already there")
        self._projections[key] = projection or self._projections[key]
        for name, function in (indexes or {}).items():
            if not known.store.has_index(name):
                known.add_index(name, function)
        return known

    async def run(self) -> None:
        """Run every informer asked for until cancelled."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            for (cls, *_scope), informer in self._informers.items():
                start_loop(group, informer.run(), f"informer {cls.DESCRIPTOR.name}")

    def begin(self, cls: type[MessageT]) -> Informer[MessageT, Any]:
        """A running informer of a kind that came after run() began, the same until end(). Raises RuntimeError."""
        if self._group is None:
            raise RuntimeError("the informers do not run yet")
        if cls not in self._late:
            made: Informer[Any, Any] = Informer(self._client, cls, clock=self._clock, rng=self._rng)
            task = start_loop(self._group, made.run(), f"informer {cls.DESCRIPTOR.name}")
            self._late[cls] = (made, task)
        return self._late[cls][0]

    def end(self, cls: type[Message]) -> None:
        """Stop the informer of a kind that has gone."""
        found = self._late.pop(cls, None)
        if found is not None:
            found[1].cancel()

    async def wait_synced(self) -> None:
        """Return when all have their first list."""
        for informer in self._informers.values():
            await informer.wait_synced()

    def is_synced(self) -> bool:
        """Whether all have their first list."""
        return all(informer.is_synced() for informer in self._informers.values())

    def _project(self, key: _Key, obj: Any) -> Any:
        function = self._projections[key]
        return None if function is None else function(obj)
