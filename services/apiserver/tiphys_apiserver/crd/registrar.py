"""Follows the definitions and keeps what is served in step: one loop a server, driven by the cache of definitions.

A definition's kind is served from the moment its names are found free, just before its status says so. Every API
server over one store does the same; whoever writes the status first wins, and the others agree.
"""

from __future__ import annotations

import asyncio
import hashlib
from contextlib import suppress
from typing import Any

from tiphys.api.apiextensions.v1.apiextensions_pb2 import CustomResourceDefinition
from tiphys_apimachinery.errors import APIError, NotFound
from tiphys_apimachinery.meta import is_condition_true
from tiphys_apiserver.authentication.interface import SERVER_USER
from tiphys_apiserver.crd import names
from tiphys_apiserver.crd.definition import FINALIZER
from tiphys_apiserver.crd.served import Kinds
from tiphys_apiserver.registry.deletion import DeleteRequest
from tiphys_apiserver.registry.objects import ObjectAccess
from tiphys_apiserver.registry.strategy import BACKGROUND, WriteContext
from tiphys_apiserver.registry.table import ResourceTable, Served
from tiphys_apiserver.storage.list_query import ListQuery, WatchQuery
from tiphys_apiserver.storage.selection import Selection
from tiphys_apiserver.storage.watch_event import DELETED
from tiphys_component.app import start_loop
from tiphys_component.backoff import Backoff
from tiphys_component.clock import Clock
from tiphys_component.log import get_logger

# Between two looks at what finalizers hold.
_SWEEP_S = 0.5
_log = get_logger(__name__)


class Registrar:
    """Serves what definitions define."""

    def __init__(self, table: ResourceTable, kinds: Kinds, objects: ObjectAccess, clock: Clock) -> None:
        self._table = table
        self._kinds = kinds
        self._objects = objects
        self._clock = clock
        # By name of the definition: a digest of the spec that is served.
        self._specs: dict[str, bytes] = {}
        # By name of the definition: its names and status, and nothing of its schemas.
        self._known: dict[str, Any] = {}
        # Names of definitions whose objects must go first.
        self._ending: set[str] = set()
        self._has_ending = asyncio.Event()

    async def run(self) -> None:
        """Follow the definitions until cancelled."""
        async with asyncio.TaskGroup() as group:
            start_loop(group, self._follow(), "definitions")
            start_loop(group, self._empty(), "objects of deleted definitions")

    async def _follow(self) -> None:
        served = self._table.of_class(CustomResourceDefinition)
        backoff = Backoff(base_s=0.05, cap_s=5.0)
        while True:
            try:
                with await served.store.cacher.stream(Selection(), WatchQuery()) as stream:
                    await self._forget_absent(served)
                    backoff.reset()
                    async for batch in stream:
                        for event in batch.events:
                            await self._see(event.type, event.object.message())
            except APIError as err:
                _log.warning("definitions can't be followed, trying again", err=str(err))
            await self._clock.sleep(backoff.next())

    async def _forget_absent(self, served: Served) -> None:
        """What was deleted while nobody followed."""
        page = await served.store.cacher.list(Selection(), ListQuery(resource_version="0"))
        for name in set(self._known) - {cached.name for cached in page.items}:
            self._forget(name)

    def _forget(self, name: str) -> None:
        crd = self._known.pop(name, None)
        self._ending.discard(name)
        if self._specs.pop(name, None) is not None and crd is not None:
            self._table.remove(crd.spec.group, crd.spec.names.plural)

    async def _see(self, event: str, crd: Any) -> None:
        name = crd.metadata.name
        if event == DELETED:
            self._forget(name)
            await self._judge_waiting(crd.spec.group)
            return
        self._known[name] = _without_schemas(crd)
        try:
            await self._settle(crd)
        except NotFound:
            return
        except APIError as err:
            _log.error("definition can't be served", definition=name, err=str(err))

    async def _judge_waiting(self, group: str) -> None:
        """Names became free: look again at those that wait for some."""
        for name, crd in list(self._known.items()):
            if crd.spec.group != group or is_condition_true(crd.status.conditions, "NamesAccepted"):
                continue
            whole = self._objects.get_nowait(CustomResourceDefinition, name)
            if whole is not None:
                await self._see("MODIFIED", whole)

    async def _settle(self, crd: Any) -> None:
        name = crd.metadata.name
        verdict = names.judge(crd, self._known.values())
        if not verdict.reason:
            self._serve(crd)
        now = self._clock.now()

        def tell(current: Any) -> None:
            names.settle(current, verdict, now)

        told = CustomResourceDefinition()
        told.CopyFrom(crd)
        tell(told)
        # The next definition of the group must find these names taken already.
        self._known[name] = _without_schemas(told)
        if told.status != crd.status:
            await self._objects.modify(CustomResourceDefinition, name, "", tell, subresource="status")
        if crd.metadata.HasField("deletionTimestamp") and FINALIZER in crd.metadata.finalizers:
            self._ending.add(name)
            self._has_ending.set()

    def _serve(self, crd: Any) -> None:
        """Begin to serve, or serve anew what changed."""
        name = crd.metadata.name
        spec = hashlib.sha256(crd.spec.SerializeToString(deterministic=True)).digest()
        if self._specs.get(name) == spec:
            return
        if name in self._specs:
            self._table.remove(crd.spec.group, crd.spec.names.plural)
        self._specs[name] = spec
        self._table.add(self._kinds.serve(crd, lambda: name in self._ending))

    async def _empty(self) -> None:
        """Delete the objects of definitions that are being deleted, and look again where finalizers hold some."""
        while True:
            await self._has_ending.wait()
            for name in sorted(self._ending):
                try:
                    await self._end(name)
                except APIError as err:
                    _log.warning("objects can't be deleted yet", definition=name, err=str(err))
            if self._ending:
                await self._clock.sleep(_SWEEP_S)
            else:
                self._has_ending.clear()

    async def _end(self, name: str) -> None:
        crd = self._known.get(name)
        if crd is None:
            self._ending.discard(name)
            return
        served = next(iter(self._table.custom(crd.spec.group, crd.spec.names.plural)), None)
        if served is not None and await self._delete_all(served):
            return
        now = self._clock.now()

        def finish(current: Any) -> None:
            names.set_terminating(current, "InstanceDeletionCompleted", "removed all instances", now)
            kept = [finalizer for finalizer in current.metadata.finalizers if finalizer != FINALIZER]
            del current.metadata.finalizers[:]
            current.metadata.finalizers.extend(kept)

        # Another server over the same store may have been quicker.
        with suppress(NotFound):
            await self._objects.modify(CustomResourceDefinition, name, "", finish)
        self._ending.discard(name)

    async def _delete_all(self, served: Served) -> int:
        """Delete every object; how many are still there."""
        page = await served.store.cacher.list(Selection(), ListQuery())
        left = 0
        for cached in page.items:
            ctx = WriteContext(now=self._clock.now(), user=SERVER_USER, namespace=cached.namespace)
            try:
                deleted = await served.store.delete(ctx, cached.name, DeleteRequest(propagation=BACKGROUND))
            except NotFound:
                continue
            left += not deleted.gone
        return left


def _without_schemas(crd: Any) -> Any:
    kept = CustomResourceDefinition()
    kept.metadata.name = crd.metadata.name
    kept.spec.group = crd.spec.group
    kept.spec.names.CopyFrom(crd.spec.names)
    kept.status.CopyFrom(crd.status)
    return kept
