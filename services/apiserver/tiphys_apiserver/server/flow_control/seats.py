"""Seats of priority levels, and the queues before them. No clock and no I/O: a waiting request is a future.

A level has a nominal number of seats, its share of the server's. Some of them it lends while it does not need them;
some others it may borrow. Upstream moves seats between levels every ten seconds by what was asked for; here a seat is
lent at the moment it is asked for, and comes back when the request that holds it ends. So nothing idles while something
waits, and what a level does not lend is free for it at once.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from hashlib import blake2b
from heapq import heappop, heappush


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelSettings:
    """What a PriorityLevelConfiguration says. most_percent is the borrowing limit, None for none; queues 0 rejects."""

    name: str
    uid: str = ""
    exempt: bool = False
    shares: int = 0
    lendable_percent: int = 0
    most_percent: int | None = None
    queues: int = 0
    hand_size: int = 1
    queue_length: int = 0


class QueueFull(Exception):
    """A request can't wait: its level has no queues, or the best of its queues is full."""


@dataclass(slots=True, eq=False)
class _Queue:
    """Requests of the flows dealt to it; start is the virtual time, in seats, at which its next request begins."""

    number: int
    start: int = 0
    # Whether an entry of the level's heap names it.
    listed: bool = False
    waiting: deque[Waiter] = field(default_factory=deque)


@dataclass(slots=True, eq=False)
class Waiter:
    """A request in a queue; admitted is done when it has its seats."""

    width: int
    queue: _Queue
    admitted: asyncio.Future[None]


class Pool:
    """The seats that levels lend each other, and those who wait."""

    def __init__(self) -> None:
        # Seats that no level keeps for itself and nobody holds.
        self.free = 0
        # Levels with waiting requests; the one served last stands last.
        self.waiting: dict[Level, None] = {}

    def share_out(self, levels: Iterable[tuple[Level, LevelSettings]], retired: Iterable[Level], total: int) -> None:
        """Set every level's seats anew. Retired levels keep nothing, and end with what they hold and hold back."""
        pairs = list(levels)
        shares = sum(settings.shares for _, settings in pairs)
        self.free = 0
        for level, settings in pairs:
            level.configure(settings, math.ceil(total * settings.shares / shares) if shares else 0)
            self.free += level.nominal - level.kept
            if not settings.exempt:
                self.free -= max(0, level.seats - level.kept)
        for level in retired:
            level.kept = 0
            if not level.settings.exempt:
                self.free -= level.seats

    def admit_waiting(self) -> None:
        """Let in whoever fits now."""
        for level in list(self.waiting):
            level.admit_waiting()
            if level.waiting:
                del self.waiting[level]
                self.waiting[level] = None


