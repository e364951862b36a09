"""A SPDY/3.1 session over one connection, either side of it.

Streams have bounded queues. When the reader of one stream falls behind, the session stops reading the connection, so
memory stays bounded and TCP slows the peer; window updates are sent for what was read, and windows of the peer are
not waited for. That is what the runtimes' and kubectl's own SPDY library does: it never sends more than it was asked
for by reading, and a peer that withholds window updates is not among those we speak to.
"""

import asyncio
from collections import deque
from collections.abc import Mapping
from contextlib import suppress

from tiphys_component.spdy.frames import (
    Data,
    Frame,
    FrameError,
    FrameReader,
    FrameWriter,
    GoAway,
    Headers,
    Ping,
    ResetStatus,
    RstStream,
    SynReply,
    SynStream,
    WindowUpdate,
)
from tiphys_component.spdy.headers import HeaderError

QUEUE_CHUNKS = 32
CHUNK_BYTES = 32 * 1024


class StreamReset(ConnectionError):
    """The peer reset the stream, or the connection went away while it was open."""


class Stream:
    """One stream of a session; reading and writing end independently."""

    def __init__(self, session: "Session", stream_id: int, headers: Mapping[str, str]) -> None:
        self.stream_id = stream_id
        self.headers = headers
        # The peer, or the loss of the connection, ended both directions.
        self.was_reset = False
        self._session = session
        self._chunks: deque[bytes] = deque()
        self._ended = False
        self._write_done = False
        self._readable = asyncio.Event()
        self._space = asyncio.Event()

    async def read(self) -> bytes:
        """The next chunk; empty at the end of the peer's direction, and after a reset when all has been read.

        Servers write their last words and reset the stream in one go, so a reset takes nothing away that was sent.
        """
        while not self._chunks:
            if self._ended:
                return b""
            self._readable.clear()
            await self._readable.wait()
        chunk = self._chunks.popleft()
        self._space.set()
        await self._session.send(WindowUpdate(self.stream_id, len(chunk)))
        return chunk

    async def read_all(self, limit_bytes: int) -> bytes:
        """All chunks to the end, cut at limit_bytes."""
        whole = bytearray()
        while chunk := await self.read():
            whole += chunk[: max(0, limit_bytes - len(whole))]
        return bytes(whole)

    async def write(self, data: bytes) -> None:
        """Sends data; waits while the connection is full. Raises StreamReset."""
        for at in range(0, len(data), CHUNK_BYTES):
            if self.was_reset or self._write_done:
                raise StreamReset(f"stream {self.stream_id} is closed")
            await self._session.send(Data(self.stream_id, data[at : at + CHUNK_BYTES]))

    async def close_write(self) -> None:
        """Says that nothing more will be written; may run twice."""
        if not self._write_done and not self.was_reset:
            self._write_done = True
            await self._session.send(Data(self.stream_id, b"", fin=True))

    async def reset(self) -> None:
        """Ends both directions at once; may run twice."""
        if not self.was_reset:
            self._session.forget(self.stream_id)
            self.end(reset=True)
            await self._session.send(RstStream(self.stream_id, ResetStatus.CANCEL))

    async def feed(self, data: bytes, *, fin: bool) -> None:
        """For the session: takes what arrived; waits while the reader is behind."""
        while len(self._chunks) >= QUEUE_CHUNKS and not self._ended:
            self._space.clear()
            await self._space.wait()
        if self._ended:
            return
        if data:
            self._chunks.append(data)
        self._ended = fin
        self._readable.set()

    def end(self, *, reset: bool) -> None:
        """For the session: no more will arrive."""
        self._ended = True
        self.was_reset = self.was_reset or reset
        self._readable.set()
        self._space.set()


class Session:
    """Multiplexes streams over a connection; `run` must be running for anything to arrive."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, client: bool) -> None:
        self._reader = reader
        self._writer = writer
        self._frames_in = FrameReader()
        self._frames_out = FrameWriter()
        self._next_id = 1 if client else 2
        self._streams: dict[int, Stream] = {}
        self._accepted: asyncio.Queue[Stream | None] = asyncio.Queue(64)
        self._closed = False

    async def open(self, headers: Mapping[str, str], *, fin: bool = False) -> Stream:
        """Opens a stream; fin means that we will not write to it."""
        stream_id = self._next_id
        self._next_id += 2
        stream = Stream(self, stream_id, headers)
        self._streams[stream_id] = stream
        await self.send(SynStream(stream_id, headers, fin))
        return stream

    async def accept(self) -> Stream | None:
        """The next stream that the peer opened; None when the connection has ended."""
        return await self._accepted.get()

    async def send(self, frame: Frame) -> None:
        """Writes one frame; raises StreamReset when the connection is gone."""
        if self._closed:
            if isinstance(frame, WindowUpdate | RstStream):
                return
            raise StreamReset("connection is closed")
        # Encoding and writing happen in one step without an await: header blocks must travel in the order coded.
        try:
            self._writer.write(self._frames_out.encode(frame))
            await self._writer.drain()
        except ConnectionError as err:
            if isinstance(frame, WindowUpdate | RstStream):
                return
            raise StreamReset(f"connection is gone: {err}") from err

    async def run(self) -> None:
        """Reads the connection until it ends; damage in the peer's frames ends it too."""
        try:
            while data := await self._reader.read(256 * 1024):
                for frame in self._frames_in.feed(data):
                    await self._take(frame)
        except (FrameError, HeaderError):
            with suppress(StreamReset):
                await self.send(GoAway(0, 1))
        except ConnectionError:
            pass  # a peer that goes away is the ordinary end; its streams learn of it below
        finally:
            await self.close()

    async def close(self) -> None:
        """Ends the connection and every stream on it; may run twice."""
        if self._closed:
            return
        self._closed = True
        for stream in self._streams.values():
            stream.end(reset=True)
        self._streams.clear()
        while self._accepted.full():
            self._accepted.get_nowait()
        self._accepted.put_nowait(None)
        self._writer.close()

    def forget(self, stream_id: int) -> None:
        """Drops what arrives for the stream from now on."""
        self._streams.pop(stream_id, None)

    async def _take(self, frame: Frame) -> None:
        match frame:
            case Data(stream_id, data, fin):
                stream = self._streams.get(stream_id)
                if stream is not None:
                    await stream.feed(data, fin=fin)
            case SynStream(stream_id, headers, fin):
                stream = Stream(self, stream_id, headers)
                self._streams[stream_id] = stream
                await self.send(SynReply(stream_id))
                if fin:
                    await stream.feed(b"", fin=True)
                await self._accepted.put(stream)
            case SynReply(stream_id, _, True) | Headers(stream_id, _, True):
                stream = self._streams.get(stream_id)
                if stream is not None:
                    await stream.feed(b"", fin=True)
            case RstStream(stream_id, _):
                stream = self._streams.pop(stream_id, None)
                if stream is not None:
                    stream.end(reset=True)
            case Ping(ping_id) if ping_id % 2 != self._next_id % 2:
                await self.send(Ping(ping_id))
            case _:
                pass  # settings, window updates and going away ask nothing of us
