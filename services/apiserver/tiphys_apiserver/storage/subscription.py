"""Watchers of a cache: who gets what, pushed straight to their connections, without a task or a queue for each.

A watcher that is paused holds nothing but a place in the ring of recent changes, shared with all others. When it
resumes it reads on from there; when the ring has moved past its place it is told Expired and nobody else notices.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

from tiphys_apimachinery.errors import APIError
from tiphys_apiserver.storage.objects import CachedObject
from tiphys_apiserver.storage.selection import Matcher
from tiphys_apiserver.storage.watch_event import ADDED, EventBatch, WatchEvent

# Events handed out in one go to a watcher that catches up; the loop turns between two goes.
CHUNK = 128


class Sink(Protocol):
    """A connection that events are pushed to. Neither call may block; both run on the loop."""

    def deliver(self, batch: EventBatch) -> None:
        """Take events, in order. May call pause() or close() of its subscription."""

    def ended(self, error: APIError | None) -> None:
        """The watch is over: no more calls. None when the server stops or the sink closed it itself."""


class RunningWatch(Protocol):
    """What a sink may do with its watch."""

    @property
    def paused(self) -> bool:
        """Whether nothing is delivered just now."""
        ...

    def pause(self) -> None:
        """Deliver nothing more until resume()."""

    def resume(self) -> None:
        """Deliver what was missed, then go on."""

    def close(self) -> None:
        """End the watch from the reader's side."""


class Deliveries(Protocol):
    """What a subscription asks of who hands out the events: the dispatcher of its cache."""

    def deliver(self, subscription: Subscription, batch: EventBatch) -> None:
        """Push a batch; a connection that fails loses its own watch only."""

    def catch_up(self, subscription: Subscription) -> None:
        """Deliver the next part of what a watcher has missed; when nothing is left it is live."""

    def suspend(self, subscription: Subscription) -> None:
        """Take a paused watcher out of those that get events at once."""

    def forget(self, subscription: Subscription) -> None:
        """Remove a watcher that is over."""

    def bookmark(self, revision: int, *, initial_events_end: bool = False) -> WatchEvent:
        """A new bookmark event."""
        ...

    def call_soon(self, callback: Callable[[], None]) -> None:
        """Run in the next turn of the loop."""


class Subscription:
    """One running watch. Begins paused if asked to; the sink pauses it while its transport is full."""

    __slots__ = (
        "_closed",
        "_deliveries",
        "_initial",
        "_scheduled",
        "_wants_end_bookmark",
        "group",
        "initial_revision",
        "missed",
        "paused",
        "position",
        "sink",
        "wants_bookmarks",
    )

    def __init__(
        self,
        deliveries: Deliveries,
        group: Group,
        sink: Sink,
        *,
        position: int,
        initial: list[CachedObject] | None = None,
        wants_bookmarks: bool = False,
        wants_end_bookmark: bool = False,
    ) -> None:
        self._deliveries = deliveries
        self.group = group
        self.sink = sink
        # Everything up to here was delivered or did not concern this watcher; of use only while it is not live.
        self.position = position
        self.initial_revision = position
        # Something after ``position`` waits in the ring.
        self.missed = True
        self.paused = False
        self.wants_bookmarks = wants_bookmarks
        self._wants_end_bookmark = wants_end_bookmark
        self._initial: Iterator[list[CachedObject]] | None = _chunks(initial) if initial is not None else None
        self._scheduled = False
        self._closed = False

    @property
    def is_closed(self) -> bool:
        """Whether the watch is over."""
        return self._closed

    def pause(self) -> None:
        """Deliver nothing more until resume()."""
        if not self.paused and not self._closed:
            self.paused = True
            self._deliveries.suspend(self)

    def resume(self) -> None:
        """Deliver what was missed, then go on."""
        if self.paused and not self._closed:
            self.paused = False
            self.schedule()

    def close(self) -> None:
        """End the watch from the reader's side; closing twice is fine."""
        self.finish(None)

    def finish(self, error: APIError | None) -> None:
        """End the watch and tell the sink why."""
        if not self._closed:
            self._closed = True
            self._initial = None
            self._deliveries.forget(self)
            self.sink.ended(error)

    def schedule(self) -> None:
        """Catch up in the next turn of the loop."""
        if not self._scheduled:
            self._scheduled = True
            self._deliveries.call_soon(self._catch_up)

    def _catch_up(self) -> None:
        self._scheduled = False
        if self.paused or self._closed:
            return
        if self._initial is not None:
            self._deliver_initial()
        else:
            self._deliveries.catch_up(self)

    def _deliver_initial(self) -> None:
        assert self._initial is not None
        chunk = next(self._initial, None)
        if chunk is not None:
            self._deliveries.deliver(self, EventBatch([WatchEvent(ADDED, cached, cached.rv) for cached in chunk]))
        else:
            self._initial = None
            if self._wants_end_bookmark:
                bookmark = self._deliveries.bookmark(self.initial_revision, initial_events_end=True)
                self._deliveries.deliver(self, EventBatch([bookmark]))
        if not self._closed and not self.paused:
            self.schedule()


def _chunks(objects: list[CachedObject]) -> Iterator[list[CachedObject]]:
    for start in range(0, len(objects), CHUNK):
        yield objects[start : start + CHUNK]


class Group:
    """All watchers of one selection: what they see is worked out once."""

    __slots__ = ("live", "matcher", "waiting")

    def __init__(self, matcher: Matcher) -> None:
        self.matcher = matcher
        # Those that have everything, and get the next events at once.
        self.live: dict[Subscription, None] = {}
        # Those that are paused or still catching up.
        self.waiting: set[Subscription] = set()

    def __bool__(self) -> bool:
        return bool(self.live or self.waiting)
