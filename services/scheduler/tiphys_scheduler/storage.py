"""Brings what informers say of storage to those who act on it: the state, the queue, and pods that wait for volumes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from tiphys_apimachinery.meta import join_key
from tiphys_client.informer import Informer
from tiphys_scheduler.framework.interface import Event
from tiphys_scheduler.scheduling_queue import SchedulingQueue
from tiphys_scheduler.volume_binder import VolumeBinder
from tiphys_scheduler.volumes import StorageInformers, Volumes

ViewT = TypeVar("ViewT")


def follow_storage(informers: StorageInformers, volumes: Volumes, queue: SchedulingQueue, binder: VolumeBinder) -> None:
    """Have every change of storage noted, before anyone hears of it."""

    def claim(key: str, view: Any) -> None:
        if not volumes.set_claim(key, view):
            return
        binder.claim_changed(key)
        queue.claim_changed(key)
        queue.move_on(frozenset({Event.CLAIM}))

    def volume(key: str, view: Any) -> None:
        is_new = view is not None and volumes.volume(key) is None
        volumes.set_volume(key, view)
        if is_new:
            # The two kinds come by two watches: the claim may have been seen bound to it before.
            queue.claim_changed(view.claim)
        queue.move_on(frozenset({Event.VOLUME}))

    def storage_class(key: str, view: Any) -> None:
        volumes.classes.pop(key, None)
        if view is not None:
            volumes.classes[key] = view
        queue.move_on(frozenset({Event.STORAGE_CLASS}))

    def drivers(key: str, view: Any) -> None:
        volumes.set_drivers(key, view)
        queue.move_on(frozenset({Event.CSI_NODE}))

    def driver_kind(key: str, tells_room: bool | None) -> None:
        if volumes.set_driver(key, tells_room=bool(tells_room)):
            queue.move_on(frozenset({Event.CSI_DRIVER}))

    def capacity(key: str, view: Any) -> None:
        if volumes.set_capacity(key, view):
            queue.move_on(frozenset({Event.STORAGE_CAPACITY}), subject=view.storage_class)

    _follow(informers.claims, claim)
    _follow(informers.volumes, volume)
    _follow(informers.classes, storage_class)
    _follow(informers.drivers, drivers)
    _follow(informers.driver_kinds, driver_kind)
    _follow(informers.capacities, capacity)


def _follow(informer: Informer[Any, ViewT], note: Callable[[str, ViewT | None], None]) -> None:
    def key_of(obj: Any) -> str:
        return join_key(obj.metadata.namespace, obj.metadata.name)

    def put(obj: Any) -> None:
        key = key_of(obj)
        note(key, informer.projection(key))

    informer.add_handler(put, lambda _, new: put(new), lambda obj: note(key_of(obj), None))
