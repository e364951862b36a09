"""A process that is killed and comes back, over and over, as its supervisor has it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from random import Random
from typing import Any

from tiphys_client.leader_election import LeadershipLost
from tiphys_cluster.testing.faults import FaultyTransport
from tiphys_component.app import interruptible, leaves
from tiphys_component.clock import Clock

Start = Callable[[FaultyTransport, int], Coroutine[Any, Any, None]]
"""The work of an incarnation, given its road and its number."""


# From the end of a process to its next start, as a supervisor would have it.
_RESTART_S = (0.1, 5.0)


class Incarnations:
    """Runs one process. It is started anew a while after it ended, and nothing of the dead one reaches the server."""

    def __init__(self, name: str, clock: Clock, rng: Random) -> None:
        self.name = name
        self.starts = 0
        self.kills = 0
        self.failures: list[BaseException] = []
        """Why incarnations ended that nobody killed; a lost lease is no failure."""
        self._clock = clock
        self._rng = rng
        self._road: FaultyTransport | None = None
        self._task: asyncio.Task[None] | None = None

    async def run(self, open_road: Callable[[Callable[[], None]], FaultyTransport], start: Start) -> None:
        """Keep the process running until cancelled. open_road is given what kills the process."""
        while True:
            self.starts += 1
            road = self._road = open_road(self.kill)
            try:
                await interruptible(start(road, self.starts), self._hold)
            except Exception as err:
                if not road.is_cut:
                    self.failures += [leaf for leaf in leaves(err) if not isinstance(leaf, LeadershipLost)]
            finally:
                road.cut()
            await self._clock.sleep(self._rng.uniform(*_RESTART_S))

    def kill(self) -> None:
        """End the present incarnation where it stands."""
        if self._road is not None and self._task is not None:
            self.kills += not self._road.is_cut
            self._road.cut()
            self._task.cancel()

    def _hold(self, task: asyncio.Task[None]) -> None:
        self._task = task
