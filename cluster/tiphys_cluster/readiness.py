"""Waiting until something answers: short attempts in short steps, and giving up as soon as waiting has no point.

A port or a socket that nobody holds yet tells nobody when that changes; an attempt costs well under a millisecond.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from tiphys_cluster.errors import ClusterError
from tiphys_component.clock import Clock

_STEP_S = 0.01
_REQUEST_TIMEOUT_S = 3.0


async def is_listening(address: str, port: int) -> bool:
    """Whether a TCP port accepts connections."""
    try:
        async with asyncio.timeout(_REQUEST_TIMEOUT_S):
            _, writer = await asyncio.open_connection(address, port)
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True


async def is_serving(socket: Path) -> bool:
    """Whether a Unix socket accepts connections."""
    try:
        async with asyncio.timeout(_REQUEST_TIMEOUT_S):
            _, writer = await asyncio.open_unix_connection(str(socket))
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True


async def wait_until(
    probe: Callable[[], Awaitable[bool]],
    *,
    what: str,
    timeout_s: float,
    clock: Clock,
    log: Path,
    step_s: float = _STEP_S,
) -> None:
    """Return when the probe says yes. Raises ClusterError, with the end of the log, when it does not in time."""
    deadline = clock.monotonic() + timeout_s
    while not await probe():
        if clock.monotonic() >= deadline:
            raise ClusterError(f"{what} was not ready within {timeout_s:g} s", last_lines(log))
        await clock.sleep(step_s)


def last_lines(log: Path, count: int = 8) -> str:
    """The end of a log, with its name, for a message."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 8192))
            lines = file.read().decode(errors="replace").splitlines()[-count:]
    except OSError:
        lines = []
    return "\n".join([f"The end of {log}:", *(f"  {line[:300]}" for line in lines)])
