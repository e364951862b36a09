"""The loops of an operator: informers, queues, workers, and one round for one object."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

from tiphys.api.apiextensions.v1.apiextensions_pb2 import CustomResourceDefinition
from tiphys_apimachinery.errors import Conflict, NotFound
from tiphys_apimachinery.meta import get_controller_of, is_being_deleted, is_condition_true
from tiphys_client.client import Client
from tiphys_client.controller import Controller, RequeueAfter
from tiphys_client.informer import Informer
from tiphys_client.rate_limiter import ItemBackoff
from tiphys_client.recorder import EventRecorder
from tiphys_client.resource_facts import facts_of
from tiphys_client.shared_informers import SharedInformers
from tiphys_client.transport import is_retriable
from tiphys_client.workqueue import RateLimitingQueue
from tiphys_client.workqueue_metrics import WorkMetrics
from tiphys_component.app import start_loop
from tiphys_component.backoff import Backoff
from tiphys_component.clock import Clock
from tiphys_component.log import get_logger
from tiphys_component.metrics import Registry
from tiphys_sdk.operators.duties import Duty
from tiphys_sdk.operators.kinds import Custom, definition_of
from tiphys_sdk.operators.options import Options
from tiphys_sdk.operators.work import OWNER_INDEX, Desk, Work, key_of, owner_uids

_ESTABLISHED_S = 0.2
_RETRY_S, _LONGEST_RETRY_S = 0.05, 60.0


class Loops:
    """All that works while an operator leads."""

    def __init__(
        self,
        name: str,
        duties: Sequence[Duty],
        options: Options,
        *,
        client: Client,
        clock: Clock,
        rng: random.Random | None = None,
        registry: Registry | None = None,
    ) -> None:
        self._name = name
        self._duties = duties
        self._options = options
        self._client = client
        self._clock = clock
        self._shared = SharedInformers(client, clock, rng)
        self._events = EventRecorder(client, name, clock=clock, registry=registry, rng=rng)
        self._metrics = WorkMetrics(registry) if registry is not None else None
        self._rng = rng
        self._built = False

    def is_synced(self) -> bool:
        """Whether every informer has its first list."""
        return self._built and self._shared.is_synced()

    async def run(self) -> None:
        """Work until cancelled."""
        if self._options.install_definitions:
            await self._install()
        rounds = [self._round(duty) for duty in self._duties]
        self._built = True
        async with asyncio.TaskGroup() as group:
            start_loop(group, self._shared.run(), "informers")
            start_loop(group, self._events.run(), "events")
            await self._shared.wait_synced()
            for duty, controller in rounds:
                start_loop(group, controller.run(), f"{self._name} {facts_of(duty.cls).kind}")

    async def _install(self) -> None:
        """Brings the definitions of our own kinds up to date, and waits until they are served."""
        kinds = {cls for duty in self._duties for cls in (duty.cls, *duty.owns) if _is_custom(cls)}
        for cls in sorted(kinds, key=lambda one: one.__name__):
            document = definition_of(cls)
            await self._insist(partial(self._apply, document))
            await self._insist(partial(self._wait_established, document["metadata"]["name"]))

    async def _insist(self, what: Callable[[], Any]) -> None:
        """What may pass later is tried until it does: nothing else can be done before."""
        backoff = Backoff(0.2, 5.0, rng=self._rng)
        while True:
            try:
                await what()
                return
            except Exception as err:
                if not (is_retriable(err) or isinstance(err, Conflict)):
                    raise
                get_logger(self._name).warning("definitions are not there yet, will retry", err=str(err))
            await self._clock.sleep(backoff.next())

    async def _apply(self, document: dict[str, Any]) -> None:
        name = document["metadata"]["name"]
        await self._client.patch(
            CustomResourceDefinition, name, "", document, type="apply", field_manager=self._name, force=True
        )

    async def _wait_established(self, name: str) -> None:
        while True:
            found = await self._client.get(CustomResourceDefinition, name)
            if is_condition_true(found.status.conditions, "Established"):
                return
            await self._clock.sleep(_ESTABLISHED_S)

    def _round(self, duty: Duty) -> tuple[Duty, Controller[str]]:
        name = f"{self._name}-{facts_of(duty.cls).kind.lower()}"
        queue: RateLimitingQueue[str] = RateLimitingQueue(
            self._clock,
            limiter=ItemBackoff(_RETRY_S, _LONGEST_RETRY_S),
            metrics=self._metrics.for_queue(name) if self._metrics is not None else None,
        )
        parents = self._informer(duty.cls)
        desk = Desk(self._name, self._client, self._events, {duty.cls: parents})
        copies: dict[Any, Any] = {duty.cls: parents}
        _follow(parents, queue, lambda obj: (key_of(obj),))
        for cls in duty.owns:
            copies[cls] = children = self._informer(cls)
            if not children.store.has_index(OWNER_INDEX):
                children.add_index(OWNER_INDEX, owner_uids)
            _follow(children, queue, partial(_owner_keys, duty.cls))
            children.add_handler(on_delete=lambda obj, cls=cls: desk.forget(cls, key_of(obj)))  # type: ignore[misc]
        for watch in duty.watches:
            copies[watch.cls] = self._informer(watch.cls)
            _follow(copies[watch.cls], queue, watch.keys)
        desk.copies = copies
        reconcile = partial(self._reconcile, duty, desk, parents)
        controller = Controller(name, queue, reconcile, self._options.workers, metrics=self._metrics)
        return duty, controller

    def _informer(self, cls: Any) -> Informer[Any, Any]:
        namespace = self._options.namespace if facts_of(cls).namespaced else ""
        return self._shared.informer(cls, namespace)

    async def _reconcile(self, duty: Duty, desk: Desk, parents: Informer[Any, Any], key: str) -> RequeueAfter | None:
        parent = parents.get(key)
        if parent is None:
            return None
        finalizer = f"operators.tiphys.dev/{self._name}"
        work = Work(desk, parent, duty.owns)
        if is_being_deleted(parent):
            if duty.finalize is not None and finalizer in parent.metadata.finalizers:
                await duty.finalize(parent, work)
                left = [name for name in parent.metadata.finalizers if name != finalizer]
                await self._set_finalizers(parent, left)
            return None
        if duty.finalize is not None and finalizer not in parent.metadata.finalizers:
            # Before anything is made that must be taken away again.
            parent = await self._set_finalizers(parent, [*parent.metadata.finalizers, finalizer])
            if parent is None:
                return None
            work = Work(desk, parent, duty.owns)
        again = await duty.reconcile(parent, work)
        await work.finish()
        return again

    async def _set_finalizers(self, parent: Any, names: list[str]) -> Any:
        """The object with these finalizers, None where it is gone. Raises Conflict where it has changed meanwhile."""
        meta = parent.metadata
        patch = {"metadata": {"uid": meta.uid, "resourceVersion": meta.resourceVersion, "finalizers": names}}
        try:
            return await self._client.patch(type(parent), meta.name, meta.namespace, patch, type="merge")
        except NotFound:
            return None


def _is_custom(cls: Any) -> bool:
    return isinstance(cls, type) and issubclass(cls, Custom)


def _follow(informer: Informer[Any, Any], queue: RateLimitingQueue[str], keys: Callable[[Any], Iterable[str]]) -> None:
    def changed(*objs: Any) -> None:
        # Before and after: what pointed elsewhere before touches both.
        for key in dict.fromkeys(key for obj in objs for key in keys(obj)):
            queue.add(key)

    informer.add_handler(on_add=changed, on_update=changed, on_delete=changed)


def _owner_keys(cls: Any, child: Any) -> Iterable[str]:
    facts, owner = facts_of(cls), get_controller_of(child)
    if (
        owner is None
        or owner.kind != facts.kind
        or owner.apiVersion.partition("/")[0] != facts.api_version.partition("/")[0]
    ):
        return ()
    return (f"{child.metadata.namespace}/{owner.name}" if facts.namespaced else owner.name,)
