"""All that a controller knows, for those who look on: its views, its queue, its own writes not seen yet, its memory.

Memory is found by walking what the controller's object holds, not by asking it: so nothing can be left out. What is
shared by all (client, views, clock, queue) is not walked.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from google.protobuf.message import Message

from tiphys_client.workqueue import QueueState
from tiphys_controller_manager.controller_metrics import ControllerMetrics
from tiphys_controller_manager.expectations import Expectations, Unseen
from tiphys_controller_manager.frame import Context, Loop
from tiphys_controller_manager.options import Options
from tiphys_controller_manager.pod_control import PodControl

MOST: Final = 1000
# Deep enough for a table of tables of values; a graph's objects name each other by uid, not by reference.
_DEEPEST: Final = 8
_OWN: Final = "tiphys_controller_manager"
_PLAIN: Final = (str, int, float, bool, type(None))
_LISTS: Final = (list, tuple, set, frozenset, deque)
# Shared by all, or told of elsewhere.
_PASSED_OVER: Final = (Context, ControllerMetrics, Expectations, Options, PodControl)


@dataclass(frozen=True, slots=True)
class ViewState:
    """One view: the full name of its message, and the keys of its objects, not more than were asked for."""

    message: str
    is_synced: bool
    resource_version: str
    objects: int
    keys: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LoopState:
    """A controller at one moment."""

    views: tuple[ViewState, ...]
    queue: QueueState[str]
    unseen: tuple[tuple[str, Unseen], ...]
    memory: Mapping[str, Any]


def state_of(loop: Loop, *, most: int = MOST) -> LoopState:
    """All that a controller knows; most limits every list."""
    views = tuple(
        ViewState(
            cls.DESCRIPTOR.full_name,
            informer.is_synced(),
            str(informer.reflector.resource_version or ""),
            len(informer),
            tuple(_first(informer.keys(), most)),
        )
        for cls, informer in loop.views()
    )
    unseen = tuple((cls.DESCRIPTOR.full_name, one) for cls, awaited in loop.expectations for one in awaited.unseen())
    return LoopState(views, loop.queue.state(), unseen[:most], memory_of(loop.reconciler, most=most))


def memory_of(obj: object, *, most: int = MOST) -> dict[str, Any]:
    """What an object of ours holds, by field, as JSON would have it."""
    walk = _Walk(most)
    return {name: value for name, held in _fields(obj) if (value := walk.value(held)) is not _NOTHING}


_NOTHING: Final = object()


class _Walk:
    """One walk through what objects hold. What is met again is not walked again."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._above: set[int] = set()

    def value(self, held: Any, depth: int = 0) -> Any:
        """The value as JSON, _NOTHING for what is no memory of the controller's own."""
        if isinstance(held, _PLAIN):
            return held
        if isinstance(held, (*_PASSED_OVER, type)):
            return _NOTHING
        if id(held) in self._above or depth > _DEEPEST:
            return "…"
        self._above.add(id(held))
        try:
            return self._made(held, depth)
        finally:
            self._above.discard(id(held))

    def _made(self, held: Any, depth: int) -> Any:
        if isinstance(held, Mapping):
            entries = ((str(key), self.value(value, depth + 1)) for key, value in _first(held.items(), self._most))
            return {key: value for key, value in entries if value is not _NOTHING}
        if isinstance(held, _LISTS):
            values = (self.value(value, depth + 1) for value in _first(held, self._most))
            return [value for value in values if value is not _NOTHING]
        if isinstance(held, Message):
            return str(held)
        if type(held).__module__.startswith(_OWN) or dataclasses.is_dataclass(held):
            entries = ((name, self.value(value, depth + 1)) for name, value in _fields(held))
            return {name: value for name, value in entries if value is not _NOTHING} or _NOTHING
        return _NOTHING


def _fields(obj: Any) -> list[tuple[str, Any]]:
    names = [*getattr(obj, "__dict__", ())]
    for cls in type(obj).__mro__:
        slots = cls.__dict__.get("__slots__", ())
        names += (slots,) if isinstance(slots, str) else slots
    return [(name.lstrip("_"), getattr(obj, name)) for name in names if hasattr(obj, name)]


def _first(items: Iterable[Any], most: int) -> list[Any]:
    return [item for _, item in zip(range(most), items, strict=False)]
