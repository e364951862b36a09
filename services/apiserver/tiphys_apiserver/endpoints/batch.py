"""Many writes side by side, so that the store can commit them together; each fails or succeeds by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from tiphys_apimachinery.errors import APIError

T = TypeVar("T")

# Writes of one batch that are under way at once.
WIDTH = 128


async def each(items: Sequence[T], work: Callable[[T], Awaitable[Any]]) -> list[Any]:
    """What work makes of each item, in order; the APIError in place of a result that was refused."""
    results: list[Any] = [None] * len(items)

    async def one(index: int, item: T) -> None:
        try:
            results[index] = await work(item)
        except APIError as err:
            results[index] = err

    for start in range(0, len(items), WIDTH):
        async with asyncio.TaskGroup() as group:
            for index, item in enumerate(items[start : start + WIDTH], start):
                group.create_task(one(index, item))
    return results
