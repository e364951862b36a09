"""Ends what takes longer than it may, with one timer for all that runs: asyncio.timeout makes one each, for 10 µs."""

from __future__ import annotations

import asyncio
from types import TracebackType


class Deadlines:
    """Gives every block the same time, so that the one begun first is the first to be over. For one loop."""

    def __init__(self, limit_s: float) -> None:
        self.limit_s = limit_s
        # Those that run, in the order in which they began.
        self._open: dict[Deadline, None] = {}
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> Deadline:
        """`with` this the task has limit_s; then it is cancelled, and the block raises TimeoutError."""
        return Deadline(self)

    def __len__(self) -> int:
        return len(self._open)

    def _add(self, deadline: Deadline, loop: asyncio.AbstractEventLoop) -> None:
        self._open[deadline] = None
        if self._timer is None:
            self._timer = loop.call_at(deadline.at, self._look, loop)

    def _remove(self, deadline: Deadline) -> None:
        self._open.pop(deadline, None)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        """End what is over, and come again when the next one may be; there is no timer while nothing runs."""
        now = loop.time()
        late = []
        self._timer = None
        for deadline in self._open:
            if deadline.at > now:
                self._timer = loop.call_at(deadline.at, self._look, loop)
                break
            late.append(deadline)
        for deadline in late:
            self._remove(deadline)
            deadline.expire()


class Deadline:
    """One block of one task; as asyncio.timeout it leaves cancellations by others alone."""

    __slots__ = ("_cancelling", "_deadlines", "_task", "at", "expired")

    def __init__(self, deadlines: Deadlines) -> None:
        self._deadlines = deadlines
        self._task: asyncio.Task[object] | None = None
        self._cancelling = 0
        self.at = 0.0
        self.expired = False

    def __enter__(self) -> Deadline:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a deadline is that of a task")
        loop = task.get_loop()
        self._task = task
        self._cancelling = task.cancelling()
        self.at = loop.time() + self._deadlines.limit_s
        self._deadlines._add(self, loop)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._deadlines._remove(self)
        task, self._task = self._task, None
        if self.expired and task is not None and task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def expire(self) -> None:
        """Its time is over."""
        self.expired = True
        if self._task is not None:
            self._task.cancel()
