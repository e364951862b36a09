"""Logs and commands of pods for callers within the server: the gRPC door's side of the roads to kubelets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import orjson

from tiphys.api.core.v1 import pod_options_pb2
from tiphys.api.meta.v1 import meta_pb2
from tiphys_apimachinery.codec import json_codec
from tiphys_apimachinery.errors import APIError, InternalError, ServiceUnavailable, from_status
from tiphys_apimachinery.meta import format_time, to_datetime
from tiphys_apiserver.rest.forward import parse_head, read_body, read_head
from tiphys_apiserver.rest.tunnel import Target, dial

# Channels of the remote command protocol. Source: kubelet, v4.channel.k8s.io and v5.channel.k8s.io.
STDIN, STDOUT, STDERR, ERROR, RESIZE, CLOSE = 0, 1, 2, 3, 4, 255
_PROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io")
_MAX_REFUSAL_BYTES = 64 * 1024


def log_parameters(options: pod_options_pb2.PodLogOptions) -> list[tuple[str, str]]:
    """PodLogOptions as the kubelet's query has them."""
    found = [(name, "true") for name in ("follow", "previous", "timestamps") if getattr(options, name)]
    numbers: Any = options
    for name in ("sinceSeconds", "tailLines", "limitBytes"):
        if numbers.HasField(name):
            found.append((name, str(getattr(options, name))))
    if options.HasField("sinceTime"):
        since = to_datetime(options.sinceTime)
        if since is not None:
            found.append(("sinceTime", format_time(since)))
    return found


async def stream_log(target: Target) -> AsyncIterator[bytes]:
    """The pieces of a log as they come. Raises what the kubelet refuses with, ServiceUnavailable."""
    reader, writer = await dial(target, 10.0)
    try:
        writer.write(
            f"GET {target.path} HTTP/1.1\r\nHost: {target.host}:{target.port}\r\nConnection: close\r\n\r\n".encode()
        )
        status, headers = parse_head(await read_head(reader, target))
        if status >= 300:
            text = b"".join([piece async for piece in read_body(reader, headers)])[:_MAX_REFUSAL_BYTES]
            raise refusal(status, text)
        async for piece in read_body(reader, headers):
            yield piece
    except (asyncio.IncompleteReadError, ConnectionError) as err:
        raise ServiceUnavailable(f"the log of {target.path} broke off: {err}") from err
    finally:
        writer.close()


def refusal(status: int, body: bytes) -> APIError:
    """The error that a kubelet's answer stands for: its Status, or its text."""
    try:
        return from_status(json_codec.loads(body, meta_pb2.Status))
    except APIError:
        # No Status: older kubelets, and proxies between, answer with plain text.
        text = body.decode(errors="replace").strip()
        return from_status(meta_pb2.Status(status="Failure", code=status, message=text or f"kubelet answered {status}"))


class CommandStream:
    """A running command. send() and close_stdin() feed it; iterate for (channel, bytes) until it ends."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._can_close = socket.protocol == _PROTOCOLS[0]

    async def send(self, data: bytes) -> None:
        """Bytes for stdin."""
        await self._socket.send_bytes(bytes((STDIN,)) + data)

    async def resize(self, width: int, height: int) -> None:
        """The new size of the terminal in characters."""
        await self._socket.send_bytes(bytes((RESIZE,)) + orjson.dumps({"Width": width, "Height": height}))

    async def close_stdin(self) -> None:
        """No more input; nothing happens where the kubelet speaks only version 4, which can't say so."""
        if self._can_close:
            await self._socket.send_bytes(bytes((CLOSE, STDIN)))

    async def __aiter__(self) -> AsyncIterator[tuple[int, bytes]]:
        async for message in self._socket:
            if message.type is aiohttp.WSMsgType.BINARY and len(message.data) > 1:
                yield message.data[0], message.data[1:]


@asynccontextmanager
async def run_command(target: Target) -> AsyncIterator[CommandStream]:
    """Start a command by WebSocket; it ends with the block. Raises the kubelet's refusal, ServiceUnavailable."""
    scheme = "https" if target.tls is not None else "http"
    connector = aiohttp.TCPConnector(ssl=target.tls) if target.tls is not None else aiohttp.TCPConnector()
    async with aiohttp.ClientSession(connector=connector) as session:
        url: Any = f"{scheme}://{target.host}:{target.port}{target.path}"
        try:
            socket = await session.ws_connect(url, protocols=_PROTOCOLS, timeout=aiohttp.ClientWSTimeout(ws_close=5.0))
        except aiohttp.WSServerHandshakeError as err:
            raise refusal(err.status, err.message.encode()) from err
        except (aiohttp.ClientError, TimeoutError) as err:
            raise ServiceUnavailable(f"error dialing backend: {target.host}:{target.port}: {err}") from err
        async with socket:
            if socket.protocol is None:
                raise InternalError.of("the kubelet chose no version of the remote command protocol")
            yield CommandStream(socket)
