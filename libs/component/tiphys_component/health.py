"""Health of a process as named checks, asked over HTTP (/livez, /readyz) and gRPC."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

Check = Callable[[], Awaitable[None] | None]
"""Returns when all is well, raises with the reason when not."""

# A check that hangs is a failed check; probes give up after a second or more themselves.
_CHECK_TIMEOUT_S = 1.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one check said; problem is empty when it passed."""

    name: str
    problem: str


class Health:
    """The named checks of a process. Liveness checks count for readiness too."""

    def __init__(self) -> None:
        self._live: dict[str, Check] = {}
        self._ready: dict[str, Check] = {}

    def add_liveness(self, name: str, check: Check) -> None:
        """Restart me when this fails. Raises ValueError if the name is taken."""
        self._add(self._live, name, check)

    def add_readiness(self, name: str, check: Check) -> None:
        """Send me nothing while this fails. Raises ValueError if the name is taken."""
        self._add(self._ready, name, check)

    def gate(self, name: str) -> Callable[[], None]:
        """A readiness check that fails until the function returned is called."""
        opened = False

        def check() -> None:
            if not opened:
                raise NotReady("not yet")

        def open_gate() -> None:
            nonlocal opened
            opened = True

        self.add_readiness(name, check)
        return open_gate

    def _add(self, checks: dict[str, Check], name: str, check: Check) -> None:
        if name in self._live or name in self._ready:
            raise ValueError(f"health check {name} exists")
        checks[name] = check

    async def live(self) -> list[Verdict]:
        """What each liveness check says, in the order they were added."""
        return [await _ask(name, check) for name, check in self._live.items()]

    async def ready(self) -> list[Verdict]:
        """What each liveness and readiness check says, in the order they were added."""
        return [await _ask(name, check) for name, check in {**self._live, **self._ready}.items()]


class NotReady(Exception):
    """The reason of a check that does not pass."""


async def _ask(name: str, check: Check) -> Verdict:
    try:
        async with asyncio.timeout(_CHECK_TIMEOUT_S):
            answer = check()
            if answer is not None:
                await answer
    except TimeoutError:
        return Verdict(name, f"no answer within {_CHECK_TIMEOUT_S:g} s")
    except Exception as err:
        return Verdict(name, str(err) or type(err).__name__)
    return Verdict(name, "")
