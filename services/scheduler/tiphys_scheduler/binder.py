"""Binds placed pods, many to a call: one call a pod is what limits every other scheduler."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from tiphys_apimachinery.errors import APIError
from tiphys_client.client import Bind, Client
from tiphys_component.log import get_logger
from tiphys_scheduler.scheduling_queue import Waiting

_log = get_logger("scheduler.binder")
_MOST_IN_CALL = 256
_CALLS_IN_FLIGHT = 4


@dataclass(frozen=True, slots=True)
class Bound:
    """What became of one placement; error is None where the pod is bound."""

    waiting: Waiting
    node: str
    error: APIError | None


class Binder:
    """Takes placements and reports each exactly once to `done`."""

    def __init__(self, client: Client, done: Callable[[Bound], None]) -> None:
        self._client = client
        self._done = done
        self._todo: deque[tuple[Waiting, str]] = deque()
        self._has_work = asyncio.Event()

    def add(self, waiting: Waiting, node: str) -> None:
        """Queues one placement."""
        self._todo.append((waiting, node))
        self._has_work.set()

    async def run(self) -> None:
        """Binds until cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(_CALLS_IN_FLIGHT):
                group.create_task(self._work())

    async def _work(self) -> None:
        while True:
            await self._has_work.wait()
            batch = [self._todo.popleft() for _ in range(min(len(self._todo), _MOST_IN_CALL))]
            if not self._todo:
                self._has_work.clear()
            if batch:
                await self._bind(batch)

    async def _bind(self, batch: list[tuple[Waiting, str]]) -> None:
        binds = [Bind(w.pod.namespace, w.pod.name, node, w.pod.uid) for w, node in batch]
        errors: list[APIError | None]
        try:
            errors = list(await self._client.bind(binds))
        except APIError as err:
            _log.warning("binding failed", pods=len(batch), err=str(err))
            errors = [err] * len(batch)
        for (waiting, node), error in zip(batch, errors, strict=True):
            self._done(Bound(waiting, node, error))
