"""Objects that are created together or not at all.

Each goes its own way through defaults, admission and validation, and waits at the store's door until all are there. The
last to come writes them in one transaction. Where one is refused on its way, all the others are told so and let go of
what was reserved for them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from tiphys_apimachinery.errors import APIError, BadRequest, Conflict, ServerTimeout
from tiphys_apiserver.endpoints.batch import each
from tiphys_apiserver.storage.interface import MOST_TOGETHER, KeyExists, NewKey

T = TypeVar("T")

# Longest that those who have come wait for the others. Admission has its own, shorter limits.
_WAIT_S = 20.0


class Pack:
    """One batch on its way. write stores it; size is how many objects must come. For one call."""

    def __init__(self, write: Callable[[Sequence[NewKey]], Awaitable[Sequence[int]]], size: int) -> None:
        self._write = write
        self._size = size
        self._keys: list[NewKey] = []
        # The revisions, or why nothing was stored; made when somebody has come.
        self._outcome: asyncio.Future[Sequence[int]] | None = None
        self._refusal: APIError | None = None

    async def each(self, items: Sequence[T], work: Callable[[T], Awaitable[Any]]) -> list[Any]:
        """What work makes of each item, in order, or for every item an APIError.

        Raises BadRequest for more items than a transaction takes.
        """
        if len(items) > MOST_TOGETHER:
            raise BadRequest(f"{len(items)} objects are too many to be stored together, the limit is {MOST_TOGETHER}")

        async def one(item: T) -> Any:
            try:
                return await work(item)
            except APIError as err:
                self._refuse(err)
                raise

        return await each(items, one)

    async def create(self, key: str, value: bytes, *, ttl_s: int = 0) -> int:
        """Wait for the others, then be written with them: Store.create.

        Raises KeyExists for a key that is there, Conflict where another object of the pack was refused.
        """
        if self._refusal is not None:
            raise _not_alone(self._refusal)
        index = len(self._keys)
        self._keys.append(NewKey(key, value, ttl_s))
        if self._outcome is None:
            self._outcome = asyncio.get_running_loop().create_future()
        if len(self._keys) == self._size:
            await self._store(self._outcome)
        try:
            async with asyncio.timeout(_WAIT_S):
                revisions = await asyncio.shield(self._outcome)
        except TimeoutError as err:
            raise ServerTimeout("the other objects of the batch did not come in time; nothing was stored") from err
        except KeyExists as err:
            if err.key == key:
                raise
            raise Conflict(f"nothing was stored, as all objects of the batch are or none: {err}") from err
        return revisions[index]

    async def _store(self, outcome: asyncio.Future[Sequence[int]]) -> None:
        try:
            outcome.set_result(await self._write(self._keys))
        except Exception as err:
            # Everyone is told, this one too.
            outcome.set_exception(err)
        except BaseException:
            outcome.cancel()
            raise

    def _refuse(self, error: APIError) -> None:
        """Tell those who wait that nothing comes of it."""
        if self._refusal is None:
            self._refusal = error
        if self._outcome is not None and not self._outcome.done():
            self._outcome.set_exception(_not_alone(error))
            # Seen here, where nobody waits any more.
            self._outcome.exception()


def _not_alone(error: APIError) -> Conflict:
    return Conflict(f"nothing was stored, as all objects of the batch are or none, and one was refused: {error}")
