"""One call at a time for each volume, and each to its end.

A caller that gives up does not stop the work: a mount that runs in a thread can't be stopped, and half of a job whose
lock is given back would meet the next try. So a call goes on unheard, and the next gets ABORTED until it is over.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from tiphys_component.log import get_logger
from tiphys_sdk.csi.status import CsiError, aborted

_log = get_logger("csi.calls")


class Calls:
    """The calls in flight. run() must be running while do() is called."""

    def __init__(self) -> None:
        self._group: asyncio.TaskGroup | None = None
        # What is held by calls in flight, each by one.
        self._held: set[str] = set()

    @property
    def held(self) -> frozenset[str]:
        """The locks that are taken now."""
        return frozenset(self._held)

    async def run(self) -> None:
        """Owns the calls until cancelled; those in flight are cancelled then."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            await asyncio.get_running_loop().create_future()

    async def do(self, keys: Sequence[str], work: Callable[[], Awaitable[Any]]) -> Any:
        """The result of work, done under the locks. Raises CsiError with ABORTED where one is taken."""
        taken = [key for key in keys if key in self._held]
        if taken:
            raise aborted(f"another call for {taken[0]} is in progress")
        if self._group is None:
            raise aborted("the driver is starting")
        outcome: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._held.update(keys)
        self._group.create_task(self._finish(keys, work, outcome), name=f"call for {', '.join(keys) or 'reading'}")
        return await outcome

    async def _finish(self, keys: Sequence[str], work: Callable[[], Awaitable[Any]], outcome: Any) -> None:
        try:
            result = await work()
        except asyncio.CancelledError:
            outcome.cancel()
            raise
        except Exception as err:
            if not outcome.done():
                outcome.set_exception(err)
            elif not isinstance(err, CsiError):
                _log.warning("call that nobody waits for failed", keys=list(keys), err=str(err), exc_info=err)
        else:
            if not outcome.done():
                outcome.set_result(result)
        finally:
            self._held.difference_update(keys)
