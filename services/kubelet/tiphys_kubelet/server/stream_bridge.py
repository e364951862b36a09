"""WebSocket clients of exec, attach and port-forward, bridged to the runtime's SPDY.

The runtime's own WebSocket can't close stdin, which v5 clients ask for; SPDY can.
"""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import Sequence

from aiohttp import WSMsgType, web

from tiphys_component import channels
from tiphys_component.channels import ChannelError, ChannelProtocol, choose_protocol
from tiphys_component.spdy.session import Stream, StreamReset
from tiphys_component.spdy.upgrade import UpgradeRefused, dial
from tiphys_cri.interface import StreamRequest
from tiphys_cri.streaming import (
    PORT_FORWARD_PROTOCOL,
    ExecStreams,
    PortForwarder,
    open_exec,
    open_port_forward,
)
from tiphys_kubelet.server.tunnel import CHUNK_BYTES

MAX_MESSAGE_BYTES = 32 * 1024 * 1024
PING_S = 30.0
_SUCCESS = json.dumps({"metadata": {}, "status": "Success"}).encode()


def is_websocket(request: web.Request) -> bool:
    """The client asks for a WebSocket."""
    return request.headers.get("Upgrade", "").lower() == "websocket"


def offered_protocols(request: web.Request) -> list[str]:
    """The subprotocols that the client offers."""
    lines = request.headers.getall("Sec-WebSocket-Protocol", [])
    return [name.strip() for line in lines for name in line.split(",") if name.strip()]


async def accept(request: web.Request, supported: Sequence[str]) -> tuple[web.WebSocketResponse, ChannelProtocol]:
    """Answers the handshake; raises HTTPBadRequest when the client offers only what we don't speak."""
    offered = offered_protocols(request)
    chosen = choose_protocol(offered, supported)
    if offered and chosen is None:
        raise web.HTTPBadRequest(text=f"none of the protocols {', '.join(offered)} is supported")
    socket = web.WebSocketResponse(
        protocols=[chosen] if chosen else [], heartbeat=PING_S, max_msg_size=MAX_MESSAGE_BYTES, compress=False
    )
    await socket.prepare(request)
    return socket, ChannelProtocol(chosen or channels.V1)


class _Sender:
    """Sends channel messages."""

    def __init__(self, socket: web.WebSocketResponse, protocol: ChannelProtocol) -> None:
        self._socket = socket
        self.protocol = protocol

    async def send(self, channel: int, data: bytes) -> None:
        message = self.protocol.encode(channel, data)
        if self.protocol.base64:
            await self._socket.send_str(message.decode())
        else:
            await self._socket.send_bytes(message)

    async def copy(self, stream: Stream, channel: int) -> None:
        """Sends all that a stream gives."""
        try:
            while data := await stream.read():
                await self.send(channel, data)
        except ConnectionError:
            return  # the client went away first


async def bridge_exec(request: web.Request, url: str, streams: StreamRequest) -> web.StreamResponse:
    """Serves a command's streams to a WebSocket client until the command or the client ends."""
    socket, protocol = await accept(request, channels.EXEC_PROTOCOLS)
    sender = _Sender(socket, protocol)
    try:
        async with open_exec(url, streams) as runtime:
            await sender.send(channels.STDOUT, b"")
            async with asyncio.TaskGroup() as group:
                reading = group.create_task(_from_client(socket, protocol, runtime))
                working = group.create_task(_to_client(sender, runtime))
                await asyncio.wait((reading, working), return_when=asyncio.FIRST_COMPLETED)
                reading.cancel()
                working.cancel()
    except* (UpgradeRefused, OSError, TimeoutError) as err:
        await _send_failure(sender, f"the runtime's streaming server: {err.exceptions[0]}")
    await socket.close()
    return socket


async def _to_client(sender: _Sender, runtime: ExecStreams) -> None:
    async with asyncio.TaskGroup() as group:
        if runtime.stdout is not None:
            group.create_task(sender.copy(runtime.stdout, channels.STDOUT))
        if runtime.stderr is not None:
            group.create_task(sender.copy(runtime.stderr, channels.STDERR))
        ending = group.create_task(runtime.status())
    status = ending.result()
    try:
        if sender.protocol.has_status:
            await sender.send(channels.ERROR, status or _SUCCESS)
        elif status and json.loads(status).get("status") != "Success":
            await sender.send(channels.ERROR, str(json.loads(status).get("message", "")).encode())
    except ConnectionError:
        return  # the client went away first


