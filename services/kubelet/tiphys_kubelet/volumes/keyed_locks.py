"""Locks by key, each kept only while somebody has or wants it, and blocking work that does not outlive its lock."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Hashable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Generic, ParamSpec, TypeVar

K = TypeVar("K", bound=Hashable)
P = ParamSpec("P")
R = TypeVar("R")


@dataclass(slots=True)
class _Entry:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    users: int = 0


class KeyedLocks(Generic[K]):
    """What is done under one key is done one after the other; different keys do not wait for each other."""

    def __init__(self) -> None:
        self._entries: dict[K, _Entry] = {}

    @asynccontextmanager
    async def hold(self, key: K) -> AsyncIterator[None]:
        """Holds the key's lock."""
        entry = self._entries.setdefault(key, _Entry())
        entry.users += 1
        try:
            async with entry.lock:
                yield
        finally:
            entry.users -= 1
            if not entry.users:
                del self._entries[key]

    def held(self) -> tuple[K, ...]:
        """The keys that somebody has or wants."""
        return tuple(self._entries)


async def to_the_end(func: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """The result of short blocking work, done in a thread; a cancelled caller leaves when the work has ended.

    So nothing is left half done, nor still running behind a lock that was let go.
    """
    future = asyncio.get_running_loop().run_in_executor(None, partial(func, *args, **kwargs))
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        await asyncio.wait([future])
        raise
