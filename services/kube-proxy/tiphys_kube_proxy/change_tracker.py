"""Collects changes of Services and EndpointSlices, and says when the rules must follow.

A burst is one sync: the first change starts it at once, later ones wait until the sync is done and
the least period between two has passed.
"""

from __future__ import annotations

import asyncio

from tiphys_component.clock import Clock


class ChangeTracker:
    """Marks that something changed; waits until a sync is due."""

    def __init__(self, clock: Clock, *, min_period_s: float) -> None:
        self._clock = clock
        self._min_period_s = min_period_s
        self._changed = asyncio.Event()
        self._last_sync = -min_period_s

    def mark(self, *_objects: object) -> None:
        """Something changed. Takes any arguments, so that it serves as a handler of informers."""
        self._changed.set()

    async def wait_due(self) -> None:
        """Returns when something has changed and the least period is over."""
        await self._changed.wait()
        left = self._last_sync + self._min_period_s - self._clock.monotonic()
        if left > 0:
            await self._clock.sleep(left)
        self._changed.clear()
        self._last_sync = self._clock.monotonic()
