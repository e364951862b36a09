"""Roads that go wrong, by a seed: calls refused, answers lost, both late, streams behind and broken, processes killed.

What the other side must bear, and nothing that it need not: a call that was refused has changed nothing, one whose
answer was lost may have, and a stream that breaks has told what it told in order.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from random import Random

from tiphys_apimachinery.errors import APIError, Conflict, ServiceUnavailable, Timeout, TooManyRequests
from tiphys_client.transport import DEFAULT_TIMEOUT_S, READ_METHODS, Transport
from tiphys_component.clock import Clock


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """How often what happens, each as the probability at one call or one batch of a stream."""

    refused: float = 0.0
    lost: float = 0.0
    conflict: float = 0.0
    late: float = 0.0
    late_s: float = 3.0
    behind: float = 0.0
    behind_s: float = 5.0
    broken: float = 0.0
    killed: float = 0.0


NONE = Faults()
MANY = Faults(refused=0.03, lost=0.03, conflict=0.03, late=0.05, behind=0.1, broken=0.01, killed=0.004)


class FaultyTransport:
    """The road of one incarnation of a process. on_killed ends the process, at the call at which it is drawn."""

    def __init__(
        self,
        inner: Transport,
        faults: Callable[[], Faults],
        *,
        rng: Random,
        clock: Clock,
        on_killed: Callable[[], None],
    ) -> None:
        self._inner = inner
        self._faults = faults
        self._rng = rng
        self._clock = clock
        self._on_killed = on_killed
        self.is_cut = False

    def cut(self) -> None:
        """Nothing of this process reaches the server from now on: it is dead, whatever it still does."""
        self.is_cut = True

    async def unary(self, service: str, method: str, request: bytes, *, timeout_s: float = DEFAULT_TIMEOUT_S) -> bytes:
        """One call, as it fares."""
        faults = self._faults()
        await self._before(method, faults)
        reply = await self._inner.unary(service, method, request, timeout_s=timeout_s)
        self._check()
        if self._drawn(faults.killed):
            self._die()
        if self._drawn(faults.late):
            await self._clock.sleep(self._rng.uniform(0, faults.late_s))
            self._check()
        if self._drawn(faults.lost):
            raise self._rng.choice([ServiceUnavailable("connection lost"), Timeout("no answer in time")])
        return reply

    async def _before(self, method: str, faults: Faults) -> None:
        self._check()
        if self._drawn(faults.killed):
            self._die()
        if self._drawn(faults.late):
            await self._clock.sleep(self._rng.uniform(0, faults.late_s))
            self._check()
        if self._drawn(faults.refused):
            raise self._rng.choice(_refusals())
        if method not in READ_METHODS and self._drawn(faults.conflict):
            raise Conflict("somebody was faster")

    async def stream(
        self, service: str, method: str, request: bytes, *, timeout_s: float | None = None
    ) -> AsyncIterator[bytes]:
        """A watch that may fall behind, and break with what it had not told yet."""
        await self._before(method, self._faults())
        replies = self._inner.stream(service, method, request, timeout_s=timeout_s)
        async with aclosing(replies) as opened:  # type: ignore[type-var]
            async for reply in opened:
                faults = self._faults()
                if self._drawn(faults.behind):
                    await self._clock.sleep(self._rng.uniform(0, faults.behind_s))
                self._check()
                if self._drawn(faults.broken):
                    raise ServiceUnavailable("stream broken")
                yield reply

    async def close(self) -> None:
        """The server stays."""

    def _drawn(self, probability: float) -> bool:
        return probability > 0 and self._rng.random() < probability

    def _die(self) -> None:
        self._on_killed()
        self._check()

    def _check(self) -> None:
        if self.is_cut:
            raise ServiceUnavailable("this process was killed")


def _refusals() -> list[APIError]:
    return [ServiceUnavailable("connection refused"), TooManyRequests("too many requests"), Timeout("no answer")]
