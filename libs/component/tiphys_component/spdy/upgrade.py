"""The HTTP upgrade that begins a SPDY/3.1 connection, from the client's side."""

import asyncio
import ssl
from collections.abc import Mapping, Sequence
from urllib.parse import SplitResult, urlsplit

MAX_HEAD_BYTES = 64 * 1024
PROTOCOL_HEADER = "X-Stream-Protocol-Version"


class UpgradeRefused(ConnectionError):
    """The server answered the upgrade with something else than 101; `status` is its code."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"upgrade refused with {status}: {message}")
        self.status = status


async def dial(
    url: str,
    *,
    protocols: Sequence[str],
    headers: Mapping[str, str] | None = None,
    tls: ssl.SSLContext | None = None,
    timeout_s: float = 10.0,
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, str]:
    """Connects to an http URL, or https with tls, and upgrades; gives reader, writer and the protocol chosen.

    Raises UpgradeRefused, ConnectionError or TimeoutError. The caller owns the connection.
    """
    parts = urlsplit(url)
    async with asyncio.timeout(timeout_s):
        port = parts.port or (443 if tls is not None else 80)
        reader, writer = await asyncio.open_connection(parts.hostname, port, limit=MAX_HEAD_BYTES, ssl=tls)
        try:
            writer.write(_request_head(parts, protocols, headers or {}))
            status, message, answer = await _read_head(reader)
            if status != 101:
                body = await reader.read(1024)
                raise UpgradeRefused(status, body.decode(errors="replace").strip() or message)
        except BaseException:
            writer.close()
            raise
    return reader, writer, answer.get(PROTOCOL_HEADER.lower(), "")


def _request_head(parts: SplitResult, protocols: Sequence[str], headers: Mapping[str, str]) -> bytes:
    lines = [
        f"POST {parts.path or '/'}{'?' + parts.query if parts.query else ''} HTTP/1.1",
        f"Host: {parts.netloc}",
        "Connection: Upgrade",
        "Upgrade: SPDY/3.1",
        *(f"{PROTOCOL_HEADER}: {protocol}" for protocol in protocols),
        *(f"{name}: {value}" for name, value in headers.items()),
        "Content-Length: 0",
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


async def _read_head(reader: asyncio.StreamReader) -> tuple[int, str, dict[str, str]]:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as err:
        raise ConnectionError("connection ended before the answer to the upgrade") from err
    first, *rest = head.decode("latin-1").split("\r\n")
    words = first.split(" ", 2)
    if len(words) < 2 or not words[1].isdigit():
        raise ConnectionError(f"answer to the upgrade is no HTTP: {first!r}")
    pairs = (line.split(":", 1) for line in rest if ":" in line)
    return int(words[1]), words[2] if len(words) > 2 else "", {k.strip().lower(): v.strip() for k, v in pairs}
