"""Roads that go wrong, by a seed: calls refused, answers lost, both late, reads stale, streams behind and broken.

What the other side must bear, and nothing that it need not: a call that was refused has changed nothing, one whose
answer was lost may have, a stream that breaks has told what it told in order, and a list that takes any state may get
an old one, as of a server that lags behind the others. The process itself may be killed at any call, and a node may
vanish at the call that binds a pod to it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass
from random import Random
from typing import Protocol

from tiphys.api.core.v1.binding_pb2 import Binding
from tiphys.apiserver.v1.wire_pb2 import BatchBindRequest, ListRequest
from tiphys_apimachinery.errors import APIError, Conflict, Expired, ServiceUnavailable, Timeout, TooManyRequests
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
    # A list that may be old gets a state up to so many revisions old.
    stale: float = 0.0
    stale_by: int = 100
    # At a call that binds pods, one of their nodes is gone, before the call or just after.
    vanishes: float = 0.0
    # At a deed, the wall clock of one process jumps.
    jumps: float = 0.0


NONE = Faults()
MANY = Faults(
    refused=0.03,
    lost=0.03,
    conflict=0.03,
    late=0.05,
    behind=0.1,
    broken=0.01,
    killed=0.004,
    stale=0.5,
    vanishes=0.01,
    jumps=0.1,
)


class Surroundings(Protocol):
    """What a road touches besides the call itself."""

    async def revision(self) -> int:
        """The newest revision."""

    async def lose_node(self, name: str) -> None:
        """Have a node vanish, to come back some time later."""


class FaultyTransport:
    """The road of one incarnation of a process. on_killed ends the process, at the call at which it is drawn."""

    def __init__(
        self,
        inner: Transport,
        faults: Callable[[], Faults],
        *,
        rng: Random,
        clock: Clock,
        around: Surroundings,
        whose: str,
        on_killed: Callable[[], None],
    ) -> None:
        self.whose = whose
        """The process's name."""
        self._inner = inner
        self._around = around
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
        if method == "List" and self._drawn(faults.stale):
            reply = await self._stale_list(service, request, faults.stale_by, timeout_s)
        elif method == "BatchBind" and self._drawn(faults.vanishes):
            reply = await self._bind_while_a_node_vanishes(service, request, timeout_s)
        else:
            reply = await self._inner.unary(service, method, request, timeout_s=timeout_s)
        self._check()
        if self._drawn(faults.killed):
            self.die()
        if self._drawn(faults.late):
            await self._clock.sleep(self._rng.uniform(0, faults.late_s))
            self._check()
        if self._drawn(faults.lost):
            raise self._rng.choice([ServiceUnavailable("connection lost"), Timeout("no answer in time")])
        return reply

    async def _stale_list(self, service: str, request: bytes, most: int, timeout_s: float) -> bytes:
        """A state as old as the caller allows."""
        asked = ListRequest.FromString(request)
        if asked.resource_version and not asked.resource_version_match and not asked.continue_token:
            newest = await self._around.revision()
            oldest = min(newest, max(int(asked.resource_version), newest - most, 1))
            old = ListRequest()
            old.CopyFrom(asked)
            old.resource_version, old.resource_version_match = str(self._rng.randint(oldest, newest)), "Exact"
            # What was forgotten meanwhile no server has.
            with suppress(Expired):
                return await self._inner.unary(service, "List", old.SerializeToString(), timeout_s=timeout_s)
        return await self._inner.unary(service, "List", request, timeout_s=timeout_s)

    async def _bind_while_a_node_vanishes(self, service: str, request: bytes, timeout_s: float) -> bytes:
        bindings = [Binding.FromString(one) for one in BatchBindRequest.FromString(request).bindings]
        node = self._rng.choice(bindings).target.name
        is_first = self._rng.random() < 0.5
        if is_first:
            await self._around.lose_node(node)
        reply = await self._inner.unary(service, "BatchBind", request, timeout_s=timeout_s)
        if not is_first:
            await self._around.lose_node(node)
        return reply

    async def _before(self, method: str, faults: Faults) -> None:
        self._check()
        if self._drawn(faults.killed):
            self.die()
        if self._drawn(faults.late):
            await self._clock.sleep(self._rng.uniform(0, faults.late_s))
            self._check()
        if self._drawn(faults.refused):
            raise self._rng.choice(_refusals())
        if method not in READ_METHODS and self._drawn(faults.conflict):
            raise Conflict("somebody was faster")

    async def stream(
        self, service: str, method: str, request: bytes, *, timeout_s: float | None = None
    ) -> AsyncGenerator[bytes]:
        """A watch that may fall behind, and break with what it had not told yet."""
        await self._before(method, self._faults())
        replies = self._inner.stream(service, method, request, timeout_s=timeout_s)
        async with aclosing(replies) as opened:
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

    def die(self) -> None:
        """End the process at this call. Raises ServiceUnavailable, as nothing reaches the server any more."""
        self._on_killed()
        self._check()

    def _check(self) -> None:
        if self.is_cut:
            raise ServiceUnavailable("this process was killed")


def _refusals() -> list[APIError]:
    return [ServiceUnavailable("connection refused"), TooManyRequests("too many requests"), Timeout("no answer")]
