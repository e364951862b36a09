"""All that a scheduler needs for claims of devices: informers, state, writer, and whom to tell of changes."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any, Final

from tiphys_apimachinery.meta import join_key
from tiphys_client.client import Client
from tiphys_client.informer import Informer
from tiphys_component.clock import Clock
from tiphys_scheduler.columns import Columns
from tiphys_scheduler.dynamic_resources.claim_writer import ClaimWriter
from tiphys_scheduler.dynamic_resources.state import ClaimView, Devices, device_informers
from tiphys_scheduler.framework.interface import Event
from tiphys_scheduler.plugins.dynamic_resources import DynamicResources
from tiphys_scheduler.pod_info import device_claim
from tiphys_scheduler.scheduling_queue import SchedulingQueue

_FREED: Final = frozenset({Event.RESOURCE_CLAIM})
_SLICE: Final = frozenset({Event.RESOURCE_SLICE})
_CLASS: Final = frozenset({Event.DEVICE_CLASS})


class DeviceSupport:
    """Made before the scheduler, which asks for the plugin, has its queue told, and runs the writer."""

    def __init__(self, client: Client, clock: Clock, rng: Random | None = None) -> None:
        self._informers = device_informers(client, clock, rng)
        self.state = Devices()
        self.writer = ClaimWriter(client, clock, self.state, self._written)
        self._queue: SchedulingQueue | None = None

    def all(self) -> tuple[Informer[Any, Any], ...]:
        """Every informer; the caller runs them."""
        return self._informers.all()

    def plugin(self, columns: Columns) -> DynamicResources:
        """What places pods with claims."""
        return DynamicResources(self.state, columns, self.writer, self._informers.claims, freed=self._freed)

    def follow(self, queue: SchedulingQueue) -> None:
        """Have every change noted, and the queue told of it."""
        self._queue = queue
        _follow(self._informers.claims, self._claim)
        _follow(self._informers.slices, self._slice)
        _follow(self._informers.classes, self._class)

    async def run(self) -> None:
        """Works until cancelled."""
        await self.writer.run()

    def _claim(self, key: str, _item: Any, view: ClaimView | None) -> None:
        before = self.state.claims.get(key)
        if not self.state.set_claim(key, view):
            return
        self._written(key, before)

    def _written(self, key: str, before: ClaimView | None) -> None:
        if self._queue is None:
            return
        self._queue.claim_changed(device_claim(key))
        now = self.state.claims.get(key)
        if before is not None and before.devices and (now is None or now.devices != before.devices):
            self._freed()

    def _freed(self) -> None:
        if self._queue is not None:
            self._queue.move_on(_FREED)

    def _slice(self, key: str, _item: Any, view: Any) -> None:
        self.state.set_slice(key, view)
        if self._queue is not None:
            self._queue.move_on(_SLICE)

    def _class(self, key: str, item: Any, _view: Any) -> None:
        self.state.set_class(key, item)
        if self._queue is not None:
            self._queue.move_on(_CLASS)


def _follow(informer: Informer[Any, Any], note: Callable[[str, Any, Any], None]) -> None:
    """note hears the key, the object and its view; None for both when it is gone."""

    def key_of(obj: Any) -> str:
        return join_key(obj.metadata.namespace, obj.metadata.name)

    def put(obj: Any) -> None:
        key = key_of(obj)
        note(key, obj, informer.projection(key))

    informer.add_handler(on_set=put, on_delete=lambda obj: note(key_of(obj), None, None))
