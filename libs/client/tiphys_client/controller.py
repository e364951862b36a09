"""The frame of a controller: workers take keys from a queue and reconcile them; the outcome decides what follows.

A reconciliation returns None when the world is as wanted, RequeueAfter to look again later, raises Terminal when no
later try would help, and raises anything else to be tried again with backoff. Level, not edge: the key says what to
look at, never what happened.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

from tiphys_apimachinery.errors import Conflict
from tiphys_client.transport import is_retriable
from tiphys_client.workqueue import QueueShutDown, RateLimitingQueue
from tiphys_client.workqueue_metrics import WorkMetrics
from tiphys_component.app import start_loop
from tiphys_component.log import get_logger

ItemT = TypeVar("ItemT", bound=Hashable)

# No reconciliation of ours waits for anything but the API, whose calls end within 30 s each.
RECONCILE_TIMEOUT_S = 120.0


@dataclass(frozen=True, slots=True)
class RequeueAfter:
    """Look at the item again after so many seconds."""

    seconds: float


class Terminal(Exception):
    """A failure that no later try cures; the item rests until it is added again."""


Reconcile = Callable[[ItemT], Awaitable[RequeueAfter | None]]


class Controller(Generic[ItemT]):
    """Workers on one queue. run() works until cancelled; an error in one item never ends it or another item."""

    def __init__(
        self,
        name: str,
        queue: RateLimitingQueue[ItemT],
        reconcile: Reconcile[ItemT],
        workers: int = 1,
        *,
        metrics: WorkMetrics | None = None,
        timeout_s: float = RECONCILE_TIMEOUT_S,
    ) -> None:
        if workers < 1:
            raise ValueError(f"controller {name} needs at least one worker")
        self.name = name
        self._queue = queue
        self._reconcile = reconcile
        self._workers = workers
        self._metrics = metrics
        self._timeout_s = timeout_s
        self._log = get_logger(name)

    async def run(self) -> None:
        """Work until cancelled, then shut the queue down."""
        try:
            async with asyncio.TaskGroup() as group:
                for number in range(self._workers):
                    start_loop(group, self._work(), f"{self.name} worker {number}")
        finally:
            self._queue.shut_down()

    async def process_next(self) -> None:
        """Take one item and reconcile it; raises QueueShutDown. Workers do this in a loop, tests step by step."""
        item = await self._queue.get()
        try:
            result = await self._settle(item)
            if self._metrics is not None:
                self._metrics.reconciles(self.name, result).inc()
        finally:
            self._queue.done(item)

    async def _work(self) -> None:
        while True:
            try:
                await self.process_next()
            except QueueShutDown:
                return

    async def _settle(self, item: ItemT) -> str:
        try:
            async with asyncio.timeout(self._timeout_s):
                again = await self._reconcile(item)
        except Terminal as err:
            self._queue.forget(item)
            self._log.error("given up", item=item, err=str(err))
            return "terminal"
        except asyncio.CancelledError as err:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            # Something inside was cancelled, not this worker: a failure like any other.
            return self._retry(item, err)
        except Exception as err:
            return self._retry(item, err)
        self._queue.forget(item)
        if again is None:
            return "success"
        self._queue.add_after(item, again.seconds)
        return "requeue_after"

    def _retry(self, item: ItemT, err: BaseException) -> str:
        self._queue.add_rate_limited(item)
        text = str(err) or type(err).__name__
        if isinstance(err, Conflict):
            self._log.debug("try again", item=item, err=text)
            return "requeue"
        trace = {} if is_retriable(err) else {"exc_info": err}
        self._log.warning("reconcile failed", item=item, err=text, failures=self._queue.failures(item), **trace)
        return "error"