class Level:
    """One priority level: its seats and its queues."""

    __slots__ = (
        "_heap", "_now", "_order", "_pool", "_queues",
        "kept", "most", "nominal", "requests", "seats", "settings", "waiting",
    )  # fmt: skip

    def __init__(self, settings: LevelSettings, pool: Pool) -> None:
        self._pool = pool
        self.settings = settings
        self.nominal = 0
        # Seats that are never lent.
        self.kept = 0
        # Seats that it may hold with what it borrows.
        self.most = 0
        # Seats and requests at work, and requests in queues.
        self.seats = 0
        self.requests = 0
        self.waiting = 0
        self._queues: list[_Queue] = []
        # Queues with requests, by virtual time; the number between parts equal ones.
        self._heap: list[tuple[int, int, _Queue]] = []
        self._order = 0
        # Virtual time: the start of the request admitted last.
        self._now = 0

    def configure(self, settings: LevelSettings, nominal: int) -> None:
        """Take new settings; requests that wait keep their places."""
        self.nominal = nominal
        self.kept = nominal - round(nominal * settings.lendable_percent / 100)
        percent = settings.most_percent
        self.most = nominal + round(nominal * percent / 100) if percent is not None else 1 << 30
        if settings.queues != len(self._queues):
            self._queues = [_Queue(number, self._now) for number in range(settings.queues)]
        self.settings = settings

    def try_take(self, width: int) -> bool:
        """Take seats if they are free and nobody waits for them."""
        if self.settings.exempt:
            self.seats += width
            self.requests += 1
            return True
        return not self.waiting and self._take(width)

    def _take(self, width: int) -> bool:
        seats = self.seats + width
        lent = max(0, seats - self.kept) - max(0, self.seats - self.kept)
        if seats > self.most or lent > self._pool.free:
            return False
        self._pool.free -= lent
        self.seats = seats
        self.requests += 1
        return True

    def release(self, width: int) -> None:
        """Give seats back, to whoever waits for them."""
        self.requests -= 1
        if self.settings.exempt:
            self.seats -= width
            return
        seats = self.seats - width
        self._pool.free += max(0, self.seats - self.kept) - max(0, seats - self.kept)
        self.seats = seats
        if self._pool.waiting:
            self._pool.admit_waiting()

    def fitting(self, width: int) -> int:
        """The width, but not more than the level could ever give."""
        return min(width, max(1, self.nominal))

    # -- queues

    def enqueue(self, flow: str, width: int) -> Waiter:
        """Put a request of a flow in a queue. Raises QueueFull."""
        settings = self.settings
        if not self._queues:
            raise QueueFull
        hand = deal(flow, len(self._queues), min(settings.hand_size, len(self._queues)))
        queue = min((self._queues[number] for number in hand), key=lambda one: len(one.waiting))
        if len(queue.waiting) >= settings.queue_length:
            raise QueueFull
        waiter = Waiter(width, queue, asyncio.get_running_loop().create_future())
        if not queue.waiting:
            queue.start = max(queue.start, self._now)
        queue.waiting.append(waiter)
        self._list(queue)
        self.waiting += 1
        self._pool.waiting.setdefault(self)
        return waiter

    def withdraw(self, waiter: Waiter) -> None:
        """Take a request that is no longer wanted out of its queue, or give back what it has just been given."""
        if waiter.admitted.done() and not waiter.admitted.cancelled():
            self.release(waiter.width)
            return
        if waiter in waiter.queue.waiting:
            waiter.queue.waiting.remove(waiter)
            self._left()
            # Perhaps the one behind is narrower.
            self.admit_waiting()

    def admit_waiting(self) -> None:
        """Let in those who fit, the queue that was served least first."""
        while self._heap:
            queue = self._heap[0][2]
            if not queue.waiting:
                heappop(self._heap)
                queue.listed = False
                continue
            waiter = queue.waiting[0]
            if waiter.admitted.done():
                # Given up by its task, which has not run since.
                queue.waiting.popleft()
                self._left()
                continue
            if not self._take(self.fitting(waiter.width)):
                return
            heappop(self._heap)
            queue.listed = False
            queue.waiting.popleft()
            self._left()
            waiter.width = self.fitting(waiter.width)
            waiter.admitted.set_result(None)
            self._now = max(self._now, queue.start)
            queue.start += waiter.width
            if queue.waiting:
                self._list(queue)

    def _list(self, queue: _Queue) -> None:
        if not queue.listed:
            queue.listed = True
            self._order += 1
            heappush(self._heap, (queue.start, self._order, queue))

    def _left(self) -> None:
        self.waiting -= 1
        if not self.waiting:
            self._pool.waiting.pop(self, None)


def deal(flow: str, deck: int, hand: int) -> list[int]:
    """The queues dealt to a flow: `hand` different numbers below `deck`, always the same for one flow."""
    number = int.from_bytes(blake2b(flow.encode(), digest_size=8).digest())
    dealt: list[int] = []
    for size in range(deck, deck - hand, -1):
        number, card = divmod(number, size)
        for taken in sorted(dealt):
            card += card >= taken
        dealt.append(card)
    return dealt