async def _from_client(socket: web.WebSocketResponse, protocol: ChannelProtocol, runtime: ExecStreams) -> None:
    async for message in socket:
        if message.type not in (WSMsgType.BINARY, WSMsgType.TEXT):
            continue
        raw = message.data.encode() if message.type is WSMsgType.TEXT else message.data
        try:
            channel, data = protocol.decode(raw)
            await _take(channel, data, protocol, runtime)
        except (ChannelError, StreamReset):
            continue  # a message for what has ended, or none at all; the rest of the session goes on


async def _take(channel: int, data: bytes, protocol: ChannelProtocol, runtime: ExecStreams) -> None:
    if channel == channels.STDIN and runtime.stdin is not None:
        await runtime.stdin.write(data)
    elif channel == channels.RESIZE and runtime.resize is not None:
        await runtime.resize.write(data)
    elif channel == channels.CLOSE and protocol.has_close and runtime.stdin is not None:
        # stdin is the one channel that a client writes to and can finish.
        await runtime.stdin.close_write()


async def _send_failure(sender: _Sender, text: str) -> None:
    status = {"metadata": {}, "status": "Failure", "message": text, "reason": "InternalError", "code": 500}
    try:
        await sender.send(channels.ERROR, json.dumps(status).encode())
    except ConnectionError:
        return  # nobody is left to be told


async def bridge_port_forward(request: web.Request, url: str, ports: Sequence[int]) -> web.StreamResponse:
    """Serves connections to a pod's ports to a WebSocket client: two channels a port, or SPDY inside the messages."""
    socket, protocol = await accept(request, channels.PORT_FORWARD_PROTOCOLS)
    try:
        if protocol.name == channels.PORT_FORWARD_SPDY:
            await _carry_spdy(socket, url)
        else:
            async with open_port_forward(url) as forwarder:
                await _forward_ports(socket, protocol, forwarder, ports)
    except* (UpgradeRefused, OSError, TimeoutError, ChannelError):
        pass  # the client sees the connection end, which is all that the protocol can say
    await socket.close()
    return socket


async def _carry_spdy(socket: web.WebSocketResponse, url: str) -> None:
    reader, writer, _ = await dial(url, protocols=[PORT_FORWARD_PROTOCOL])

    async def to_client() -> None:
        while data := await reader.read(CHUNK_BYTES):
            await socket.send_bytes(data)

    async def from_client() -> None:
        async for message in socket:
            if message.type is WSMsgType.BINARY:
                writer.write(message.data)
                await writer.drain()

    try:
        async with asyncio.TaskGroup() as group:
            tasks = (group.create_task(to_client()), group.create_task(from_client()))
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                task.cancel()
    finally:
        writer.close()


async def _forward_ports(
    socket: web.WebSocketResponse, protocol: ChannelProtocol, forwarder: PortForwarder, ports: Sequence[int]
) -> None:
    sender = _Sender(socket, protocol)
    data_streams: dict[int, Stream] = {}
    async with asyncio.TaskGroup() as group:
        copying: list[asyncio.Task[None]] = []
        for index, port in enumerate(ports):
            data, error = await forwarder.connect(port, index)
            data_streams[2 * index] = data
            # Both channels of a port begin with its number.
            for channel, stream in ((2 * index, data), (2 * index + 1, error)):
                await sender.send(channel, struct.pack("<H", port))
                copying.append(group.create_task(sender.copy(stream, channel)))
        async for message in socket:
            if message.type not in (WSMsgType.BINARY, WSMsgType.TEXT):
                continue
            raw = message.data.encode() if message.type is WSMsgType.TEXT else message.data
            channel, payload = protocol.decode(raw)
            if channel in data_streams:
                await data_streams[channel].write(payload)
        for task in copying:
            task.cancel()
