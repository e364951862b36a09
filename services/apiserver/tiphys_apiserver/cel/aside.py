"""Evaluating expressions without holding up the loop: at once what is short, in a thread what is not.

Nearly all that is evaluated costs a few hundred units. What has a whole budget to spend may take seconds. It is begun
on the loop all the same, as nobody knows beforehand; where it has spent what the loop can spare it is broken off and
begun anew in a thread, so the work given must do no harm when it is done twice. One thread at a time: the loop then
gets every second turn of the interpreter, whatever is thrown at the server.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, TypeVar

from tiphys_apimachinery.cel.program import TakesLong, at_once
from tiphys_component.proc import to_thread

T = TypeVar("T")

# Units of cost that take about 10 ms: 2 to 5 million a second were measured.
AT_ONCE: Final = 20_000


class Aside:
    """Where the evaluations of one server, or of one part of it, are done."""

    def __init__(self, units: int = AT_ONCE) -> None:
        self._units = units
        self._turn = asyncio.Lock()

    async def run(self, work: Callable[[], T]) -> T:
        """What work gives or raises; it is called a second time, in a thread, when the first raises TakesLong."""
        before = at_once.set(self._units)
        try:
            return work()
        except TakesLong:
            pass
        finally:
            at_once.reset(before)
        async with self._turn:
            return await to_thread(work)
