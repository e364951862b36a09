"""The newest revision, asked for once by all who want it at the same time.

An answer is as new as the moment in which its question was sent: who comes while one is under way may have been told
of a write that it does not know, and shares the next one. So however many read, etcd has one question at a time, and
who is alone waits for nobody. kube-apiserver shares its progress requests so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from tiphys_apiserver.storage.interface import StorageError, StoreClosed

# After this a question that etcd does not answer holds up nobody who comes later.
_PATIENCE_S = 0.1


class NewestRevision:
    """Asks for the newest revision; its tasks run in the group given."""

    def __init__(self, ask: Callable[[], Awaitable[int]], group: asyncio.TaskGroup) -> None:
        self._ask = ask
        self._group = group
        self._waiting: list[asyncio.Future[int]] = []
        self._under_way = 0

    async def read(self) -> int:
        """The revision that is the newest at this moment or later. Raises what asking does."""
        waiter: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        if not self._under_way:
            self._start()
        return await waiter

    def _start(self) -> None:
        self._under_way += 1
        self._group.create_task(self._run(), name="etcd-revision")

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._waiting:
                waiters, self._waiting = self._waiting, []
                patience = loop.call_later(_PATIENCE_S, self._lose_patience)
                try:
                    await self._answer(waiters)
                finally:
                    patience.cancel()
        finally:
            self._under_way -= 1

    def _lose_patience(self) -> None:
        if self._waiting:
            self._start()

    async def _answer(self, waiters: list[asyncio.Future[int]]) -> None:
        try:
            newest = await self._ask()
        except asyncio.CancelledError:
            _fail(waiters, StoreClosed("the store is closed"))
            raise
        except StorageError as err:
            _fail(waiters, err)
        else:
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(newest)

    def close(self) -> None:
        """Ask no more; whoever waits is told."""
        waiters, self._waiting = self._waiting, []
        _fail(waiters, StoreClosed("the store is closed"))


def _fail(waiters: list[asyncio.Future[int]], err: StorageError) -> None:
    """Tell each; an error of its own, as whoever raises one adds to it."""
    for waiter in waiters:
        if not waiter.done():
            waiter.set_exception(type(err)(*err.args))
            waiter.exception()
