"""The runtime's streaming server from the client's side: exec, attach and port-forward over SPDY/3.1.

containerd serves WebSocket too, but not v5, so only SPDY can close stdin and leave the rest open. The URL is good for
one connection and must be used within a minute.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from tiphys_component.spdy.session import Session, Stream
from tiphys_component.spdy.upgrade import dial
from tiphys_cri.interface import StreamRequest

# All that containerd and CRI-O understand, best first: v4 says how the command ended as a Status.
EXEC_PROTOCOLS = ("v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io")
PORT_FORWARD_PROTOCOL = "portforward.k8s.io"
MAX_STATUS_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class ExecStreams:
    """The open streams of a command; those that were not asked for are None."""

    error: Stream
    stdin: Stream | None
    stdout: Stream | None
    stderr: Stream | None
    resize: Stream | None

    async def send_resize(self, width: int, height: int) -> None:
        """Sets the size of the terminal; nothing happens without one."""
        if self.resize is not None:
            await self.resize.write(json.dumps({"Width": width, "Height": height}).encode() + b"\n")

    async def status(self) -> bytes:
        """Waits for the end of the command: a Status in JSON, empty if the runtime said nothing."""
        return await self.error.read_all(MAX_STATUS_BYTES)


@asynccontextmanager
async def open_exec(url: str, streams: StreamRequest) -> AsyncIterator[ExecStreams]:
    """Connects to the URL of an exec or attach call; leaving the context ends the connection.

    Raises UpgradeRefused, ConnectionError or TimeoutError.
    """
    async with _session(url, EXEC_PROTOCOLS) as session:
        # The order is that of kubectl; runtimes wait until all the expected streams are there.
        error = await session.open({"streamtype": "error"})
        await error.close_write()
        yield ExecStreams(
            error=error,
            stdin=await session.open({"streamtype": "stdin"}) if streams.stdin else None,
            stdout=await _open_read_only(session, "stdout") if streams.stdout else None,
            stderr=await _open_read_only(session, "stderr") if streams.stderr and not streams.tty else None,
            resize=await session.open({"streamtype": "resize"}) if streams.tty else None,
        )


async def _open_read_only(session: Session, kind: str) -> Stream:
    stream = await session.open({"streamtype": kind})
    await stream.close_write()
    return stream


@dataclass(frozen=True, slots=True)
class PortForwarder:
    """Opens connections to ports of a sandbox, any number at once."""

    session: Session

    async def connect(self, port: int, request_id: int) -> tuple[Stream, Stream]:
        """The data stream and the error stream of a new connection; request_id is unique in the session."""
        headers = {"port": str(port), "requestid": str(request_id)}
        error = await self.session.open({"streamtype": "error", **headers})
        await error.close_write()
        data = await self.session.open({"streamtype": "data", **headers})
        return data, error


@asynccontextmanager
async def open_port_forward(url: str) -> AsyncIterator[PortForwarder]:
    """Connects to the URL of a port-forward call; leaving the context ends every connection made by it."""
    async with _session(url, (PORT_FORWARD_PROTOCOL,)) as session:
        yield PortForwarder(session)


@asynccontextmanager
async def _session(url: str, protocols: tuple[str, ...]) -> AsyncIterator[Session]:
    reader, writer, _ = await dial(url, protocols=protocols)
    session = Session(reader, writer, client=True)
    try:
        async with asyncio.TaskGroup() as group:
            reading = group.create_task(session.run(), name="spdy session")
            try:
                yield session
            finally:
                await session.close()
                reading.cancel()
    except BaseExceptionGroup as err:
        # Reading never fails, so the group holds what the caller raised, and the caller wants it as it was.
        raise err.exceptions[0] from None


def exit_code(status: bytes) -> int:
    """The exit code in a Status of a v4 protocol; 0 for success, 1 for a failure without a code."""
    if not status:
        return 0
    try:
        parsed = json.loads(status)
    except ValueError:
        return 1
    if parsed.get("status") == "Success":
        return 0
    causes = (parsed.get("details") or {}).get("causes") or []
    codes = (cause.get("message", "") for cause in causes if cause.get("reason") == "ExitCode")
    return next((int(code) for code in codes if code.isdigit()), 1)
