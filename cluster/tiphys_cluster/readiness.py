"""Waiting until something answers: short attempts in short steps, and giving up as soon as waiting has no point.

A port or a socket that nobody holds yet tells nobody when that changes; an attempt costs well under a millisecond.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tiphys_cluster.errors import ClusterError
from tiphys_component.clock import Clock

_STEP_S = 0.01
_REQUEST_TIMEOUT_S = 3.0
_MAX_BODY = 4 << 20


@dataclass(frozen=True, slots=True)
class Api:
    """How the command reaches the API server without loading a client: HTTPS with the user's certificate."""

    host: str
    port: int
    ca: Path
    cert: Path
    key: Path

    async def get(self, path: str) -> tuple[int, bytes]:
        """Status code and body of a GET. Raises OSError when nobody answers."""
        context = ssl.create_default_context(cafile=str(self.ca))
        context.load_cert_chain(str(self.cert), str(self.key))
        async with asyncio.timeout(_REQUEST_TIMEOUT_S):
            reader, writer = await asyncio.open_connection(self.host, self.port, ssl=context, limit=_MAX_BODY)
            try:
                writer.write(
                    f"GET {path} HTTP/1.1\r\nHost: {self.host}\r\nAccept: application/json\r\n"
                    "Connection: close\r\n\r\n".encode()
                )
                head = await reader.readuntil(b"\r\n\r\n")
                body = await reader.read(_MAX_BODY)
            finally:
                writer.close()
        return int(head.split(b" ", 2)[1]), body

    async def get_json(self, path: str) -> dict[str, Any] | None:
        """The object at path, None when there is none or nobody answers."""
        try:
            code, body = await self.get(path)
        except (OSError, asyncio.IncompleteReadError, TimeoutError):
            return None
        if code != 200:
            return None
        value = json.loads(body[body.index(b"{") : body.rindex(b"}") + 1])
        return value if isinstance(value, dict) else None

    async def is_ready(self) -> bool:
        """Whether /readyz says ok."""
        try:
            code, _ = await self.get("/readyz")
        except (OSError, asyncio.IncompleteReadError, TimeoutError, ValueError):
            return False
        return code == 200


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
