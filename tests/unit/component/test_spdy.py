"""SPDY/3.1: frames as bytes, sessions over a socket pair, and the channel protocols."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiphys_component import channels
from tiphys_component.channels import ChannelError, ChannelProtocol, choose_protocol
from tiphys_component.spdy.frames import (
    Data,
    Frame,
    FrameError,
    FrameReader,
    FrameWriter,
    GoAway,
    Ping,
    RstStream,
    SynReply,
    SynStream,
    WindowUpdate,
)
from tiphys_component.spdy.headers import HeaderDecoder, HeaderError
from tiphys_component.spdy.session import QUEUE_CHUNKS, Session, StreamReset

FRAMES: list[Frame] = [
    SynStream(1, {"streamtype": "stdin", "x": "ü"}),
    SynStream(3, {"streamtype": "error"}, fin=True),
    SynReply(1, {}),
    Data(1, b"hello"),
    Data(1, b"", fin=True),
    RstStream(3, 5),
    Ping(7),
    GoAway(3, 0),
    WindowUpdate(1, 100),
]


def encoded(frames: Iterable[Frame]) -> bytes:
    """All frames by one writer."""
    writer = FrameWriter()
    return b"".join(writer.encode(frame) for frame in frames)


@given(cut=st.integers(min_value=1, max_value=50))
def test_frames_survive_any_cutting_of_the_bytes(cut: int) -> None:
    raw, reader = encoded(FRAMES), FrameReader()
    got: list[Frame] = []
    for at in range(0, len(raw), cut):
        got.extend(reader.feed(raw[at : at + cut]))
    assert got == FRAMES


def test_frame_layout_is_that_of_the_wire() -> None:
    assert encoded([Data(5, b"ab", fin=True)]) == struct.pack(">II", 5, 0x01000002) + b"ab"
    assert encoded([Ping(2)]) == bytes.fromhex("8003000600000004") + struct.pack(">I", 2)


def test_unknown_control_frame_is_left_out() -> None:
    unknown = struct.pack(">HHI", 0x8003, 99, 4) + b"abcd"
    assert list(FrameReader().feed(unknown + encoded([Ping(1)]))) == [Ping(1)]


@pytest.mark.parametrize(
    "raw",
    [
        struct.pack(">HHI", 0x8002, 6, 4) + bytes(4),
        struct.pack(">HHI", 0x8003, 6, 2) + bytes(2),
        struct.pack(">HHI", 0x8003, 1, 0xFFFFFF),
    ],
    ids=["other-version", "cut-short", "too-large"],
)
def test_damaged_frame_is_refused(raw: bytes) -> None:
    with pytest.raises(FrameError):
        list(FrameReader().feed(raw))


def test_damaged_header_block_is_refused() -> None:
    with pytest.raises(HeaderError):
        HeaderDecoder().decode(b"no zlib")


@asynccontextmanager
async def sessions() -> AsyncIterator[tuple[Session, Session]]:
    """Two sessions that speak to each other."""
    one, other = socket.socketpair()
    client = Session(*await asyncio.open_connection(sock=one), client=True)
    server = Session(*await asyncio.open_connection(sock=other), client=False)
    async with asyncio.TaskGroup() as group:
        running = [group.create_task(client.run()), group.create_task(server.run())]
        try:
            yield client, server
        finally:
            await client.close()
            await server.close()
            for task in running:
                task.cancel()


async def test_streams_end_independently() -> None:
    async with sessions() as (client, server):
        stream = await client.open({"streamtype": "stdin"})
        peer = await server.accept()
        assert peer is not None
        assert peer.headers == {"streamtype": "stdin"}
        await stream.write(b"question")
        await stream.close_write()
        assert await peer.read_all(100) == b"question"
        await peer.write(b"answer")
        await peer.close_write()
        assert await stream.read_all(100) == b"answer"


async def test_reset_takes_nothing_away_that_was_sent() -> None:
    async with sessions() as (client, server):
        stream = await client.open({"streamtype": "error"})
        peer = await server.accept()
        assert peer is not None
        await peer.write(b"last words")
        await peer.reset()
        assert await stream.read_all(100) == b"last words"
        assert stream.was_reset
        with pytest.raises(StreamReset):
            await stream.write(b"too late")


async def test_loss_of_the_connection_ends_every_stream() -> None:
    async with sessions() as (client, server):
        stream = await client.open({"streamtype": "stdout"})
        await server.accept()
        await server.close()
        assert await stream.read() == b""
        assert await client.accept() is None


async def test_reader_that_is_behind_stops_the_writer() -> None:
    async with sessions() as (client, server):
        stream = await client.open({"streamtype": "stdin"})
        peer = await server.accept()
        assert peer is not None
        chunk, sent = b"x" * 32 * 1024, 0

        async def fill() -> None:
            nonlocal sent
            while True:
                await stream.write(chunk)
                sent += 1

        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await fill()
        assert sent < 4 * QUEUE_CHUNKS
        assert await peer.read() == chunk


async def test_ping_is_echoed() -> None:
    one, other = socket.socketpair()
    session = Session(*await asyncio.open_connection(sock=one), client=True)
    reader, writer = await asyncio.open_connection(sock=other)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(session.run())
        writer.write(encoded([Ping(2)]))
        assert await reader.readexactly(12) == encoded([Ping(2)])
        await session.close()
        running.cancel()
    writer.close()


@pytest.mark.parametrize("name", channels.EXEC_PROTOCOLS)
def test_channel_messages_round_trip(name: str) -> None:
    protocol = ChannelProtocol(name)
    assert protocol.decode(protocol.encode(2, b"\x00data")) == (2, b"\x00data")


@pytest.mark.parametrize(
    ("name", "message"), [(channels.V4, b""), (channels.V4_BASE64, b"1!"), (channels.V1_BASE64, b"x")]
)
def test_malformed_channel_message_is_refused(name: str, message: bytes) -> None:
    with pytest.raises(ChannelError):
        ChannelProtocol(name).decode(message)


def test_best_protocol_that_both_know_is_chosen() -> None:
    offered = ["v4.channel.k8s.io", "v5.channel.k8s.io"]
    assert choose_protocol(offered, channels.EXEC_PROTOCOLS) == "v5.channel.k8s.io"
    assert choose_protocol(["other"], channels.EXEC_PROTOCOLS) is None
