"""Binds placed pods, many to a call: one call a pod is what limits every other scheduler.

A call whose answer was lost may have bound its pods. Each is read before anybody hears of it: what it would use is not
given to others while it may be on its node.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys_apimachinery.errors import APIError, TooManyRequests
from tiphys_client.client import Bind, Client
from tiphys_client.transport import is_retriable
from tiphys_component.app import start_loop
from tiphys_component.backoff import Backoff
from tiphys_component.clock import Clock
from tiphys_component.log import get_logger
from tiphys_scheduler.scheduling_queue import Waiting

_log = get_logger("scheduler.binder")
_MOST_IN_CALL: Final = 256
_CALLS_IN_FLIGHT: Final = 4
_ASK_AGAIN_S: Final = 0.1
_ASK_AGAIN_MAX_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class _Placement:
    """done hears once what became of it: None where the pod is bound."""

    waiting: Waiting
    node: str
    done: Callable[[APIError | None], None]

    def bind(self) -> Bind:
        """What is asked of the API server."""
        pod = self.waiting.pod
        return Bind(pod.namespace, pod.name, self.node, pod.uid)


class Binder:
    """Takes placements and tells each what became of it, exactly once."""

    def __init__(self, client: Client, *, clock: Clock) -> None:
        self._client = client
        self._clock = clock
        self._todo: deque[_Placement] = deque()
        self._has_work = asyncio.Event()
        # Those whose answer was lost, with what came instead.
        self._doubts: deque[tuple[_Placement, APIError]] = deque()
        self._has_doubts = asyncio.Event()

    def add(self, waiting: Waiting, node: str, done: Callable[[APIError | None], None]) -> None:
        """Queues one placement."""
        self._todo.append(_Placement(waiting, node, done))
        self._has_work.set()

    async def run(self) -> None:
        """Binds until cancelled."""
        async with asyncio.TaskGroup() as group:
            for number in range(_CALLS_IN_FLIGHT):
                start_loop(group, self._work(), f"binder {number}")
            start_loop(group, self._settle_doubts(), "binder of lost answers")

    async def _work(self) -> None:
        while True:
            await self._has_work.wait()
            batch = [self._todo.popleft() for _ in range(min(len(self._todo), _MOST_IN_CALL))]
            if not self._todo:
                self._has_work.clear()
            if batch:
                await self._bind(batch)

    async def _bind(self, batch: list[_Placement]) -> None:
        binds = [one.bind() for one in batch]
        errors: list[APIError | None]
        try:
            errors = list(await self._client.bind(binds))
        except APIError as err:
            _log.warning("binding failed", pods=len(batch), err=str(err))
            errors = [err] * len(batch)
        for one, error in zip(batch, errors, strict=True):
            if error is None or not _may_be_bound(error):
                one.done(error)
            else:
                self._doubts.append((one, error))
                self._has_doubts.set()

    async def _settle_doubts(self) -> None:
        while True:
            await self._has_doubts.wait()
            while self._doubts:
                one, error = self._doubts.popleft()
                one.done(await self._outcome(one, error))
            self._has_doubts.clear()

    async def _outcome(self, one: _Placement, error: APIError) -> APIError | None:
        """What the pod itself says, asked until there is an answer."""
        pod, pause = one.waiting.pod, Backoff(_ASK_AGAIN_S, _ASK_AGAIN_MAX_S)
        while True:
            try:
                found = await self._client.get(Pod, pod.name, pod.namespace)
            except APIError as err:
                if not is_retriable(err):
                    return err
                await self._clock.sleep(pause.next())
                continue
            is_bound = found.metadata.uid == pod.uid and found.spec.nodeName == one.node
            return None if is_bound else error


def _may_be_bound(error: APIError) -> bool:
    return is_retriable(error) and not isinstance(error, TooManyRequests)
