"""Hands the committed events of a store to its watches, in process and without a task per watch."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence

from tiphys_apiserver.storage.interface import Compacted, Event, StorageError, StoreClosed

# A reader that is so many events behind is told Compacted and lists anew, so that memory stays bounded.
DEFAULT_CAPACITY = 200_000


class QueuedWatch:
    """A watch whose events wait in a queue; the Watch of every backend. For one reader."""

    __slots__ = (
        "_after",
        "_busy",
        "_capacity",
        "_delivered",
        "_end",
        "_feed",
        "_gate",
        "_queue",
        "_waiting",
        "_wakeup",
        "prefix",
    )

    def __init__(self, feed: Feed, prefix: str, after_revision: int, capacity: int) -> None:
        self.prefix = prefix
        self._feed = feed
        self._after = after_revision
        self._capacity = capacity
        self._queue: list[Event] = []
        # The reader holds a batch it has not come back from.
        self._busy = False
        # What the reader has come back from.
        self._delivered = after_revision
        # Set until history is loaded: live events are kept, and handed out behind it.
        self._gate = True
        self._end: StorageError | None = None
        self._wakeup: asyncio.Future[None] | None = None
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []

    @property
    def revision(self) -> int:
        """Every event up to here has been handed out, and the reader came back for more after it."""
        if self._gate or self._busy or self._queue:
            return self._delivered
        return max(self._delivered, self._feed.revision)

    async def wait_revision(self, revision: int) -> None:
        """Return once ``self.revision`` has reached ``revision``; see Watch."""
        if self.revision >= revision:
            return
        if self._end is not None:
            raise StoreClosed("the watch has ended")
        reached: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((revision, reached))
        self._feed.note_waiting(self)
        await reached

    def __aiter__(self) -> AsyncIterator[list[Event]]:
        return self

    async def __anext__(self) -> list[Event]:
        """The next batch; raises Compacted after a gap, StopAsyncIteration once the store is closed."""
        if self._busy:
            self._busy = False
            if not self._queue:
                self._delivered = max(self._delivered, self._feed.revision)
            self.check_waiting()
        while not self._queue:
            if self._end is not None:
                if isinstance(self._end, StoreClosed):
                    raise StopAsyncIteration
                raise self._end
            self._wakeup = asyncio.get_running_loop().create_future()
            try:
                await self._wakeup
            finally:
                self._wakeup = None
        batch, self._queue = self._queue, []
        self._busy = True
        return batch

    def push(self, events: Sequence[Event]) -> None:
        """Queue events, of which those not above the start are dropped."""
        if self._end is not None:
            return
        if events[0].mod_revision <= self._after:
            events = [event for event in events if event.mod_revision > self._after]
        self._queue.extend(events)
        if len(self._queue) > self._capacity:
            self._queue.clear()
            self.end(Compacted(0))
        self._wake()

    def open_gate(self, history: Sequence[Event]) -> None:
        """Put what happened between the start and the opening of the watch before what came since."""
        self._gate = False
        if history:
            last = history[-1].mod_revision
            self._queue = [*history, *(event for event in self._queue if event.mod_revision > last)]
        self._wake()
        self.check_waiting()

    def end(self, reason: StorageError) -> None:
        """Let the reader finish what is queued and then end, with an error unless the store was closed."""
        if self._end is None:
            self._end = reason
            for _, reached in self._waiting:
                if not reached.done():
                    reached.set_exception(StoreClosed("the watch has ended"))
            self._waiting.clear()
            self._wake()

    def check_waiting(self) -> bool:
        """Release whoever waits for a revision that is reached; whether somebody still waits."""
        if self._waiting:
            now = self.revision
            for revision, reached in self._waiting:
                if revision <= now and not reached.done():
                    reached.set_result(None)
            self._waiting = [entry for entry in self._waiting if not entry[1].done()]
        return bool(self._waiting)

    def _wake(self) -> None:
        if self._wakeup is not None and not self._wakeup.done() and (self._queue or self._end is not None):
            self._wakeup.set_result(None)


class Feed:
    """All watches of one store. ``revision`` is the last one whose events have been queued for everybody."""

    def __init__(
        self, revision: int, *, capacity: int = DEFAULT_CAPACITY, on_waiting: Callable[[], None] | None = None
    ) -> None:
        """``on_waiting`` is called when somebody begins to wait for a revision that has not come by."""
        self.revision = revision
        self._on_waiting = on_waiting
        self._capacity = capacity
        self._watches: dict[str, list[QueuedWatch]] = {}
        self._with_waiting: set[QueuedWatch] = set()
        self._closed: StorageError | None = None

    def open(self, prefix: str, after_revision: int) -> QueuedWatch:
        """A watch that gathers events from now on and hands out none before ``open_gate``."""
        if self._closed is not None:
            raise self._closed
        if not prefix.endswith("/"):
            raise ValueError(f"a watched prefix ends with a slash: {prefix!r}")
        watch = QueuedWatch(self, prefix, after_revision, self._capacity)
        self._watches.setdefault(prefix, []).append(watch)
        return watch

    def forget(self, watch: QueuedWatch) -> None:
        """Stop feeding a watch."""
        watches = self._watches.get(watch.prefix, [])
        if watch in watches:
            watches.remove(watch)
            if not watches:
                del self._watches[watch.prefix]
        self._with_waiting.discard(watch)
        watch.end(StoreClosed("the watch was left"))

    def publish(self, events: Sequence[Event], revision: int) -> None:
        """Queue committed events, in order; every event up to ``revision`` has then been published."""
        self.revision = max(self.revision, revision)
        if events and self._watches:
            if len(events) == 1:
                for prefix in _parents(events[0].key):
                    for watch in self._watches.get(prefix, ()):
                        watch.push(events)
            else:
                self._publish_many(events)
        for watch in list(self._with_waiting):
            if not watch.check_waiting():
                self._with_waiting.discard(watch)

    def _publish_many(self, events: Sequence[Event]) -> None:
        by_prefix: dict[str, list[Event]] = {}
        # Keys of one folder lie under the same prefixes, and a batch has many of one.
        by_folder: dict[str, list[list[Event]]] = {}
        for event in events:
            folder = event.key[: event.key.rfind("/")]
            chosen_by = by_folder.get(folder)
            if chosen_by is None:
                prefixes = [prefix for prefix in _parents(event.key) if prefix in self._watches]
                chosen_by = by_folder[folder] = [by_prefix.setdefault(prefix, []) for prefix in prefixes]
            for chosen in chosen_by:
                chosen.append(event)
        for prefix, chosen in by_prefix.items():
            for watch in self._watches[prefix]:
                watch.push(chosen)

    def note_waiting(self, watch: QueuedWatch) -> None:
        """Look at this watch's waiters after each publication until there are none."""
        self._with_waiting.add(watch)
        if self._on_waiting is not None:
            self._on_waiting()

    @property
    def has_waiting(self) -> bool:
        """Whether somebody waits for a revision to come by."""
        return bool(self._with_waiting)

    def end_all(self, reason: StorageError) -> None:
        """End every watch there is now; later ones may be opened."""
        for watches in list(self._watches.values()):
            for watch in watches:
                watch.end(reason)

    def close(self) -> None:
        """End every watch and refuse new ones."""
        self._closed = StoreClosed("the store is closed")
        self.end_all(self._closed)


def _parents(key: str) -> list[str]:
    """The prefixes ending in a slash that a key lies under, such as / /registry/ /registry/pods/ /registry/pods/a/."""
    parents = []
    at = key.find("/")
    while at >= 0:
        parents.append(key[: at + 1])
        at = key.find("/", at + 1)
    return parents
