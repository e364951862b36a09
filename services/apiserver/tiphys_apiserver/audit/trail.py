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
        """Write what is held back, and free everything."""


class Trail:
    """Takes events in the loop and writes them outside of it."""

    def __init__(self, sinks: list[Sink], bodies: Bodies, metrics: Registry) -> None:
        self._sinks = sinks
        self._bodies = bodies
        self._waiting: deque[Draft] = deque()
        self._filled = asyncio.Event()
        self._has_room = asyncio.Event()
        self._has_room.set()
        # Guards the sinks: the last writing of a trail that ends may meet the one before.
        self._lock = threading.Lock()
        self._broken = False
        self._written = metrics.counter("apiserver_audit_event_total", "Audit events written to the log.")
        self._lost = metrics.counter("apiserver_audit_error_total", "Audit events that could not be written.")

    async def wait_room(self) -> None:
        """Return when the queue is not full."""
        await self._has_room.wait()

    def add(self, draft: Draft) -> None:
        """Take an event; it must not be changed afterwards."""
        self._waiting.append(draft)
        self._filled.set()
        if len(self._waiting) >= QUEUE_LENGTH:
            self._has_room.clear()

    async def run(self) -> None:
        """Write events until cancelled; then write what is left and close the log."""
        try:
            while True:
                await self._filled.wait()
                await self._write_waiting()
        finally:
            while self._waiting:
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
            for sink in self._sinks:
                self._write_to(sink, lines)

    def _write_to(self, sink: Sink, lines: list[bytes]) -> None:
        try:
            sink.write(lines)
        except OSError as err:
            self._lost.inc(len(lines))
            if not self._broken:
                _log.error("audit events are lost", count=len(lines), err=str(err))
            self._broken = True
            return
        self._broken = False
        self._written.inc(len(lines))

    def _close(self) -> None:
        with self._lock:
            for sink in self._sinks:
                sink.close()
