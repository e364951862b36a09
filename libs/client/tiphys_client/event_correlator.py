"""Which of many similar Events are written, and how: a pure part of the recorder.

Equal events become one with a count. More than ten that differ only in their message within ten minutes become one that
says so. An object with more than 25 events at once gets one in five minutes from there on.
Source: client-go tools/record/events_cache.go, whose numbers these are.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from enum import Enum
from typing import Generic, NamedTuple, TypeVar

KeyT = TypeVar("KeyT")
ValueT = TypeVar("ValueT")

_REMEMBERED = 4096
_SIMILAR_LIMIT = 10
_SIMILAR_WINDOW_S = 600.0
_SPAM_BURST = 25
_SPAM_REFILL_S = 300.0
COMBINED_PREFIX = "(combined from similar events): "


class Occurrence(NamedTuple):
    """One thing that happened to an object: what makes it equal to another, apart from its time.

    A tuple, as it is a key that is looked up several times for each event.
    """

    namespace: str
    object_key: str
    type: str
    reason: str
    message: str
    reporter: str


class Decision(Enum):
    """What to do with an occurrence."""

    CREATE = "create"
    COUNT = "count"
    DROP = "drop"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What to do, with which message; name and count are of the event to be counted up."""

    decision: Decision
    key: Occurrence
    message: str
    name: str = ""
    count: int = 1


class EventCorrelator:
    """Remembers the last few thousand events. Not told of a write that failed: forget() is for that."""

    def __init__(self) -> None:
        self._written: _Recent[Occurrence, tuple[str, int]] = _Recent(_REMEMBERED)
        self._similar: _Recent[Occurrence, tuple[set[str], float]] = _Recent(_REMEMBERED)
        self._spam: _Recent[str, tuple[float, float]] = _Recent(_REMEMBERED)

    def judge(self, occurrence: Occurrence, now: float) -> Verdict:
        """What to do with an occurrence at a monotonic time; created() must follow a CREATE that was written."""
        if self._is_spam(f"{occurrence.reporter} {occurrence.object_key}", now):
            return Verdict(Decision.DROP, occurrence, occurrence.message)
        key, message = self._combine(occurrence, now)
        written = self._written.get(key)
        if written is None:
            return Verdict(Decision.CREATE, key, message)
        name, count = written[0], written[1] + 1
        self._written.put(key, (name, count))
        return Verdict(Decision.COUNT, key, message, name, count)

    def created(self, key: Occurrence, name: str) -> None:
        """An event was written under this name; equal ones count it up."""
        self._written.put(key, (name, 1))

    def forget(self, key: Occurrence) -> None:
        """The event is not there any more; the next equal one is created."""
        self._written.drop(key)

    def _combine(self, occurrence: Occurrence, now: float) -> tuple[Occurrence, str]:
        group = Occurrence(
            occurrence.namespace, occurrence.object_key, occurrence.type, occurrence.reason, "", occurrence.reporter
        )
        messages, last = self._similar.get(group) or (set(), now)
        if now - last > _SIMILAR_WINDOW_S:
            messages = set()
        if len(messages) <= _SIMILAR_LIMIT:
            messages.add(occurrence.message)
        self._similar.put(group, (messages, now))
        if len(messages) > _SIMILAR_LIMIT:
            return group, COMBINED_PREFIX + occurrence.message
        return occurrence, occurrence.message

    def _is_spam(self, source: str, now: float) -> bool:
        tokens, filled = self._spam.get(source) or (float(_SPAM_BURST), now)
        tokens = min(float(_SPAM_BURST), tokens + (now - filled) / _SPAM_REFILL_S)
        refused = tokens < 1.0
        self._spam.put(source, (tokens if refused else tokens - 1.0, now))
        return refused


class _Recent(Generic[KeyT, ValueT]):
    """A map that forgets what was used longest ago."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._items: OrderedDict[KeyT, ValueT] = OrderedDict()

    def get(self, key: KeyT) -> ValueT | None:
        value = self._items.get(key)
        if value is not None:
            self._items.move_to_end(key)
        return value

    def put(self, key: KeyT, value: ValueT) -> None:
        self._items[key] = value
        self._items.move_to_end(key)
        if len(self._items) > self._size:
            self._items.popitem(last=False)

    def drop(self, key: KeyT) -> None:
        self._items.pop(key, None)
