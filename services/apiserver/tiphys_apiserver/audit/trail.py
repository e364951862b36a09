"""The way of events from requests to the log: a queue of bounded length, emptied in a thread.

A request that comes while the queue is full waits before it is worked on, so nothing is lost and
memory stays bounded; events of requests that are inside are always taken. What can't be written
(a full disk) is lost, counted and told once until writing works again, and refuses no request.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from typing import Protocol

from tiphys_apiserver.audit.bodies import Bodies
from tiphys_apiserver.audit.events import Draft, line
from tiphys_component.log import get_logger
from tiphys_component.metrics import Registry
from tiphys_component.proc import to_thread

_log = get_logger(__name__)

# Events kept while the log is slow, and written at once.
QUEUE_LENGTH = 10_000
BATCH = 400


class Sink(Protocol):
    """Where lines go. Both methods are called in one thread at once and may block."""

    def write(self, lines: list[bytes]) -> None:
        """Add lines. Raises OSError where they are lost."""

    def close(self) -> None:
        """Free everything; closing twice is fine, and a sink that others run may be tried once more after it."""


class Counts:
    """How many events were written, and lost, by all trails of a server."""

    def __init__(self, metrics: Registry) -> None:
        self.written = metrics.counter("apiserver_audit_event_total", "Audit events written.")
        self.lost = metrics.counter("apiserver_audit_error_total", "Audit events that could not be written.")


class Trail:
    """Takes events in the loop and writes them outside of it.

    One that drops loses events while its queue is full instead of having requests wait: for a sink that others run.
    """

    def __init__(self, sink: Sink, bodies: Bodies, counts: Counts, *, drops: bool = False) -> None:
        self._sink = sink
        self._drops = drops
        self._bodies = bodies
        self._waiting: deque[Draft] = deque()
        self._filled = asyncio.Event()
        self._has_room = asyncio.Event()
        self._has_room.set()
        # Guards the sinks: the last writing of a trail that ends may meet the one before.
        self._lock = threading.Lock()
        self._broken = False
        self._written, self._lost = counts.written, counts.lost

    async def wait_room(self) -> None:
        """Return when the queue is not full."""
        await self._has_room.wait()

    def add(self, draft: Draft) -> None:
        """Take an event; it must not be changed afterwards."""
        if self._drops and len(self._waiting) >= QUEUE_LENGTH:
            self._lose(1, "too many wait")
            return
        self._waiting.append(draft)
        self._filled.set()
        if not self._drops and len(self._waiting) >= QUEUE_LENGTH:
            self._has_room.clear()

    async def run(self) -> None:
        """Write events until cancelled; then write what is left and close the log."""
        try:
            while True:
                await self._filled.wait()
                await self._write_waiting()
        finally:
            if self._drops:
                # The service may be away: the server's end does not wait for it.
                self._sink.close()
            while self._waiting and not (self._drops and self._broken):
                await self._write_waiting()
            await to_thread(self._close)

    async def _write_waiting(self) -> None:
        await to_thread(self._write)
        if not self._waiting:
            self._filled.clear()
        if len(self._waiting) < QUEUE_LENGTH:
            self._has_room.set()

    def _write(self) -> None:
        # Events leave the queue in the thread: one that is called off before it begins has lost none.
        with self._lock:
            batch = [self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting)))]
            lines = [line(draft, self._bodies) for draft in batch]
            try:
                self._sink.write(lines)
            except OSError as err:
                self._lose(len(lines), str(err))
                return
        self._broken = False
        self._written.inc(len(lines))

    def _lose(self, count: int, why: str) -> None:
        self._lost.inc(count)
        if not self._broken:
            _log.error("audit events are lost", count=count, err=why)
        self._broken = True

    def _close(self) -> None:
        with self._lock:
            self._sink.close()
